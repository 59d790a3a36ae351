"""An exponential moving average of the weights: often better on new data than the last step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from train.weights import plain_name


class WeightAverage:
    """Follows the parameters of a model: average += (1 - decay) * (parameter - average), after each step.

    Args:
        model: model whose parameters that require a gradient are followed; all else is taken as it is.
        decay: decay of the average, from 0 to 1; 0.999 averages about the last thousand steps.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.decay = decay
        self._names = [plain_name(name) for name, parameter in model.named_parameters() if parameter.requires_grad]
        self.parameters: list[torch.Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        self.averages = [parameter.detach().clone() for parameter in self.parameters]

    @torch.no_grad()
    def update(self) -> None:
        """Follow a step (no synchronisation)."""
        torch._foreach_lerp_(self.averages, self.parameters, 1.0 - self.decay)

    @contextmanager
    def in_model(self) -> Iterator[None]:
        """Put the averages into the model for a block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for parameter, average in zip(self.parameters, self.averages, strict=True):
            kept = parameter.clone()
            parameter.copy_(average)
            average.copy_(kept)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Return the averages by the parameters' names."""
        return dict(zip(self._names, self.averages, strict=True))

    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from a `state_dict`."""
        known = {plain_name(name): average for name, average in state.items()}
        for name, average in zip(self._names, self.averages, strict=True):
            average.copy_(known[name])
