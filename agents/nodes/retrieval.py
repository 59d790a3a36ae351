"""Knowledge retrieval: the documents of a task, read and indexed before rows are made of them."""

from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.retrieval.knowledge import build_index
from agents.state import TuneState

INDEX = "passages.sqlite"
"""File in the effect's folder."""


def read_documents(context: TuneContext, state: TuneState) -> TuneState:
    """Read the documents; nothing is done where the task has none."""
    plan = context.task.documents
    if plan is None:
        return TuneState(index="")

    def do(place: Path) -> dict[str, Any]:
        return {"told": build_index(plan, place / INDEX)}

    key = key_of(state, "retrieve")
    done = context.effects.once(key, {"documents": str(plan.folder or plan.database or plan.search)}, do)
    return TuneState(index=key, step=state["step"] + 1, spent=state["spent"] + done["seconds"])
