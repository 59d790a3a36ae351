"""A trainer's loss function as a module, for torch's engines."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from train.errors import TrainerContractError
from train.trainer_protocol import Trainer, other_modules


class LossModule(nn.Module):
    """A trainer's loss function as a module. The trainer keeps its plain model.

    Args:
        trainer: trainer of which all that the optimizer updates is in this module: the model, other modules such as a
            loss with parameters, and parameters of the trainer's own.
        loss_function: function that maps a batch to its loss.
    """

    def __init__(self, trainer: Trainer, loss_function: Callable[[Any], torch.Tensor]) -> None:
        super().__init__()
        self.parts = nn.ModuleList([trainer.model, *other_modules(trainer).values()])
        known = {id(parameter) for parameter in self.parameters()}
        updated = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
        loose = [parameter for parameter in updated if id(parameter) not in known]
        if not all(isinstance(parameter, nn.Parameter) for parameter in loose):
            raise TrainerContractError(
                f"{type(trainer).__name__}: the optimizer updates a tensor that is no nn.Parameter; several processes "
                "need it to be one."
            )
        self.loose = nn.ParameterList(loose)
        self._loss_function = loss_function

    def forward(self, batch: Any) -> torch.Tensor:
        """Return the loss of a batch."""
        return self._loss_function(batch)
