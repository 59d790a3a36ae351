"""From what a probe saw to what went wrong, in words, and what to try."""

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from config import BaseTrainerConfig, ConfigError, ConfigParser
from train.failures.batch_check import BAD, Strange, listed
from train.failures.probe import Probe
from train.failures.watch import LayerCall

_FAR = 1e4  # times the default: a learning rate beyond is a slip
_DIVIDES = re.compile(r"sqrt|log|div|rsqrt|norm|pow|reciprocal|acos|asin|std|cdist", re.IGNORECASE)


@dataclass(frozen=True)
class Finding:
    """What went wrong.

    Attributes:
        kind: kind of the cause: batch, parameter, layer, hook, loss, gradient, norm, or none where nothing went wrong.
        text: sentence that says what went wrong.
        layer: name of the first bad layer or parameter; None where there is none.
        operations: operations that made the bad values, with their places in the code.
        notes: further sentences for the report.
    """

    kind: str
    text: str
    layer: str | None = None
    operations: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def reproduced(self) -> bool:
        """Whether numbers went wrong again when the step was repeated."""
        return self.kind != "none"


def find_cause(probe: Probe, strange: Sequence[Strange], split: str, harmless: Sequence[str] = ()) -> Finding:
    """Work out the cause, the earliest one first: the batch, the weights, a layer, the loss function, a gradient.

    Args:
        probe: numbers seen in the repeated step.
        strange: strange samples of the step's batches.
        split: part of the run that the step is of: `train` or `val`.
        harmless: fields of a batch that were not finite in the batch before either, which did no harm.
    """
    bad_samples = [each for each in strange if each.what == BAD and each.field not in harmless]
    went_wrong = probe.loss_is_bad or probe.bad_gradients or probe.norm_overflows
    notes = [str(each) for each in strange if each not in bad_samples]
    forward = [str(operation) for operation in probe.operations]
    if bad_samples and went_wrong:
        worst = bad_samples[0]
        text = f"the data: {worst} of {split}_loader's dataset" if worst.samples is not None else f"the data: {worst}"
        return Finding("batch", text, notes=[str(each) for each in bad_samples[1:]] + notes)
    if probe.bad_tensors:
        text = f"the weights were not finite before this step: {listed(probe.bad_tensors)}"
        return Finding("parameter", text, layer=probe.bad_tensors[0], notes=notes)
    if probe.loss_is_bad:
        return _bad_forward(probe, forward, notes)
    if probe.bad_gradients:
        return _bad_backward(probe, notes)
    if probe.norm_overflows:
        text = f"the gradient's norm, {probe.gradient_norm:.3g}, overflows, while each of its values is finite"
        return Finding("norm", text, largest_gradient(probe), notes=notes)
    return Finding("none", _NOTHING, notes=[str(each) for each in bad_samples] + notes)


_NOTHING = (
    "everything was finite when the step was repeated, operation by operation, with the same weights and batch. So it "
    "depends on something else: the form of the step (try step=eager), the learning rate or optimizer state, samples "
    "that are drawn anew each time they are read, or a state that the trainer keeps by itself"
)


def _bad_forward(probe: Probe, operations: list[str], notes: list[str]) -> Finding:
    loss = f"the loss is {probe.losses[-1]}"
    if probe.first is None:
        text = f"{loss}: the loss function, after the model; all layers gave finite values"
        return Finding("loss", text, operations=operations, notes=notes)
    call, where = probe.first
    if call is None:
        text = f"{loss}: values are not finite in the trainer's own code, {where}"
        return Finding("hook", text, operations=operations, notes=notes)
    text = f"{loss}: the first bad layer is {call.name} ({call.kind}): {where}"
    return Finding("layer", text, call.name, operations, notes)


def _bad_backward(probe: Probe, notes: list[str]) -> Finding:
    operations = [str(probe.backward_operation)] if probe.backward_operation else []
    count = f"{len(probe.bad_gradients)} of {len(probe.gradients)} parameters' gradients are not finite"
    call = _first_bad_backward(probe)
    if call is None:
        text = f"the loss is finite, but {count}, from the loss function on, after the model"
        return Finding("gradient", text, operations=operations, notes=notes)
    text = f"the loss is finite, but {count}; in backward the first bad layer is {call.name} ({call.kind})"
    return Finding("gradient", text, call.name, operations, notes)


def _first_bad_backward(probe: Probe) -> LayerCall | None:
    """Return the innermost call, first in backward, that got a finite gradient and handed on, or kept, a bad one."""
    bad = set(probe.bad_gradients)

    def spoils(call: LayerCall) -> bool:
        name = call.name.split(" (call ")[0]
        own = any(f"{name}.{path}" in bad for path, _ in call.module.named_parameters())
        handed_on = call.input_gradient is not None and not call.input_gradient.finite
        return call.output_gradient is not None and call.output_gradient.finite and (own or handed_on)

    found = [call for call in probe.layers if spoils(call)]
    innermost = [call for call in found if not any(other.name.startswith(f"{call.name}.") for other in found)]
    return min(innermost, key=lambda call: (call.input_gradient_at, -call.start), default=None)


def largest_gradient(probe: Probe) -> str | None:
    """Return the name of the parameter with the gradient of the largest norm."""
    return max(probe.gradients, key=lambda name: probe.gradients[name].norm, default=None)


def _lower_rate(config: BaseTrainerConfig) -> str:
    """Return a learning rate to try: a tenth, or where that is still out of all reason the default."""
    if not _is_far(config):
        return f"learning_rate={config.learning_rate / 10:.3g}"
    return f"learning_rate={_default(config):g}, the default, or one that --find-lr finds"


def _is_far(config: BaseTrainerConfig) -> bool:
    return config.learning_rate > _FAR * _default(config)


def _default(config: BaseTrainerConfig) -> float:
    """Return the learning rate that config.ini gives where the command line gives none, else the class's."""
    with contextlib.suppress(ConfigError):  # a file that has changed since
        return ConfigParser.usual(type(config), "learning_rate")
    return type(config).learning_rate


def suggestions(
    finding: Finding, strange: Sequence[Strange], config: BaseTrainerConfig, good_checkpoint: str | None = None
) -> list[str]:
    """Say what to try, at most three things.

    Args:
        finding: cause that was found.
        strange: strange samples of the step's batches.
        config: config of the trainer.
        good_checkpoint: newest checkpoint whose weights are finite; None where there is none.
    """
    found: list[str] = []
    lower = _lower_rate(config)
    if finding.kind == "batch":
        found.append("look at these samples, and leave them out or repair them")
    elif strange:
        found.append(f"look at {strange[0].where()}: {strange[0].what}")
    if finding.kind == "parameter":
        known = f"the newest checkpoint with finite weights is {good_checkpoint}; " if good_checkpoint else ""
        found.append(f"{known}see train.log for what the steps before it did")
    if any(_DIVIDES.search(operation) for operation in finding.operations):
        where = f"{finding.layer} or " if finding.layer else ""
        found.append(f"add an epsilon where {where}the loss divides, takes a root, a norm or a logarithm")
    if config.precision in ("bf16", "fp16") and finding.kind != "batch":
        found.append(f"start a run with precision=fp32: {config.precision} has a small range or few digits")
    if finding.kind not in ("batch", "none"):
        clip = "" if config.gradient_clip_value else " and gradient_clip_value=1"
        found.append(f"start a new run with {lower}{clip}")
    if finding.kind == "none":
        found.append(f"start a new run with step=eager, or with {lower}")
    if _is_far(config):  # nothing else needs an explanation then
        return [f"start a new run with {lower}: {config.learning_rate:g} is out of all reason"]
    return found[:3]
