"""`--profile`: where the time of a trainer's step goes, what it asks of the machine, and what bounds it.

The steps are the real trainer's on its real data, operation by operation (the eager form, whatever form the run takes).
They run twice: first without torch's profiler, timed by the clock, then under it for the trace and the operators, so
that the profiler's own cost is not in the table.
"""

import os
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict
from typing import Any

import torch
from beautilog import logger
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, record_function
from torch.utils._python_dispatch import TorchDispatchMode

from commands.profile_report import Profile, report_lines
from data.batches import to_device
from data.data_error import DataError
from data.epochs import set_epoch
from data.loaders import Loader, length_of
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.machine import FlopCounter, peak_memory
from train.model_summary import model_lines
from train.session import machine_for

PHASES = ("data", "forward", "backward", "update")
_WARM_UP = 5  # steps
_PATIENCE = 20.0  # seconds after which a pass of slow steps ends
_FEWEST = 3  # steps, however slow
_TRACED_CALLS = 15_000  # of operators: a trace of 20 MB or so, which a browser still opens at once
_MATMUL_SECONDS = 0.03  # a product at least this long: the clock and the first page faults don't count
_LARGEST_MATMUL = 16384

Phase = Callable[[str], AbstractContextManager[Any]]


def command(trainer_class: type[BaseTrainer], _: bool) -> int:
    """Build a trainer and profile it: `--profile`."""
    profile_run(trainer_class().run_context)
    return 0


def profile_run(run: RunContext, steps: int = 25) -> Profile:
    """Train a few steps, log where their time goes, write profile/trace.json and profile/profile.json.

    Nothing else is written: no metrics.json, no checkpoint, no published weights. The model's weights change. A trainer
    with a `train()` of its own is profiled in the same steps, its own loop does not run.

    Args:
        run: the run of a trainer that is built.
        steps: optimizer steps of each pass; slow ones are fewer.

    Returns:
        What was measured.
    """
    folder = run.folder
    folder.file("profile/trace.json")  # makes profile/, by which `--resume latest` knows that there's nothing to resume
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler writes to stderr when it starts and stops
    try:
        logger.info(model_lines(run.model)[0])
        logger.info(f"device {run.device}, run folder {folder.path}")
        if run.owns_loop:
            logger.info(f"{run.name} has a train() of its own; profiled are plain steps of its loss function")
        with machine_for(run):
            run.model.train()
            feed = _Feed(run)
            _repeat(run, feed, _WARM_UP, _Clock(run.device))
            profile = _timed(run, feed, steps)
            _count(run, feed, profile)
            profile.peak_flops, profile.matmul_size = _matmul_peak(run.device, _dtype(run))
            profile.dtype = str(_dtype(run)).removeprefix("torch.")
            _trace(run, feed, profile)
        folder.write_json("profile/profile.json", {"schema_version": 1, "step": profile.step} | asdict(profile))
        for line in report_lines(run, profile):
            logger.info(line)
        logger.info(f"trace, for chrome://tracing or ui.perfetto.dev: {folder.path / 'profile' / 'trace.json'}")
    except BaseException:
        folder.log_only(traceback.format_exc())
        raise
    finally:
        folder.close_log()
    return profile


class _Feed:
    """The training loader's batches on the device, epoch after epoch.

    Attributes:
        starts: seconds that the first batch of each epoch took.
        taken: number of batches taken so far.
        samples: number of samples in all batches taken so far.
    """

    def __init__(self, run: RunContext) -> None:
        self.starts: list[float] = []
        self.taken = self.samples = 0
        self._count = run.trainer.count_samples
        self._batches = self._endless(run.train_loader, run.device)

    def next(self) -> Any:
        """Return the next batch."""
        begin = time.perf_counter()
        first, batch = next(self._batches)
        if first:
            self.starts.append(time.perf_counter() - begin)
        self.taken += 1
        self.samples += self._count(batch)
        return batch

    @staticmethod
    def _endless(loader: Loader, device: torch.device) -> Iterator[tuple[bool, Any]]:
        epoch = 0
        while True:
            set_epoch(loader, epoch)
            first = True
            for batch in loader:
                yield first, to_device(batch, device)
                first = False
            if first:
                raise DataError(f"train_loader gave no batch in epoch {epoch + 1}; there is nothing to profile.")
            epoch += 1


class _Clock:
    """Adds up the seconds of phases."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.seconds = dict.fromkeys(PHASES, 0.0)

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        _wait(self.device)
        self.seconds[phase] += time.perf_counter() - begin


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)  # host-device synchronisation: kernels belong to the phase they are of


def _step(run: RunContext, feed: _Feed, phase: Phase) -> None:
    """One optimizer step of plain PyTorch. The scheduler stays where it is: a few steps would be past some's end."""
    with phase("data"):
        batches = [feed.next() for _ in range(run.config.accumulation_steps)]
    sizes = [run.trainer.count_samples(batch) for batch in batches]
    for batch, size in zip(batches, sizes, strict=True):
        with phase("forward"), _autocast(run):
            loss = run.loss_function(batch)
        with phase("backward"):
            share = size / max(sum(sizes), 1)
            run.update.backward(loss if share == 1.0 else loss * share)
    with phase("update"):
        _update(run)


def _update(run: RunContext) -> None:
    run.update()
    run.update.zero_grad()


def _repeat(run: RunContext, feed: _Feed, steps: int, phase: Phase) -> int:
    """Do steps; return how many."""
    begin = time.perf_counter()
    for done in range(1, steps + 1):
        _step(run, feed, phase)
        if done >= _FEWEST and time.perf_counter() - begin > _PATIENCE:
            return done
    return steps


def _timed(run: RunContext, feed: _Feed, steps: int) -> Profile:
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(run.device)
    clock, taken, samples, starts = _Clock(run.device), feed.taken, feed.samples, len(feed.starts)
    begin = time.perf_counter()
    steps = _repeat(run, feed, steps, clock)
    whole = time.perf_counter() - begin
    milliseconds = {name: 1000 * seconds / steps for name, seconds in clock.seconds.items()}
    other = 1000 * whole / steps - sum(milliseconds.values())
    data, epoch_start = clock.seconds["data"], 0.0
    window, epoch = run.config.accumulation_steps, length_of(run.train_loader)
    if epoch:
        # A few steps may hold many epochs' starts or none: each step gets its share of one.
        within = feed.starts[starts:]
        ordinary = (data - sum(within)) / max(1, feed.taken - taken - len(within))
        seen = within or feed.starts
        epoch_start = max(0.0, sum(seen) / len(seen) - ordinary)
        milliseconds["data"] = 1000 * window * (ordinary + epoch_start / epoch)
    return Profile(
        phases=milliseconds | {"other": other},
        steps=steps,
        epoch_start=1000 * epoch_start,
        steps_per_epoch=-(-epoch // window) if epoch else None,
        samples=(feed.samples - samples) / steps,
        memory=peak_memory(run.device),
    )


class _OperatorCount(TorchDispatchMode):
    """Counts the calls of torch operators, backward included."""

    calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls += 1
        return func(*args, **(kwargs or {}))


def _count(run: RunContext, feed: _Feed, profile: Profile) -> None:
    """Count a step's operators, and its floating-point operations without those of the optimizer."""
    with _OperatorCount() as operators:
        _step(run, feed, nullcontext)
    before = feed.samples
    # torch counts no attention kernel of the CPU; taken apart into matrix products it is counted everywhere.
    with FlopCounter() as arithmetic, sdpa_kernel(SDPBackend.MATH):
        _step(run, feed, nullcontext)
    # An epoch's last batch may be a short one, so what was counted is brought to the average size.
    counted = feed.samples - before
    profile.operators, profile.flops = operators.calls, arithmetic.flops * profile.samples / max(counted, 1)


def _matmul_peak(device: torch.device, dtype: torch.dtype) -> tuple[float, int]:
    """Measure what a square matrix product reaches: operations a second, and its size. Best of three."""
    size, took = 256, 0.0
    while True:
        left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        times = []
        for _ in range(4):  # the first warms up
            _wait(device)
            begin = time.perf_counter()
            left @ right
            _wait(device)
            times.append(time.perf_counter() - begin)
        took = min(times[1:])
        if took >= _MATMUL_SECONDS or size >= _LARGEST_MATMUL:
            return 2 * size**3 / took, size
        size *= 2


def _dtype(run: RunContext) -> torch.dtype:
    precision = getattr(run.config, "precision", "")
    low = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return low.get(precision) or next(run.model.parameters()).dtype


def _autocast(run: RunContext) -> AbstractContextManager[Any]:
    low = getattr(run.config, "precision", "") in ("bf16", "fp16")
    return torch.autocast(run.device.type, _dtype(run) if low else None, enabled=low)


def _trace(run: RunContext, feed: _Feed, profile: Profile) -> None:
    on_device = run.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_device else [])]
    steps = min(profile.steps, max(_FEWEST, _TRACED_CALLS // profile.operators))
    with torch.profiler.profile(activities=activities) as profiler:
        steps = _repeat(run, feed, steps, record_function)
        _wait(run.device)
    profiler.export_chrome_trace(str(run.file("profile/trace.json")))
    rows = []
    for event in profiler.key_averages():
        spent = event.self_device_time_total if on_device else event.self_cpu_time_total  # microseconds
        # A kernel on the device is a row of its own; its time is also in that of the operator that called it.
        if event.key not in PHASES and event.device_type == torch.autograd.DeviceType.CPU and spent > 0:
            rows.append((event.key, spent / 1000 / steps, event.count / steps))
    whole = sum(spent for _, spent, _ in rows)
    rows.sort(key=lambda row: -row[1])
    profile.top = [(name, spent, calls, spent / whole) for name, spent, calls in rows]
    profile.busy = min(1.0, whole / profile.step) if on_device else None
