"""`--find-lr`: the learning rate range test (Smith, "Cyclical learning rates for training neural networks", 2015/2017).

The rate grows exponentially from step to step, and the loss is noted: it stays level, falls, levels off and explodes.
A good rate lies well inside the fall. The steps are the trainer's own: optimizer, clipping and accumulation as
configured, parameter groups in proportion; the schedule rests.
"""

import logging
import math
import sys
import traceback
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice

import torch
from beautilog import logger

from commands.probe_steps import (
    ProbeSnapshot,
    build_for_probing,
    endless_step_inputs,
    peak_rates,
    quiet_log,
    running_loss,
    set_rates,
    step_loss,
    steps_an_epoch,
)
from constants.counting import counted
from data.batches import tensors_in
from evaluation.plots.rate_plot import plot_range_test
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.session import machine_for
from train.steps import StepInput

_LOWEST, _HIGHEST, _STEPS_A_DECADE = 1e-7, 10.0, 20
_MEMORY = 0.9  # of the running mean that says when the loss explodes
_EXPLODED = 2.0  # times as far above its lowest as it had fallen
_SMALLEST_FALL = 0.02  # of the loss at the start; less than that is called flat
_NOISES = 3.0  # how many times the noise of the smoothed loss a fall must be
_HALF_WINDOW = 5  # steps to either side that smoothing takes in
_WINDOWS, _HELD_BYTES = 32, 2**28  # batches that the steps go round, and the memory they may take
_EDGE = 0.1  # shares of the fall that count as its beginning and its end


@dataclass
class RangeTest:
    """What was measured, and what follows from it.

    Attributes:
        rates: learning rate of each step, for a parameter group whose rate is the config's `learning_rate`.
        losses: loss of each step's batches, before the step, brought to one level: batches differed at the start
            already.
        diverged: the rate at which the smoothed loss is back at its start, or the test ended since the loss exploded or
            was not finite; None if neither was so.
        smoothed: mean of the losses around each step, weighted by a triangle.
        steepest: the rate at which the smoothed loss falls fastest.
        valley: the rate in the middle of the fall; the suggestion.
        reason: reason why there is no suggestion; empty where there is one.
    """

    rates: list[float]
    losses: list[float]
    diverged: float | None
    smoothed: list[float] = field(default_factory=list)
    steepest: float | None = None
    valley: float | None = None
    reason: str = ""


def command(trainer_class: type[BaseTrainer], _: bool) -> int:
    """Build a trainer, test learning rates, write find_lr/ in a run folder of its own: `--find-lr`."""
    run = build_for_probing(trainer_class, keep_folder=True)
    folder = run.folder
    path = folder.file("find_lr/find_lr.json")  # makes find_lr/, by which `--resume latest` knows what this is
    try:
        logger.info(f"device {run.device}, run folder {folder.path}")
        with machine_for(run), quiet_log():
            test = range_test(run)
        content = {"schema_version": 1, "trainer": run.name, **asdict(test)}
        folder.write_json("find_lr/find_lr.json", content)
        plot_range_test(path, path.with_suffix(".png"))
        lines = [*report_lines(run, test), f"curve: {path.with_suffix('.png')}"]
        folder.log_only("\n".join(lines), logging.INFO)
        sys.stdout.write("\n".join(lines) + "\n")
    except BaseException:
        folder.log_only(traceback.format_exc())
        raise
    finally:
        folder.close_log()
    return 0


def range_test(run: RunContext, lowest: float = _LOWEST, highest: float = _HIGHEST) -> RangeTest:
    """Raise the learning rate from step to step; leave the trainer as it was.

    Args:
        run: run whose learning rates are tested.
        lowest: first learning rate.
        highest: last learning rate, where the loss has not exploded before.
    """
    snapshot = ProbeSnapshot(run)
    reference = reference_rate(run)
    shares = [rate / reference for rate in peak_rates(run.optimizer)]  # so that groups keep their proportion
    steps = round(_STEPS_A_DECADE * math.log10(highest / lowest)) + 1
    rates: list[float] = []
    losses: list[float] = []
    explosion = _Explosion()
    run.model.train()
    try:
        # The same batches again and again: how they differ is known from the start, so it does not hide the fall.
        step_inputs = _held_step_inputs(run)
        starts = [_start_loss(run, step_input) for step_input in step_inputs]
        snapshot.restore()
        run.model.train()
        for number in range(steps):
            rate, at = lowest * (highest / lowest) ** (number / (steps - 1)), number % len(step_inputs)
            set_rates(run.optimizer, [share * rate for share in shares])
            loss = _levelled(step_loss(run, step_inputs[at]), starts, at)
            if explosion.sees(loss) or run.guard.blocked:
                return judged(rates, losses, diverged=rate)
            rates.append(rate)
            losses.append(loss)
    finally:
        snapshot.restore()
    return judged(rates, losses, diverged=None)


def _held_step_inputs(run: RunContext) -> list[StepInput]:
    step_inputs, held = [], 0
    for step_input in islice(endless_step_inputs(run), min(_WINDOWS, steps_an_epoch(run) or _WINDOWS)):
        step_inputs.append(step_input)
        held += sum(tensor.nbytes for batch in step_input.microbatches for tensor in tensors_in(batch))
        if held > _HELD_BYTES:
            break
    return step_inputs


def _levelled(loss: float, starts: Sequence[float], at: int) -> float:
    """Bring the loss of a batch to the level of all, by what they had at the start: by ratio, where that is safe."""
    level = sum(starts) / len(starts)
    if min(starts) > 0.1 * level > 0:
        return loss / starts[at] * level
    return loss - starts[at] + level


@torch.no_grad()
def _start_loss(run: RunContext, step_input: StepInput) -> float:
    """Return the loss of a step's batches in training mode; reading it is a host-device synchronisation."""
    run.forget_measurements()
    for batch in step_input.microbatches:
        run.loss_function(batch)
    return running_loss(run)


def reference_rate(run: RunContext) -> float:
    """Return the rate that the config's `learning_rate` stands for; where no group has it, the first group's."""
    peaks, configured = peak_rates(run.optimizer), run.config.learning_rate
    return configured if any(math.isclose(peak, configured, rel_tol=1e-6) for peak in peaks) else peaks[0]


class _Explosion:
    """Says when a running mean of losses is far above its lowest."""

    def __init__(self) -> None:
        self._mean, self._weight, self._first, self._lowest, self._seen = 0.0, 0.0, math.nan, math.inf, 0

    def sees(self, loss: float) -> bool:
        """Take a loss; return whether it exploded."""
        if not math.isfinite(loss):
            return True
        self._mean = _MEMORY * self._mean + (1 - _MEMORY) * loss
        self._weight = _MEMORY * self._weight + (1 - _MEMORY)
        mean = self._mean / self._weight
        self._seen += 1
        if self._seen == 10:
            self._first = mean
        self._lowest = min(self._lowest, mean)
        scale = max(self._first - self._lowest, 0.25 * abs(self._first), 1e-12)
        return self._seen > 10 and mean - self._lowest > _EXPLODED * scale


def judged(rates: Sequence[float], losses: Sequence[float], diverged: float | None) -> RangeTest:
    """Find the suggestion in what was measured.

    Args:
        rates: learning rate of each step.
        losses: loss of each step, before it, brought to one level.
        diverged: learning rate at which the test ended early, None where it came to the highest rate.
    """
    test = RangeTest(list(rates), list(losses), diverged)
    if len(losses) < 4 * _HALF_WINDOW:
        test.reason = f"the loss exploded after {counted(len(losses), 'step')}, at the rate {diverged:.2g}"
        return test
    test.smoothed = _smooth(losses)
    bottom = min(range(len(losses)), key=test.smoothed.__getitem__)
    start = sum(test.smoothed[: 2 * _HALF_WINDOW]) / (2 * _HALF_WINDOW)
    fall, noise = start - test.smoothed[bottom], _noise(losses, test.smoothed)
    if fall < max(_SMALLEST_FALL * abs(start), _NOISES * noise) or bottom < 2 * _HALF_WINDOW:
        share = f"{100 * max(0.0, fall) / abs(start):.2g} %" if start else f"{fall:.2g}"
        test.reason = (
            f"the curve is flat: the loss falls by {share} at most; a suggestion needs "
            f"{100 * _SMALLEST_FALL:g} %, and {_NOISES:g} times its noise ({noise:.2g})"
        )
        return test
    test.diverged = next((rates[at] for at in range(bottom, len(rates)) if test.smoothed[at] >= start), diverged)
    begin = max(at for at in range(bottom) if test.smoothed[at] >= start - _EDGE * fall)
    end = min(at for at in range(begin, bottom + 1) if test.smoothed[at] <= start - (1 - _EDGE) * fall)
    test.steepest = rates[_steepest(test.smoothed, begin, end)]
    test.valley = rates[(begin + end) // 2]
    return test


def _smooth(losses: Sequence[float]) -> list[float]:
    """Return means weighted by a triangle around each loss: no lag, which a running mean has."""
    smoothed = []
    for at in range(len(losses)):
        near = range(max(0, at - _HALF_WINDOW), min(len(losses), at + _HALF_WINDOW + 1))
        weights = [_HALF_WINDOW + 1 - abs(other - at) for other in near]
        smoothed.append(sum(losses[i] * weight for i, weight in zip(near, weights, strict=True)) / sum(weights))
    return smoothed


def _noise(losses: Sequence[float], smoothed: Sequence[float]) -> float:
    """Return how far the smoothed loss is from the truth, roughly, by how far single losses are from it at the start.

    Only the first third counts: the rates there change nothing, so all that differs is the batches.
    """
    first = range(_HALF_WINDOW, max(2 * _HALF_WINDOW, len(losses) // 3))
    spread = math.sqrt(sum((losses[i] - smoothed[i]) ** 2 for i in first) / len(first))
    return spread / math.sqrt(_HALF_WINDOW + 1)


def _steepest(smoothed: Sequence[float], begin: int, end: int) -> int:
    """Return where between two steps a curve falls fastest, by the slope over five steps (a quarter of a decade)."""
    last = len(smoothed) - 1
    return min(range(begin, end + 1), key=lambda at: smoothed[min(at + 2, last)] - smoothed[max(at - 2, 0)])


def report_lines(run: RunContext, test: RangeTest) -> list[str]:
    """Describe a range test.

    Args:
        run: run that was tested.
        test: result of the range test.

    Returns:
        Lines for a terminal.
    """
    highest = f" to {test.rates[-1]:.2g}" if test.rates else ""
    lines = [f"learning rates from {_LOWEST:g}{highest} in {counted(len(test.losses), 'step')}"]
    if test.diverged is not None:
        lines.append(f"the loss diverged at {test.diverged:.2g}")
    else:
        lines.append("the loss never diverged")
    if test.valley is None:
        return [*lines, f"no suggestion: {test.reason}"]
    lines.append(f"steepest descent at {test.steepest:.2g}, middle of the fall (valley) at {test.valley:.2g}")
    lines.append("the valley is suggested: it follows from the whole fall, the steepest point from a few noisy steps")
    peaks, configured = peak_rates(run.optimizer), run.config.learning_rate
    now = f"   # now {configured:g}"
    if not any(math.isclose(peak, configured, rel_tol=1e-6) for peak in peaks):
        lines.append(
            f"the optimizer does not use learning_rate ({configured:g}): its first group has {peaks[0]:g}, and the "
            "rates are those of that group"
        )
        now = ""
    if len(set(peaks)) > 1:
        lines.append(f"other parameter groups keep their proportion: {', '.join(f'{peak:g}' for peak in peaks[:4])}")
    section = TRAINER_REGISTRY.section_of(type(run.trainer))
    return [*lines, f"for [{section}] in config.ini:", f"learning_rate = {test.valley:.2g}{now}"]
