"""`python doctor.py memory`: what was proved before, on this machine or by others whose folder is shared."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from doctor.commands.options import parser
from doctor.errors import InputError
from doctor.memory.fact import Fact
from doctor.memory.folder import DEFAULT_FOLDER, INDEX, read_memory
from doctor.memory.remember import strike
from doctor.redaction import redact

_DESCRIPTION = """What was proved before: faults with what mends them, and known-good sets. Answers look here first.

  memory [show] [TEXT ...]       its facts; with TEXT those that hold all of the words
  memory forget ID [--why TEXT]  strike a fact out: it is kept, and not used any more
  memory path                    its folder: MEMORY.md and a file a package, to read, edit and share by git

Exit codes: 0; 1 some lines can't be read (each is named); 2 a mistake in what was given."""
DONE, PROBLEMS = 0, 1


def main(words: list[str]) -> int:
    """Show or change the memory.

    Args:
        words: what to do, and options.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such fact, or it can't be struck out.
    """
    given = _parser().parse_args(words)
    folder: Path = given.memory or DEFAULT_FOLDER
    action, *rest = given.words or ["show"]
    if action == "path":
        sys.stdout.write(f"{folder}\n")
        return DONE
    if action == "forget":
        return _forget(rest, folder, given.why)
    return _show(rest if action == "show" else given.words, folder, given.json)


def _parser() -> argparse.ArgumentParser:
    made = parser("memory", _DESCRIPTION, "[show [TEXT ...] | forget ID | path] [--memory FOLDER] [--json]")
    made.add_argument("words", nargs="*", metavar="WHAT", help="show, forget or path; without, all is shown")
    made.add_argument("--memory", type=Path, metavar="FOLDER", help=f"its folder ({DEFAULT_FOLDER})")
    made.add_argument("--why", default="struck out by hand", metavar="TEXT", help="why a fact is forgotten")
    made.add_argument("--json", action="store_true", help="facts as JSON")
    return made


def _forget(words: Sequence[str], folder: Path, why: str) -> int:
    if len(words) != 1:
        raise InputError("memory forget takes one ID, the first word of a fact's line")
    try:
        fact = strike(words[0], redact(why), folder)
    except OSError as error:
        raise InputError(f"{folder} can't be written: {error.strerror or error}") from None
    if fact is None:
        known = ", ".join(one.id for one in read_memory(folder).facts[:5]) or "none"
        raise InputError(f"there is no fact {words[0]} in {folder}, or several begin so; known are {known}")
    sys.stdout.write(f"struck out: {_line(fact)}\n")
    return DONE


def _show(words: Sequence[str], folder: Path, as_json: bool) -> int:
    memory = read_memory(folder)
    facts = [one for one in memory.facts if all(word.lower() in _line(one).lower() for word in words)]
    if as_json:
        told = {"schema": 1, "folder": str(folder), "facts": [_values(one) for one in facts],
                "problems": [str(one) for one in memory.problems]}  # fmt: skip
        sys.stdout.write(redact(json.dumps(told, indent=2)) + "\n")
    elif not facts:
        about = f" of {' '.join(words)}" if words else ""
        sys.stdout.write(f"Nothing was proved{about} yet ({folder / INDEX}).\n")
    else:
        for title, chosen in (("Faults and what mends them", [one for one in facts if not one.name]),
                              ("Known-good sets", [one for one in facts if one.name])):  # fmt: skip
            if chosen:
                sys.stdout.write(f"{title}:\n" + "".join(f"  {redact(_line(one))}\n" for one in chosen))
    for problem in memory.problems:
        sys.stderr.write(f"error: {folder}/{problem}\n")
    return PROBLEMS if memory.problems else DONE


def _line(fact: Fact) -> str:
    what = f"good for {fact.name}: {', '.join(fact.packages)}" if fact.name else (
        f"{', '.join(fact.packages)} fails with {fact.error!r}; mended by {fact.change}")  # fmt: skip
    times = "once" if fact.times == 1 else f"{fact.times} times"
    struck = f"; struck out on {fact.struck}: {fact.why}" if fact.struck else ""
    return f"{fact.id}  {what} ({fact.platform}; proved {times}, last on {fact.date}){struck}"


def _values(fact: Fact) -> dict[str, object]:
    return {
        "id": fact.id, "packages": fact.packages, "platform": fact.platform, "date": fact.date, "error": fact.error,
        "change": fact.change, "name": fact.name, "checked": fact.checked, "times": fact.times, "struck": fact.struck,
        "why": fact.why,
    }  # fmt: skip
