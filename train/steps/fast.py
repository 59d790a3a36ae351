"""Steps that are compiled. What they share: a program of the loss, a check against eager, a way back to it."""

import copy
import gc
import math
import time
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from beautilog import logger

from train.meters import EpochMeter
from train.seeding import random_states, set_random_states
from train.steps.eager import EagerStep, Window
from train.steps.program import ImpureLoss, LossProgram, metered
from train.steps.purity import buffers_of, places_of

_CHECKED = 3  # steps at the start that are done in both forms
_LOSS_TOLERANCE = 1e-4  # relative, of fp32; lower precision rounds more
_GRADIENT_TOLERANCE = 1e-3  # relative to each tensor's norm
_UPDATE_TOLERANCE = 0.1  # of the update's norm: Adam makes full steps of gradients that are rounding noise


def own_code(function: types.FunctionType) -> types.FunctionType:
    """Return a function with a code object of its own: torch counts compilations by it, for all runs of a process."""
    code = function.__code__.replace()
    return types.FunctionType(
        code, function.__globals__, function.__name__, function.__defaults__, function.__closure__
    )


def compile_exactly(function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
    """Compile a function of tensors, for one set of shapes, so that it computes what it would without."""
    # torch's own random numbers: the masks of dropout are then those of the eager form, and resume as they do.
    return torch.compile(function, fullgraph=True, dynamic=False, options={"fallback_random": True, **options})


class FastStep:
    """A step that falls back to `eager` where it can't be what eager is. Its subclasses say what is compiled.

    The first steps are done in both forms from the same state; the fast one counts, so that a resumed run, which checks
    again, gets the same bits. At each epoch's start the hook is looked at: if it would now ask for other operations
    than those that were compiled, the run goes on in eager form.

    Args:
        trainer: a BaseTrainer.
        eager: the step that this one must equal.
    """

    name = "fast"

    def __init__(self, trainer: Any, eager: EagerStep) -> None:
        self.trainer, self.eager = trainer, eager
        self.program: LossProgram | None = None
        self.evaluation: Evaluation = Evaluation(trainer, self.compile)
        self.fast = True
        self._unchecked = _CHECKED
        self._worst = 0.0  # relative difference of a loss from eager's
        self._seconds = 0.0

    # ------------------------------------------------------------------------------- what a form gives

    def build(self, batch: Any) -> None:
        """Make the program; may raise anything, which is then the reason to fall back."""
        raise NotImplementedError

    def run(self, piece: Any) -> None:
        """Do a piece's steps, fast; what follows the last one (`after_update`) is done for it."""
        raise NotImplementedError

    def fits(self, piece: Any) -> bool:
        """Say whether the program is made for batches like these."""
        raise NotImplementedError

    @staticmethod
    def compile(function: Callable[..., Any]) -> Callable[..., Any]:
        """Compile a function of tensors."""
        return compile_exactly(function)

    # ------------------------------------------------------------------------------------- what all do

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to take the same form."""
        return {"form": self.name, "fast": self.fast}

    def pieces(self, loader: Iterable[Any]) -> Iterator[Any]:
        """Yield what `__call__` takes, until one pass over the loader is done."""
        for number, window in enumerate(self.eager.pieces(loader)):
            if number == 0:
                self.begin_epoch(window.batches[0])
            yield window

    def begin_epoch(self, batch: Any) -> None:
        """Make the program in the first epoch; in later ones look whether it still is what the hook does."""
        if not self.fast:
            return
        if self.program is None:
            start = time.monotonic()
            try:
                self.build(batch)
            except Exception as error:  # whatever recording and compiling a hook of anybody's may raise
                self.fall_back(_why(error))
            self._seconds = time.monotonic() - start
            return
        # A batch of another shape says nothing; it is done in eager form anyway.
        difference = self.program.difference(batch) if self.program.fits(batch) else None
        difference = difference or self.rule_changed()
        if difference:
            epoch = self.trainer.record.progress.epoch + 1
            self.fall_back(
                f"the hook is another one in epoch {epoch}: {difference}. What follows from the number of the step, "
                "not of the epoch, was held fixed in the epoch before"
            )

    def rule_changed(self) -> str | None:
        """Say what of the update, besides the learning rate, is no longer as it was compiled."""
        return None

    def __call__(self, piece: Any) -> None:
        """Do the steps of a piece, in this form where it can be."""
        if not self.fast or not self.fits(piece):
            for window in self.windows_of(piece):
                self.eager(window)
        elif self._unchecked:
            self._check(piece)
        else:
            self.run(piece)
            self.eager.after_update()

    def windows_of(self, piece: Any) -> Iterator[Window]:
        """Yield a piece's steps as eager takes them."""
        yield piece

    def fall_back(self, reason: str) -> None:
        """Go on in eager form, and say why."""
        self.fast = False
        self.evaluation.fast = False
        logger.warning(f"step = {self.name} is not possible, going on with eager: {reason}")

    def _check(self, piece: Any) -> None:
        """Do a step in both forms from the same state, and keep what the fast one did."""
        (window,) = self.windows_of(piece)
        before = TrainingState(self.trainer)
        meter, reference = self.trainer._meter.copy(), EpochMeter()
        with metered(self.trainer, reference):
            self.eager.step(window)
        expected = TrainingState(self.trainer)
        before.restore()
        start = time.monotonic()
        try:
            problem = self._changed_hook(window) or self._gradient_problem(window)
            if not problem:
                self.run(piece)
                losses = (reference.read_one("loss"), _loss_between(meter, self.trainer._meter))
                problem = self._problem(before, expected, losses)
        except Exception as error:  # the compiler's, which compiles at the first call
            problem = _why(error)
        self._seconds += time.monotonic() - start
        if problem:
            before.restore()
            self.trainer._meter = meter
            self.fall_back(problem)
            self.eager(window)
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

    def _problem(self, before: "TrainingState", expected: "TrainingState", losses: tuple[float, float]) -> str | None:
        """Compare a step's loss and update with eager's. Reading them synchronises.

        Args:
            before: the state that the step began with.
            expected: what eager made of it.
            losses: eager's, and the fast form's.
        """
        coarse = _coarse(self.trainer)
        off = abs(losses[1] - losses[0]) / max(abs(losses[0]), 1e-12)
        self._worst = max(self._worst, off)
        if not off <= _LOSS_TOLERANCE * coarse:
            return f"the compiled step's loss is {losses[1]:.8g}, eager's is {losses[0]:.8g}"
        count = len(before.parameters)
        moved = miss = 0.0
        for tensor, old, new in zip(before.parameters, before.values, expected.values[:count], strict=False):
            if tensor.is_floating_point():
                moved += float((new - old).double().square().sum())
                miss += float((tensor - new).double().square().sum())
        if miss > (_UPDATE_TOLERANCE * min(coarse, 3.0)) ** 2 * moved:
            return f"the compiled step's update differs from eager's by {(miss / max(moved, 1e-300)) ** 0.5:.1%}"
        for buffer, new in zip(before.buffers, expected.values[count:], strict=True):
            if not torch.allclose(buffer.double(), new.double(), rtol=1e-3 * coarse, atol=1e-5 * coarse):
                return "the compiled step's buffers differ from eager's"
        return None

    def _changed_hook(self, window: Window) -> str | None:
        """Look whether the hook does something else than at the step before: then it follows the step's number."""
        batch = window.batches[0]
        difference = self.program.difference(batch) if self.program.fits(batch) else None
        return f"the hook is another one from step to step: {difference}" if difference else None

    def _gradient_problem(self, window: Window) -> str | None:
        """Compare the recorded gradients of a batch with autograd's, tensor by tensor. Reading them synchronises."""
        program, batch = self.program, window.batches[0]
        before = TrainingState(self.trainer)
        with metered(self.trainer, EpochMeter()):
            loss = self.trainer._forward_batch(batch)
        trained = [program.parameters[number] for number in program.trained]
        expected = torch.autograd.grad(loss, trained, allow_unused=True)
        before.restore()
        with torch.no_grad():
            found = program.graph(*program.inputs(batch))[: len(trained)]
        before.restore()
        norms = [0.0 if gradient is None else float(gradient.norm()) for gradient in expected]
        coarse = _coarse(self.trainer)
        for gradient, other, norm in zip(expected, found, norms, strict=True):
            # What is 0 but for rounding, such as the bias before a normalisation, can't be compared with itself.
            allowed = _GRADIENT_TOLERANCE * coarse * norm + 1e-5 * coarse * math.hypot(*norms)
            if gradient is None or not float((other - gradient).norm()) <= allowed:
                shape = tuple(other.shape)
                return f"the recorded gradient of a parameter {shape} differs from eager's"
        return None

    @torch.no_grad()
    def evaluate(self, loader: Iterable[Any]) -> None:
        """Put every batch through the forward hook in evaluation mode, which measures it."""
        if self.fast and self.evaluation.fast:
            self.evaluation(loader)
        else:
            self.eager.evaluate(loader)


class CompiledStep(FastStep):
    """Forward, loss and backward as one compiled program; the optimizer is torch's fused one."""

    name = "compiled"

    def build(self, batch: Any) -> None:
        """Record the hook; it is compiled at its first call."""
        refuse_scaled_loss(self.trainer)
        trained = [parameter for parameter in self.eager.update.parameters if parameter.requires_grad]
        self.program = LossProgram(self.trainer, batch, trained)
        self._trained = [self.program.parameters[number] for number in self.program.trained]
        self._function = self.compile(self.program.graph)

    def fits(self, piece: Window) -> bool:
        """Say whether all batches have the shapes that the program is made for."""
        return all(self.program.fits(batch) for batch in piece.batches)

    def run(self, piece: Window) -> None:
        """Run the program for each batch of a window, add the gradients up, update."""
        program, count = self.program, len(self._trained)
        sums: list[torch.Tensor] = []
        unit = total = None
        for batch in piece.batches:
            with torch.no_grad():
                found = self._function(*program.inputs(batch))
            gradients, values = list(found[:count]), found[-1]
            for buffer, new in zip(program.buffers, found[count:-1], strict=True):
                buffer.copy_(new)
            program.meter(values, 1)
            if len(piece.batches) > 1:
                weight = program.loss_count(values)
                unit = weight if unit is None else unit
                torch._foreach_mul_(gradients, weight / unit)
                total = weight / unit if total is None else total + weight / unit
            if sums:
                torch._foreach_add_(sums, gradients)
            else:
                sums = gradients
        self.eager.update.zero_grad()
        for parameter, gradient in zip(self._trained, sums, strict=True):
            parameter.grad = gradient
        divisor = None if total is None else torch.as_tensor(total, dtype=sums[0].dtype, device=sums[0].device)
        self.eager.finish(divisor)


class Evaluation:
    """Validation through compiled programs, one for each shape of batch.

    Args:
        trainer: a BaseTrainer.
        compile: compiles a function of tensors.
    """

    def __init__(self, trainer: Any, compile: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.trainer, self.compile = trainer, compile
        self.fast = True
        self._program: tuple[LossProgram, Callable[..., Any]] | None = None

    def __call__(self, loader: Iterable[Any]) -> None:
        """Measure all batches."""
        for number, batch in enumerate(loader):
            if number == 0 and self.fast:
                self.look(batch)
            fits = self.fast and self._program[0].fits(batch)
            if not (fits and self.attempt(lambda batch=batch: self._measure(batch))):
                self.trainer._forward_batch(batch)

    def measure_eagerly(self, loader: Iterable[Any]) -> None:
        """Measure all batches, operation by operation."""
        for batch in loader:
            self.trainer._forward_batch(batch)

    def look(self, batch: Any) -> None:
        """Make the program, or look whether it still is what the hook does; give up if it isn't."""

        def made_or_same() -> None:
            if self._program is None:
                program = LossProgram(self.trainer, batch, [])
                self._program = (program, self.compiled(program))
                return
            difference = self._program[0].difference(batch) if self._program[0].fits(batch) else None
            if difference:
                raise ImpureLoss(f"the hook is another one now: {difference}")

        self.attempt(made_or_same)

    def attempt(self, do: Callable[[], None]) -> bool:
        """Do something fast; where that fails, say why and give up. Returns whether it was done."""
        if not self.fast:
            return False
        meter = EpochMeter()
        try:
            with metered(self.trainer, meter):
                do()
        except Exception as error:  # whatever recording and compiling a hook of anybody's may raise
            self.fast = False
            logger.warning(f"validation goes on in eager form: {_why(error)}")
            return False
        self.trainer._meter.merge(meter)
        return True

    def function(self, program: LossProgram) -> Callable[..., Any]:
        """Return what is compiled."""
        return program.graph

    def compiled(self, program: LossProgram) -> Callable[..., Any]:
        """Return it compiled."""
        return self.compile(self.function(program))

    def _measure(self, batch: Any) -> None:
        program, function = self._program
        program.meter(function(*program.inputs(batch))[-1], 1)


class TrainingState:
    """A copy of all tensors that a step changes, and of the random numbers' states."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        places = list(places_of(trainer))
        found = [*trainer._update.parameters, *(trainer._average.averages if trainer._average is not None else [])]
        found += [tensor for place in places for tensor in place.get("_parameters", {}).values() if tensor is not None]
        self.parameters = [tensor.detach() for tensor in {id(tensor): tensor for tensor in found}.values()]
        self.buffers = buffers_of(places)
        self.tensors = [*self.parameters, *self.buffers]
        self.values = [tensor.clone() for tensor in self.tensors]
        self._optimizer = copy.deepcopy(trainer.optimizer.state_dict())
        self._moments = [(tensor, tensor.clone()) for tensor in _optimizer_tensors(trainer.optimizer)]
        self._random = random_states()

    def restore(self) -> None:
        """Put everything back."""
        for tensor, value in zip(self.tensors, self.values, strict=True):
            tensor.copy_(value)
        now = _optimizer_tensors(self._trainer.optimizer)
        if len(now) == len(self._moments) and all(a is b for a, (b, _) in zip(now, self._moments, strict=True)):
            for tensor, value in self._moments:  # where they are: a captured graph knows their addresses
                tensor.copy_(value)
        else:
            self._trainer.optimizer.load_state_dict(copy.deepcopy(self._optimizer))
        set_random_states(self._random)


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    states = [state.values() for state in optimizer.state.values()]
    tensors = [value for values in states for value in values if isinstance(value, torch.Tensor)]
    return list({id(tensor): tensor for tensor in tensors}.values())


def refuse_scaled_loss(trainer: Any) -> None:
    """Raise for a precision whose loss is scaled by what the steps before have met."""
    if trainer._precision.scaler is not None:
        raise ValueError("precision = fp16 scales the loss by what earlier steps have met; bf16 can be compiled")


def _loss_between(before: EpochMeter, after: EpochMeter) -> float:
    """Return the mean loss that a meter got from one moment to another."""
    (total, samples), (earlier, known) = after.total("loss"), before.total("loss")
    return (total - earlier) / max(samples - known, 1e-300)


def _coarse(trainer: Any) -> float:
    """Return how many times larger differences may be than in float32."""
    return 1.0 if trainer.config.precision in ("fp32", "tf32") else 300.0


def _why(error: Exception) -> str:
    if isinstance(error, ImpureLoss | ValueError):
        return str(error)
    text = (str(error).strip() or type(error).__name__).splitlines()[0][:300]
    if "Cxx" in type(error).__name__ or "No working C++ compiler" in str(error):
        return "there is no C++ compiler here, which torch.compile needs on the CPU (Debian: apt install g++)"
    return f"it can't be compiled: {type(error).__name__}: {text}"
