"""Validation through compiled programs."""

from collections.abc import Callable, Iterable
from typing import Any

from beautilog import logger

from train.compiled.compiling import why_not
from train.compiled.program import ImpureLoss, LossProgram, metered
from train.loop.meters import EpochMeter
from train.seeding import preserved_random_states

LOSS_TOLERANCE = 1e-4  # relative, of fp32; lower precision rounds more


def coarseness(trainer: Any) -> float:
    """Return how many times larger differences may be than in float32."""
    return 1.0 if trainer.config.precision in ("fp32", "tf32") else 300.0


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

    def __call__(self, loader: Iterable[Any]) -> int:
        """Measure all batches; return how many there were."""
        number = 0
        for number, batch in enumerate(loader, 1):
            if number == 1 and self.fast:
                self.look(batch, lambda batch=batch: self._measure(batch))
            fits = self.fast and self._program[0].fits(batch)
            if not (fits and self.attempt(lambda batch=batch: self._measure(batch))):
                self.trainer._forward_batch(batch)
            self.trainer.obey_in_validation()
        return number

    def measure_eagerly(self, loader: Iterable[Any]) -> int:
        """Measure all batches, operation by operation; return how many there were."""
        number = 0
        for number, batch in enumerate(loader, 1):  # noqa: B007
            self.trainer._forward_batch(batch)
            self.trainer.obey_in_validation()
        return number

    def look(self, batch: Any, measure: Callable[[], None]) -> None:
        """Make the program and compare it with eager, or look whether it still is what the hook does.

        Gives up, with the reason in the log, where that is not so.

        Args:
            batch: the first one.
            measure: measures it by the program.
        """

        def made_or_same() -> None:
            if self._program is None:
                program = LossProgram(self.trainer, batch, [])
                self._program = (program, self.compiled(program))
                self._compare(batch, measure)
                return
            difference = self._program[0].difference(batch) if self._program[0].fits(batch) else None
            if difference:
                raise ImpureLoss(f"the hook is another one now: {difference}")

        self.attempt(made_or_same)

    def _compare(self, batch: Any, measure: Callable[[], None]) -> None:
        """Measure a batch in both forms; reading the losses synchronises."""
        losses = []
        for form in (lambda: self.trainer._forward_batch(batch), measure):
            meter = EpochMeter()
            with metered(self.trainer, meter), preserved_random_states():
                form()
            losses.append(meter.read_one("loss"))
        if not abs(losses[1] - losses[0]) <= LOSS_TOLERANCE * coarseness(self.trainer) * max(abs(losses[0]), 1e-12):
            raise ImpureLoss(f"the compiled loss of the first batch is {losses[1]:.8g}, eager's is {losses[0]:.8g}")

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
            logger.warning(f"validation goes on in eager form: {why_not(error)}")
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
