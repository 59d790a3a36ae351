"""Settings of a trainer whose data breaks."""

from dataclasses import dataclass
from typing import Literal

from config.base_trainer_config import BaseTrainerConfig


@dataclass
class FragileTrainerConfig(BaseTrainerConfig):
    """What happens at which sample, after the first epoch."""

    fault: Literal["none", "error", "stop", "kill", "exit", "signal_group", "kill_main"] = "none"
    """`error`: it can't be read; `stop`: it raises StopIteration; `kill`, `exit`: the process that reads it ends;
    `signal_group`: sends `stop_signal` to all processes of the run; `kill_main`: kills the main process."""
    fault_in: Literal["train", "val"] = "train"
    """The dataset."""
    fault_at: int = 37
    """The sample."""
    stop_signal: str = "SIGTERM"
    """Of `signal_group`."""
    loader: Literal["dataloader", "made"] = "dataloader"
    """torch's own, or make_loader's."""
