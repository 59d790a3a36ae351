"""Long and many: 10,000 steps, fifty trainers in one process, runs side by side: `make soak`.

Memory, file descriptors and threads are looked at from outside Python (/proc). Exit code 1 where something grows.
"""

import argparse
import gc
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from process_samples import ProcessSamples

EPOCH = 1000  # steps; a history grows with the epochs, as it should, so few long ones show what a step leaves behind
EVERY = 50  # steps between two looks
ALLOWED_GROWTH = 2**18  # bytes in 10,000 steps, or in 25 trainers: an allocator's own pages come and go
RUNS = {
    "DataLoader": ("loader=dataloader",),
    "TensorLoader": ("loader=tensors",),
    "make_loader, two workers that live on": ("loader=made", "num_workers=2"),
    "saving in the background": ("loader=tensors", "save_in_background=on"),
}


class Samples(ProcessSamples):
    """What /proc says of this process, and what of it grows."""

    def verdict(self, scale: float) -> str:
        """Say what grows, or nothing."""
        half = len(self.at) // 2
        grows = []
        if (self.slope()[0] - self.slope()[1]) * scale > ALLOWED_GROWTH:
            grows.append("memory")
        for name, counts in (("files", self.files), ("threads", self.threads)):
            if max(counts[half:]) > max(counts[:half]) + 1:  # one may come and go, as a writer does
                grows.append(name)
        return ", ".join(grows)


def soak_steps(project: Any, steps: int, words: tuple[str, ...]) -> dict[str, Any]:
    """Train for many steps in a new process, looking at it again and again."""
    return _in_process(project, "steps", str(steps), *words)


def soak_trainers(project: Any, count: int) -> dict[str, Any]:
    """Build, train and drop many trainers in one new process."""
    return _in_process(project, "trainers", str(count))


def soak_side_by_side(project: Any) -> dict[str, Any]:
    """Train three runs of one trainer at once, started in the same second, and compare them with one alone."""
    alone = project.run("Resumable")
    assert alone.returncode == 0, alone.stderr
    (reference,) = project.runs("Resumable")
    command = [sys.executable, str(project.path / "train.py"), "Resumable"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) for _ in range(3)]
    codes = [process.wait() for process in started]
    runs = [run for run in project.runs("Resumable") if run != reference]
    weights = {(run / "model.safetensors").read_bytes() for run in [reference, *runs]}
    histories = {json.dumps(json.loads((run / "metrics.json").read_text())["history"]) for run in [reference, *runs]}
    hidden = list((project.path / "artifacts").rglob(".*"))
    fine = codes == [0, 0, 0] and len(runs) == 3 and len(weights) == len(histories) == 1 and not hidden
    return {"runs": len(runs), "exit codes": codes, "different": len(weights) + len(histories) - 2, "fine": fine}


def _in_process(project: Any, *words: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, __file__, "--inside", str(project.path), *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])


# ------------------------------------------------------------------------------------------- inside the process


@contextmanager
def _after_each_step(look: Callable[[Any], None]) -> Iterator[None]:
    from train.base_trainer import BaseTrainer

    update = BaseTrainer.update_progress_bar

    def update_and_look(trainer: Any, *given: Any, **named: Any) -> None:
        update(trainer, *given, **named)
        look(trainer)

    BaseTrainer.update_progress_bar = update_and_look
    try:
        yield
    finally:
        BaseTrainer.update_progress_bar = update


def _inside(folder: str, part: str, count: str, *words: str) -> None:
    os.chdir(folder)
    sys.path.insert(0, folder)
    from commands.command_line import main
    from config import ConfigParser
    from train import TRAINER_REGISTRY

    samples = Samples()
    common = ("early_stopping_patience=0",)
    if part == "steps":
        import train.resumable_trainer as resumable

        resumable.SAMPLES = 5 * EPOCH

        def look(trainer: Any) -> None:
            if trainer.record.progress.step % EVERY == 0:
                samples.take(trainer.record.progress.step)

        with _after_each_step(look):
            code = main(["Resumable", f"epochs={-(-int(count) // EPOCH)}", *common, *words])
        print(json.dumps({"code": code, **_told(samples, 10_000)}))
        return
    alive: weakref.WeakSet = weakref.WeakSet()
    with _after_each_step(alive.add):
        ConfigParser.use(None, ["epochs=1", *common, "loader=made", "num_workers=1"], "ResumableTrainer")
        for number in range(int(count)):
            TRAINER_REGISTRY["Resumable"]().train()
            gc.collect()
            samples.take(number)
    print(json.dumps({"code": 0, "left": len(alive), **_told(samples, 25)}))


def _told(samples: Samples, scale: float) -> dict[str, Any]:
    slope, interval = samples.slope()
    half = len(samples.at) // 2
    return {
        "slope": slope,
        "interval": interval,
        "megabytes": [samples.memory[at] / 1e6 for at in (0, half, -1)],
        "files": sorted(set(samples.files[half:])),
        "threads": sorted(set(samples.threads[half:])),
        "grows": samples.verdict(scale),
    }


# ----------------------------------------------------------------------------------------------------- the table


def main() -> int:
    """Run all parts and print their table."""
    if sys.argv[1:2] == ["--inside"]:
        _inside(*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--trainers", type=int, default=50)
    arguments = parser.parse_args()
    start, bad = time.monotonic(), 0
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from conftest import copy_project

    python, today = platform.python_version(), time.strftime("%Y-%m-%d")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {python}, {today}")
    print("| what | memory, first / middle / last | growth a step or trainer (95 %) | descriptors | threads | grows |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        project = copy_project(Path(folder) / "project")
        side_by_side = soak_side_by_side(project)
        results = {f"{arguments.steps:,} steps, {name}": soak_steps(project, arguments.steps, words)
                   for name, words in RUNS.items()}  # fmt: skip
        results[f"{arguments.trainers} trainers in one process"] = soak_trainers(project, arguments.trainers)
    for name, found in results.items():
        memory = " / ".join(f"{megabytes:.1f}" for megabytes in found["megabytes"])
        grows = found["grows"] or "nothing"
        if found.get("left", 0) > 1:  # the last one may be alive still
            grows = f"{grows}; {found['left']} trainers were not freed"
        bad += bool(found["grows"]) or found["code"] != 0 or found.get("left", 0) > 1
        growth = f"{found['slope']:+.1f} ± {found['interval']:.1f} B"
        print(f"| {name} | {memory} MB | {growth} | {found['files']} | {found['threads']} | {grows} |")
    bad += not side_by_side["fine"]
    print(f"three runs side by side, started at once: {side_by_side}")
    print(f"done in {time.monotonic() - start:.0f} s: {'nothing grows' if not bad else f'{bad} parts failed'}")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
