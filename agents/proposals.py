"""What a proposal changes: how it is shown, whether it is new, and how it is carried out."""

from collections.abc import Collection, Sequence

from agents.effects import Effects
from agents.state import Proposal
from agents.task.folder import TaskFolder
from agents.task.rows import TaskRow, bare_question, read_rows, relabelled, with_changes, write_rows
from agents.task.settings import read_settings, write_settings
from agents.task.settings import with_changes as settings_with_changes
from constants.counting import counted
from data.data_error import DataError

ADDED_ROWS = "rows.jsonl"
"""File in the folder of an effect that has made rows; a proposal names the effect by its key."""
_SHOWN = 4  # rows that are shown of a change
_WIDEST = 160  # letters of a row that are shown


def added_rows(effects: Effects, proposal: Proposal) -> list[TaskRow]:
    """Return the rows that a proposal adds.

    Raises:
        DataError: its effect has no such rows.
    """
    key = proposal.get("add", "")
    return read_rows(effects.place(key) / ADDED_ROWS) if key else []


def is_new(
    proposal: Proposal, tried: Collection[tuple[str, str]], rows: Sequence[TaskRow], add: Sequence[TaskRow]
) -> bool:
    """Say whether a proposal changes anything that was not tried yet.

    Args:
        proposal: the proposal.
        tried: settings of earlier rounds, name and value.
        rows: training rows as they are.
        add: rows that it adds.
    """
    there = {row.id for row in rows}
    return (
        any((change["key"], change["after"]) not in tried for change in proposal["changes"])
        or any(key in there for key in proposal.get("drop", []))
        or any(row.id not in there for row in add)
    )


def relabelling(proposal: Proposal) -> Proposal:
    """Return a proposal that gives rows their other answers where it has some, in place of taking these rows out."""
    return {**proposal, "drop": [key for key in proposal.get("drop", []) if key not in proposal.get("relabel", {})]}


def _relabelled(proposal: Proposal, rows: Sequence[TaskRow]) -> list[tuple[TaskRow, TaskRow]]:
    """Return rows that a proposal gives another answer, as they are and as they will be."""
    new = {key: answer for key, answer in proposal.get("relabel", {}).items() if key not in proposal.get("drop", [])}
    return [(row, relabelled(row, new[row.id])) for row in rows if row.id in new]


def told_of(proposal: Proposal) -> list[str]:
    """Return what a proposal changes, a line each."""
    told = [
        f"{change['key']}: {change['before'] or '(default)'} -> {change['after']}" for change in proposal["changes"]
    ]
    if drop := proposal.get("drop"):
        told.append(f"{counted(len(drop), 'training row')} taken out")
    if other := set(proposal.get("relabel", {})) - set(drop or []):
        told.append(f"{counted(len(other), 'training row')} relabelled")
    if proposal.get("add"):
        told.append("training rows added")
    return told


def diff_of(proposal: Proposal, rows: Sequence[TaskRow], add: Sequence[TaskRow]) -> list[str]:
    """Return what a proposal changes as a diff: lines that begin with `- ` go, those with `+ ` come.

    Args:
        proposal: the proposal.
        rows: training rows as they are.
        add: rows that it adds.

    Returns:
        A text for each change; of rows the count, and the first few.
    """
    told = [f"- {change['key']} = {change['before'] or '(default)'}\n+ {change['key']} = {change['after']}"
            for change in proposal["changes"]]  # fmt: skip
    by_id = {row.id: row for row in rows}
    gone = [by_id[key] for key in proposal.get("drop", []) if key in by_id]
    for sign, those, what in (("-", gone, "taken out"), ("+", add, "added")):
        if those:
            shown = [f"{sign} {line_of(row)}" for row in those[:_SHOWN]]
            more = [f"and {len(those) - _SHOWN:,} more"] if len(those) > _SHOWN else []
            told.append("\n".join([f"{counted(len(those), 'training row')} {what}:", *shown, *more]))
    if other := _relabelled(relabelling(proposal), rows):
        shown = [f"{sign} {line_of(row)}" for pair in other[:_SHOWN] for sign, row in zip("-+", pair, strict=True)]
        more = [f"and {len(other) - _SHOWN:,} more"] if len(other) > _SHOWN else []
        told.append("\n".join([f"or {counted(len(other), 'training row')} of them relabelled:", *shown, *more]))
    return told


def line_of(row: TaskRow) -> str:
    """Return a row in a line: the end of what it asks, and its answer, both cut where they are long."""
    asked = " ".join(bare_question(row).split())
    return f"{shortened(asked, _WIDEST // 2)} => {shortened(' '.join(row.answer.split()), _WIDEST // 2)}"


def shortened(text: str, widest: int) -> str:
    """Return a text that is cut where it has more letters than `widest`."""
    return text if len(text) <= widest else f"{text[: widest - 1]}\N{HORIZONTAL ELLIPSIS}"


def carry_out(folder: TaskFolder, proposal: Proposal, add: Sequence[TaskRow]) -> None:
    """Change the settings and rows of a task; what is changed already stays as it is.

    Args:
        folder: the task's folder.
        proposal: the proposal.
        add: rows that it adds.

    Raises:
        DataError: no row would be left, or rows can't be read.
        OutputError: a file can't be written.
    """
    if proposal["changes"]:
        write_settings(folder.settings, settings_with_changes(read_settings(folder.settings), proposal["changes"]))
    train = read_rows(folder.train_rows)
    new = {row.id: other for row, other in _relabelled(proposal, train)}
    if proposal.get("drop") or add or new:
        rows = with_changes([new.get(row.id, row) for row in train], proposal.get("drop", []), add)
        if not rows:
            raise DataError(f"{proposal['finding']}: all training rows would be taken out")
        write_rows(folder.train_rows, rows)
