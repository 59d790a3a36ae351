"""One optimizer step alone, operation by operation and watched: where do numbers stop being finite?

Nothing of the trainer is other afterwards: parameters, buffers, gradients, meter and random states are put back.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from data.batches import to_device
from train.context import RunContext
from train.failures.measure import Measure, measure
from train.failures.watch import BackwardWatch, ForwardWatch, LayerCall, Operation
from train.loop.meters import EpochMeter


@dataclass
class Probe:
    """What was seen.

    Attributes:
        losses: loss of each batch of the step input, up to the first batch where something was wrong.
        batch: number in the step input of the batch that was looked at last, from 0.
        layers: calls of modules in the last batch, in the order in which their outputs came to be.
        first: the call at which values first were not finite (None for code outside all modules) and a text that says
            where exactly; None if all were finite.
        operations: operations of the forward pass: the first one that made an infinite value, and the first that made a
            NaN.
        backward_operation: the first operation of the backward pass that made a gradient which is not finite of finite
            ones; None if there is none.
        gradients: measure of each parameter's gradient by name, as the step would have it before it clips; empty for a
            validation and where the loss was not finite.
        gradient_norm: L2 norm of the whole gradient, computed in float64; None for a validation and where the loss was
            not finite.
        norm_overflows: whether the gradient's norm is not finite where it is computed in the gradient's own precision,
            as the step does, and all its entries are.
        parameters: measure of each parameter before the step, by name.
        bad_tensors: names of parameters and buffers that were not finite before the step.
    """

    losses: list[float] = field(default_factory=list)
    batch: int = 0
    layers: list[LayerCall] = field(default_factory=list)
    first: tuple[LayerCall | None, str] | None = None
    operations: list[Operation] = field(default_factory=list)
    backward_operation: Operation | None = None
    gradients: dict[str, Measure] = field(default_factory=dict)
    gradient_norm: float | None = None
    norm_overflows: bool = False
    parameters: dict[str, Measure] = field(default_factory=dict)
    bad_tensors: list[str] = field(default_factory=list)

    @property
    def loss_is_bad(self) -> bool:
        """Whether the last loss is not finite."""
        return bool(self.losses) and not torch.tensor(self.losses[-1]).isfinite()

    @property
    def bad_gradients(self) -> list[str]:
        """The parameters whose gradient is not finite."""
        return [name for name, gradient in self.gradients.items() if not gradient.finite]


def probe_step(
    run: RunContext,
    batches: Sequence[Any],
    training: bool,
    torch_random: torch.Tensor | None = None,
    cuda_random: torch.Tensor | None = None,
    loss_scale: float = 1.0,
) -> Probe:
    """Do a step without its update and look at every number on the way.

    Args:
        run: the run, with the weights of before the step.
        batches: batches of the step, as the loader gave them.
        training: whether the step was a training step; else it was a batch of a validation.
        torch_random: state of torch's generator on the CPU when the step began; None leaves the present one.
        cuda_random: state of the generator of the model's CUDA device when the step began; None leaves the present one.
        loss_scale: factor by which fp16 multiplies the loss before backward.
    """
    probe = Probe()
    _look_at_weights(run, probe)
    with _unchanged(run):
        for modules in _own_modules(run).values():
            modules.train(training)
        if torch_random is not None:
            torch.set_rng_state(torch_random)
        if cuda_random is not None and run.device.type == "cuda":
            torch.cuda.set_rng_state(cuda_random, run.device)
        with torch.set_grad_enabled(training), torch.compiler.set_stance("force_eager"):
            _run(run, batches, training, loss_scale, probe)
    return probe


def _run(run: RunContext, batches: Sequence[Any], training: bool, loss_scale: float, probe: Probe) -> None:
    total: float | torch.Tensor = 0.0
    unit: float | torch.Tensor = 1.0
    for number, batch in enumerate(batches):
        probe.batch = number
        loss = _forward(run, to_device(batch, run.device), probe)
        if probe.loss_is_bad or not training:
            return
        # The weights of a step input's batches, as train/steps/eager.py has them.
        count = torch.as_tensor(run.loss_count, dtype=loss.dtype, device=loss.device)
        unit = unit if number else count.clamp(min=1)
        weight = count / unit if len(batches) > 1 else 1.0
        total = total + weight
        watch = BackwardWatch(loss)
        with watch:
            (loss * weight * loss_scale).backward()
        probe.backward_operation = watch.found
        _look_at_gradients(run, probe, total * loss_scale)
        if probe.bad_gradients:
            return


def _forward(run: RunContext, batch: Any, probe: Probe) -> torch.Tensor:
    with ForwardWatch(named_modules(run)) as watch:
        loss = run.loss_function(batch)
    probe.losses.append(float(loss.detach()))  # host-device synchronisation
    probe.layers, probe.first, probe.operations = watch.done, watch.first, watch.operations
    return loss


def _look_at_weights(run: RunContext, probe: Probe) -> None:
    for name, module in _own_modules(run).items():
        for path, parameter in module.named_parameters():
            seen = measure(parameter)
            if seen is not None:
                probe.parameters[f"{name}.{path}"] = seen
                probe.bad_tensors += [] if seen.finite else [f"{name}.{path}"]
        for path, buffer in module.named_buffers():
            seen = measure(buffer)
            if seen is not None and seen.wrong:  # -inf alone is what a mask holds
                probe.bad_tensors.append(f"{name}.{path}")


def _look_at_gradients(run: RunContext, probe: Probe, divisor: float | torch.Tensor) -> None:
    divisor = float(divisor)  # host-device synchronisation
    probe.gradients = {}
    for name, module in _own_modules(run).items():
        for path, parameter in module.named_parameters():
            seen = measure(parameter.grad) if parameter.grad is not None else None
            if seen is not None:
                probe.gradients[f"{name}.{path}"] = seen.divided(divisor)
    norms = torch.tensor([gradient.norm for gradient in probe.gradients.values()], dtype=torch.float64)
    probe.gradient_norm = float(norms.norm())
    gradients = [parameter.grad for group in run.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    probe.norm_overflows = not probe.bad_gradients and not bool(norm.isfinite())  # host-device synchronisation


def _own_modules(run: RunContext) -> dict[str, torch.nn.Module]:
    """Return a trainer's modules by attribute, the model first; none that is inside another one."""
    inside = {id(module) for module in run.model.modules()}
    others = {
        name: value
        for name, value in run.attributes.items()
        if isinstance(value, torch.nn.Module) and id(value) not in inside
    }
    return {"model": run.model, **others}


def named_modules(run: RunContext) -> dict[str, torch.nn.Module]:
    """Return a trainer's modules with those inside them, by their path from the trainer: `model.encoder.0`."""
    return {
        f"{name}.{path}".rstrip("."): inner
        for name, module in _own_modules(run).items()
        for path, inner in module.named_modules()
        if not isinstance(inner, torch.jit.ScriptModule)
    }


@contextlib.contextmanager
def _unchanged(run: RunContext) -> Iterator[None]:
    """Put back all that a step may change. Copying weights to the host is a host-device synchronisation."""
    modules = [inner for module in _own_modules(run).values() for inner in module.modules()]
    modes = [module.training for module in modules]
    holders: list[dict[str, Any]] = [own for module in modules for own in (module._parameters, module._buffers)]
    kept = [
        (holder, name, tensor, tensor.detach().to("cpu", copy=True))
        for holder in holders
        for name, tensor in holder.items()
        if tensor is not None
    ]
    gradients = [(tensor, tensor.grad) for _, _, tensor, _ in kept]
    meter, run.meter = run.meter, EpochMeter()
    count, random = run.loss_count, run.random_sources.state_dict()
    for tensor, _ in gradients:
        tensor.grad = None
    try:
        yield
    finally:
        with torch.no_grad():
            for holder, name, tensor, copy in kept:
                holder[name] = tensor
                tensor.copy_(copy)
        for tensor, gradient in gradients:
            tensor.grad = gradient
        for module, training in zip(modules, modes, strict=True):
            module.training = training
        run.meter, run.loss_count = meter, count
        run.random_sources.load_state_dict(random)
