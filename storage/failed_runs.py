"""Finds the run whose failure is to be repeated. Imports no torch, so that a mistyped name is told at once."""

import json
from pathlib import Path
from typing import Any

from storage.saved_run import run_age

FOLDER, REPORT = "failure", "report.json"
_LISTED = 5


class ReplayError(Exception):
    """A failure that can't be repeated: there is none, its files are damaged, or they fit no trainer."""


def find_failed_run(run: str, artifacts_dir: Path) -> Path:
    """Find the folder of a run that has a failure to repeat.

    Args:
        run: a run's folder (or its `failure/`), a run id, or `latest` for the newest that has a failure.
        artifacts_dir: folder of all runs and published models.

    Raises:
        ReplayError: there is none; the text says which there are.
    """
    failed = sorted((path.parents[1] for path in artifacts_dir.glob(f"models/*/runs/*/{FOLDER}/{REPORT}")), key=run_age)
    there = "".join(f"\n  {path.parents[1].name}  {path.name}" for path in failed[-_LISTED:])
    there = f"Runs with a failure:{there}" if failed else f"No run in {artifacts_dir} has one."
    if run == "latest":
        if not failed:
            raise ReplayError(f"there is no failure to replay. {there}")
        return failed[-1]
    known = [path for path in artifacts_dir.glob("models/*/runs/*") if path.name == run]
    given = Path(run).expanduser()
    if not known and given.is_dir():
        known = [given.resolve().parent if given.name == FOLDER else given.resolve()]
    with_failure = [path for path in known if (path / FOLDER / REPORT).is_file()]
    if len(with_failure) == 1:
        return with_failure[0]
    if with_failure:
        names = "".join(f"\n  {path}" for path in sorted(with_failure))
        raise ReplayError(f"several models have a run '{run}'; give the folder of one:{names}")
    if known:
        raise ReplayError(f"run {known[0].name} has no {FOLDER}/ folder: its numbers did not go wrong. {there}")
    raise ReplayError(f"no run '{run}' to replay. {there}")


def read_report(run: Path) -> dict[str, Any]:
    """Read a run's failure/report.json.

    Raises:
        ReplayError: it can't be read, or names no trainer.
    """
    path = run / FOLDER / REPORT
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ReplayError(f"{path} is damaged: {error}") from error
    if not isinstance(report, dict) or not isinstance(report.get("trainer"), str):
        raise ReplayError(f"{path} is damaged: it names no trainer.")
    if report.get("schema_version") != 1:
        raise ReplayError(f"{path} has schema version {report.get('schema_version')}, this program reads 1.")
    return report
