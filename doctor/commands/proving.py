"""The proof of an answer's first finding, and its pins written into a file: what is done after the answer is known."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from doctor.commands.examination import remedy_of
from doctor.commands.options import confirmed
from doctor.errors import InputError
from doctor.finding import Change, Finding
from doctor.knowledge.base import Knowledge
from doctor.memory.folder import DEFAULT_FOLDER
from doctor.memory.remember import remember
from doctor.proof.outcome import PROVED, Proof
from doctor.proof.prove import Consent
from doctor.proof.prove_finding import prove_finding
from doctor.redaction import redact
from doctor.remedy.pin_writing import write_pins
from doctor.report.answer import Answer, Answered, Proved, Remedy

_TAKES_PINS = (".txt", ".in", ".toml", ".py")


def with_proof(answer: Answer, mode: str | None, knowledge: Knowledge, memory: Path | None = None) -> Answer:
    """Try the changes of the first finding in a scratch environment, where that is wanted.

    Args:
        answer: the answer.
        mode: "never", "ask" or "always"; None asks where a person is there, and else does nothing.
        knowledge: released versions.
        memory: folder of the memory, which keeps what is proved; None for the doctor's own.

    Returns:
        The answer with what became of it, the change that was proved first.
    """
    present = sys.stdin.isatty() and sys.stderr.isatty()
    if mode is None:
        mode = "ask" if present else "never"
    if not answer.findings or mode == "never":
        return answer
    first = answer.findings[0]
    proof = prove_finding(first.finding, answer.case, knowledge, consent=Consent(mode, confirmed if present else None))
    shown = Proved(proof.state, proof.text, proof.folder, round(proof.seconds, 1) or None, proof.resolved)
    remembered = _remember(proof, first.finding, memory or DEFAULT_FOLDER)
    made = (
        remedy_of(proof.change, answer.case.environment, knowledge) if proof.change and proof.state == PROVED else None
    )
    remedies = _with_shown(first.remedies, shown, made)
    changed = replace(first, remedies=remedies) if remedies else first
    notes = answer.notes if remedies else (*answer.notes, f"Proof: {proof.state}. {proof.text}")
    return replace(answer, findings=(changed, *answer.findings[1:]), notes=(*notes, *remembered))


def _remember(proof: Proof, finding: Finding, folder: Path) -> tuple[str, ...]:
    """Keep what a proof shows; return a sentence where it can't be kept."""
    try:
        remember(proof, finding, folder)
    except OSError as error:
        return (f"The proof was not remembered: {folder} can't be written ({error.strerror or error}).",)
    return ()


def _with_shown(remedies: Sequence[Remedy], shown: Proved, proved: Remedy | None) -> tuple[Remedy, ...]:
    """Return the remedies, the proved one first; one that was only found while trying is a further one."""
    if proved is None:
        return (replace(remedies[0], proof=shown), *remedies[1:]) if remedies else ()
    same = [one for one in remedies if one.change.requirements == proved.change.requirements
            and one.change.remove == proved.change.remove]  # fmt: skip
    first = same[0] if same else proved
    return (replace(first, proof=shown), *(one for one in remedies if one is not first))


def apply_pins(answer: Answer, given: argparse.Namespace) -> str:
    """Write the pins of the first finding into the file that was judged, or of the folder, after showing and asking.

    Args:
        answer: the answer.
        given: with file and json.

    Returns:
        What was done, in a sentence.

    Raises:
        InputError: there is no file to write to, or it can't be edited.
    """
    change = _first_pins(answer.findings)
    if change is None:
        return "Nothing to apply: no finding has pins."
    place = _file_for(given.file)
    edit = write_pins(change, str(place))
    if edit.refusal:
        raise InputError(f"{place} is not edited: {edit.refusal}", *edit.paste)
    if not edit.diff:
        return f"{place} has these pins already."
    sys.stderr.write(redact(edit.diff))
    if not confirmed(f"Write this into {place}?"):
        return f"{place} was not written: nobody said yes at a terminal."
    written = write_pins(change, str(place), write=True)
    if written.refusal:
        raise InputError(f"{place} is not written: {written.refusal}", *written.paste)
    return f"{place} is written. Install from it: {answer_commands(answer.findings)}"


def answer_commands(findings: Sequence[Answered]) -> str:
    """Return how the first pins are installed, by uv."""
    lines = next(
        (one.commands.get("uv", ()) for each in findings for one in each.remedies if one.change.requirements), ()
    )
    return "; ".join(lines)


def _first_pins(findings: Sequence[Answered]) -> Change | None:
    return next((one.change for each in findings for one in each.remedies if one.change.requirements), None)


def _file_for(file: Path | None) -> Path:
    if file is not None and file.is_file():
        if file.suffix not in _TAKES_PINS or file.name.startswith("pylock"):
            raise InputError(f"--apply: pins are not written into {file.name}; write them where it is made from")
        return file
    for name in ("pyproject.toml", "requirements.txt"):
        if Path(name).is_file():
            return Path(name)
    raise InputError("--apply: name the file that is to hold the pins; the current folder has no requirements.txt "
                     "and no pyproject.toml")  # fmt: skip
