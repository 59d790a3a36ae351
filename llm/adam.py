"""Adam with decoupled weight decay, as a function: new weights and moments, nothing changed in place."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from llm.engine_error import EngineError


@dataclass(frozen=True)
class AdamSettings:
    """Of one step of Adam. The defaults are the Tinker protocol's.

    Attributes:
        learning_rate: step size.
        beta1: decay of the mean gradient.
        beta2: decay of the mean squared gradient.
        eps: added to the root of the mean squared gradient.
        weight_decay: share of a weight that a step takes off, times the learning rate.
        grad_clip_norm: largest L2 norm of the whole gradient; 0 doesn't clip.
    """

    learning_rate: float
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-12
    weight_decay: float = 0.0
    grad_clip_norm: float = 0.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise EngineError(f"{name} of Adam is {value!r}; it must be a finite number, 0 or more")
        for name, value in (("beta1", self.beta1), ("beta2", self.beta2)):
            if value >= 1:
                raise EngineError(f"{name} of Adam is {value}; it must be below 1, such as 0.9")


Moments = tuple[Tensor, Tensor]  # mean gradient, mean squared gradient


def no_moments(weight: Tensor) -> Moments:
    """Return the moments of a weight before its first step: zeros."""
    return torch.zeros_like(weight), torch.zeros_like(weight)


def adam(
    weight: Tensor, gradient: Tensor, moments: Moments, step: int, settings: AdamSettings
) -> tuple[Tensor, Moments]:
    """Return a weight and its moments after a step.

    Args:
        weight: float32.
        gradient: of its shape, clipped already.
        moments: those after the last step.
        step: number of this step, from 1.
        settings: of the step.
    """
    mean = moments[0].lerp(gradient, 1 - settings.beta1)
    square = (moments[1] * settings.beta2).addcmul_(gradient, gradient, value=1 - settings.beta2)
    root = square.sqrt().div_((1 - settings.beta2**step) ** 0.5).add_(settings.eps)
    kept = weight * (1 - settings.learning_rate * settings.weight_decay)
    if settings.eps == 0:  # 0 / 0 where a weight never had a gradient
        root = torch.where(root == 0, torch.ones_like(root), root)
    # Not by addcdiv's `value`, which refuses what float32 doesn't hold: the caller sees that as a weight not finite.
    change = mean.div(root).mul_(settings.learning_rate / (1 - settings.beta1**step))
    return kept.sub_(change), (mean, square)
