"""`python doctor.py plan "WHAT"`: a known-good set of versions for a goal on given hardware, and how to install it."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

from doctor.commands.options import parser, width
from doctor.errors import InputError
from doctor.files import write_atomically
from doctor.memory.folder import DEFAULT_FOLDER, read_memory
from doctor.memory.remember import known_good
from doctor.planning.plan import Plan, make_plan
from doctor.planning.wish import LIBRARIES, meant_by, read_wish
from doctor.planning.writing import colab_cells, header, pip_lines, script, smoke_test, uv_lines

_DESCRIPTION = """A set of versions that go together, for a goal on given hardware, what to know, and how to install it.

  plan "unsloth + trl on T4, Colab"
  plan "fine-tune 7B with QLoRA on 16 GB"
  plan "serve 8B on an L4"

Understood are libraries (unsloth, trl, peft, vllm, sglang, axolotl, ...), goals (fine-tune, LoRA, QLoRA, GRPO, serve,
generate data), hardware (T4, L4, A100, H100, RTX names, 24 GB, CPU, Mac), place (Colab, Kaggle, local, cloud), Windows,
and the size of a model (8B). What memory takes is an estimate.

Exit codes: 0 a plan, 1 nothing fits (and what to change), 2 nothing was understood."""
_PLATFORMS = {"linux": "linux", "darwin": "darwin", "win32": "win32"}
FITS, NOTHING, _SCHEMA = 0, 1, 1


def main(words: list[str]) -> int:
    """Plan for the sentence that the words make.

    Args:
        words: the sentence and options.

    Returns:
        The exit code.

    Raises:
        InputError: nothing of it is understood, or the file can't be written.
    """
    given = _parser().parse_args(words)
    text = " ".join(given.what)
    wish = read_wish(text)
    if not (wish.libraries or wish.goal or wish.hardware.kind):
        near = next((f"; did you mean {found}?" for word in wish.ignored if (found := meant_by(word))), ".")
        known = ", ".join(sorted(set(LIBRARIES.values()))[:8])
        raise InputError(f"nothing of {text!r} is understood: name a library ({known}, ...), "
                         f"a goal (fine-tune, serve) or hardware (T4, 24 GB, CPU, Mac){near}")  # fmt: skip
    plan = make_plan(wish, given.driver)
    proved = known_good(read_memory(given.memory or DEFAULT_FOLDER), wish.libraries, _PLATFORMS.get(wish.system, ""))
    if given.write and plan.chosen:
        _write(given.write, plan, given.force)
    kept = [f"{one.name}: {', '.join(one.packages)} ({one.platform}, {one.checked}, {one.date})" for one in proved[:2]]
    if given.json:
        told = _as_json(plan, kept)
    else:
        told = "\n".join(_as_text(plan, width(), given.verbose, kept)).rstrip() + "\n"
    sys.stdout.write(told)
    return FITS if plan.chosen else NOTHING


def _parser() -> argparse.ArgumentParser:
    made = parser("plan", _DESCRIPTION, '"WHAT" [--driver VERSION] [--write FILE.py] [--json] [--verbose]')
    made.add_argument("what", nargs="+", metavar="WHAT", help="a sentence: libraries, goal, hardware, place")
    made.add_argument("--driver", type=_version, metavar="VERSION", help="version of the NVIDIA driver, by nvidia-smi")
    made.add_argument(
        "--write", type=Path, metavar="FILE.py", help="write a marimo notebook with the set as its PEP 723 header"
    )
    made.add_argument("--force", action="store_true", help="write it over a file that is there")
    made.add_argument("--memory", type=Path, metavar="FOLDER", help="of what was proved (artifacts/doctor/memory)")
    made.add_argument("--json", action="store_true", help="the plan as JSON")
    made.add_argument("--verbose", action="store_true", help="also other sets that fit, and pip's commands")
    return made


def _version(text: str) -> str:
    if not text.replace(".", "").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no version such as 550.90")
    return text


def _write(path: Path, plan: Plan, force: bool) -> None:
    if path.suffix != ".py":
        raise InputError(f"--write {path}: a file *.py is allowed")
    if path.exists() and not force:
        raise InputError(f"--write {path}: it is there already; --force writes over it")
    try:
        write_atomically(path, script(plan).encode())
    except OSError as error:
        raise InputError(f"--write {path}: {error.strerror or error}") from None
    sys.stderr.write(f"{path} is written: uv run {path}\n")


def _as_text(plan: Plan, columns: int, verbose: bool, kept: list[str]) -> Iterator[str]:
    wish = plan.wish
    parts = [
        wish.goal or "goal not said",
        *wish.libraries,
        f"{wish.hardware.count} x " * (wish.hardware.count > 1) + wish.hardware.name,
    ]
    if wish.hardware.memory:
        parts.append(f"{wish.hardware.memory:g} GB")
    if wish.billions:
        parts.append(f"{wish.billions:g}B")
    parts += [wish.place] * bool(wish.place)
    yield from _filled(f"Understood: {', '.join(parts)}.", columns)
    if wish.ignored:
        yield from _filled(f"Not understood, so not used: {', '.join(wish.ignored)}.", columns)
    yield ""
    chosen = plan.chosen
    if chosen is None:
        yield "Nothing fits:"
        for reason in plan.reasons:
            yield from _filled(reason, columns, "  - ")
    else:
        yield from _filled(f"Take {chosen.id} with Python {chosen.python_version}: {', '.join(chosen.pins)}.", columns)
        yield from _filled(f"Confirmed: {chosen.confirmed}.", columns)
        if chosen.says:
            yield from _filled(chosen.says, columns)
        if chosen.driver:
            yield from _filled(
                f"Its torch is built for CUDA {chosen.cuda}: driver {chosen.driver} or newer (nvidia-smi shows it).",
                columns,
            )
    if kept:
        yield ""
        yield "Known good from the doctor's memory, by a smoke test:"
        for text in kept:
            yield from _filled(text, columns, "  - ")
    if plan.notes or plan.estimates:
        yield ""
        yield "Memory, by estimates:"
        for text in (*plan.notes, *map(str, plan.estimates)):
            yield from _filled(text, columns, "  - ")
    stopping = set(plan.reasons)
    know = [one.text for one in plan.footguns if one.text not in stopping]
    if know:
        yield ""
        yield "Know this:"
        for text in know:
            yield from _filled(text, columns, "  - ")
    if chosen is None:
        return
    in_notebook = wish.place in ("colab", "kaggle")
    yield ""
    if in_notebook:
        for number, cell in enumerate(colab_cells(chosen), start=1):
            yield f"Cell {number}:"
            yield textwrap.indent(cell, "  ")
        yield ""
    if not in_notebook or verbose:
        yield "Install, in an environment of its own:"
        for line in (*uv_lines(chosen), *(pip_lines(chosen) if verbose else ())):
            yield f"  {line}"
        yield ""
        yield "Or as the header of a script or marimo notebook (uv run, marimo edit --sandbox):"
        yield textwrap.indent(header(chosen), "  ")
        yield "Smoke test:"
        yield textwrap.indent(smoke_test(chosen), "  ")
    if plan.others:
        yield ""
        yield from _filled(f"Others that fit: {', '.join(one.id for one in plan.others)}.", columns)


def _filled(text: str, columns: int, first: str = "") -> list[str]:
    return textwrap.wrap(
        text,
        max(40, min(columns, 110)),
        initial_indent=first,
        subsequent_indent=" " * len(first) or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _as_json(plan: Plan, kept: list[str]) -> str:
    wish, chosen = plan.wish, plan.chosen
    told: dict[str, object] = {
        "schema": _SCHEMA,
        "status": "plan" if chosen else "nothing fits",
        "understood": {
            "libraries": wish.libraries, "goal": wish.goal, "method": wish.method, "place": wish.place,
            "system": wish.system, "billions": wish.billions, "ignored": wish.ignored,
            "hardware": {"kind": wish.hardware.kind, "name": wish.hardware.name, "capability": wish.hardware.capability,
                         "memory": wish.hardware.memory, "count": wish.hardware.count},
        },
        "method": plan.method,
        "reasons": plan.reasons,
        "notes": plan.notes,
        "estimates": [{"what": one.what, "gigabytes": round(one.total, 1)} for one in plan.estimates],
        "footguns": [{"text": one.text, "stops": one.stops} for one in plan.footguns],
        "others": [one.id for one in plan.others],
        "remembered": kept,
        "set": chosen and {
            "id": chosen.id, "python": chosen.python_version, "versions": chosen.versions, "driver": chosen.driver,
            "cuda": chosen.cuda, "confirmed": str(chosen.confirmed), "says": chosen.says,
            "header": header(chosen), "uv": uv_lines(chosen), "pip": pip_lines(chosen), "colab": colab_cells(chosen),
            "smoke": smoke_test(chosen),
        },
    }  # fmt: skip
    return json.dumps(told, indent=2) + "\n"
