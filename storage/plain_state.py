"""States as plain data: a tree of Python values in JSON, its tensors in safetensors. Nothing is pickled."""

from collections.abc import Mapping
from typing import Any

import torch

_TENSOR, _TUPLE, _PAIRS = "__tensor__", "__tuple__", "__pairs__"


def flatten(tree: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """Split a state into what JSON holds and its tensors.

    Args:
        tree: dicts, lists, tuples, numbers, strings, None and tensors, nested.

    Returns:
        The tree with a reference in place of each tensor, and the tensors by reference.

    Raises:
        TypeError: something else is in it; the text says where.
    """
    tensors: dict[str, torch.Tensor] = {}
    return _pack(tree, "state", tensors), tensors


def _pack(value: Any, where: str, tensors: dict[str, torch.Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor):
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[where] = value.detach().to("cpu", copy=True).contiguous()
        return {_TENSOR: where}
    if isinstance(value, Mapping):
        pairs = [(key, _pack(item, f"{where}.{key}", tensors)) for key, item in value.items()]
        if all(isinstance(key, str) and not key.startswith("__") for key, _ in pairs):
            return dict(pairs)
        return {_PAIRS: [[_pack(key, f"{where}.key", tensors), item] for key, item in pairs]}
    if isinstance(value, list | tuple):
        items = [_pack(item, f"{where}.{index}", tensors) for index, item in enumerate(value)]
        return {_TUPLE: items} if isinstance(value, tuple) else items
    if hasattr(value, "item"):  # a numpy number
        return value.item()
    raise TypeError(
        f"{where} is of type {type(value).__name__}; a checkpoint holds numbers, strings, lists, dicts, tensors."
    )


def restore(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """Put together again what `flatten` split."""
    if isinstance(packed, list):
        return [restore(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    if _TENSOR in packed:
        return tensors[packed[_TENSOR]]
    if _TUPLE in packed:
        return tuple(restore(item, tensors) for item in packed[_TUPLE])
    if _PAIRS in packed:
        return {restore(key, tensors): restore(item, tensors) for key, item in packed[_PAIRS]}
    return {key: restore(item, tensors) for key, item in packed.items()}
