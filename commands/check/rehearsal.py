"""One epoch of a trainer's own `train()` on a few batches, with an ear on what it calls."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler

from data.loaders import Loader
from train.callbacks import Callbacks
from train.context import RunContext

BATCHES = 4  # of each loader
_MOST_FORWARDS = 200  # in a loop of the trainer's own, which may have another idea of its end


class _Endless(Exception):
    """A loop of the trainer's own that goes on."""


@dataclass
class Rehearsal:
    """What was heard.

    Attributes:
        val_losses: validation losses that `validate` returned.
        train_losses: losses of the training batches, in a loop of the trainer's own.
        scheduler_steps: argument of each call of the scheduler's `step`, None where there was none.
        asked_to_stop: number of calls of `check_early_stopping`.
        ended: whether `train()` came to its end.
    """

    val_losses: list[float] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    scheduler_steps: list[float | None] = field(default_factory=list)
    asked_to_stop: int = 0
    ended: bool = True


class _First:
    """A loader's first batches; all else is the loader's."""

    def __init__(self, loader: Loader, count: int) -> None:
        self._loader, self._count = loader, count

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._loader), self._count)

    def __len__(self) -> int:
        return min(self._count, len(self._loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def rehearse(run: RunContext, epochs: int = 1) -> Rehearsal:
    """Run `train()` for some epochs of four batches each, in the throwaway run folder; nothing is published at its end.

    Args:
        run: run of a trainer that is built, with the options of a dry run. Its history has an epoch afterwards. Its
            callbacks are not called.
        epochs: number of epochs of the run, those that it has done before included.
    """
    heard, trainer, callbacks = Rehearsal(), run.trainer, run.callbacks
    config, loaders, planned = run.config, (run.train_loader, run.val_loader), run.config.epochs
    wrapped = {
        "validate": _noting(trainer.validate, lambda result, *_: heard.val_losses.append(run.record.monitored(result))),
        "check_early_stopping": _noting(trainer.check_early_stopping, lambda *_: _count(heard)),
    }
    if run.owns_loop:
        wrapped["_forward_batch"] = _limited(run, heard, epochs)
    run.attributes.update(wrapped)
    trainer.train_loader = _First(loaders[0], BATCHES * config.accumulation_steps)
    trainer.val_loader = _First(loaders[1], BATCHES)
    config.epochs = epochs
    run.in_session = True  # the session's end would publish weights and do what follows a whole run
    run.record.start_clock()
    try:
        run.callbacks = Callbacks()
        with _listening_to(run.scheduler, heard), _counted_steps(run):
            trainer.train()
        run.saver.flush()
    except _Endless:
        heard.ended = False
    finally:
        run.in_session, run.callbacks = False, callbacks
        config.epochs = planned
        trainer.train_loader, trainer.val_loader = loaders
        for name in wrapped:
            del run.attributes[name]
    return heard


def _counted_steps(run: RunContext) -> AbstractContextManager[None]:
    """Count the steps of a loop of the trainer's own, as the session does."""
    if not run.owns_loop:
        return nullcontext()
    return run.own_loop.listening(run.optimizer, run.record, run.stop_request, "")


@contextmanager
def _listening_to(scheduler: LRScheduler, heard: Rehearsal) -> Iterator[None]:
    """Note what a scheduler's `step` is given. Its class is changed for that: what the object holds is its state."""
    kind = type(scheduler)
    own, before = "step" in kind.__dict__, kind.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is scheduler:
            given = [*args, *kwargs.values()]
            heard.scheduler_steps.append(float(given[0]) if given and given[0] is not None else None)
        return before(self, *args, **kwargs)

    kind.step = step  # type: ignore[method-assign]  # on purpose, while the rehearsal lasts
    try:
        yield
    finally:
        if own:
            kind.step = before  # type: ignore[method-assign]  # likewise
        else:
            del kind.step


def _noting(method: Callable[..., Any], note: Callable[..., object]) -> Callable[..., Any]:
    def noting(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        note(result, *args)
        return result

    return noting


def _count(heard: Rehearsal) -> None:
    heard.asked_to_stop += 1


def _limited(run: RunContext, heard: Rehearsal, epochs: int) -> Callable[[Any], torch.Tensor]:
    """Return the trainer's loss function, which notes its training losses and ends a loop that goes on and on."""
    forward, left = run.loss_function, iter(range(_MOST_FORWARDS * epochs))

    def limited(batch: Any) -> Any:
        if next(left, None) is None:
            raise _Endless
        loss = forward(batch)
        if run.model.training:
            heard.train_losses.append(loss.item())  # host-device synchronisation
        return loss

    return limited
