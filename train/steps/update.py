"""Clip the gradient and update the parameters, in as few passes over memory as torch allows.

torch's fused kernels read each parameter, gradient and moment once. Called through `Optimizer.step` they pay for a walk
over Python objects at each step, which for a small model takes longer than the update itself; `Update` makes that walk
once and hands the same lists to the same kernel. Where it can't, it calls `Optimizer.step`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW

from train.steps.guard import Guard

_FUSED_DEVICES = ("cpu", "cuda")
_NO_WALK = hasattr(torch, "_fused_adam_") and hasattr(torch, "_fused_adamw_") and hasattr(torch, "_fused_sgd_")


def use_fused_kernels(optimizer: torch.optim.Optimizer) -> bool:
    """Switch Adam, AdamW and SGD to their fused kernels, unless their author chose another form.

    Args:
        optimizer: optimizer as the trainer made it, or as it was loaded.

    Returns:
        Whether all groups of the optimizer are fused now.
    """
    if type(optimizer) not in (Adam, AdamW, SGD):
        return False
    for group in optimizer.param_groups:
        chosen = group.get("foreach") or group.get("capturable") or group.get("differentiable")
        fits = all(p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in group["params"])
        if group.get("fused") is None and fits and not chosen:
            group["fused"] = True
    fused = all(group.get("fused") for group in optimizer.param_groups)
    # What the optimizer's own __init__ sets where fused=True is given: it takes `grad_scale`.
    optimizer._step_supports_amp_scaling = fused  # type: ignore[attr-defined]  # torch's own, without a stub
    return fused


@dataclass
class _Bundle:
    """The parameters of one group, with what the kernel needs besides the gradients."""

    group: dict[str, Any]
    parameters: list[torch.Tensor]
    moments: list[list[torch.Tensor]]  # exp_avgs, exp_avg_sqs; or momentum buffers
    steps: list[torch.Tensor]


class Update:
    """Clips and steps. Nothing here waits for the device, but for fp16 with an optimizer that has no fused kernel.

    Args:
        optimizer: optimizer of the parameters.
        clip: largest L2 norm of the whole gradient; 0 doesn't clip.
        scaler: scaler that has scaled the loss (fp16); None where the loss is as it is.
        guard: guard that judges each step; None makes one for the CPU.

    Attributes:
        keeps_norm: whether each step keeps the norm of the gradient, also where nothing is clipped.
        norm: L2 norm of the last step's gradient before it was clipped, a scalar on the device, where `keeps_norm` is
            set.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        clip: float = 0.0,
        scaler: torch.amp.GradScaler | None = None,
        guard: Guard | None = None,
    ) -> None:
        self.optimizer, self.clip, self.scaler, self.guard = optimizer, clip, scaler, guard or Guard()
        self.rates: list[torch.Tensor] | None = None  # scalars in place of the groups' learning rates, for a capture
        self.parameters: list[torch.Tensor] = []
        self.keeps_norm = False
        self.norm: torch.Tensor | None = None
        self._bundles: list[_Bundle] = []
        self._chosen: list[dict[str, Any]] = []  # groups that are fused since their author left it open
        self._seen: tuple[Any, ...] = ()
        self._look()

    def backward(self, loss: torch.Tensor) -> None:
        """Compute the gradients of a loss."""
        self.guard.see(loss)
        (loss if self.scaler is None else self.scaler.scale(self.guard.scaled(loss))).backward()

    def zero_grad(self) -> None:
        """Drop the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def __call__(self, divisor: torch.Tensor | None = None) -> None:
        """Update the parameters by their gradients, unless the guard finds something that isn't finite.

        On the CPU the guard then blocks, and this returns; on a GPU its flag goes to the kernel as `found_inf`. From
        the first bad step on no step changes anything.

        Args:
            divisor: scalar by which gradients are divided before anything else; None leaves them.
        """
        if self._changed():
            self._look()
        gradients = [gradient for parameter in self.parameters if (gradient := parameter.grad) is not None]
        whole = len(gradients) == len(self.parameters)
        strange = not whole or any(gradient.layout is not torch.strided for gradient in gradients)
        if strange or self.scaler is not None:
            self._plain_step(divisor)
            return
        norm = self._norm(gradients) if self.clip or not self._alike or self.keeps_norm else None
        if self.keeps_norm and norm is not None:
            self.norm = norm if divisor is None else norm / divisor
        bad = self.guard.judge(norm, () if norm is not None else gradients)
        if self.guard.blocked:
            note_step(self.optimizer)
            return
        scale = self._scale(norm, divisor)
        if scale is not None and not self._folds:
            torch._foreach_div_(gradients, scale)
            scale = None
        if self._bundles:
            rates = self.rates or [bundle.group["lr"] for bundle in self._bundles]
            for bundle, rate in zip(self._bundles, rates, strict=True):
                _fused_step(self.optimizer, bundle, rate, scale, bad)
            note_step(self.optimizer)
        else:
            self._guarded_step(bad, scale)

    def _norm(self, gradients: list[torch.Tensor]) -> torch.Tensor:
        if len(gradients) and self._folds:
            return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients, 2.0)))
        return torch.nn.utils.get_total_norm(gradients)

    def _scale(self, norm: torch.Tensor | None, divisor: torch.Tensor | None) -> torch.Tensor | None:
        """Return by what to divide the gradients, so that neither the mean nor the clipping is a pass of its own."""
        if not self.clip or norm is None:
            return divisor
        if divisor is not None:
            norm = norm / divisor
        scale = ((norm + 1e-6) / self.clip).clamp(min=1.0)  # as clip_grad_norm_ has it
        return scale if divisor is None else scale * divisor

    def _guarded_step(self, bad: torch.Tensor | None, scale: torch.Tensor | None = None) -> None:
        """Call the optimizer's step, which leaves the parameters alone where it is bad.

        Only fused optimizers can be told so on the device (and take a scale). With others the parameters are copied
        before, and put back there.
        """
        optimizer = self.optimizer
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            optimizer.grad_scale, optimizer.found_inf = scale, bad  # type: ignore[attr-defined]  # torch's own, no stub
            optimizer.step()
            del optimizer.grad_scale, optimizer.found_inf  # type: ignore[attr-defined]  # likewise
            return
        if bad is None:  # the host knows that it is good
            optimizer.step()
            return
        with torch.no_grad():
            before = [parameter.clone() for parameter in self.parameters]
            self.optimizer.step()
            put_back = bad.bool()
            for parameter, kept in zip(self.parameters, before, strict=True):
                parameter.copy_(torch.where(put_back.to(kept.device), kept, parameter))

    def _plain_step(self, divisor: torch.Tensor | None) -> None:
        """Step where some parameter has no gradient, or a sparse one, or where the loss was scaled.

        A scaled step that overflowed is left out. With a fused optimizer the device decides that by itself; with
        another one it is a host-device synchronisation at each step.
        """
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self._chosen and any(
            parameter.grad is not None and parameter.grad.is_sparse for parameter in self.parameters
        ):
            self._leave_fused()
        if divisor is not None:
            for gradient in strided_gradients(self.parameters):
                gradient.div_(divisor)
        norm = clip_gradient_norm(self.parameters, self.clip)
        if self.keeps_norm:
            self.norm = norm
        # Where the loss was scaled, gradients may overflow: the scaler leaves such a step out and scales less.
        bad = self.guard.judge(norm if self.scaler is None else None)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        elif not self.guard.blocked:
            self._guarded_step(bad)

    def _leave_fused(self) -> None:
        """Go back to the plain kernels where only this class chose the fused ones, which know no sparse gradient."""
        for group in self._chosen:
            group["fused"] = False
        self._chosen = []
        self._look()

    def _changed(self) -> bool:
        """Say whether the optimizer's parameters or state are others than those that were looked at."""
        groups, count, hooks, state = self._seen
        optimizer = self.optimizer
        first = optimizer.state.get(self.parameters[0]) if self.parameters else None
        same_groups = optimizer.param_groups is groups and len(groups) == count
        return not same_groups or first is not state or _hooks(optimizer) != hooks

    def _look(self) -> None:
        """Collect what the kernels need; no bundles where there is no short cut, or no state yet."""
        optimizer = self.optimizer
        open_groups = [group for group in optimizer.param_groups if group.get("fused") is None]
        fused = use_fused_kernels(optimizer)
        self._chosen += [group for group in open_groups if group.get("fused")]
        self.parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        kinds = {(parameter.dtype, parameter.device) for parameter in self.parameters}
        self._alike = len(kinds) == 1 and all(
            p.is_floating_point() and p.device.type in _FUSED_DEVICES for p in self.parameters
        )
        # The kernels take the scale as a float32 number, which would cost float64 parameters half their digits.
        self._folds = fused and self._alike and next(iter(kinds))[0] == torch.float32
        self._bundles = []
        stateless = type(optimizer) is SGD and not any(group["momentum"] for group in optimizer.param_groups)
        known = stateless or all(optimizer.state.get(parameter) for parameter in self.parameters)
        if known and self._folds and _NO_WALK and plain_and_fused(optimizer):
            self._bundles = [_bundle_of(optimizer, group) for group in optimizer.param_groups if group["params"]]
        first = optimizer.state.get(self.parameters[0]) if self.parameters else None
        self._seen = (optimizer.param_groups, len(optimizer.param_groups), _hooks(optimizer), first)


def note_step(optimizer: torch.optim.Optimizer) -> None:
    """Let a scheduler believe that there was a step, where the optimizer's own `step` was not called."""
    optimizer._opt_called = True  # type: ignore[attr-defined]  # torch's own, without a stub


def strided_gradients(parameters: Iterable[torch.Tensor]) -> list[torch.Tensor]:
    """Return the gradients of parameters as strided tensors that may be changed in place: of sparse ones the values.

    Args:
        parameters: parameters, of which those without a gradient are passed over. A sparse gradient that has rows twice
            is replaced by one that has them added up.
    """
    found = []
    for parameter in parameters:
        if parameter.grad is not None and parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            found.append(parameter.grad.values())
        elif parameter.grad is not None:
            found.append(parameter.grad)
    return found


def clip_gradient_norm(parameters: Sequence[torch.Tensor], limit: float) -> torch.Tensor:
    """Scale gradients down, sparse ones too, where their norm is larger than a limit (no synchronisation).

    Args:
        parameters: parameters whose gradients are changed in place.
        limit: largest L2 norm of all gradients together; 0 leaves them.

    Returns:
        The norm of before, a scalar.
    """
    gradients = strided_gradients(parameters)
    norm = torch.nn.utils.get_total_norm(gradients)
    if limit:
        scale = (limit / (norm + 1e-6)).clamp(max=1.0)  # as torch's clip_grad_norm_, which knows no sparse gradient
        if len({(gradient.dtype, gradient.device) for gradient in gradients}) == 1:
            torch._foreach_mul_(gradients, scale.to(gradients[0].device))
        else:
            for gradient in gradients:
                gradient.mul_(scale.to(gradient.device))
    return norm


def plain_and_fused(optimizer: torch.optim.Optimizer) -> bool:
    """Say whether an optimizer is torch's Adam, AdamW or SGD, fused, with nothing hooked into its step."""
    usual = all(
        group.get("fused")
        and not group.get("amsgrad")
        and not isinstance(group["lr"], torch.Tensor)
        and not group.get("dampening")
        for group in optimizer.param_groups
    )
    return type(optimizer) in (Adam, AdamW, SGD) and usual and not _hooks(optimizer)


def _hooks(optimizer: torch.optim.Optimizer) -> int:
    return len(optimizer._optimizer_step_pre_hooks) + len(optimizer._optimizer_step_post_hooks)


def _bundle_of(optimizer: torch.optim.Optimizer, group: dict[str, Any]) -> _Bundle:
    states = [optimizer.state[parameter] for parameter in group["params"]]
    if isinstance(optimizer, SGD):
        moments = [[state["momentum_buffer"] for state in states]] if group["momentum"] else [[]]
        return _Bundle(group, group["params"], moments, [])
    moments = [[state[name] for state in states] for name in ("exp_avg", "exp_avg_sq")]
    return _Bundle(group, group["params"], moments, [state["step"] for state in states])


def _fused_step(
    optimizer: torch.optim.Optimizer,
    bundle: _Bundle,
    rate: float | torch.Tensor,
    scale: torch.Tensor | None,
    bad: torch.Tensor | None,
) -> None:
    """Call the kernel as torch.optim does, with the group's settings as they are now."""
    group = bundle.group
    gradients = [gradient for parameter in bundle.parameters if (gradient := parameter.grad) is not None]
    if isinstance(optimizer, SGD):
        torch._fused_sgd_(
            bundle.parameters, gradients, bundle.moments[0],
            weight_decay=group["weight_decay"], momentum=group["momentum"], lr=rate,
            dampening=group["dampening"], nesterov=group["nesterov"], maximize=group["maximize"],
            is_first_step=False, grad_scale=scale, found_inf=bad,
        )  # fmt: skip
        return
    torch._foreach_add_(bundle.steps, 1)
    decoupled = group.get("decoupled_weight_decay", isinstance(optimizer, AdamW))
    kernel = torch._fused_adamw_ if decoupled else torch._fused_adam_
    means, squares = bundle.moments
    kernel(
        bundle.parameters, gradients, means, squares, [], bundle.steps,
        amsgrad=False, lr=rate, beta1=group["betas"][0], beta2=group["betas"][1],
        weight_decay=group["weight_decay"], eps=group["eps"], maximize=group["maximize"],
        grad_scale=scale, found_inf=bad,
    )  # fmt: skip
