"""The answer for a person: one finding takes at most a screen, further ones a few lines each."""

import re
import textwrap
from collections.abc import Iterable, Iterator

from doctor.environment.facts import Environment
from doctor.finding import NOT_CONFIRMED
from doctor.redaction import redact
from doctor.remedy.requirements import direction, named
from doctor.report.answer import Answer, Answered, Remedy, confidence_word

_EVIDENCE, _CHANGES, _RULED_OUT, _SHORT = 5, 3, 6, 6  # lines, ways, sentences and further findings that are shown
_DISTURBS = 3  # sentences of a change
_GUESS, _SURE = 0.5, 0.7
_LEVELS = {"error": "", "warning": "warning: ", "note": "note: "}
_TOOLS = {"uv": "uv", "pip": "pip", "colab": "cell", "shell": "type", "file": "write"}
_INDENT = "  "


def as_text(answer: Answer, width: int = 100, *, verbose: bool = False, quiet: bool = False) -> str:
    """Return the answer as lines of at most a width, commands and paths excepted.

    Args:
        answer: the answer.
        width: columns of the terminal.
        verbose: show all evidence, all ways and all findings in full.
        quiet: only the verdict and the first change of each finding.
    """
    width = max(40, min(width, 110))
    lines = list(_quiet(answer, width) if quiet else _whole(answer, width, verbose))
    return redact("\n".join(lines).rstrip() + "\n")


def _quiet(answer: Answer, width: int) -> Iterator[str]:
    if not answer.findings:
        yield from _wrapped(_nothing(answer), width)
    findings = [one for one in answer.findings if answer.failed or not _is_note(one)]
    findings = [*findings[:1], *(one for one in findings[1:] if not _is_noise(one, answer))]
    if answer.findings and not findings:
        yield _nothing(answer)
    for one in findings:
        yield from _wrapped(_LEVELS[one.finding.level] + one.finding.verdict, width)
        if one.remedies:
            yield from _wrapped(_way(one.remedies[0]), width, _INDENT)


def _whole(answer: Answer, width: int, verbose: bool) -> Iterator[str]:
    yield from _wrapped(f"Looked at: {answer.about}", width)
    yield ""
    healthy = bool(answer.findings) and not answer.failed and all(_is_note(one) for one in answer.findings)
    if healthy:
        yield _nothing(answer)
        yield ""
    full = answer.findings if verbose else () if healthy else answer.findings[:1]
    for one in full:
        yield from _full(one, answer.case.environment, width, verbose, answer.place in ("colab", "kaggle"))
        yield ""
    rest = [one for one in answer.findings[len(full) :] if not _is_noise(one, answer)]
    if rest:
        yield f"{'Also possible' if answer.failed else 'Besides'}:"
        for one in rest[:_SHORT]:
            yield from _short(one, width)
        if len(rest) > _SHORT:
            yield f"{_INDENT}... and {len(rest) - _SHORT} more: --verbose shows all in full"
        yield ""
    if not answer.findings:
        yield from _wrapped(_nothing(answer), width)
        ruled_out = answer.diagnosis.ruled_out
        if ruled_out and (answer.failed or verbose):
            yield "Ruled out:"
            for text in ruled_out if verbose else ruled_out[:_RULED_OUT]:
                yield from _item(text, width)
        if answer.give_next:
            yield "To tell more, give:"
            for text in answer.give_next:
                yield from _item(text, width)
        yield ""
    for note in (*answer.notes, *answer.diagnosis.notes):
        yield from _wrapped(f"Note: {note}", width)
    if answer.diagnosis.knowledge_date:
        yield f"Knowledge of {answer.diagnosis.knowledge_date}."


def _is_note(one: Answered) -> bool:
    return one.finding.level == "note"


def _is_noise(one: Answered, answer: Answer) -> bool:
    """Whether a finding is a guess beside a sure one, or says less of the same line: a reader would only wonder."""
    first = answer.findings[0].finding
    same = one.finding.branch == first.branch and one.finding.evidence[:1] == first.evidence[:1]
    if answer.failed and same and one.finding.confidence < first.confidence:
        return True
    ways = [_moves(each.remedies[0], answer.case.environment) for each in (answer.findings[0], one) if each.remedies]
    if answer.failed and len(ways) == 2 and ways[0] and ways[0] == ways[1]:
        return True  # the change above mends it too
    return one.finding.confidence < _GUESS and first.confidence >= _SURE


def _nothing(answer: Answer) -> str:
    if answer.failed:
        return "I don't know what this failure is."
    return "Nothing wrong was found."


def _full(one: Answered, here: Environment, width: int, verbose: bool, notebook: bool) -> Iterator[str]:
    finding = one.finding
    yield from _wrapped(_LEVELS[finding.level] + finding.verdict, width)
    branch = finding.branch.replace("/", " / ").replace("_", " ")
    yield f"{_INDENT}({branch}; {confidence_word(finding.confidence)})"
    if finding.evidence:
        yield "Seen:"
        shown = finding.evidence if verbose else finding.evidence[:_EVIDENCE]
        for text in shown:
            yield from _item(text, width)
        if len(shown) < len(finding.evidence):
            yield f"{_INDENT}... {len(finding.evidence) - len(shown)} lines more: --verbose"
    if finding.why:
        yield from _headed("Why", finding.why, width)
    for sentence in one.remembered:
        yield from _headed("Remembered", sentence, width)
    shown_ways = one.remedies if verbose else _distinct(one.remedies, here)[:_CHANGES]
    for place, remedy in enumerate(shown_ways):
        yield from _remedy(remedy, width, place == 0, notebook)
    if not one.remedies:
        yield from _headed("Do", "no change is known that mends it.", width)
    if finding.not_this:
        yield from _headed("Not this", finding.not_this, width)
    if finding.check:
        yield f"Check:  {finding.check}"
    # What nobody confirmed is told without being asked.
    if finding.source and (verbose or NOT_CONFIRMED in finding.source):
        yield from _headed("Known from", finding.source, width)


def _remedy(remedy: Remedy, width: int, first: bool, notebook: bool) -> Iterator[str]:
    yield from _headed("Do" if first else "Or", _way(remedy), width)
    if first or not remedy.change.requirements:
        shown = {tool: lines for tool, lines in remedy.commands.items() if lines and (tool == "colab") == notebook}
        shown = shown or dict(remedy.commands)
        for tool, lines in shown.items():
            for line in lines:
                yield f"{_INDENT * 2}{_TOOLS.get(tool, tool) + ':':7}{line}"
    for text in remedy.change.disturbs[:_DISTURBS] if first else ():
        yield from _item(f"may disturb: {text}", width)
    if remedy.proof is not None:
        text = f"{remedy.proof.word}. {remedy.proof.text}".rstrip(". ") + "."
        yield from _item(f"proof: {text}" + f" Logs: {remedy.proof.log}" * bool(remedy.proof.log), width)


def _distinct(remedies: Iterable[Remedy], here: Environment) -> list[Remedy]:
    """Return remedies without further ones that move the same distributions the same way: the smaller move does."""
    seen: set[object] = set()
    kept = []
    for remedy in remedies:
        moves = _moves(remedy, here)
        if not moves or moves not in seen or remedy.proof is not None:
            kept.append(remedy)
        seen.add(moves)
    return kept


def _moves(remedy: Remedy, here: Environment) -> frozenset[tuple[str, str]]:
    """Return what a remedy moves, and which way; nothing where it does more than that, or it can't be told."""
    change = remedy.change
    if change.remove or change.environment or change.kind != "pin":
        return frozenset()
    moves = direction(change.requirements, here)
    return frozenset() if any(not way for _, way in moves) else moves


def _way(remedy: Remedy) -> str:
    change = remedy.change
    text = re.sub(r"^(?:Or|And),? ", "", change.text) or " ".join(change.requirements)
    text = text[:1].upper() + text[1:]
    moved = {*named(change.requirements), *change.remove}
    holds = [one for one in change.holds if not moved.intersection(named((one,)))]
    return f"{text.rstrip('.')}, while {', '.join(holds)}." if holds else text


def _short(one: Answered, width: int) -> Iterator[str]:
    word = confidence_word(one.finding.confidence)
    yield from _item(f"{_LEVELS[one.finding.level]}{one.finding.verdict.rstrip('.')} ({word}).", width)
    if one.remedies:
        yield from _wrapped(_way(one.remedies[0]), width, _INDENT * 2)


def _headed(head: str, text: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        f"{head}: {text}", width, subsequent_indent=_INDENT, break_long_words=False, break_on_hyphens=False
    )


def _item(text: str, width: int) -> Iterator[str]:
    yield from textwrap.wrap(
        " ".join(text.split()), width, initial_indent=f"{_INDENT}- ", subsequent_indent=_INDENT * 2,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip


def _wrapped(text: str, width: int, indent: str = "") -> Iterator[str]:
    yield from textwrap.wrap(
        " ".join(text.split()), width, initial_indent=indent, subsequent_indent=indent or _INDENT,
        break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
