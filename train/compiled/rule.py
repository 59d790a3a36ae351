"""Adam, AdamW and SGD as functions of tensors, for steps that are compiled whole. The formulas are torch.optim's."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim import SGD, AdamW

from train.steps.update import note_step, plain_and_fused

Tensors = list[torch.Tensor]


class UpdateRule:
    """What an optimizer does to its parameters, as a function; its state stays where the optimizer keeps it.

    Learning rates and Adam's bias corrections are numbers of a step: they come in a table, a row for each step, so that
    a scheduler may change them without anything being compiled anew.

    Args:
        optimizer: optimizer of torch's class Adam, AdamW or SGD, fused.
        parameters: parameters of the optimizer that have a gradient.
        clip: largest L2 norm of the whole gradient; 0 doesn't clip.

    Raises:
        ValueError: another optimizer, or settings that have no function here; the text says which.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, parameters: Sequence[torch.Tensor], clip: float) -> None:
        if not plain_and_fused(optimizer):
            raise ValueError(
                f"{type(optimizer).__name__} as it is set up (another class than Adam, AdamW and SGD, or amsgrad, "
                "dampening, foreach or hooks) can't be part of a program"
            )
        if len({bool(group.get("momentum")) for group in optimizer.param_groups}) > 1:
            raise ValueError("some of the optimizer's groups have momentum and some have none")
        self.optimizer, self.parameters, self.clip = optimizer, list(parameters), clip
        wanted = set(map(id, parameters))
        self.group_of = {
            id(parameter): number
            for number, group in enumerate(optimizer.param_groups)
            for parameter in group["params"]
            if id(parameter) in wanted
        }
        self.groups = [self.group_of[id(parameter)] for parameter in self.parameters]
        self.settings = self._settings()
        self.moments_each = 2 if not isinstance(optimizer, SGD) else 1 if self.settings[0]["momentum"] else 0

    def changed(self) -> str | None:
        """Say which setting besides the learning rate is another one now than when the program was made."""
        for number, (old, new) in enumerate(zip(self.settings, self._settings(), strict=False)):
            for name, value in new.items():
                if old.get(name) != value:
                    return f"the optimizer's {name} of group {number} is {value}, it was {old.get(name)}"
        same = len(self.optimizer.param_groups) == len(self.settings)
        return None if same else "the optimizer has another number of parameter groups"

    def _settings(self) -> list[dict[str, Any]]:
        left_out = ("params", "lr", "initial_lr")
        return [
            {name: value for name, value in group.items() if name not in left_out}
            for group in self.optimizer.param_groups
        ]

    def state(self) -> Tensors:
        """Return the optimizer's moments, those of a parameter side by side; made of zeros where it has none yet."""
        names = ("exp_avg", "exp_avg_sq")[: self.moments_each] if self.moments_each == 2 else ("momentum_buffer",)
        found: Tensors = []
        for parameter in self.parameters:
            state = self.optimizer.state[parameter]
            if not state and self.moments_each:
                if self.moments_each == 2:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                for name in names:
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            found += [state[name] for name in names[: self.moments_each]]
        return found

    def steps_done(self) -> float:
        """Return how many steps Adam has counted. A host-device synchronisation."""
        state = self.optimizer.state[self.parameters[0]]
        return float(state["step"]) if "step" in state else 0.0

    def count_steps(self, steps: float) -> None:
        """Let Adam count steps that were made without it."""
        counters = {id(state["step"]): state["step"] for state in self._states() if "step" in state}
        for counter in counters.values():
            counter.add_(steps)
        note_step(self.optimizer)

    def _states(self) -> list[dict[str, Any]]:
        return [self.optimizer.state[parameter] for parameter in self.parameters]

    def hyperparameters(self, step: float) -> list[float]:
        """Return a step's numbers, three for each group: learning rate over bias correction, Adam's other, the rate.

        Args:
            step: number of the optimizer step, counted from 1.
        """
        numbers = []
        for group in self.optimizer.param_groups:
            if self.moments_each == 2:
                beta1, beta2 = group["betas"]
                numbers += [group["lr"] / (1 - beta1**step), (1 - beta2**step) ** 0.5, group["lr"]]
            else:
                numbers += [group["lr"], 1.0, group["lr"]]
        return numbers

    def __call__(self, parameters: Tensors, gradients: Tensors, moments: Tensors, row: torch.Tensor) -> tuple[Any, Any]:
        """Return new parameters and moments.

        Args:
            parameters: values of the rule's `parameters`, in their order.
            gradients: gradient of each parameter, before it is clipped.
            moments: moments of the optimizer, in the order of `state`.
            row: (3 * groups,) float64 numbers of the step, see `hyperparameters`.
        """
        if self.clip:
            norm = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            factor = (self.clip / (norm + 1e-6)).clamp(max=1.0)
            gradients = [gradient * factor.to(gradient.dtype) for gradient in gradients]
        new_parameters, new_moments = [], []
        each = self.moments_each
        for number, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            group = self.groups[number]
            numbers = [row[3 * group + column].to(parameter.dtype) for column in range(3)]
            own = moments[each * number : each * (number + 1)]
            parameter, own = self.elementwise(group, parameter, gradient, own, numbers)
            new_parameters.append(parameter)
            new_moments += own
        return new_parameters, new_moments

    def elementwise(self, group: int, p: Any, g: Any, moments: Tensors, numbers: Tensors) -> tuple[Any, Tensors]:
        """Return new numbers and moments, of a parameter or of many in one tensor.

        Args:
            group: number of the optimizer's group, whose settings count.
            p: parameter, or many in one tensor.
            g: gradient of the parameter, clipped.
            moments: moments of the parameter.
            numbers: three numbers of the step for the group, see `hyperparameters`; as tensors that broadcast with the
                parameter.
        """
        update = self._adam if self.moments_each == 2 else self._sgd
        return update(self.settings[group], p, g, moments, numbers)

    def _adam(self, group: dict[str, Any], p: Any, g: Any, moments: Tensors, numbers: Tensors) -> tuple[Any, Tensors]:
        """Kingma and Ba 2015, algorithm 1; with decoupled decay Loshchilov and Hutter 2019, algorithm 2."""
        (first, second), (rate, correction, plain_rate) = moments, numbers
        beta1, beta2 = group["betas"]
        g = -g if group["maximize"] else g
        if group["weight_decay"]:
            if group.get("decoupled_weight_decay", isinstance(self.optimizer, AdamW)):
                p = p * (1 - plain_rate * group["weight_decay"])
            else:
                g = g + p * group["weight_decay"]
        first = first + (1 - beta1) * (g - first)
        second = beta2 * second + (1 - beta2) * g * g
        return p - rate * first / (second.sqrt() / correction + group["eps"]), [first, second]

    def _sgd(self, group: dict[str, Any], p: Any, g: Any, moments: Tensors, numbers: Tensors) -> tuple[Any, Tensors]:
        """As torch.optim.SGD: the rate multiplies the momentum, it isn't part of it."""
        g = -g if group["maximize"] else g
        if group["weight_decay"]:
            g = g + p * group["weight_decay"]
        if moments:
            moments = [group["momentum"] * moments[0] + g]
            g = g + group["momentum"] * moments[0] if group["nesterov"] else moments[0]
        return p - numbers[0] * g, moments
