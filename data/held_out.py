"""Data set apart for validation."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import torch

Item = TypeVar("Item")


def set_apart(
    items: Sequence[Item], keys: Sequence[Hashable], share: float, generator: torch.Generator
) -> tuple[list[Item], list[Item]]:
    """Set a share apart for validation; what belongs together stays on one side.

    Args:
        items: what is divided.
        keys: of each item a key, which those that belong together share; two different ones at least.
        share: share of the keys for validation, above 0 and below 1. It is one key at least, and never all.
        generator: generator that draws them.

    Returns:
        The items to train on, and those to validate with; each in the order in which they came.

    Raises:
        ValueError: all belong together.
    """
    groups = list(dict.fromkeys(keys))
    if len(groups) < 2:
        raise ValueError("nothing can be set apart of what belongs together")
    wanted = min(max(1, round(share * len(groups))), len(groups) - 1)
    chosen = {groups[number] for number in torch.randperm(len(groups), generator=generator)[:wanted].tolist()}
    parts: tuple[list[Item], list[Item]] = ([], [])
    for item, key in zip(items, keys, strict=True):
        parts[key in chosen].append(item)
    return parts
