"""A run that is gone on with, judged by something else than before."""

from dataclasses import asdict
from typing import Any

from beautilog import logger

from storage.monitor import Monitor
from train.loop.early_stopping import EarlyStopping
from train.loop.record import RunRecord, progress_from

# What ReduceLROnPlateau knows of the values that it has seen; the rest of its state goes on.
_OF_VALUES = ("mode", "mode_worse", "best", "num_bad_epochs", "cooldown_counter")


def state_for_monitor(state: dict[str, Any], record: RunRecord, stopping: EarlyStopping) -> dict[str, Any]:
    """Return a checkpoint's state as a run takes it whose `monitor` may be another than the checkpoint's.

    The best epoch stays the one whose weights are in model.safetensors, for those of other epochs are gone; it is
    measured by what is monitored now, and so is the patience of early stopping. ReduceLROnPlateau begins to count anew.

    Args:
        state: state as a checkpoint has it.
        record: record of the run, not restored yet, with the run's monitor.
        stopping: early stopping of the run, not restored yet.
    """
    now, saved = record.monitor, state["record"]
    before = Monitor(**saved["monitor"]) if "monitor" in saved else Monitor()  # older checkpoints know no other
    if before == now:
        return state
    progress, history = progress_from(saved["progress"]), saved["history"]
    values = dict(zip(history.get("val_epoch", []), history.get(now.name, []), strict=False))
    values = {epoch: value for epoch, value in values.items() if value is not None}
    best = values.get(progress.best_epoch)
    progress.best_value = best
    if best is None:
        progress.best_epoch = None
    counted = EarlyStopping(stopping.patience, stopping.min_delta, now)
    for value in values.values():
        counted.update(value)
    at = "there is no best epoch yet" if best is None else f"the best is epoch {progress.best_epoch} with {best:.6g}"
    logger.warning(
        f"monitor = {now.name} ({now.mode}), before {before.name} ({before.mode}): {at}; from here on epochs are "
        f"judged by {now.name}"
    )
    scheduler = {name: value for name, value in state["scheduler"].items() if name not in _OF_VALUES}
    changed = {"record": saved | {"progress": asdict(progress)}, "early_stopping": counted.state_dict()}
    return state | changed | ({"scheduler": scheduler} if "num_bad_epochs" in state["scheduler"] else {})
