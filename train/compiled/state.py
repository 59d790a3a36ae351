"""The state that a step changes, to be put back."""

import copy
from typing import Any

import torch
from torch.optim import SGD, Adam, AdamW

from train.compiled.purity import buffers_of, places_of
from train.seeding import random_states, set_random_states


class TrainingState:
    """A copy of all tensors that a step changes, and of the random numbers' states.

    Args:
        trainer: a BaseTrainer.
        whole: whether the optimizer's state is copied too, without which there is no `restore`.
    """

    def __init__(self, trainer: Any, whole: bool = True) -> None:
        self._optimizer = trainer.optimizer
        places = list(places_of(trainer))
        found = [*trainer._update.parameters, *(trainer._average.averages if trainer._average is not None else [])]
        found += [tensor for place in places for tensor in place.get("_parameters", {}).values() if tensor is not None]
        self.parameters = [tensor.detach() for tensor in {id(tensor): tensor for tensor in found}.values()]
        self.buffers = buffers_of(places)
        self._tensors = [*self.parameters, *self.buffers]
        self._guard, self._guarded = trainer._update.guard, trainer._update.guard.state()
        self.values = [tensor.clone() for tensor in self._tensors]
        self._moments = [(tensor, tensor.clone()) for tensor in self._optimizer_tensors()] if whole else []
        # Of torch's own optimizers it is known that a state, once made, changes in place.
        in_place = self._moments and type(self._optimizer) in (Adam, AdamW, SGD)
        self._rebuilt = copy.deepcopy(self._optimizer.state_dict()) if whole and not in_place else None
        self._random = random_states()

    def restore(self) -> None:
        """Put everything back."""
        for tensor, value in zip(self._tensors, self.values, strict=True):
            tensor.copy_(value)
        if self._rebuilt is not None:
            self._optimizer.load_state_dict(copy.deepcopy(self._rebuilt))
        for tensor, value in self._moments if self._rebuilt is None else ():
            tensor.copy_(value)  # where it is: a captured graph knows its address
        self._guard.set_state(self._guarded)
        set_random_states(self._random)

    def _optimizer_tensors(self) -> list[torch.Tensor]:
        states = [state.values() for state in self._optimizer.state.values()]
        tensors = [value for values in states for value in values if isinstance(value, torch.Tensor)]
        return list({id(tensor): tensor for tensor in tensors}.values())
