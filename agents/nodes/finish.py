"""The end of a run: the best model is exported with a card that holds its story."""

import shutil
from pathlib import Path
from typing import Any

from agents.context import KILLED_TEXT, KILLS, TuneContext, key_of
from agents.effects import copied
from agents.state import TuneState
from agents.story import story_of
from agents.trainers.trainer import TrainerError
from storage.files import write_atomically


def export_best(context: TuneContext, state: TuneState) -> TuneState:
    """Export the best round's model; there is none where no round was better than the base model."""
    if not state["best"]:
        return TuneState(stop=state["reason"], model="")
    best = state["rounds"][state["best"] - 1]
    run = context.folder.path / best["trained"]["run"]

    def do(place: Path) -> dict[str, Any]:
        made = place / "model"
        for left in reversed(range(KILLS + 1)):
            shutil.rmtree(made, ignore_errors=True)
            try:
                context.trainer.export(place, run, made, context.process)
                break
            except TrainerError as error:
                if not left or KILLED_TEXT not in str(error):
                    raise
        card = made / "README.md"
        own = card.read_text(encoding="utf-8") if card.is_file() else ""
        story = "\n".join(story_of(context.task, {**state, "stop": state["reason"]}))
        write_atomically(card, f"{own.rstrip()}\n\n## How it was made\n\n{story}\n".encode())
        copied(made, context.folder.model)
        return {}

    context.effects.once(key_of(state, "export"), {"run": best["trained"]["run"]}, do)
    if not context.folder.model.exists():  # somebody has moved it away since
        copied(context.effects.place(key_of(state, "export")) / "model", context.folder.model)
    return TuneState(stop=state["reason"], model=context.folder.model.name, step=state["step"] + 1)
