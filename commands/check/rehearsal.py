"""One epoch of a trainer's own `train()` on a few batches, with an ear on what it calls."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

BATCHES = 4  # of each loader
_MOST_FORWARDS = 200  # in a loop of the trainer's own, which may have another idea of its end


class _Endless(Exception):
    """A loop of the trainer's own that goes on."""


@dataclass
class Rehearsal:
    """What was heard.

    Attributes:
        val_losses: what `validate` returned.
        train_losses: of the training batches, in a loop of the trainer's own.
        scheduler_steps: what the scheduler's `step` was given, None where that was nothing.
        asked_to_stop: calls of `check_early_stopping`.
        ended: whether `train()` came to its end.
    """

    val_losses: list[float] = field(default_factory=list)
    train_losses: list[float] = field(default_factory=list)
    scheduler_steps: list[float | None] = field(default_factory=list)
    asked_to_stop: int = 0
    ended: bool = True


class _First:
    """A loader's first batches; all else is the loader's."""

    def __init__(self, loader: Any, count: int) -> None:
        self._loader, self._count = loader, count

    def __iter__(self) -> Iterator[Any]:
        return islice(iter(self._loader), self._count)

    def __len__(self) -> int:
        return min(self._count, len(self._loader))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)


def rehearse(trainer: Any) -> Rehearsal:
    """Run `train()` for one epoch of four batches, in the throwaway run folder; nothing is published at its end.

    Args:
        trainer: a BaseTrainer that is built, with the options of a dry run. Its history has an epoch afterwards.
    """
    heard = Rehearsal()
    config, loaders, epochs = trainer.config, (trainer.train_loader, trainer.val_loader), trainer.config.epochs
    wrapped = {
        "validate": _noting(trainer.validate, lambda result, *_: heard.val_losses.append(float(result))),
        "check_early_stopping": _noting(trainer.check_early_stopping, lambda *_: _count(heard)),
    }
    if trainer.owns_loop:
        wrapped["_forward_batch"] = _limited(trainer, heard)
    trainer.__dict__.update(wrapped)
    trainer.train_loader, trainer.val_loader = (
        _First(loaders[0], BATCHES * config.accumulation_steps), _First(loaders[1], BATCHES)
    )  # fmt: skip
    config.epochs = 1
    trainer.in_session = True  # the session's end would publish weights and do what follows a whole run
    trainer.record.start_clock()
    try:
        with _listening_to(trainer.scheduler, heard):
            trainer.train()
        trainer.saver.flush(trainer)
    except _Endless:
        heard.ended = False
    finally:
        trainer.in_session = False
        config.epochs = epochs
        trainer.train_loader, trainer.val_loader = loaders
        for name in wrapped:
            del trainer.__dict__[name]
    return heard


@contextmanager
def _listening_to(scheduler: Any, heard: Rehearsal) -> Iterator[None]:
    """Note what a scheduler's `step` is given. Its class is changed for that: what the object holds is its state."""
    kind = type(scheduler)
    own, before = "step" in kind.__dict__, kind.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self is scheduler:
            given = [*args, *kwargs.values()]
            heard.scheduler_steps.append(float(given[0]) if given and given[0] is not None else None)
        return before(self, *args, **kwargs)

    kind.step = step
    try:
        yield
    finally:
        if own:
            kind.step = before
        else:
            del kind.step


def _noting(method: Any, note: Any) -> Any:
    def noting(*args: Any, **kwargs: Any) -> Any:
        result = method(*args, **kwargs)
        note(result, *args)
        return result

    return noting


def _count(heard: Rehearsal) -> None:
    heard.asked_to_stop += 1


def _limited(trainer: Any, heard: Rehearsal) -> Any:
    """Return the trainer's hook, which notes its training losses and ends a loop that goes on and on."""
    forward, left = trainer._forward_batch, iter(range(_MOST_FORWARDS))

    def limited(batch: Any) -> Any:
        if next(left, None) is None:
            raise _Endless
        loss = forward(batch)
        if trainer.model.training:
            heard.train_losses.append(loss.item())  # host-device synchronisation
        return loss

    return limited
