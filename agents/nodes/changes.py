"""An accepted proposal is carried out: files are changed, and a commit says why."""

from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.proposals import added_rows, carry_out, told_of
from agents.state import Applied, TuneState
from storage.files import file_digest


def apply_change(context: TuneContext, state: TuneState) -> TuneState:
    """Make the first proposal's change, as one commit."""
    first, folder, key = state["proposals"][0], context.folder, key_of(state, "change")

    def do(place: Path) -> dict[str, Any]:
        if not context.repository.made(key):
            carry_out(folder, first, added_rows(context.effects, first))
            context.trainer.settings(folder.settings)  # refuses what can't be
        told = told_of(first)
        text = "\n".join([*told, "", *first["evidence"], f"Expected: {first['expected']}."])
        digests = {"Config-Digest": file_digest(folder.settings), "Data-Digest": file_digest(folder.train_rows)}
        return {"commit": context.repository.commit(key, f"{first['finding']}: {told[0]}", text, digests)}

    done = context.effects.once(key, {"proposal": dict(first)}, do)
    applied = Applied(
        round=len(state["rounds"]) + 1, finding=first["finding"], told=told_of(first), commit=done["commit"]
    )
    return TuneState(proposals=[], applied=[*state.get("applied", []), applied], step=state["step"] + 1)
