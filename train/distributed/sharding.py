"""A model whose weights, gradients and optimizer states are spread over the processes: torch's `fully_shard` (FSDP2).

Each process keeps a slice of every parameter. A unit's parameters are put together when it computes, and taken apart
again. A unit is what is in a ModuleList, such as a transformer's blocks; all the rest of a trainer is one more.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from config import ConfigError
from storage.checkpoint_store import Checkpoint
from storage.plain_state import flatten, restore
from train.distributed.loss_module import LossModule
from train.steps.guard import Guard
from train.steps.update import Update, note_step
from train.trainer_protocol import Trainer, other_modules
from train.weights import plain_name, plain_state_dict

_MODULES = "state.state.modules."  # what the names of a checkpoint's tensors begin with, of modules beside the model


class ShardedLoss(LossModule):
    """A trainer's loss function over slices.

    Args:
        trainer: trainer whose model and other modules are parts of this module.
        loss_function: function that maps a batch to its loss.

    Attributes:
        unshard: method that puts together what is outside of the units; `fully_shard` adds it.
        set_requires_gradient_sync: method that says whether a backward pass adds the gradients up over the processes;
            `fully_shard` adds it.
    """

    unshard: Callable[[], object]
    set_requires_gradient_sync: Callable[[bool], None]

    def __init__(self, trainer: Trainer, loss_function: Callable[[Any], torch.Tensor]) -> None:
        super().__init__(trainer, loss_function)
        self._trainer = [trainer]  # not a part of this module

    def target(self, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """Return a tensor that a checkpoint's tensor can be read into: a slice where this process has one.

        Args:
            name: name of the tensor in the checkpoint, as `flatten` gives it.
            shape: shape of the whole tensor.
            dtype: dtype of the tensor.
        """
        like = self._like(name)
        return torch.empty_like(like) if like is not None and like.shape == shape else torch.empty(shape, dtype=dtype)

    def placed(self, checkpoint: Checkpoint) -> Checkpoint:
        """Return a checkpoint with this process's slices, also of one that a whole model has written."""
        if checkpoint.sharded:
            return checkpoint
        tree, tensors = flatten({"weights": checkpoint.weights, "state": checkpoint.state})
        slices = {name: placed_like(tensor, self._like(name)) for name, tensor in tensors.items()}
        return Checkpoint(**restore(tree, slices), sharded=True)

    def load_whole(self, weights: dict[str, torch.Tensor]) -> None:
        """Take whole weights, which the main process has, and leave the model as its own code can use it.

        What is outside of the units is put together, again too when a `state_dict()` has taken it apart; they do it by
        themselves.
        """
        options, model = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True), self._trainer[0].model
        set_model_state_dict(model, {**weights}, options=options)
        model.register_state_dict_post_hook(lambda *_: self.unshard())
        self.unshard()

    def _like(self, name: str) -> torch.Tensor | None:
        """Return the sharded tensor that a checkpoint's tensor belongs to."""
        trainer = self._trainer[0]
        if name.startswith("state.weights."):
            return plain_state_dict(trainer.model).get(name.removeprefix("state.weights."))
        if name.startswith("state.state.average."):
            named = {plain_name(own): parameter for own, parameter in trainer.model.named_parameters()}
            return named.get(name.removeprefix("state.state.average."))
        if name.startswith(_MODULES):
            rest = name.removeprefix(_MODULES)
            found = {
                f"{path}.{key}": tensor
                for path, module in other_modules(trainer).items()
                for key, tensor in plain_state_dict(module).items()
            }
            return found.get(rest)
        moment = re.fullmatch(r"state\.state\.optimizer\.state\.(\d+)\.\w+", name)
        if moment is None:
            return None
        updated = [parameter for group in trainer.optimizer.param_groups for parameter in group["params"]]
        return updated[int(moment[1])]


def shard(trainer: Trainer, loss_function: Callable[[Any], torch.Tensor]) -> ShardedLoss:
    """Spread what a trainer's optimizer updates over the processes; the optimizer goes on with the slices.

    Args:
        trainer: trainer whose model is on its device, before its first step.
        loss_function: function that maps a batch to its loss.

    Returns:
        The loss function to be called instead: it puts parameters together where they are needed.

    Raises:
        ConfigError: a setting or a part of the trainer that can't be sharded.
    """
    sharded, optimizer = ShardedLoss(trainer, loss_function), trainer.optimizer
    _require_shardable(trainer, sharded)
    before = {id(parameter): name for name, parameter in sharded.named_parameters(remove_duplicate=False)}
    for unit in units_of(sharded):
        fully_shard(unit, reshard_after_forward=True)
    fully_shard(sharded, reshard_after_forward=True)
    after = dict(sharded.named_parameters(remove_duplicate=False))
    for group in optimizer.param_groups:
        group["params"] = [after[before[id(parameter)]] for parameter in group["params"]]
    return sharded


def _require_shardable(trainer: Trainer, sharded: ShardedLoss) -> None:
    config, problems = trainer.config, []
    if len(sharded.loose):
        problems.append("the optimizer updates parameters outside of modules; put them into the model")
    if trainer.optimizer.state:
        problems.append("the optimizer has a state already; make a new one")
    if config.precision == "fp16":
        problems.append("precision = fp16 can't be sharded; use bf16")
    if config.save_in_background:
        problems.append("save_in_background = on can't be: all processes write a checkpoint together")
    if config.recompute_activations:
        problems.append("recompute_activations = on is for strategy = ddp")
    if not trainer.saves_plain_weights:
        problems.append(f"{type(trainer).__name__} has a save_model() of its own, which would see slices")
    if problems:
        raise ConfigError([f"strategy = fsdp2: {problem}." for problem in problems])


def units_of(module: nn.Module) -> list[nn.Module]:
    """Return the outermost modules that are in a ModuleList, have parameters, and share none with others."""
    found: list[nn.Module] = []

    def search(part: nn.Module, listed: bool) -> None:
        if listed and type(part).forward is not nn.Module.forward and next(part.parameters(), None) is not None:
            found.append(part)
            return
        for child in part.children():
            search(child, isinstance(part, nn.ModuleList))

    for part in module.parts if isinstance(module, LossModule) else [module]:
        search(part, False)
    return [unit for unit in found if not _shares_parameters(unit, module)]


def _shares_parameters(unit: nn.Module, whole: nn.Module) -> bool:
    inside, own = set(unit.modules()), {id(parameter) for parameter in unit.parameters()}
    outside = (owner for owner in whole.modules() if owner not in inside)
    return any(id(parameter) in own for owner in outside for parameter in owner.parameters(recurse=False))


class ShardedUpdate(Update):
    """Clips by the norm of the whole gradient, and updates each process's slices.

    Args:
        optimizer: optimizer over sharded parameters.
        clip: largest L2 norm of the whole gradient; 0 doesn't clip.
        guard: guard that judges each step.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, clip: float, guard: Guard) -> None:
        super().__init__(optimizer, clip, None, guard)

    def _look(self) -> None:
        self.parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]

    @torch.no_grad()
    def __call__(self, divisor: torch.Tensor | None = None) -> None:
        """Update the parameters by their gradients: as `Update`."""
        self._look()
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        norm = _whole(torch.nn.utils.get_total_norm(gradients))
        if self.keeps_norm:
            self.norm = norm if divisor is None else norm / divisor
        bad = self.guard.judge(norm)
        if self.guard.blocked:
            note_step(self.optimizer)
            return
        scale = self._scale(norm, divisor)
        if scale is not None:
            torch._foreach_div_([_local(gradient) for gradient in gradients], scale)
        slices = [_local(parameter) for parameter in self.parameters]
        before = None if bad is None else [part.clone() for part in slices]
        self.optimizer.step()
        if before is not None and bad is not None:  # the verdict is on the device, and is not waited for
            for part, kept in zip(slices, before, strict=True):
                torch.where(bad.bool(), kept, part, out=part)


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def placed_like(whole: torch.Tensor, target: torch.Tensor | None) -> torch.Tensor:
    """Return this process's slice of a tensor that every process has whole.

    Args:
        whole: whole tensor, on the CPU.
        target: tensor that is sharded as the result shall be; anything else leaves `whole` as it is.
    """
    if not isinstance(target, DTensor) or target.shape != whole.shape:
        return whole
    device = target.to_local().device
    return distribute_tensor(whole.to(device), target.device_mesh, target.placements, src_data_rank=None)
