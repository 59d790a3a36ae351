"""`--test`: the loss and metrics of a run's best weights on `test_loader`."""

import math
import sys
import time
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from commands.evaluate.request import EvaluationRequest
from commands.evaluate.trained import TrainedRun, batches_of, faults_explained, load_trained, loader_list, place_told
from config import ConfigParser
from constants.counting import counted
from constants.time_spans import duration
from data.loaders import Loader
from evaluation.mean_interval import mean_interval
from storage.saved_run import numbers_at, settings_in
from storage.test_results import TestResult, write_test_result
from storage.text_table import aligned
from train.base_trainer import BaseTrainer
from train.checkpointing.provenance import fingerprint, provenance
from train.context import RunContext
from train.errors import TrainerContractError, TrainingError
from train.failures.batch_check import strange_samples
from train.loop.meters import EpochMeter
from train.session import machine_for


def command(trainer_class: type[BaseTrainer], request: EvaluationRequest) -> int:
    """Measure a run's best weights on the trainer's test_loader; write test.json into the run's folder: `--test`."""
    trained = load_trained(trainer_class, request)
    run = trained.run
    loader = run.loaders.get("test_loader")
    if loader is None:
        raise TrainerContractError(_no_test_loader(run))
    sys.stdout.write("".join(f"{line}\n" for line in trained.notes))
    sys.stdout.flush()
    start = time.monotonic()
    with faults_explained(run):
        own = type(run.trainer).validate is not BaseTrainer.validate
        measured = measure_by_validate(run, loader) if own else measure(run, "test_loader", loader)
    result = _result(trained, request, measured, round(time.monotonic() - start, 3))
    path = write_test_result(request.run, result)
    samples = measured.samples
    sys.stdout.write("".join(f"{line}\n" for line in [_counted(loader, samples), *_table(result)]))
    sys.stdout.write(f"tested in {duration(result.seconds)}, written to {path}\n")
    return 0


class SampleMeter(EpochMeter):
    """An epoch's averages that also keeps the values of each sample, where a metric has been given as such."""

    def __init__(self) -> None:
        super().__init__()
        self._values: dict[str, list[torch.Tensor]] = {}
        self._whole: dict[str, bool] = {}

    def add(self, name: str, value: torch.Tensor | float, samples: int | torch.Tensor) -> None:
        """Add a mean over samples, or a value for each. Copying values to the host is a synchronisation."""
        super().add(name, value, samples)
        by_sample = isinstance(value, torch.Tensor) and value.dim() == 1 and len(value) == samples
        self._whole[name] = self._whole.get(name, True) and by_sample
        if self._whole[name] and isinstance(value, torch.Tensor):
            self._values.setdefault(name, []).append(value.detach().double().cpu())

    def values(self, name: str, samples: int) -> torch.Tensor | None:
        """Return the values of all samples, (samples,) float64; None where some batch has given a mean alone."""
        if not self._whole.get(name):
            return None
        values = torch.cat(self._values[name])
        return values if len(values) == samples else None


@dataclass(frozen=True)
class Measured:
    """What a pass over a loader has measured.

    Attributes:
        samples: number of samples; None where nobody counted them.
        metrics: means over the samples, by the names that the loss function gave them.
        values: values of each sample, (samples,), of the metrics that were given so.
    """

    samples: int | None
    metrics: dict[str, float]
    values: dict[str, np.ndarray] = field(default_factory=dict)


def measure(run: RunContext, name: str, loader: Loader) -> Measured:
    """Put each batch of a loader through the loss function, as a validation does.

    Args:
        run: run whose model is in evaluation mode.
        name: name of the loader.
        loader: the loader itself.

    Raises:
        TrainingError: a loss is not finite, or there was no batch.
    """
    meter, samples, number = SampleMeter(), 0, -1
    with run.measuring_with(meter):
        for number, batch in enumerate(batches_of(run, name, loader)):
            with place_told(run, name, loader, number):
                loss = float(run.loss_function(batch))  # host-device synchronisation
            if not math.isfinite(loss):
                strange = "".join(f"; {each}" for each in strange_samples([batch], None)[:3])
                raise TrainingError(f"the loss of batch {number + 1} of {name} is {loss}{strange}. Nothing is written.")
            samples += run.trainer.count_samples(batch)
    if number < 0:
        raise TrainingError(f"{name} gave no batch.")
    metrics = meter.read()
    values = {key: found.numpy() for key in metrics if (found := meter.values(key, samples)) is not None}
    return Measured(samples, metrics, values)


def measure_by_validate(run: RunContext, loader: Loader) -> Measured:
    """Let a trainer's own `validate()` measure, with another loader in val_loader's place.

    Args:
        run: run of a trainer that has replaced `validate`.
        loader: loader that it shall go through.
    """
    run.trainer.val_loader = loader
    meters: list[SampleMeter] = []

    def new_meter() -> SampleMeter:
        meters.append(SampleMeter())
        return meters[-1]

    run.new_meter = new_meter  # of the base class's `validate`, where the trainer's own calls that
    with machine_for(run):
        run.trainer.validate()
    run.record.flush(1)
    found = {name: values[-1] for name, values in run.record.history.items() if values and name != "val_epoch"}
    dataset = getattr(loader, "dataset", None)
    samples = len(dataset) if isinstance(dataset, Sized) else None
    metrics = {name.removeprefix("val_"): float(found[name]) for name in found if name[:4] == "val_"}
    if samples is None or len(meters) != 1:
        return Measured(samples, metrics)
    values = {name: values.numpy() for name in metrics if (values := meters[0].values(name, samples)) is not None}
    return Measured(samples, metrics, values)


def _result(trained: TrainedRun, request: EvaluationRequest, measured: Measured, seconds: float) -> TestResult:
    run = trained.run
    intervals = {name: mean_interval(values) for name, values in measured.values.items()}
    names = sorted(measured.metrics, key=lambda name: name != "loss")
    facts = provenance(run.device, {})
    return TestResult(
        trainer=run.name,
        run_id=request.run.name,
        time=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=seconds,
        epoch=trained.saved.best_epoch,
        weights_sha256=trained.digest,
        samples=measured.samples,
        metrics={f"test_{name}": measured.metrics[name] for name in names},
        intervals={f"test_{name}": interval for name, interval in intervals.items() if interval is not None},
        validation=_validation(trained, names),
        changed=list(request.changed),
        settings={name: value for name, value in settings_in(ConfigParser.dump(run.config)).items() if name},
        data=fingerprint(run.loaders["test_loader"]),
        environment={key: facts[key] for key in ("command", "git", "python", "packages", "device")},
    )


def _validation(trained: TrainedRun, names: list[str]) -> dict[str, float]:
    """Return what the run's validation of the best epoch measured, by the names of the test."""
    known = numbers_at(trained.saved.series, trained.saved.best_epoch)
    return {f"test_{name}": known[f"val_{name}"] for name in names if f"val_{name}" in known}


def _table(result: TestResult) -> list[str]:
    rows = [["metric", "test", *(["95 % interval"] if result.intervals else []), "validation"]]
    for name, value in result.metrics.items():
        low, high = result.intervals.get(name, (None, None))
        interval = [] if not result.intervals else ["" if low is None else f"{low:.4g} to {high:.4g}"]
        known = result.validation.get(name)
        rows.append([name, f"{value:.4g}", *interval, "" if known is None else f"{known:.4g}"])
    return aligned(rows, left={0})


def _counted(loader: Any, samples: int | None) -> str:
    dataset = getattr(loader, "dataset", None)
    line = "test_loader" if samples is None else f"test_loader: {counted(samples, 'sample')}"
    if not getattr(loader, "drop_last", False) or not isinstance(dataset, Sized) or len(dataset) <= (samples or 0):
        return line
    return f"{line}; drop_last leaves out {len(dataset) - (samples or 0):,}: make it with drop_last=False"


def _no_test_loader(run: RunContext) -> str:
    return (
        f"{run.name} has no test_loader; it has {loader_list(run)}.\n"
        "Make one in its __init__, before super().__init__(), as val_loader is made, of samples in neither of these:\n"
        f"  self.test_loader = {type(run.val_loader).__name__}(...)\n"
        "What the run measured on val_loader is in its metrics.json; that has chosen the best epoch, so it is no test."
    )
