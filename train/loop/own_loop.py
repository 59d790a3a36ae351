"""What a `train()` of an author's own does in an epoch, heard so that `BaseTrainer.epochs()` need not be told."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch.optim import Optimizer

from storage.errors import ResumeError
from train.loop.record import RunRecord
from train.loop.stop_signals import StopRequest


class OwnLoop:
    """The epoch at hand of a loop `for epoch in self.epochs():`.

    Attributes:
        in_use: whether `train()` goes through the run by `epochs()` or by the base class's loop, so that a resumed run
            goes on where it was; else it is a plain loop, which knows nothing of what was done before.
        validated: whether the epoch's body has called `validate`.
        val_loss: validation loss that it returned last; None where there was none.
        is_best: whether the body has noted that loss as the lowest so far.
        stop: answer of the body's last call of `check_early_stopping`; None where there was none.
    """

    def __init__(self) -> None:
        self.in_use = False
        self._counts, self._refusal = True, ""
        self._finish: Callable[[], bool] | None = None
        self._forget()

    def _forget(self) -> None:
        self.validated, self.is_best = False, False
        self.val_loss: float | None = None
        self.stop: bool | None = None

    @property
    def is_open(self) -> bool:
        """Whether the body of an epoch is at work, or was left by `break`."""
        return self._finish is not None

    def open(self, finish: Callable[[], bool]) -> None:
        """Begin an epoch.

        Args:
            finish: function that does what follows the body, and returns whether the run ends.
        """
        self._forget()
        self._finish = finish

    def close(self) -> bool:
        """Do what follows the body, if that is still to do; return whether the run ends."""
        finish, self._finish = self._finish, None
        return finish() if finish is not None else False

    def follow_base_loop(self) -> None:
        """Leave all counting to the base class's loop, which a `train()` that calls `super().train()` goes through."""
        self.in_use, self._counts = True, False

    def hear(self, verb: str, result: object) -> None:
        """Note what a verb of the trainer's returned, where the body of an epoch has called it.

        Args:
            verb: name of the method, `validate` or `check_early_stopping`.
            result: its result, whatever an author's own method returns.
        """
        if not self.is_open:
            return
        if verb == "check_early_stopping":
            self.stop = bool(result)
            return
        self.validated = True
        self.val_loss = float(result) if isinstance(result, int | float | torch.Tensor) else None

    def require_resumable(self) -> None:
        """See to it that a plain loop does not begin a resumed run anew.

        Raises:
            ResumeError: it is about to.
        """
        if self._refusal and not self.in_use:
            raise ResumeError(self._refusal)

    @contextmanager
    def listening(self, optimizer: Optimizer, record: RunRecord, stop: StopRequest, refusal: str) -> Iterator[None]:
        """Count an optimizer's steps for a block, and leave after a step where somebody wants the run to stop.

        Args:
            optimizer: the trainer's `optimizer`; of several optimizers this one counts.
            record: numbers of the run.
            stop: note that somebody wants the run to stop.
            refusal: text of the error with which a plain loop is refused before its first step; empty in a new run.
        """
        self._refusal = refusal

        def before(*_: object) -> None:
            self.require_resumable()

        def after(*_: object) -> None:
            if self._counts:
                record.progress.step += 1
                record.note_rates(optimizer)
                stop.obey()

        handles = []
        with contextlib.suppress(AttributeError):  # an optimizer that is none of torch's has no such hooks
            handles = [optimizer.register_step_pre_hook(before), optimizer.register_step_post_hook(after)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
