"""TensorBoard: event files in the run's own folder, so that `tensorboard --logdir artifacts/models` shows all runs."""

import logging
import threading
from functools import cache
from pathlib import Path
from typing import Any

from train.trackers.tracker import RunFacts, Tracker

_FLUSH_SECONDS = 10  # what a kill may lose of the event file; a resumed run writes it again
_ENDED = ("finished", "early_stopped", "pruned")


class TensorBoardTracker(Tracker):
    """Writes `train/loss`, `val/loss`, ... over epochs; at the end plots and the settings with the best loss (HParams).

    Args:
        _: the value of the key `tensorboard`.
    """

    def __init__(self, _: bool) -> None:
        logging.getLogger("tensorboard").setLevel(logging.ERROR)
        from tensorboard.summary.writer import event_file_writer
        from torch.utils.tensorboard import SummaryWriter

        _silence(event_file_writer.__name__)
        self._make_writer = SummaryWriter
        self._writer: Any = None

    def start(self, run: RunFacts) -> int:
        """Open a new event file; where there are older ones, epochs that come again replace theirs."""
        folder = run.folder / "tensorboard"
        # One less than it has: a kill may have left an epoch of which only some numbers are written.
        has = max(0, min(_last_epoch(folder) - 1, run.epoch))
        # Readers drop what earlier files say of this step and later ones.
        self._writer = self._make_writer(folder, purge_step=has + 1, flush_secs=_FLUSH_SECONDS)
        self._settings = run.settings
        return has

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """Write scalars; the x axis is the epoch."""
        for name, number in numbers.items():
            part, _, rest = name.partition("_")
            self._writer.add_scalar(f"{part}/{rest}" if part in ("train", "val") else name, number, epoch)

    def finish(self, state: str, summary: dict[str, Any], pictures: list[Path]) -> None:
        """Write plots and HParams of a run that has come to its end; close the file."""
        if self._writer is None:
            return
        try:
            if state in _ENDED:
                self._write_end(state, summary, pictures)
        finally:
            writer, self._writer = self._writer, None
            writer.close()

    def _write_end(self, state: str, summary: dict[str, Any], pictures: list[Path]) -> None:
        from matplotlib.image import imread
        from torch.utils.tensorboard.summary import hparams

        epoch = summary.get("epochs", 0)
        best = {f"best/{summary['best_metric']}": summary["best_value"]} if "best_value" in summary else {}
        for name, number in best.items():
            self._writer.add_scalar(name, number, epoch)
        for part in hparams(self._settings | {"state": state}, best):
            self._writer.file_writer.add_summary(part)
        for picture in pictures:
            pixels = (imread(picture)[..., :3] * 255).astype("uint8")  # (height, width, colours)
            self._writer.add_image(f"plots/{picture.stem}", pixels, epoch, dataformats="HWC")


@cache
def _silence(module: str) -> None:
    """Show no traceback of a thread of TensorBoard's that can't write: its error comes again where we see it."""
    shown = threading.excepthook

    def hook(error: Any) -> None:
        if type(error.thread).__module__ != module:
            shown(error)

    threading.excepthook = hook


def _last_epoch(folder: Path) -> int:
    """Return the last epoch that the event files in a folder hold, 0 where there are none."""
    if not folder.is_dir():
        return 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 1, "images": 1, "tensors": 1})
    events.Reload()
    return max([events.Scalars(tag)[-1].step for tag in events.Tags()["scalars"]], default=0)
