"""The data generator: makes rows out of samples and documents, checks them, and proposes those that can be used."""

from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.generation.row_checks import checked_rows
from agents.generation.row_making import Made, make_rows
from agents.nodes.retrieval import INDEX
from agents.proposals import ADDED_ROWS, line_of
from agents.retrieval.index import PassageIndex
from agents.retrieval.knowledge import found_for, with_passages
from agents.retrieval.passage import Passage
from agents.state import Proposal, TuneState
from agents.task.rows import TaskRow, bare_question, read_rows, write_rows
from agents.task.task_parts import GeneratorPlan
from constants.counting import counted
from storage.files import file_digest

FINDING = "more_rows"
"""Name of the proposal."""
_LOOKED_UP = 2  # passages of each sample that rows are made about, where a command looks them up


def generate_rows(context: TuneContext, state: TuneState) -> TuneState:
    """Make rows, and propose to add those that can be used."""
    plan, folder, key = context.task.generator, context.folder, key_of(state, "generate")
    assert plan is not None
    train = read_rows(folder.train_rows)

    def do(place: Path) -> dict[str, Any]:
        passages = _passages(context, state, train)
        made = make_rows(place, plan, context.task.description, train, passages, context.process)
        checked = checked_rows(made.rows, train, read_rows(folder.test_rows), plan)
        rows = checked.kept
        if context.task.retrieve and context.task.documents is not None:
            rows = with_passages(rows, context.task.documents, _index(context, state), context.task.retrieve)
        write_rows(place / ADDED_ROWS, rows)
        return {"kept": len(rows), "told": _told(plan, made, len(rows), checked.left_out, checked.figures),
                "samples": _samples(rows)}  # fmt: skip

    request = {"plan": _plain(plan), "rows": file_digest(folder.train_rows), "index": state.get("index", "")}
    done = context.effects.once(key, request, do)
    told = [] if done["kept"] else done["told"]
    update = TuneState(made=told, step=state["step"] + 1, spent=state["spent"] + done["seconds"],
                       generated=state.get("generated", 0) + 1)  # fmt: skip
    if not done["kept"]:
        return {**update, "next": "orchestrate"}
    proposal = Proposal(
        finding=FINDING, changes=[], add=key, weight=1.0,
        evidence=[f"there are {counted(len(train), 'row')} to train on", *done["told"], *done["samples"]],
        expected=f"{done['kept']} rows more say the task in more ways",
    )  # fmt: skip
    return {**update, "next": "change", "proposals": [proposal, *state["proposals"]]}


def _samples(rows: list[TaskRow]) -> list[str]:
    """Return a row of each way, to look at before they are taken in."""
    first = {str(row.origin["way"]): row for row in reversed(rows)}
    return [f"by {way}: {line_of(first[way])}" for way in sorted(first)]


def _index(context: TuneContext, state: TuneState) -> Path:
    return context.effects.place(state.get("index", "")) / INDEX


def _passages(context: TuneContext, state: TuneState, train: list[TaskRow]) -> list[Passage]:
    plan = context.task.documents
    if plan is None or context.task.generator is None or "documents" not in context.task.generator.ways:
        return []
    if plan.search:
        found = found_for(plan, _index(context, state), [bare_question(row) for row in train], _LOOKED_UP)
        return list(dict.fromkeys(one for passages in found for one in passages))
    with closing(PassageIndex(_index(context, state))) as index:
        return index.all()


def _plain(plan: GeneratorPlan) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(plan).items()}


def _told(plan: GeneratorPlan, made: Made, kept: int, left_out: dict[str, int], figures: list[str]) -> list[str]:
    maker = plan.endpoint.model if plan.endpoint is not None else plan.command[0] if plan.command else plan.source
    told = [f"{maker} made {counted(len(made.rows), 'row')}, of which {kept} can be used"]
    told += [f"{counted(count, 'row')} left out: each {reason}" for reason, count in sorted(left_out.items())]
    if made.unread:
        told.append(f"{made.unread} pieces of what came back are no row")
    if made.tokens:
        told.append(f"the endpoint counted {made.tokens:,} tokens")
    return [*told, *figures]
