"""Saved runs: find them and read their metrics.json. Nothing here knows a live trainer."""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1  # of metrics.json that this program reads
_RUN_ID = re.compile(r"(\d{8}-\d{6})(?:-(\d+))?")
_SECTION = re.compile(r"^\[(\w+)\]$", re.MULTILINE)
_SETTING = re.compile(r"^(\w+) =[ \t]*(.*)$", re.MULTILINE)  # as a trainer writes them, one a line


class RunNotFoundError(Exception):
    """A name that no saved run has."""


class RunDamagedError(Exception):
    """A run of which a file can't be read."""

    @classmethod
    def of(cls, file: Path, error: Exception | str) -> "RunDamagedError":
        """Say which file it is, and why."""
        reason = f"it lacks {error}" if isinstance(error, KeyError) else error
        return cls(f"cannot read {file}: {reason}. A trainer writes it; run it again.")


@dataclass(frozen=True)
class Run:
    """A saved run.

    Attributes:
        path: its folder.
        trainer: class name of its trainer.
        state: running, finished, early_stopped, interrupted or failed.
        series: by name, epochs and values (both lists of one length; a value that was not finite is NaN).
        best_epoch: epoch of the lowest validation loss, None if it was never validated.
        best_val_loss: that loss.
        summary: the totals.
    """

    path: Path
    trainer: str
    state: str
    series: dict[str, tuple[list[float], list[float]]]
    best_epoch: int | None
    best_val_loss: float | None
    summary: dict[str, Any]

    @property
    def id(self) -> str:
        """The run's name."""
        return self.path.name


def find_run(text: str, artifacts_dir: Path) -> Path:
    """Find the folder of a run.

    Args:
        text: a run folder or its metrics.json, a run id, the name of a trainer or model (its newest run), or `latest`.
        artifacts_dir: where runs are.

    Returns:
        The folder.

    Raises:
        RunNotFoundError: there is none, or several have that id.
    """
    path = Path(text).expanduser()
    if path.name == "metrics.json" and path.is_file():
        return path.resolve().parent
    if (path / "metrics.json").is_file():
        return path.resolve()
    runs = sorted((file.parent for file in artifacts_dir.glob("models/*/runs/*/metrics.json")), key=run_age)
    model = text.lower().removesuffix("trainer")
    found = (
        runs[-1:] if text == "latest"
        else [run for run in runs if run.name == text]
        or [run for run in runs if run.parent.parent.name.lower() == model][-1:]
    )  # fmt: skip
    if len(found) == 1:
        return found[0]
    shown = "".join(f"\n  {run.parent.parent.name}  {run.name}" for run in (found or runs[-5:]))
    if found:
        raise RunNotFoundError(f"several models have a run '{text}'; give the folder of one:{shown}")
    begun = [file.parent for file in artifacts_dir.glob("models/*/runs/*/config.ini") if file.parent.name == text]
    if begun:
        raise RunNotFoundError(f"nothing was measured in {text}: there is no metrics.json in {begun[0]}")
    hint = f"; the newest runs are:{shown}" if runs else "; there are no runs yet: `python train.py NAME` makes one"
    raise RunNotFoundError(f"there is no run '{text}' in {artifacts_dir}{hint}")


def run_age(path: Path) -> tuple[str, int]:
    """Return what sorts run folders by start: `20260101-000000-10` comes after `20260101-000000-9`."""
    match = _RUN_ID.fullmatch(path.name)
    return (match[1], int(match[2] or 1)) if match else (path.name, 0)


def load_run(path: Path) -> Run:
    """Read a run.

    Args:
        path: its folder.

    Raises:
        RunDamagedError: metrics.json is missing, is no JSON, or has another schema.
    """
    content = read_metrics(path)
    try:
        best = content["best"] or {}
        return Run(
            path=path,
            trainer=str(content["trainer"]),
            state=str(content["state"]),
            series=_series(content["history"]),
            best_epoch=best.get("epoch"),
            best_val_loss=best.get("val_loss"),
            summary=dict(content["summary"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(path / "metrics.json", error) from error


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the metrics.json of a run as it is.

    Args:
        path: the run's folder.

    Returns:
        Its content.

    Raises:
        RunDamagedError: it is missing, is no JSON, or has another schema.
    """
    file = path / "metrics.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise RunDamagedError(f"{file} has schema version {version}, this program reads {SCHEMA_VERSION}.")
        return content
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunDamagedError.of(file, error) from error


def read_settings(path: Path) -> dict[str, str]:
    """Read the settings that a run began with.

    Args:
        path: the run's folder.

    Returns:
        Key and value as config.ini has them, and the trainer's name under the key ""; empty where there is no file.

    Raises:
        RunDamagedError: it can't be read.
    """
    file = path / "config.ini"
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunDamagedError.of(file, error) from error
    section = _SECTION.search(text)
    return ({"": section[1]} if section else {}) | dict(_SETTING.findall(text))


def read_environment(path: Path) -> dict[str, Any]:
    """Read where and from what a run was made.

    Args:
        path: the run's folder.

    Returns:
        Its environment.json; empty where there is none.

    Raises:
        RunDamagedError: it can't be read.
    """
    file = path / "environment.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise RunDamagedError.of(file, error) from error
    if not isinstance(content, dict):
        raise RunDamagedError.of(file, f"it holds a {type(content).__name__}")
    return content


def _series(history: dict[str, list[Any]]) -> dict[str, tuple[list[float], list[float]]]:
    """Give each list of a history its epochs: `val_...` those in val_epoch, others those in epoch, or 1, 2, 3, ..."""
    validated = [float(epoch) for epoch in history.get("val_epoch", [])]
    trained = [float(epoch) for epoch in history.get("epoch", [])]  # a trainer with a loop of its own may write it
    series = {}
    for name, values in history.items():
        if name in ("val_epoch", "epoch") or not values:
            continue
        numbers = [math.nan if value is None else float(value) for value in values]
        known = validated if name.startswith("val_") and validated else trained
        epochs = known if len(known) == len(values) else range(1, len(values) + 1)
        series[name] = ([float(epoch) for epoch in epochs], numbers)
    return series
