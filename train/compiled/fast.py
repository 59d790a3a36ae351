"""Steps that are compiled. What they share: a program of the loss, a check against eager, a way back to it."""

import gc
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from beautilog import logger

from train.compiled.compiling import compile_exactly, why_not
from train.compiled.evaluation import LOSS_TOLERANCE, Evaluation, coarseness
from train.compiled.program import LossProgram
from train.compiled.state import TrainingState
from train.context import RunContext
from train.loop.meters import EpochMeter
from train.seeding import preserved_random_states
from train.steps.eager import EagerStep, StepInput, at_least_one

_CHECKED = 3  # steps at the start that are done in both forms
_GRADIENT_TOLERANCE = 1e-3  # relative to each tensor's norm
_UPDATE_TOLERANCE = 0.1  # of the update's norm
_LOUD = 1e-3  # of the usual gradient: Adam makes a full step of any, also of one that is but rounding noise


class FastStep:
    """A step that falls back to `eager` where it can't be what eager is. Its subclasses say what is compiled.

    The first steps are done in both forms from the same state; the fast one counts, so that a resumed run, which checks
    again, gets the same bits. At each epoch's start the loss function is looked at: if it would now ask for other
    operations than those that were compiled, the run goes on in eager form.

    Args:
        run: run whose steps are done.
        eager: eager step that this one must equal.
    """

    name = "fast"

    def __init__(self, run: RunContext, eager: EagerStep) -> None:
        self.run, self.eager = run, eager
        self._program: LossProgram | None = None
        self.evaluation: Evaluation = Evaluation(run, self.compile)
        self.fast = True
        self._unchecked = _CHECKED
        self._loud: dict[int, torch.Tensor] = {}  # by parameter: which of its gradients are more than rounding noise
        self._worst = 0.0  # relative difference of a loss from eager's
        self._seconds = 0.0

    # ------------------------------------------------------------------------------- what a form gives

    def build(self, batch: Any) -> None:
        """Make the program; may raise anything, which is then the reason to fall back."""
        raise NotImplementedError

    def do_steps(self, step_input: StepInput) -> None:
        """Do a step input's steps, fast; what follows the last one (`after_update`) is done for it."""
        raise NotImplementedError

    def fits(self, step_input: StepInput) -> bool:
        """Say whether the program is made for batches like these."""
        raise NotImplementedError

    @staticmethod
    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of tensors."""
        return compile_exactly(function)

    # ------------------------------------------------------------------------------------- what all do

    @property
    def program(self) -> LossProgram:
        """The loss as a program, from the first epoch on."""
        if self._program is None:
            raise RuntimeError(f"step = {self.name} has no program before its first epoch")
        return self._program

    @property
    def chunk(self) -> int:
        """Optimizer steps of a usual step input."""
        return 1

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to take the same form."""
        return {"form": self.name, "fast": self.fast}

    def step_inputs(
        self, loader: Iterable[Any], skip: int = 0, skipped: Callable[[], None] = lambda: None
    ) -> Iterator[StepInput]:
        """Yield what `__call__` takes, until one pass over the loader is done; see `EagerStep.step_inputs`."""
        for number, step_input in enumerate(self.eager.step_inputs(loader, skip, skipped)):
            if number == 0:
                self.begin_epoch(step_input.microbatches[0])
            yield step_input

    def begin_epoch(self, batch: Any) -> None:
        """Make the program in the first epoch; in later ones look whether it still is what the loss function does."""
        if not self.fast:
            return
        if self._program is None:
            start = time.monotonic()
            try:
                self.build(batch)
            except Exception as error:  # whatever recording and compiling a loss function of anybody's may raise
                self._leave_if_stopped()
                self.fall_back(why_not(error))
            self._seconds = time.monotonic() - start
            return
        # A batch of another shape says nothing; it is done in eager form anyway.
        difference = self._program.difference(batch) if self._program.fits(batch) else None
        difference = difference or self.rule_changed()
        if difference:
            epoch = self.run.record.progress.epoch + 1
            self.fall_back(
                f"the loss function is another one in epoch {epoch}: {difference}. What follows from the number of the "
                "step, not of the epoch, was held fixed in the epoch before"
            )

    def rule_changed(self) -> str | None:
        """Say what of the update, besides the learning rate, is no longer as it was compiled."""
        return None

    def __call__(self, step_input: StepInput) -> None:
        """Do the steps of a step input, in this form where it can be."""
        if not self.fast or not self.fits(step_input):
            for single in self.single_steps(step_input):
                self.eager(single)
        elif self._unchecked:
            self._check(step_input)
        else:
            self.do_steps(step_input)
            self.eager.after_update()

    def single_steps(self, step_input: StepInput) -> Iterator[StepInput]:
        """Yield the steps of a step input as eager takes them."""
        yield step_input

    def fall_back(self, reason: str) -> None:
        """Go on in eager form, and say why."""
        self.fast = False
        self.evaluation.fast = False
        logger.warning(f"step = {self.name} is not possible, going on with eager: {reason}")

    def _leave_if_stopped(self) -> None:
        """Leave before falling back, where a signal has come: Ctrl-C, say, ends the C++ compiler as well as asking us.

        A run that fell back for that would go on in eager form when it is resumed, and give other bits. What is lost is
        less than three steps, which a resumed run does again.

        Raises:
            Interrupted: the run is asked to stop.
        """
        if self.run.stop_request.wanted is not None:
            self.run.stop_request.obey(agree=False)

    def _check(self, step_input: StepInput) -> None:
        """Do a step in both forms from the same state, and keep what the fast one did."""
        (single,) = self.single_steps(step_input)
        before = TrainingState(self.run)
        meter, reference = self.run.meter.copy(), EpochMeter()
        with self.run.measuring_with(reference):
            self.eager.step(single)
        expected = TrainingState(self.run, whole=False)
        before.restore()
        start = time.monotonic()
        try:
            problem = self._changed_loss(single) or self._gradient_problem(single)
            if not problem:
                self.do_steps(step_input)
                losses = (reference.mean("loss"), _loss_between(meter, self.run.meter))
                problem = self._problem(before, expected, losses)
        except Exception as error:  # the compiler's, which compiles at the first call
            before.restore()
            self._leave_if_stopped()
            problem = why_not(error)
        self._seconds += time.monotonic() - start
        if problem:
            before.restore()
            self.run.meter = meter
            self.fall_back(problem)
            self.eager(single)
            return
        self.eager.after_update()
        self._unchecked -= 1
        if not self._unchecked:
            # The compiler leaves a million objects behind that every later garbage collection would walk through.
            gc.collect()
            gc.freeze()
            logger.info(
                f"step = {self.name}: compiled in {self._seconds:.1f} s; the first {_CHECKED} steps are eager's "
                f"(losses within {self._worst:.1g})"
            )

    def _problem(self, before: TrainingState, expected: TrainingState, losses: tuple[float, float]) -> str | None:
        """Compare a step's loss and update with eager's. Reading them synchronises.

        Args:
            before: state that the step began with.
            expected: state after the same step in eager form.
            losses: loss of the step in eager form, and in the fast form.
        """
        coarse = coarseness(self.run)
        off = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-12)
        self._worst = max(self._worst, off)
        if not off <= LOSS_TOLERANCE * coarse:
            return f"the compiled step's loss is {losses[1]:.8g}, eager's is {losses[0]:.8g}"
        count = len(before.parameters)
        moved = miss = 0.0
        for tensor, old, new in zip(before.parameters, before.values, expected.values[:count], strict=False):
            loud = self._loud.get(tensor.data_ptr())
            if loud is not None:
                moved += float((new - old)[loud].double().square().sum())
                miss += float((tensor - new)[loud].double().square().sum())
        if miss > (_UPDATE_TOLERANCE * min(coarse, 3.0)) ** 2 * moved:
            return f"the compiled step's update differs from eager's by {(miss / max(moved, 1e-300)) ** 0.5:.1%}"
        for buffer, new in zip(before.buffers, expected.values[count:], strict=True):
            if not torch.allclose(buffer.double(), new.double(), rtol=1e-3 * coarse, atol=1e-5 * coarse):
                return "the compiled step's buffers differ from eager's"
        return None

    def _changed_loss(self, step_input: StepInput) -> str | None:
        """Look whether the loss function does something else than at the step before: it then follows the number."""
        program, batch = self.program, step_input.microbatches[0]
        difference = program.difference(batch) if program.fits(batch) else None
        return f"the loss function is another one from step to step: {difference}" if difference else None

    def _gradient_problem(self, step_input: StepInput) -> str | None:
        """Compare the recorded gradients of a batch with autograd's, tensor by tensor. Reading them synchronises."""
        program, batch = self.program, step_input.microbatches[0]
        trained = [program.parameters[number] for number in program.trained]
        kept = [buffer.clone() for buffer in program.buffers]
        with self.run.measuring_with(EpochMeter()), preserved_random_states():
            expected = torch.autograd.grad(self.run.loss_function(batch), trained, allow_unused=True)
        for buffer, value in zip(program.buffers, kept, strict=True):
            buffer.copy_(value)
        with torch.no_grad(), preserved_random_states():
            found = program.graph(*program.inputs(batch))[: len(trained)]
        norms = [0.0 if gradient is None else float(gradient.norm()) for gradient in expected]
        coarse = coarseness(self.run)
        usual = math.hypot(*norms) / max(1, sum(other.numel() for other in found)) ** 0.5
        self._loud = {
            parameter.data_ptr(): gradient.abs() > _LOUD * usual
            for parameter, gradient in zip(trained, expected, strict=True)
            if gradient is not None
        }
        for gradient, other, norm in zip(expected, found, norms, strict=True):
            # What is 0 but for rounding, such as the bias before a normalisation, can't be compared with itself.
            allowed = _GRADIENT_TOLERANCE * coarse * norm + 1e-5 * coarse * math.hypot(*norms)
            if gradient is None or not float((other - gradient).norm()) <= allowed:
                shape = tuple(other.shape)
                return f"the recorded gradient of a parameter {shape} differs from eager's"
        return None

    @torch.no_grad()
    def evaluate(self, loader: Iterable[Any]) -> int:
        """Put every batch through the loss function in evaluation mode, which measures it; return their number."""
        return self.evaluation(loader) if self.fast and self.evaluation.fast else self.eager.evaluate(loader)


class CompiledStep(FastStep):
    """Forward, loss and backward as one compiled program; the optimizer is torch's fused one."""

    name = "compiled"

    def build(self, batch: Any) -> None:
        """Record the loss function; it is compiled at its first call."""
        refuse_scaled_loss(self.run)
        trained = [parameter for parameter in self.eager.update.parameters if parameter.requires_grad]
        self._program = program = LossProgram(self.run, batch, trained)
        self._trained = [program.parameters[number] for number in program.trained]
        self._function = self.compile(program.graph)

    def fits(self, step_input: StepInput) -> bool:
        """Say whether all batches have the shapes that the program is made for."""
        program = self.program
        return all(program.fits(batch) for batch in step_input.microbatches)

    def do_steps(self, step_input: StepInput) -> None:
        """Run the program for each batch of a step input, add the gradients up, update."""
        program, count, update = self.program, len(self._trained), self.eager.update
        update.guard.begin(step_input.microbatches)
        sums: list[torch.Tensor] = []
        unit: float | torch.Tensor | None = None
        total: float | torch.Tensor | None = None
        for batch in step_input.microbatches:
            with torch.no_grad():
                found = self._function(*program.inputs(batch))
            gradients, values = list(found[:count]), found[-1]
            update.guard.see(program.loss_sum(values))
            for buffer, new in zip(program.buffers, found[count:-1], strict=True):
                buffer.copy_(new)
            program.meter(values, 1)
            if len(step_input.microbatches) > 1:
                weight = program.loss_count(values)
                unit = at_least_one(weight) if unit is None else unit
                torch._foreach_mul_(gradients, weight / unit)
                total = weight / unit if total is None else total + weight / unit
            if sums:
                torch._foreach_add_(sums, gradients)
            else:
                sums = gradients
        update.zero_grad()
        for parameter, gradient in zip(self._trained, sums, strict=True):
            parameter.grad = gradient
        divisor = None if total is None else torch.as_tensor(total, dtype=sums[0].dtype, device=sums[0].device)
        self.eager.finish(divisor)


def refuse_scaled_loss(run: RunContext) -> None:
    """Raise for a precision whose loss is scaled by what the steps before have met."""
    if run.precision.scaler is not None:
        raise ValueError("precision = fp16 scales the loss by what earlier steps have met; bf16 can be compiled")


def _loss_between(before: EpochMeter, after: EpochMeter) -> float:
    """Return the mean loss that a meter got from one moment to another."""
    (total, samples), (earlier, known) = after.total("loss"), before.total("loss")
    return (total - earlier) / max(samples - known, 1e-300)
