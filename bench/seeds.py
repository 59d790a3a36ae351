"""Eight seeds at once against one after the other: the table of docs/seeds.md. `python bench/seeds.py`.

The ways take turns, and what is compared is the processor's time (all run in one thread), so that a machine with other
work to do says the same. It is that of whole groups, building, recording and saving included. Prints the median of each
and the ratio.
"""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from beautilog import logger
from speed_work import SIZES, Work

from commands.seeds.command import train_group
from commands.seeds.group import Group, Member
from config import BaseTrainerConfig, ConfigParser
from data.tensor_loader import TensorLoader
from train.base_trainer import BaseTrainer

EPOCHS = {"A": 10, "C": 1}
STEPS = {"at once": "eager", "one after the other, eager": "eager", "one after the other, epoch": "epoch"}


@dataclass
class SpeedTrainerConfig(BaseTrainerConfig):
    """Of every trainer; it has none of its own."""


def trainer_of(work: Work) -> type:
    """Make the class of a trainer, as a researcher writes one, of a workload."""

    class SpeedTrainer(BaseTrainer):
        def __init__(self) -> None:
            self.config = ConfigParser.get(SpeedTrainerConfig)
            self.model = work.net()
            train, val = ({"x": x, "y": y} for x, y in (work.train, work.val))
            self.train_loader = TensorLoader(train, self.config.batch_size, shuffle=True, seed=self.config.seed)
            self.val_loader = TensorLoader(val, self.config.batch_size)
            self.optimizer = work.optimizer(self.model.parameters())
            self.scheduler = work.plateau(self.optimizer)
            self.init_progress_bar(total=len(self.train_loader) * self.config.epochs)
            super().__init__()

        def compute_loss(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return work.loss(self.model(batch["x"].to(self.device)), batch["y"].to(self.device))

    return SpeedTrainer


def seconds(work: Work, way: str, seeds: int, epochs: int, folder: Path) -> float:
    """Train a group and return the processor's time that it took."""
    settings: dict[str, Any] = {
        "epochs": epochs, "batch_size": work.size.batch, "gradient_clip_value": work.size.clip, "step": STEPS[way],
        "plot_at_end": "off", "device": "cpu", "artifacts_dir": str(folder),
    }  # fmt: skip
    ConfigParser.use(overrides=settings, section="SpeedTrainer")
    group = Group("SpeedTrainer", [Member(seed) for seed in range(seeds)])
    start = time.process_time()
    train_group(trainer_of(work), group, at_once=way == "at once")
    took = time.process_time() - start
    if group.how != way.split(",")[0]:
        raise SystemExit(f"{way}: it was trained {group.how}: {group.why}")
    shutil.rmtree(folder)
    return took


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", nargs="*", default=["A", "C"])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epochs", type=int, help="instead of the usual")
    parser.add_argument("--ways", nargs="*", default=list(STEPS)[:2], choices=STEPS)
    arguments = parser.parse_args()
    logger.setLevel("WARNING")
    for key in arguments.work:
        work, epochs = Work(key, quick=False), arguments.epochs or EPOCHS[key]
        times: dict[str, list[float]] = {way: [] for way in arguments.ways}
        for _ in range(arguments.repeats):
            for way in arguments.ways:
                times[way].append(seconds(work, way, arguments.seeds, epochs, Path(tempfile.mkdtemp())))
        steps = epochs * work.steps_per_epoch
        print(f"{key}, {SIZES[key].title}: {arguments.seeds} seeds of {steps} steps")
        least = statistics.median(times[arguments.ways[0]])
        for way, taken in times.items():
            middle = statistics.median(taken)
            print(f"  {way:<28} {middle:7.2f} s  {middle / least:5.2f}  ({min(taken):.2f} to {max(taken):.2f})")


if __name__ == "__main__":
    main()
