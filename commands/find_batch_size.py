"""`--find-batch-size`: the largest batch that fits on the device, and how many samples a second each size brings.

On a GPU a batch is too large when memory is out: sizes double until then, and the gap is halved. On a CPU memory ends
with the whole machine, so nothing is driven to its end there: sizes double until that brings no more samples a second.
"""

import gc
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import default_collate

from commands.batch_size_search import LevelsOff, largest_fitting, smallest_near_best, with_margin
from commands.probe_steps import ProbeSnapshot, build_for_probing, first_batches, quiet_log, take_step
from constants.counting import counted
from data.batch_indices import batch_indices
from data.batches import describe, named_tensors, tensors_in, to_device
from data.data_error import DataError
from data.loaders import Loader, length_of
from data.memory import free_bytes, readable_bytes
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.error_advice import explained, is_out_of_memory
from train.machine import peak_memory
from train.session import machine_for
from train.steps import StepInput

_CAP = 65_536  # samples
_DISTINCT = 256  # samples that are read; a larger batch has them several times
_STEPS, _SECONDS = 5, 1.0  # that a size is timed for, after a step to warm up
_CPU_SECONDS, _CPU_STEP = 60.0, 10.0  # after which, and after a step as slow as which, no larger size is tried
_CPU_MEMORY = 0.25  # share of the free memory that a size may have taken for its double to be tried


@dataclass
class Measured:
    """What a batch size brought.

    Attributes:
        size: samples of a batch.
        step: seconds of an optimizer step.
        rate: samples a second.
        memory: peak bytes: on CUDA of tensors, else of the whole process so far.
    """

    size: int
    step: float
    rate: float
    memory: int


def command(trainer_class: type[BaseTrainer], _: bool) -> int:
    """Build a trainer and find its largest batch: `--find-batch-size`. Nothing is written."""
    with quiet_log():
        run = build_for_probing(trainer_class)
        with machine_for(run):
            _show(f"{run.name} on {run.device}; a step is forward, backward, update (fastest of 5)")
            memory = "peak memory" if run.device.type == "cuda" else "process peak"
            _show(f"{'batch size':>10}{'samples/s':>12}{'ms a step':>12}{memory:>14}")
            for line in search(run):
                _show(line)
    return 0


def _show(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()  # the next size may take seconds


def search(run: RunContext, cap: int | None = None) -> list[str]:
    """Try batch sizes and show each; leave the trainer as it was.

    Args:
        run: run whose steps are tried.
        cap: largest size that is tried; None takes the number of training samples, at most 65,536.

    Returns:
        The result and what follows from it, in lines for a terminal.
    """
    probe = Probe(run)
    samples = _samples_in(run.train_loader)
    cap = cap or min(samples or _CAP, _CAP)
    return _search_throughput(probe, cap) if run.device.type == "cpu" else _search_memory(probe, cap)


def _samples_in(loader: Loader) -> int | None:
    return length_of(getattr(loader, "dataset", None))


def _search_memory(probe: "Probe", cap: int) -> list[str]:
    largest = largest_fitting(probe.fits, cap)
    if not largest:
        return ["not even one sample fits: make the model or the samples smaller, or try recompute_activations = on"]
    ends = f"{counted(largest, 'sample')} fit" + (f", {cap:,} were the most to try" if largest == cap else "")
    best = max(probe.measured.values(), key=lambda measured: measured.rate)
    suggested = cap if largest == cap else with_margin(largest)
    return [
        f"{ends}; most samples a second with {best.size:,}",
        f"largest with a tenth of room, since batches differ and memory falls to pieces:\nbatch_size = {suggested}",
        *_advice(probe.run, suggested),
    ]


def _search_throughput(probe: "Probe", cap: int) -> list[str]:
    """Double until it brings nothing; memory is not driven to its end."""
    end, watch, size, why = time.monotonic() + _CPU_SECONDS, LevelsOff(), 1, ""
    while not why:
        if not probe.fits(size):
            why = f"{counted(size, 'sample')} did not fit"
            break
        measured = probe.measured[size]
        free = free_bytes(probe.run.device)
        if watch.sees(measured.rate):
            why = "more brought no more samples a second"
        elif size >= cap:
            why = f"{cap:,} were the most to try" + (", all training samples" if cap < _CAP else "")
        elif free is not None and measured.memory - probe.memory_before > _CPU_MEMORY * free:
            why = "a larger one might take the memory that other programs need"
        elif measured.step > _CPU_STEP or time.monotonic() > end:
            why = "larger ones take too long to try"
        size = min(2 * size, cap)
    if not probe.measured:
        return [f"{why}: not even one fits"]
    suggested = smallest_near_best({size: measured.rate for size, measured in probe.measured.items()})
    return [
        f"it ended there: {why}",
        "on a CPU no memory of its own limits the batch; the smallest that reaches 90 % of the most samples a second:",
        f"batch_size = {suggested}",
        *_advice(probe.run, suggested),
    ]


def _advice(run: RunContext, size: int) -> list[str]:
    config, samples = run.config, _samples_in(run.train_loader)
    steps, now = (samples and -(-samples // (each * config.accumulation_steps)) for each in (size, config.batch_size))
    told = f"now {config.batch_size}"
    if steps is not None:
        told = f"an epoch has {counted(steps, 'step')} with it, now {now:,}"
    return [f"{told}; another batch size is another training: find its learning rate (--find-lr)"]


class Probe:
    """Trains a trainer with batches of any size, made of its first training samples, and says whether they fit.

    Args:
        run: run whose steps are tried.
        show: function that is given each line of the table.

    Attributes:
        run: run whose steps are tried.
        measured: measurement of each batch size that fitted, by size.
        memory_before: peak bytes before the first size was tried.
    """

    def __init__(self, run: RunContext, show: Callable[[str], None] = _show) -> None:
        self.run, self._show = run, show
        self.measured: dict[int, Measured] = {}
        self.memory_before = peak_memory(run.device)
        self._make = batch_maker(run)
        self._snapshot = ProbeSnapshot(run)

    def fits(self, size: int) -> bool:
        """Do a few optimizer steps with batches of a size; return False where the device has not enough memory."""
        try:
            fitted = self._try(size)
        finally:
            self._snapshot.restore()
        # Only here, when no frame of the failed step holds its tensors any more, can its memory be given back.
        if self.run.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
        if fitted is None:
            self._show(f"{size:>10,}{'':>12}{'':>12}{'out of memory':>14}")
            return False
        self.measured[size] = fitted
        row = f"{size:>10,}{fitted.rate:>12,.0f}{1000 * fitted.step:>12.4g}{readable_bytes(fitted.memory):>14}"
        self._show(row)
        return True

    def _try(self, size: int) -> Measured | None:
        try:
            return self._steps(size)
        except Exception as error:
            if is_out_of_memory(error):
                return None
            if size == 1 and not self.measured:  # batch norm, contrastive losses
                return self._of_two(error)
            raise DataError(
                f"{self.run.name}: a batch of {counted(size, 'sample')} can't be trained with: {explained(error)}"
            ) from error

    def _of_two(self, error: Exception) -> Measured | None:
        """Try two samples where one alone is an error: then size 1 is as good as 2, and the search goes on."""
        try:
            return self._steps(2)
        except Exception as second:
            if is_out_of_memory(second):
                return None
            raise DataError(f"{self.run.name}: batches can't be made of its samples: {explained(error)}") from error

    def _steps(self, size: int) -> Measured:
        run = self.run
        if run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(run.device)
        run.model.train()
        # Two batches are enough for what accumulation holds at a time: gradients, and activations of the next batch.
        batch = self._make(size)
        if not any(tensor.dim() and len(tensor) == size for tensor in tensors_in(batch)):
            raise DataError(f"no tensor of its batches has a row for each sample: {describe(batch)}")
        step_input = StepInput([batch] * min(2, run.config.accumulation_steps))
        take_step(run, step_input)
        times: list[float] = []
        begin = _now(run.device)
        while len(times) < _STEPS and (not times or sum(times) < _SECONDS):
            take_step(run, step_input)
            end = _now(run.device)
            times.append(end - begin)
            begin = end
        step = min(times)  # whatever else the machine does makes steps slower, never faster
        return Measured(size, step, len(step_input) * size / step, peak_memory(run.device))


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # host-device synchronisation: what is timed is done
    return time.perf_counter()


# -------------------------------------------------------------------------------------------------- batches of any size


def batch_maker(run: RunContext) -> Callable[[int], Any]:
    """Return a function that makes a batch of a size, on the device, of a trainer's first training samples.

    Samples that have an index are collated as the loader does it; where they have none, or that makes something else
    than the loader's batches, the rows of its first batch are repeated.
    """
    loader, device = run.train_loader, run.device
    first = first_batches(run, loader, 1)[0]
    dataset: Any = getattr(loader, "dataset", None)
    collate = getattr(loader, "collate_fn", None) or default_collate
    order = _first_indices(loader)
    known: list[Any] = []

    def collated(size: int) -> Any:
        while len(known) < min(size, len(order)):
            known.append(dataset[order[len(known)]])
        return to_device(collate([known[number % len(known)] for number in range(size)]), device)

    try:
        if order and _kinds(collated(2)) == _kinds(first):
            return collated
    except Exception:  # a collate_fn may want batches of its sampler's sizes only
        known.clear()
    return lambda size: resized(first, run.trainer.count_samples(first), size)


def _first_indices(loader: Loader) -> list[Any]:
    """Return the indices of the first samples that a loader reads; none where its samples have no index."""
    dataset = getattr(loader, "dataset", None)
    batched = any(getattr(loader, name, None) is not None for name in ("batch_size", "batch_sampler"))
    if not batched or not hasattr(dataset, "__getitem__"):
        return []
    batches = batch_indices(loader, 0, _DISTINCT)
    if batches is None:
        return list(range(min(length_of(dataset) or 0, _DISTINCT)))
    return [index for batch in batches for index in batch][:_DISTINCT]


def _kinds(batch: Any) -> list[tuple[str, int, torch.dtype]]:
    return [(name, tensor.dim(), tensor.dtype) for name, tensor in named_tensors(batch)]


def resized(batch: Any, rows: int, size: int) -> Any:
    """Return a batch of another size: its rows again and again.

    Args:
        batch: a tensor (rows, ...), or mappings, lists and tuples that hold some; lists of `rows` things are rows too,
            and so is an integer `batch_size`.
        rows: number of samples in `batch`.
        size: number of samples in the new batch.
    """
    if isinstance(batch, torch.Tensor):
        if batch.dim() == 0 or len(batch) != rows:
            return batch
        return batch[torch.arange(size, device=batch.device) % rows]
    if isinstance(batch, Mapping):
        return {
            name: size if name == "batch_size" and part == rows else resized(part, rows, size)
            for name, part in batch.items()
        }
    if isinstance(batch, list | tuple) and not hasattr(batch, "_fields"):
        if len(batch) == rows and not any(isinstance(part, torch.Tensor) for part in batch):
            return type(batch)(batch[number % rows] for number in range(size))
        return type(batch)(resized(part, rows, size) for part in batch)
    return batch
