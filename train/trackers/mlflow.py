"""MLflow: any tracking server or store, by its URI."""

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from config import ConfigError
from storage.files import write_json
from train.trackers.tracker import RunFacts, Tracker

_STATUS = {"finished": "FINISHED", "early_stopped": "FINISHED", "failed": "FAILED"}  # else KILLED
_MOST = 100  # parameters that MLflow takes in one request


class MlflowTracker(Tracker):
    """A run of the experiment that has the model's name (or MLFLOW_EXPERIMENT_NAME); x axis is the epoch.

    Args:
        uri: tracking URI of MLflow.
    """

    def __init__(self, uri: str) -> None:
        if ":" not in uri:
            raise ConfigError(
                f"mlflow = {uri}: must be off or a tracking URI, such as http://localhost:5000 or sqlite:///mlflow.db"
            )
        os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "ERROR")
        for name in ("alembic", "urllib3"):
            logging.getLogger(name).setLevel(logging.ERROR)
        # A server that is away costs seconds then, where MLflow would try for minutes.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        import mlflow

        self._mlflow, self._uri = mlflow, uri
        self._run = ""

    def start(self, run: RunFacts) -> int:
        """Make a run, or go on with the one that mlflow.json in the run's folder names."""
        self._client = self._mlflow.MlflowClient(tracking_uri=self._uri)
        note, known = run.folder / "mlflow.json", {}
        if note.exists():
            known = json.loads(note.read_text())
        if known.get("uri") == self._uri:
            self._run = known["run_id"]
            self._client.update_run(self._run, status="RUNNING")
            return max([metric.step for metric in self._client.get_metric_history(self._run, "train_loss")], default=0)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", run.model)
        experiment = self._client.get_experiment_by_name(name)
        identity = experiment.experiment_id if experiment else self._client.create_experiment(name)
        self._run = self._client.create_run(identity, run_name=run.id, tags={"folder": str(run.folder)}).info.run_id
        write_json(note, {"uri": self._uri, "run_id": self._run})
        params = [self._mlflow.entities.Param(key, str(value)) for key, value in run.settings.items()]
        for part in _parts(params):
            self._client.log_batch(self._run, params=part)
        return 0

    def log(self, epoch: int, numbers: dict[str, float]) -> None:
        """Send metrics in one request."""
        now = int(time.time() * 1000)
        metrics = [self._mlflow.entities.Metric(name, number, now, epoch) for name, number in numbers.items()]
        self._client.log_batch(self._run, metrics=metrics)

    def finish(self, state: str, summary: dict[str, Any], pictures: list[Path]) -> None:
        """Send the summary and the plots; say how the run ended."""
        if not self._run:
            return
        numbers = {key: value for key, value in summary.items() if isinstance(value, int | float)}
        self.log(int(summary.get("epochs", 0)), {f"summary_{key}": float(value) for key, value in numbers.items()})
        self._client.set_tag(self._run, "state", state)
        for picture in pictures:
            self._client.log_artifact(self._run, str(picture), "plots")
        self._client.set_terminated(self._run, _STATUS.get(state, "KILLED"))


def _parts(items: list[Any]) -> Iterator[list[Any]]:
    for begin in range(0, len(items), _MOST):
        yield items[begin : begin + _MOST]
