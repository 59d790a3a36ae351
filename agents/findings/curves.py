"""Findings in the curves of a training, and in what ended it."""

import math
from collections.abc import Iterator

from agents.findings.evidence import Evidence
from agents.state import Proposal

_RISE = 1.02  # val_loss at the end this many times its best: it has risen
_FALL = 0.01  # share by which val_loss still falls in the last epoch: it has not come to rest
_ABOVE, _SLOW = 0.3, 0.3  # nats above guessing, and share of the first epoch's loss: nothing was learned
_JUMP = 1.1  # training loss this many times the first epoch's: it does not learn but drifts away


def out_of_memory(seen: Evidence) -> Iterator[Proposal]:
    """The run ended for want of memory."""
    error, size, pieces = (
        seen.last["trained"]["error"],
        seen.number("batch_size", 1),
        seen.number("accumulation_steps", 1),
    )
    if "memory" in error.lower() and size > 1:
        yield Proposal(
            finding="out_of_memory", evidence=[error], weight=1.0,
            changes=[seen.change("batch_size", size // 2), seen.change("accumulation_steps", 2 * pieces, 1)],
            expected="half of the rows at a time need about half of the memory of activations; the step stays the same",
        )  # fmt: skip


def instability(seen: Evidence) -> Iterator[Proposal]:
    """Numbers became not finite."""
    error = seen.last["trained"]["error"]
    if "not finite" in error or "nan" in error.lower():
        yield Proposal(
            finding="instability", evidence=[error], weight=0.95,
            changes=[seen.change("learning_rate", seen.number("learning_rate") / 10)],
            expected="a tenth of the learning rate keeps the numbers finite",
        )  # fmt: skip


def learning_rate_too_high(seen: Evidence) -> Iterator[Proposal]:
    """The loss rises, is no lower than before the training, or rests where nothing of the questions was learned."""
    train, val = seen.curve("train_loss"), seen.curve("val_loss")
    told, weight = [], 0.92
    if len(train) > 1 and (
        train[-1] > _JUMP * train[0] or (val and val[-1] > _JUMP * val[0] and train[-1] > 0.9 * train[0])
    ):
        told.append(f"the training loss went from {train[0]:.3g} to {train[-1]:.3g} in {len(train)} epochs")
    if seen.losses is not None and seen.losses.rows:
        before, after = (
            sum(getattr(one, name) for one in seen.losses.rows.values()) / len(seen.losses.rows)
            for name in ("base", "loss")
        )
        if after > before:
            told.append(f"training rows have a loss of {after:.3g}, and had {before:.3g} before the training")
        guessed = seen.guessed_loss
        if not told and guessed is not None and after > guessed + _ABOVE and train and train[-1] > _SLOW * train[0]:
            weight = 0.85  # too low a rate, or too few steps, look much the same
            told.append(
                f"training rows have a loss of {after:.3g}; guessing labels by how frequent they are has {guessed:.3g}"
            )
            told.append(f"the training loss fell only from {train[0]:.3g} to {train[-1]:.3g} in {len(train)} epochs")
    if told:
        yield Proposal(
            finding="learning_rate_too_high", evidence=told, weight=weight,
            changes=[seen.change("learning_rate", seen.number("learning_rate") / 10)],
            expected="a tenth of the learning rate lets the loss fall",
        )  # fmt: skip


def overfitting(seen: Evidence) -> Iterator[Proposal]:
    """The validation loss has risen from its best while the training loss fell."""
    train, val = seen.curve("train_loss"), seen.curve("val_loss")
    if len(val) > 2 and val[-1] > _RISE * min(val) and train[-1] < train[val.index(min(val))]:
        best = val.index(min(val)) + 1
        yield Proposal(
            finding="overfitting", weight=0.7 * min(1.0, math.log(val[-1] / min(val)) * 10),
            evidence=[f"val_loss was best in epoch {best} of {len(val)}, {min(val):.3g}, and ended at {val[-1]:.3g}",
                      f"train_loss went on falling, to {train[-1]:.3g}"],
            changes=[seen.change("epochs", max(1, best)),
                     seen.change("learning_rate", seen.number("learning_rate") / 2)],
            expected="fewer epochs and half of the learning rate keep what holds for new rows",
        )  # fmt: skip


def underfitting(seen: Evidence) -> Iterator[Proposal]:
    """The validation loss still fell in the last epoch."""
    val = seen.curve("val_loss")
    if len(val) > 1 and val[-1] < (1 - _FALL) * val[-2] and val[-1] == min(val):
        yield Proposal(
            finding="underfitting", weight=0.6,
            evidence=[f"val_loss still falls in the last epoch, from {val[-2]:.3g} to {val[-1]:.3g}"],
            changes=[seen.change("epochs", 2 * seen.number("epochs"))],
            expected="twice the epochs let the loss come to rest",
        )  # fmt: skip
