"""Validation through compiled programs."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from beautilog import logger

from train.compiled.compiling import why_not
from train.compiled.program import ImpureLoss, LossProgram
from train.context import RunContext
from train.loop.meters import EpochMeter
from train.seeding import preserved_random_states

LOSS_TOLERANCE = 1e-4  # relative, of fp32; lower precision rounds more


def coarseness(run: RunContext) -> float:
    """Return how many times larger differences may be than in float32."""
    return 1.0 if run.config.precision in ("fp32", "tf32") else 300.0


class Evaluation:
    """Validation through compiled programs, one for each shape of batch.

    Args:
        run: run whose validations are done.
        compile: function that compiles a function of tensors.
    """

    def __init__(self, run: RunContext, compile: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
        self.run, self.compile = run, compile
        self.fast = True
        self._program: LossProgram | None = None

    def __call__(self, loader: Iterable[Any]) -> int:
        """Measure all batches; return how many there were."""
        number = 0
        for number, batch in enumerate(loader, 1):
            if number == 1 and self.fast:
                self.verify(batch, partial(self._measure, batch))
            fits = self.fast and self.program.fits(batch)
            if not (fits and self.attempt(partial(self._measure, batch))):
                self.run.loss_function(batch)
            self.run.obey_in_validation()
        return number

    @property
    def program(self) -> LossProgram:
        """The loss as a program, as soon as there was a batch."""
        if self._program is None:
            raise RuntimeError("a validation has no program before its first batch")
        return self._program

    def measure_eagerly(self, loader: Iterable[Any]) -> int:
        """Measure all batches, operation by operation; return how many there were."""
        number = 0
        for number, batch in enumerate(loader, 1):  # noqa: B007
            self.run.loss_function(batch)
            self.run.obey_in_validation()
        return number

    def verify(self, batch: Any, measure: Callable[[], None]) -> None:
        """Make the program and compare it with eager, or look whether it still is what the loss function does.

        Gives up, with the reason in the log, where that is not so.

        Args:
            batch: first batch of the validation.
            measure: function that measures the first batch by the program.
        """

        def made_or_same() -> None:
            if self._program is None:
                program = LossProgram(self.run, batch, [])
                self._program, self._function = program, self.compiled(program)
                self._compare(batch, measure)
                return
            difference = self._program.difference(batch) if self._program.fits(batch) else None
            if difference:
                raise ImpureLoss(f"the loss function is another one now: {difference}")

        self.attempt(made_or_same)

    def _compare(self, batch: Any, measure: Callable[[], None]) -> None:
        """Measure a batch in both forms; reading the losses synchronises."""
        losses = []
        forms: tuple[Callable[[], object], ...] = (partial(self.run.loss_function, batch), measure)
        for form in forms:
            meter = EpochMeter()
            with self.run.measuring_with(meter), preserved_random_states():
                form()
            losses.append(meter.mean("loss"))
        if not abs(losses[1] - losses[0]) <= LOSS_TOLERANCE * coarseness(self.run) * max(abs(losses[0]), 1e-12):
            raise ImpureLoss(f"the compiled loss of the first batch is {losses[1]:.8g}, eager's is {losses[0]:.8g}")

    def attempt(self, do: Callable[[], None]) -> bool:
        """Do something fast; where that fails, say why and give up. Returns whether it was done.

        Args:
            do: function that measures batches, fast.
        """
        if not self.fast:
            return False
        meter = EpochMeter()
        try:
            with self.run.measuring_with(meter):
                do()
        except Exception as error:  # whatever recording and compiling a loss function of anybody's may raise
            self.fast = False
            logger.warning(f"validation goes on in eager form: {why_not(error)}")
            return False
        self.run.meter.merge(meter)
        return True

    def function(self, program: LossProgram) -> Callable[..., Any]:
        """Return what is compiled."""
        return program.graph

    def compiled(self, program: LossProgram) -> Callable[..., Any]:
        """Return it compiled."""
        return self.compile(self.function(program))

    def _measure(self, batch: Any) -> None:
        program = self.program
        program.meter(self._function(*program.inputs(batch))[-1], 1)
