"""Weights & Biases, on its server or offline in the run's folder (`wandb sync` sends that later)."""

import json
import os
import secrets
import shutil
from pathlib import Path
from typing import Any

from storage.files import write_json
from train.trackers.tracker import RunFacts, Tracker


class WandbTracker(Tracker):
    """A run of the project WANDB_PROJECT, or `menagerie`; its step is the epoch.

    Args:
        mode: way of tracking: `on` or `offline`.
    """

    def __init__(self, mode: str) -> None:
        import wandb

        self._wandb, self._mode = wandb, "online" if mode == "on" else "offline"
        self._run: Any = None

    def start(self, run: RunFacts) -> int:
        """Make a run, or go on with the one that wandb/run.json in the run's folder names."""
        folder = run.folder / "wandb"
        folder.mkdir(exist_ok=True)
        self._note = folder / "run.json"
        if self._note.exists():
            self._known = json.loads(self._note.read_text())
        else:
            self._known = {"id": secrets.token_hex(4), "epoch": 0, "whole": []}
            write_json(self._note, self._known)
        self._epoch = self._known["epoch"]
        self._remove_parts(folder)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", "menagerie"), group=run.model, name=f"{run.model} {run.id}",
            id=self._known["id"], resume="allow", dir=str(run.folder), config=run.settings, mode=self._mode,
            settings=self._wandb.Settings(silent=True, console="off", reinit="create_new"),
        )  # fmt: skip
        # The server knows what it has: the step of what comes next is one more. Offline our note says it.
        return max(0, self._run.step - 1) if self._mode == "online" else self._epoch

    def _remove_parts(self, folder: Path) -> None:
        """Remove what a killed process left offline: it holds part of its epochs, and all of them are sent again."""
        for path in folder.glob("offline-run-*"):
            if path.is_dir() and path.name not in self._known["whole"]:
                shutil.rmtree(path, ignore_errors=True)

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """Hand numbers to W&B's own process, which sends or stores them."""
        self._run.log(numbers | {"epoch": epoch}, step=epoch)
        self._epoch = epoch

    def finish(self, state: str, summary: dict[str, Any], pictures: list[Path]) -> None:
        """Send the summary and the plots, and wait until all is sent."""
        if self._run is None:
            return
        run, self._run = self._run, None
        run.summary.update(summary | {"state": state})
        images = {f"plots/{picture.stem}": self._wandb.Image(str(picture)) for picture in pictures}
        if images:
            run.log(images, step=self._epoch)
        run.finish(exit_code=int(state == "failed"))
        whole = sorted(path.name for path in self._note.parent.glob("offline-run-*"))
        write_json(self._note, self._known | {"epoch": self._epoch, "whole": whole})
