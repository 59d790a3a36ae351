"""Copies of trees of plain data and tensors."""

import copy
from typing import Any

import torch

_PLAIN = frozenset({int, float, bool, str, bytes, type(None)})


def copied(value: Any, on_host: bool = False) -> Any:
    """Copy a tree of plain data and tensors.

    Args:
        value: dicts, lists, tuples, tensors and plain data, nested.
        on_host: copy tensors to the host (host-device synchronisations).
    """
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True) if on_host else value.detach().clone()
    if isinstance(value, dict):
        return {key: copied(item, on_host) for key, item in value.items()}
    if type(value) in _PLAIN or (type(value) is tuple and _PLAIN.issuperset(map(type, value))):
        return value  # a saver that waits copies Python's 625 random numbers each epoch: as few calls as can be
    if isinstance(value, list | tuple) and not hasattr(value, "_fields"):
        return type(value)(copied(item, on_host) for item in value)
    return copy.deepcopy(value)
