"""Checks of the learning: a loss, gradients, and that steps lower the loss."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.dropout import _DropoutNd
from torch.overrides import TorchFunctionMode

from commands.check.report import Verdict, failed, listed, ok, warning
from commands.check.subject import Budget, Subject
from commands.probe_steps import WarmUp, step_loss, take_step
from constants.counting import counted
from train.context import RunContext
from train.seeding import preserved_random_states, seed_everything
from train.steps import StepInput

_STEPS_FOR_GRADIENTS, _STEPS_TO_FALL, _STEPS_TO_LEARN = 4, 20, 500
_SECONDS = 5.0  # after which slow steps end
_LEARNED = 0.1  # share of its start that the loss of one batch comes down to
_TOO_HIGH = 1.5  # times ln(C): a classifier that starts there is sure of what it can't know


class _CrossEntropies(TorchFunctionMode):
    """Notes plain cross entropies: the value, and ln of the number of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[torch.Tensor, float]] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = function(*args, **kwargs)
        if function is F.cross_entropy:
            scores = args[0] if args else kwargs["input"]
            goal = args[1] if len(args) > 1 else kwargs["target"]
            if scores.dim() > 1 and not goal.is_floating_point():
                self.seen.append((result.detach(), math.log(scores.shape[1])))
        return result


def loss_is_finite(subject: Subject) -> Verdict:
    """The loss function gives finite scalars in both modes; a plain classifier begins near ln(number of classes)."""
    run = subject.run
    run.model.train()
    chance = _chance(subject)
    training = losses_of(run, subject.batches)
    run.model.eval()
    with torch.no_grad():
        evaluation = losses_of(run, subject.val_batches)
    text = f"{_mean(training):.4g} in training mode, {_mean(evaluation):.4g} in validation"
    text += f" (mean of {_batches(training)} and {_batches(evaluation)})"
    if not all(map(math.isfinite, (*training, *evaluation))):
        return failed(text)
    if chance is None:
        return ok(text)
    known = f"ln({round(math.exp(chance))}) = {chance:.4g}"
    if training[0] > _TOO_HIGH * chance:
        return warning(f"{text}; a classifier that knows nothing yet has {known}: are its first scores too large?")
    return ok(f"{text}; guessing has {known}")


def _chance(subject: Subject) -> float | None:
    """Return the cross entropy of guessing, where the loss is a cross entropy over classes and nothing else."""
    entropies = _CrossEntropies()
    try:
        with entropies, preserved_random_states():
            loss = subject.run.loss_function(subject.batches[0])
    except Exception:  # a compiled model may not like to be listened to; what is wrong by itself fails below
        return None
    known = [chance for value, chance in entropies.seen if value.dim() == 0 and bool(value == loss) and chance > 0]
    return known[0] if known else None


def _batches(losses: Sequence[float]) -> str:
    return counted(len(losses), "batch")


def losses_of(run: RunContext, batches: Sequence[Any]) -> list[float]:
    """Return the losses of batches as the model is; each reading is a host-device synchronisation."""
    return [run.loss_function(batch).item() for batch in batches]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ---------------------------------------------------------------------------------------------------------- gradients


def optimizer_has_all(subject: Subject) -> Verdict:
    """The optimizer's parameters are the trainable ones of the model and of the modules beside it."""
    held = {id(parameter) for group in subject.run.optimizer.param_groups for parameter in group["params"]}
    trainable = {name: parameter for name, parameter in subject.parameters.items() if parameter.requires_grad}
    missing = [name for name, parameter in trainable.items() if id(parameter) not in held]
    strange = len(held - {id(parameter) for parameter in subject.parameters.values()})
    frozen = [name for name, parameter in subject.parameters.items() if not parameter.requires_grad]
    if trainable and len(missing) == len(trainable):
        return failed("it has none of the model's: was the model replaced after the optimizer was made?")
    if missing:
        return failed(
            f"{len(missing)} of {len(trainable)} are not in it and would never change: {listed(missing)}\n"
            "requires_grad_(False) where that is meant"
        )
    if strange:
        return failed(f"{strange} of its parameters belong neither to the model nor to a module of the trainer")
    return ok(f"{len(trainable)} trainable" + (f"; frozen: {listed(frozen)}" if frozen else ", none frozen"))


def gradients_arrive(subject: Subject) -> Verdict:
    """In a few steps every trainable parameter gets a gradient that is not zero."""
    run = subject.run
    trainable = {name: parameter for name, parameter in subject.parameters.items() if parameter.requires_grad}
    missing, zero = set(trainable), set(trainable)
    wrong: Counter[str] = Counter()
    run.model.train()
    warm_up = WarmUp(run.optimizer)
    with _modules_that_run(subject) as ran:
        inputs, steps = subject.step_inputs, 0
        while steps < len(inputs) or (steps < _STEPS_FOR_GRADIENTS and zero - missing):
            warm_up.set(steps)
            # Steps too, since what is zero at first may be so only at first: half of an adapter is.
            take_step(run, inputs[steps % len(inputs)])
            steps += 1
            for name, parameter in trainable.items():
                if parameter.grad is not None:
                    missing.discard(name)
                    values = parameter.grad.coalesce().values() if parameter.grad.is_sparse else parameter.grad
                    wrong[name] += not bool(values.isfinite().all())  # host-device synchronisations
                    if bool(values.any()):
                        zero.discard(name)
    # A loss scale (fp16) begins so high that gradients overflow; it falls from step to step.
    most = 0 if run.precision.scaler is None else steps - 1
    overflown = {name for name, times in wrong.items() if times > most}
    return _judged(trainable, missing, zero - missing, overflown, ran, steps)


def _judged(
    trainable: dict[str, Any], missing: set[str], zero: set[str], wrong: set[str], ran: set[str], steps: int
) -> Verdict:
    def among(names: set[str]) -> str:
        return listed([name for name in trainable if name in names])

    within = f"in {counted(steps, 'step')}"
    cut = {name for name in missing if name.rpartition(".")[0] in ran}
    if wrong:
        return failed(f"NaN or infinite: {among(wrong)}")
    if not trainable:
        return failed("no parameter is trainable")
    if cut:
        return failed(
            f"none {within}: {among(cut)}\ntheir modules run, so something cuts the gradient off: detach(), no_grad(), "
            "argmax; requires_grad_(False) where that is meant"
        )
    if missing:
        return warning(f"none {within}, since their modules don't run: {among(missing)}")
    if zero:
        return warning(f"zero {within}: {among(zero)}")
    return ok(f"all {len(trainable)} {within}")


@contextmanager
def _modules_that_run(subject: Subject) -> Iterator[set[str]]:
    """Collect the names of modules whose forward is called."""
    ran: set[str] = set()

    def hook_for(name: str) -> Callable[..., None]:
        return lambda *_: ran.add(name)

    hooks = []
    for prefix, top in subject.modules.items():
        for name, module in top.named_modules():
            path = ".".join(part for part in (prefix, name) if part)
            hooks.append(module.register_forward_hook(hook_for(path)))
    try:
        yield ran
    finally:
        for hook in hooks:
            hook.remove()


# --------------------------------------------------------------------------------------------------- the loss goes down


def loss_falls(subject: Subject) -> Verdict:
    """Steps on a few batches lower their loss: at the config's learning rate, or at least far below it."""
    rate, before, after, steps = _descend(subject, 1.0)
    on = f"in {counted(steps, 'step')} on {counted(len(subject.batches), 'batch')}"
    if not math.isfinite(before):
        return failed(f"it is {before} at the start")
    if after < before:
        return ok(f"{before:.4g} to {after:.4g} {on}, learning rate {rate:g}")
    told = f"{before:.4g} to {after:.4g} {on} at the learning rate {rate:g}"
    for share in (0.1, 0.01, 0.001):
        subject.restore()
        lower, _, gently, _ = _descend(subject, share)
        told_lower = f"{told}, to {gently:.4g} at {lower:g}"
        if gently < before:
            wrong = f"{told_lower}: the rate may be too high (--find-lr)"
            return warning(wrong) if math.isfinite(after) else failed(wrong)
    return failed(f"{told_lower}: the steps don't follow the loss")


def _descend(subject: Subject, share: float) -> tuple[float, float, float, int]:
    """Take steps on the first batches. Returns the rate, the mean loss before and after, and the steps."""
    run, warm_up = subject.run, WarmUp(subject.run.optimizer, share)
    run.model.train()
    before = _measured(subject)
    steps = 0
    for number in Budget(_STEPS_TO_FALL, _SECONDS, fewest=len(subject.step_inputs)):
        warm_up.set(number)
        step_loss(run, subject.step_inputs[number % len(subject.step_inputs)])
        steps += 1
    after = _measured(subject) if not run.guard.blocked else math.nan
    return warm_up.rates[0], before, after, steps


def _measured(subject: Subject) -> float:
    """Return the mean loss of the first batches in training mode, whatever is drawn at random the same each time."""
    with preserved_random_states():
        seed_everything(subject.run.config.seed)
        return _mean(losses_of(subject.run, subject.batches))


def one_batch_can_be_learned(subject: Subject) -> Verdict:
    """The loss of one batch comes down to a tenth within 500 steps; a loss may have a floor above that."""
    run, batch = subject.run, StepInput(subject.batches[:1])
    run.model.train()
    warm_up, losses = WarmUp(run.optimizer), []
    with _without_dropout(subject) as dropped:
        for number in Budget(_STEPS_TO_LEARN, _SECONDS):
            warm_up.set(number)
            losses.append(step_loss(run, batch))
            if run.guard.blocked or (losses[0] > 0 and losses[-1] <= _LEARNED * losses[0]):
                break
    over = len(losses) < _STEPS_TO_LEARN and losses[-1] > _LEARNED * losses[0]
    rule = f"ok is 10 % within {_STEPS_TO_LEARN}" + (f" or {_SECONDS:g} s" if over else "")
    rule += ", without dropout" if dropped else ""
    return judge_one_batch(losses, rule)


def judge_one_batch(losses: Sequence[float], rule: str) -> Verdict:
    """Judge the losses of steps on one batch.

    Args:
        losses: loss before each step; at least one.
        rule: text about the criterion that the line shows.
    """
    start, finite = losses[0], [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        return failed(f"its loss is {start}")
    lowest = min(finite)
    told = f"{start:.4g} to {lowest:.4g}"
    if start > 0 and lowest >= 0:
        told += f" ({100 * lowest / start:.3g} %)"
    told += f" in {counted(len(losses), 'step')}; {rule}"
    if lowest >= start:
        return failed(f"{told}: the loss never went below its start")
    if start > 0 and lowest > _LEARNED * start:
        return warning(f"{told}\n{_why_not_learned(finite)}")
    return ok(told)


def _why_not_learned(losses: Sequence[float]) -> str:
    """Look at the last quarter of the steps: did it bring a twentieth of what all brought?"""
    last = losses[-1 - len(losses) // 4] - losses[-1]
    if last > 0.05 * (losses[0] - min(losses)):
        return "it was still falling: a small model or rate, or few steps"
    return "it levels off: a loss with a floor above 0 (ranking, say), a small model, or input that is ignored"


@contextmanager
def _without_dropout(subject: Subject) -> Iterator[int]:
    """Turn the dropout of layers off; batch norm stays in training mode. Yields how many layers that are."""
    kinds = (_DropoutNd, nn.MultiheadAttention)  # attention asks its own mode whether to drop
    layers = [part for top in subject.modules.values() for part in top.modules() if isinstance(part, kinds)]
    for layer in layers:
        layer.training = False
    try:
        yield len(layers)
    finally:
        for layer in layers:
            layer.training = True
