"""An accepted proposal is carried out: files are changed, and a commit says why."""

from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.state import TuneState
from agents.task.settings import read_settings, with_changes, write_settings
from storage.files import file_digest


def apply_change(context: TuneContext, state: TuneState) -> TuneState:
    """Make the first proposal's change, as one commit."""
    first, folder, key = state["proposals"][0], context.folder, key_of(state, "change")

    def do(place: Path) -> dict[str, Any]:
        if not context.repository.made(key):
            write_settings(folder.settings, with_changes(read_settings(folder.settings), first["changes"]))
            context.trainer.settings(folder.settings)  # refuses what can't be
        told = [
            f"{change['key']}: {change['before'] or '(default)'} -> {change['after']}" for change in first["changes"]
        ]
        text = "\n".join([*told, "", *first["evidence"], f"Expected: {first['expected']}."])
        digests = {"Config-Digest": file_digest(folder.settings), "Data-Digest": file_digest(folder.train_rows)}
        return {"commit": context.repository.commit(key, f"{first['finding']}: {told[0]}", text, digests)}

    context.effects.once(key, {"proposal": dict(first)}, do)
    return TuneState(proposals=[], step=state["step"] + 1)
