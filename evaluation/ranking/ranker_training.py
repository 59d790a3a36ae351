"""Trains rankers in processes of their own: `train.py SimilarityTransformerTrainer`."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from constants import PACKAGE_ROOT, PROJECT_ROOT, command

TRAINER = "SimilarityTransformerTrainer"
_STDERR = 2  # what a training says is not the answer of the program that needs the ranker


def train_command(split: str, hybrid: bool) -> str:
    """Return the command that trains a ranker, as a person types it."""
    return f"{command('train')} {TRAINER} split={split}" + (" hybrid=on" if hybrid else "")


def training_words(settings: Sequence[str], artifacts_dir: Path) -> list[str]:
    """Return the words of the process that trains a ranker.

    Args:
        settings: `key=value` of the run.
        artifacts_dir: folder that the run's folder is made in.
    """
    script = [str(PACKAGE_ROOT / "train.py")] if PROJECT_ROOT == PACKAGE_ROOT else ["-m", "menagerie", "train"]
    return [sys.executable, *script, TRAINER, *settings, f"artifacts_dir={artifacts_dir.resolve()}"]


def train_ranker(split: str, hybrid: bool, artifacts_dir: Path) -> bool:
    """Train a ranker by the settings of config.ini; what the training says goes to stderr.

    Args:
        split: name of the split that the ranker is trained on.
        hybrid: whether the ranker reads scores measured on the dataset.
        artifacts_dir: folder that the run's folder is made in.

    Returns:
        Whether the training came to its end.
    """
    settings = [f"split={split}", f"hybrid={'on' if hybrid else 'off'}", "plot_at_end=off"]
    return subprocess.run(training_words(settings, artifacts_dir), stdout=_STDERR, check=False).returncode == 0
