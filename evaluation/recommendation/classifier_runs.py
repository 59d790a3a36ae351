"""Runs of ImageClassifierTrainer, each in a process of its own: begun, gone on with, or found finished; their test."""

import csv
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from constants import PACKAGE_ROOT, PROJECT_ROOT, command
from constants.paths import IS_CHECKOUT
from data.data_error import DataError
from storage.run_label import labelled

TRAINER = "ImageClassifier"
_FINISHED = ("finished", "early_stopped")
_PREDICTIONS = "test_predictions.csv"
_LINES = 5  # of a process that failed, which are shown


class RunFailedError(DataError):
    """A run that ended with an error; the text has its last lines."""


@dataclass(frozen=True)
class ClassifierRun:
    """A finished run, and which test images it has right.

    Attributes:
        folder: the run's folder.
        seconds: time that its training took.
        keys: names of the test images.
        hits: (n,) bool, which of these the best weights have right.
        part: where the images are from: `test`, or `val` where there is nothing to test on.
    """

    folder: Path
    seconds: float
    keys: tuple[str, ...]
    hits: np.ndarray
    part: str


def classifier_run(
    name: str, settings: Mapping[str, str], artifacts: Path, say: Callable[[str], None]
) -> ClassifierRun:
    """Return the run of a name: a finished one as it is, one that was interrupted after it has gone on, else a new one.

    Args:
        name: name of the run, which says all that its result depends on.
        settings: settings of a new run, by key.
        artifacts: folder of the runs.
        say: called with a line for each epoch.

    Raises:
        RunFailedError: the training, or the test, ended with an error.
    """
    where = f"artifacts_dir={artifacts.resolve()}"
    folder = _folder(name, artifacts)
    if folder is None or _metrics(folder).get("state") not in _FINISHED:
        words = [f"{key}={value}" for key, value in settings.items()]
        # Without a checkpoint there is nothing to go on from; its name goes to the next one.
        begun = folder is not None and any((folder / "checkpoints").glob("*"))
        if folder is not None and not begun:
            (folder / "label.json").unlink(missing_ok=True)
        _train([TRAINER, "--resume", str(folder)] if begun else [TRAINER, *words, where, "--name", name], say)
        folder = _folder(name, artifacts)
    if folder is None:
        raise RunFailedError(f"the run {name} has left no folder in {artifacts}")
    keys, hits = _tested(folder)
    metrics = _metrics(folder)
    summary = metrics.get("summary")
    summary = summary if isinstance(summary, dict) else {}
    part = "test" if summary.get("test_images") else "val"
    return ClassifierRun(folder, float(summary.get("seconds") or 0), keys, hits, part)


def _folder(name: str, artifacts: Path) -> Path | None:
    return next(iter(labelled(name, artifacts, TRAINER)), None)


def _metrics(folder: Path) -> dict[str, object]:
    try:
        content = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _tested(folder: Path) -> tuple[tuple[str, ...], np.ndarray]:
    """Return names of the test images and which are right, from a file that is written once."""
    file = folder / _PREDICTIONS
    if not file.is_file():
        _train([TRAINER, "--predict", str(folder), "--out", str(file)], lambda line: None)
    with file.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    return tuple(row["image"] for row in rows), np.array([row["class"] == row["label"] for row in rows], bool)


def _train(words: Sequence[str], say: Callable[[str], None]) -> None:
    """Run train.py; tell of its epochs.

    Raises:
        RunFailedError: it ended with an error.
        KeyboardInterrupt: somebody has stopped it, or this process; the run has saved where it is.
    """
    last: list[str] = []
    # In a group of its own: a Ctrl-C of the terminal reaches it by us alone, once.
    with subprocess.Popen(
        [sys.executable, *training_script(), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        errors="replace", start_new_session=True, cwd=Path.cwd(),
    ) as process, _stopped_with_us(process):  # fmt: skip
        assert process.stdout is not None and process.stderr is not None
        errors = threading.Thread(target=_keep_last, args=(process.stderr, last), daemon=True)
        errors.start()
        for line in process.stdout:
            _, found, rest = line.rstrip().partition(" INFO epoch ")
            if found:
                say(f"epoch {rest}")
        errors.join()
        code = process.wait()
    if code in (128 + signal.SIGINT, 128 + signal.SIGTERM):
        raise KeyboardInterrupt
    if code:
        told = " ".join(line.strip() for line in last).removeprefix("error: ")
        raise RunFailedError(told or f"`{command('train')} {' '.join(words[:3])}` ended with the exit code {code}")


def training_script() -> list[str]:
    """Return what a Python is given so that it trains, in a project of a user's own as in a checkout."""
    if PROJECT_ROOT == PACKAGE_ROOT:
        return [str(PACKAGE_ROOT / "train.py")]
    # By its path, where it has one: a checkout is on nobody's path in another folder.
    return [*([str(PACKAGE_ROOT / "menagerie.py")] if IS_CHECKOUT else ["-m", "menagerie"]), "train"]


def _keep_last(stream: IO[str], last: list[str]) -> None:
    for line in stream:
        if line.strip():
            last[:] = [*last[1 - _LINES :], line] if not line.startswith("error: ") else [line]


@contextmanager
def _stopped_with_us(process: subprocess.Popen[str]) -> Iterator[None]:
    """Let a process save and leave where this one is interrupted in a block."""
    try:
        yield
    except BaseException:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)  # it finishes its step, saves, and leaves
            process.communicate()
        raise
