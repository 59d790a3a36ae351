"""What a failed step is told as: what it was, where, why probably, what to do, and what to type."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from doctor.redaction import redact
from workflow.failures.error_text import bad_row, error_lines, own_frame
from workflow.failures.kinds import KINDS, Kind, kind_named
from workflow.watching.trouble import Trouble

CONNECTION = 75
"""Exit code (EX_TEMPFAIL) by which a script says that it lost its connection."""
_TAIL = 200  # lines of a log that are looked at
# What the runner stops a step for, by the kind that it is told as.
_TROUBLES = {"nan": "nan", "explosion": "nan", "disk": "disk", "stall": "stall", "budget": "budget"}
# Settings by what they are called in scripts of many people, and what is said where there is none.
_MEANT = {
    "batch": (("batch", "batch_size", "train_batch_size", "microbatch"), "the batch size"),
    "rate": (("rate", "learning_rate", "lr"), "the learning rate"),
    "requests": (("requests", "concurrency", "parallel", "workers"), "how many requests are under way at a time"),
}


@dataclass(frozen=True)
class Advice:
    """What is told of a failed step.

    Attributes:
        kind: name of the kind, such as "connection".
        what: what happened, a sentence with the error's own words.
        where: script, line and example; "" where none is known.
        cause: why, probably.
        recovery: what to do, a step each.
        commands: what to type for it, before the workflow is gone on with.
        passes: whether it passes by itself, so that waiting and beginning again helps.
    """

    kind: str
    what: str
    where: str
    cause: str
    recovery: tuple[str, ...]
    commands: tuple[str, ...] = ()
    passes: bool = False


@dataclass(frozen=True)
class FailedStep:
    """What is known of a step that failed.

    Attributes:
        lines: what it printed.
        code: its exit code, 128 more than a signal's number.
        folder: the project's folder, whose scripts are meant by "where".
        script: the script that it ran; "" where none is known.
        at: how far it was, "example 1250 of 5000".
        trouble: what it was stopped for, where the runner stopped it; None where it ended by itself.
        own: what workflow.yaml says for its failure.
        inputs: files that it reads.
        settings: the preset's settings; what to change is named by them.
        files: name of the file that each setting stands in.
    """

    lines: Sequence[str]
    code: int
    folder: Path
    script: str = ""
    at: str = ""
    trouble: Trouble | None = None
    own: str = ""
    inputs: tuple[str, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def advise(failed: FailedStep) -> Advice:
    """Say what a failed step is to be told as."""
    text = redact("\n".join(failed.lines[-_TAIL:]))
    errors = error_lines(text)
    kind = _kind(failed, errors)
    what = failed.trouble.text if failed.trouble else errors[0] if errors else ""
    if kind.name in ("killed", "signal") or not what:
        what = {"killed": "it was killed (137)", "signal": f"a signal ended it ({failed.code - 128})"}.get(
            kind.name, f"it ended with the exit code {failed.code}"
        )
    places = [own_frame(text, failed.folder) or failed.script, failed.at]
    if kind.name == "data" and (row := bad_row(failed.folder, failed.inputs, " ".join(errors))):
        places.append(row)
    shown = "memory" if kind.name == "killed" else "unknown" if kind.name == "signal" else kind.name
    return Advice(
        shown, what, ", ".join(place for place in places if place), kind.cause,
        (*((failed.own,) if failed.own else ()), *(_with_settings(text, failed) for text in kind.recovery)),
        passes=kind.passes or failed.code == CONNECTION,
    )  # fmt: skip


def _kind(failed: FailedStep, errors: Sequence[str]) -> Kind:
    if failed.trouble is not None:
        return kind_named(_TROUBLES[failed.trouble.kind])
    if failed.code == CONNECTION:
        return kind_named("connection")
    for line in errors:
        for kind in KINDS:
            if re.search(kind.signs, line, re.IGNORECASE):
                return kind
    return kind_named("killed" if failed.code == 137 else "signal" if failed.code >= 128 else "unknown")


def _with_settings(text: str, failed: FailedStep) -> str:
    """Put the names, values and files of settings into what is to be done."""
    for meaning, (names, otherwise) in _MEANT.items():
        name = next((name for name in names if name in failed.settings), None)
        home = failed.files.get(name or "", "workflow.yaml")
        told = f"{name} ({failed.settings[name]}) in {home}" if name is not None else otherwise
        text = text.replace(f"{{{meaning}}}", told)
    return text
