"""One optimizer step alone, operation by operation and watched: where do numbers stop being finite?

Nothing of the trainer is other afterwards: parameters, buffers, gradients, meter and random states are put back.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from data.batches import to_device
from train.failures.measure import Measure, measure
from train.failures.watch import BackwardWatch, ForwardWatch, LayerCall, Operation
from train.loop.meters import EpochMeter


@dataclass
class Probe:
    """What was seen.

    Attributes:
        losses: of the window's batches, up to the first one where something was wrong.
        batch: its number in the window, or the last one's.
        layers: calls of modules in that batch, in the order in which their outputs came to be.
        first: the call at which values first were not finite, with what that says of it; None if there is none.
        operations: of the forward pass: the first one that made an infinite value, and the first that made a NaN.
        backward_operation: the first one whose gradient was not finite where all that it got was.
        gradients: by parameter, as the step would have them before it clips; empty where the loss was not finite.
        gradient_norm: of the whole gradient, computed in float64.
        norm_overflows: whether it is not finite where it is computed in the gradient's own precision, as the step does,
            and all its entries are.
        parameters: by parameter, before the step.
        bad_tensors: parameters and buffers that were not finite before the step.
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
    trainer: Any,
    batches: Sequence[Any],
    training: bool,
    torch_random: torch.Tensor | None = None,
    cuda_random: torch.Tensor | None = None,
    loss_scale: float = 1.0,
) -> Probe:
    """Do a step without its update and look at every number on the way.

    Args:
        trainer: a BaseTrainer; its weights are those of before the step.
        batches: of the step, as the loader gave them.
        training: whether it was a training step; else a validation's batch.
        torch_random: state of torch's generator on the CPU when the step began; None leaves the present one.
        cuda_random: the same of the model's CUDA device.
        loss_scale: by which fp16 multiplies the loss before backward.
    """
    probe = Probe()
    _look_at_weights(trainer, probe)
    with _unchanged(trainer):
        for modules in _own_modules(trainer).values():
            modules.train(training)
        if torch_random is not None:
            torch.set_rng_state(torch_random)
        if cuda_random is not None and trainer.device.type == "cuda":
            torch.cuda.set_rng_state(cuda_random, trainer.device)
        with torch.set_grad_enabled(training), torch.compiler.set_stance("force_eager"):
            _run(trainer, batches, training, loss_scale, probe)
    return probe


def _run(trainer: Any, batches: Sequence[Any], training: bool, loss_scale: float, probe: Probe) -> None:
    total: float | torch.Tensor = 0.0
    unit: float | torch.Tensor = 1.0
    for number, batch in enumerate(batches):
        probe.batch = number
        loss = _forward(trainer, to_device(batch, trainer.device), probe)
        if probe.loss_is_bad or not training:
            return
        # The weights of a window's batches, as train/steps/eager.py has them.
        count = torch.as_tensor(trainer._loss_count, dtype=loss.dtype, device=loss.device)
        unit = unit if number else count.clamp(min=1)
        weight = count / unit if len(batches) > 1 else 1.0
        total = total + weight
        watch = BackwardWatch(loss)
        with watch:
            (loss * weight * loss_scale).backward()
        probe.backward_operation = watch.found
        _look_at_gradients(trainer, probe, total * loss_scale)
        if probe.bad_gradients:
            return


def _forward(trainer: Any, batch: Any, probe: Probe) -> torch.Tensor:
    with ForwardWatch(named_modules(trainer)) as watch:
        loss = trainer._forward_batch(batch)
    probe.losses.append(float(loss.detach()))  # host-device synchronisation
    probe.layers, probe.first, probe.operations = watch.done, watch.first, watch.operations
    return loss


def _look_at_weights(trainer: Any, probe: Probe) -> None:
    for name, module in _own_modules(trainer).items():
        for path, parameter in module.named_parameters():
            seen = measure(parameter)
            if seen is not None:
                probe.parameters[f"{name}.{path}"] = seen
                probe.bad_tensors += [] if seen.finite else [f"{name}.{path}"]
        for path, buffer in module.named_buffers():
            seen = measure(buffer)
            if seen is not None and seen.wrong:  # -inf alone is what a mask holds
                probe.bad_tensors.append(f"{name}.{path}")


def _look_at_gradients(trainer: Any, probe: Probe, divisor: Any) -> None:
    divisor = float(divisor)  # host-device synchronisation
    probe.gradients = {}
    for name, module in _own_modules(trainer).items():
        for path, parameter in module.named_parameters():
            seen = measure(parameter.grad) if parameter.grad is not None else None
            if seen is not None:
                probe.gradients[f"{name}.{path}"] = seen.divided(divisor)
    norms = torch.tensor([gradient.norm for gradient in probe.gradients.values()], dtype=torch.float64)
    probe.gradient_norm = float(norms.norm())
    gradients = [parameter.grad for group in trainer.optimizer.param_groups for parameter in group["params"]]
    norm = torch.nn.utils.get_total_norm([gradient for gradient in gradients if gradient is not None])
    probe.norm_overflows = not probe.bad_gradients and not bool(norm.isfinite())  # host-device synchronisation


def _own_modules(trainer: Any) -> dict[str, torch.nn.Module]:
    """Return a trainer's modules by attribute, the model first; none that is inside another one."""
    inside = {id(module) for module in trainer.model.modules()}
    others = {
        name: value
        for name, value in vars(trainer).items()
        if isinstance(value, torch.nn.Module) and id(value) not in inside
    }
    return {"model": trainer.model, **others}


def named_modules(trainer: Any) -> dict[str, torch.nn.Module]:
    """Return a trainer's modules with those inside them, by their path from the trainer: `model.encoder.0`."""
    return {
        f"{name}.{path}".rstrip("."): inner
        for name, module in _own_modules(trainer).items()
        for path, inner in module.named_modules()
        if not isinstance(inner, torch.jit.ScriptModule)
    }


@contextlib.contextmanager
def _unchanged(trainer: Any) -> Iterator[None]:
    """Put back all that a step may change. Copying weights to the host is a host-device synchronisation."""
    modules = [inner for module in _own_modules(trainer).values() for inner in module.modules()]
    modes = [module.training for module in modules]
    kept = [
        (holder, name, tensor, tensor.detach().to("cpu", copy=True))
        for module in modules
        for holder in (module._parameters, module._buffers)
        for name, tensor in holder.items()
        if tensor is not None
    ]
    gradients = [(tensor, tensor.grad) for _, _, tensor, _ in kept]
    meter, trainer._meter = trainer._meter, EpochMeter()
    count, random = trainer._loss_count, trainer._random_sources.states()
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
        trainer._meter, trainer._loss_count = meter, count
        trainer._random_sources.set_states(random)
