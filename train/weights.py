"""A model's weights by their plain names: as they are written, and put back."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

_COMPILED = "_orig_mod"  # the attribute in which torch.compile keeps the module that was given


def plain_name(name: str) -> str:
    """Return the name that a parameter, buffer or module has in the model as its author wrote it, not compiled.

    Args:
        name: name in the model as it is, with torch.compile's `_orig_mod` in it.
    """
    return ".".join(part for part in name.split(".") if part != _COMPILED) if _COMPILED in name else name


def plain_weights(model: nn.Module) -> dict[str, Any]:
    """Return a model's state_dict as files hold it: contiguous, on the CPU, no memory shared (tied weights).

    Copying from a device is a host-device synchronisation. Of a sharded model all processes put each tensor together.

    Args:
        model: model whose weights are copied.

    Returns:
        Tensors by plain name, and what a module's `get_extra_state` gave.
    """
    return {name: _written(value) for name, value in plain_state_dict(model).items()}


def plain_state_dict(model: nn.Module) -> dict[str, Any]:
    """Return a model's state_dict by plain names, with the very tensors.

    Args:
        model: model whose state is asked for.
    """
    return {plain_name(name): value for name, value in model.state_dict().items()}


def _written(value: Any) -> Any:
    if not isinstance(value, torch.Tensor):
        return copy.deepcopy(value)
    whole = value.full_tensor() if hasattr(value, "full_tensor") else value
    return whole.detach().to("cpu", copy=True).contiguous()


def load_weights(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Put weights into a model, whether it is compiled or not; its buffers take the shapes that they had.

    Args:
        model: model of the same parameters.
        weights: weights by name, plain or not.

    Raises:
        RuntimeError: they are of another model.
    """
    plain = {plain_name(name): value for name, value in weights.items()}
    fit_buffers(model, plain)
    own = {plain_name(name): name for name in model.state_dict()}
    model.load_state_dict({own.get(name, name): value for name, value in plain.items()})


def fit_buffers(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Give buffers the shapes that they have in weights: a bank may have grown, or a place been empty.

    Args:
        model: model whose buffers are looked at.
        weights: tensors by plain name.
    """
    modules = {plain_name(name): module for name, module in model.named_modules()}
    for name, value in weights.items():
        path, _, leaf = name.rpartition(".")
        module = modules.get(path)
        if module is None or leaf not in module._buffers or not isinstance(value, torch.Tensor):
            continue
        buffer = module._buffers[leaf]
        if buffer is None or (not is_lazy(buffer) and buffer.shape != value.shape):
            known = next(model.parameters(), buffer) if buffer is None else buffer
            device = "cpu" if known is None else known.device
            module._buffers[leaf] = torch.empty(value.shape, dtype=value.dtype, device=device)


class ModuleState:
    """A module's parameters and buffers as a stateful part, by plain names.

    Args:
        module: module whose state it is.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def state_dict(self) -> dict[str, Any]:
        """Return the very tensors by plain names."""
        return plain_state_dict(self.module)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`."""
        load_weights(self.module, state)


def shapes_of_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return tensors without content that have the shapes of a model's buffers, by plain name.

    Args:
        model: model whose buffers are looked at.
    """
    return {plain_name(name): torch.empty_like(buffer, device="meta") for name, buffer in model.named_buffers()}


class BufferShapes:
    """The shapes that a model's buffers had when the run began, as a stateful part: they follow from the settings.

    A buffer may change its shape while training, and takes the saved one when a run is gone on with. One that begins
    with another shape than it did is of other settings.

    Args:
        model: model that is built and has not trained yet.
    """

    def __init__(self, model: nn.Module) -> None:
        self._shapes = {plain_name(name): list(buffer.shape) for name, buffer in model.named_buffers()}

    def state_dict(self) -> dict[str, list[int]]:
        """Return the shapes by plain names."""
        return self._shapes

    def load_state_dict(self, state: dict[str, list[int]]) -> None:
        """Compare the shapes with those of a run that is gone on with, which stay those that it began with.

        Raises:
            ValueError: a buffer begins with another shape.
        """
        for name, shape in state.items():
            now = self._shapes.get(name, shape)
            if now != shape:
                raise ValueError(f"the buffer {name} began with the shape {tuple(shape)}, and now has {tuple(now)}.")
