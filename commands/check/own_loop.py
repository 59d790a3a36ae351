"""What a `train()` of the trainer's own does over some short epochs: to the loss, and to checkpoints."""

import logging
from collections.abc import Callable

import torch

from commands.check.files import differences, plain_parts
from commands.check.learning import losses_of
from commands.check.rehearsal import rehearse
from commands.check.report import OK, Verdict, failed, listed, warning
from commands.check.subject import Subject
from commands.probe_steps import build_for_probing, quiet_log
from train.checkpointing.run_state import capture, restore
from train.context import RunContext
from train.seeding import preserved_random_states, seed_everything

_EPOCHS = 5  # of four batches each
_FORM = "write it as `for epoch in self.epochs():` (docs/writing_a_trainer.md)"


def with_own_train(verdict: Verdict, look: Callable[[Subject], Verdict | None], subject: Subject) -> Verdict:
    """Put what the trainer's own `train()` does behind a verdict, where that is ok; the worse of the two marks counts.

    Args:
        verdict: verdict of a check of the framework's own steps.
        look: check of the trainer's own `train()`; it returns None where there is none.
        subject: what is checked.
    """
    found = look(subject) if verdict.mark == OK else None
    return verdict if found is None else Verdict(found.mark, f"{verdict.text}\n{found.text}")


def own_train_learns(subject: Subject) -> Verdict | None:
    """Its own `train()` changes weights and lowers the loss. None where it has no end, or is the base's."""
    run = _fresh(subject)
    if run is None:
        return None
    before, weights = _loss(run, subject), [weight.detach().clone() for weight in run.model.parameters()]
    if not rehearse(run, epochs=_EPOCHS).ended:
        return None
    after, steps = _loss(run, subject), run.record.progress.step
    told = f"its own train(): {before:.4g} to {after:.4g} in {_EPOCHS} epochs of 4 batches"
    same = all(torch.equal(one, other) for one, other in zip(weights, run.model.parameters(), strict=True))
    if same and any(weight.requires_grad for weight in run.model.parameters()):
        clipped = run.config.gradient_clip_value == 0
        why = "\nclip_grad_norm_ with gradient_clip_value = 0 zeroes all gradients; self.clip_gradients() doesn't"
        return failed(f"its own train() changes no weight in {steps or 'its'} steps{why if clipped else ''}")
    if not after < before:
        return warning(f"{told}: the loss of `_forward_batch` does not fall (that of a GAN need not)")
    return Verdict(OK, told)


def own_train_resumes(subject: Subject) -> Verdict | None:
    """Its own `train()` saves, and goes on from a checkpoint to the same bits. None where it is the base class's."""
    whole = _fresh(subject)
    if whole is None or not rehearse(whole, epochs=2).ended:
        return None
    if whole.saver.written == 0:
        return warning(f"its own train() saves none, so that a run which is cut off is lost: {_FORM}")
    if not whole.own_loop.in_use:
        return warning(f"its own train() is a plain loop, which --resume refuses: {_FORM}")
    part, resumed = _fresh(subject), _fresh(subject)
    if part is None or resumed is None:
        return None
    rehearse(part)
    resumed.checkpoints = part.checkpoints
    newest = resumed.checkpoints.load_newest()
    if newest is None:
        return failed("its own train() has saved one, and then it is not there")
    with quiet_log(logging.WARNING):
        restore(resumed, *newest)
    rehearse(resumed, epochs=2)
    wrong = differences(plain_parts(capture(whole, held=True)), plain_parts(capture(resumed, held=True)))
    if wrong and whole.device.type == "cpu":
        return failed(f"its own train(), resumed after an epoch, comes to other values: {listed(list(wrong))}")
    return Verdict(OK, "its own train() saves, and goes on after an epoch to the same bits")


def _fresh(subject: Subject) -> RunContext | None:
    """Build the trainer anew: an epoch is counted only once. None where `train()` is the base class's."""
    if not subject.run.owns_loop:
        return None
    run = build_for_probing(subject.trainer_class)
    run.config.validate_every_n_epochs = 1  # so that two epochs are twice what one is
    return run


def _loss(run: RunContext, subject: Subject) -> float:
    """Return the mean loss of the first batches in training mode, with the same random numbers each time."""
    run.model.train()
    with preserved_random_states():
        seed_everything(run.config.seed)
        losses = losses_of(run, subject.batches)
    run.forget_measurements()
    return sum(losses) / len(losses)
