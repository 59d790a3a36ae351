"""What a batch is: a tensor, or a mapping, sequence or dataclass that holds tensors."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch


def batch_size_of(batch: Any) -> int:
    """Count the samples of a batch.

    Args:
        batch: a tensor (B, ...), or a mapping, list, tuple or dataclass that holds some. An integer `batch_size`
            entry of a mapping or dataclass wins.

    Returns:
        B, the first dimension of the first tensor found; 1 where there is none.
    """
    return _find_size(batch) or 1


def _find_size(batch: Any) -> int | None:
    if isinstance(batch, torch.Tensor):
        return batch.shape[0] if batch.dim() else None
    named = _named_parts(batch)
    declared = named.get("batch_size")
    if isinstance(declared, int):
        return declared
    parts = named.values() if named else batch if _is_sequence(batch) else ()
    return next((size for part in parts if (size := _find_size(part)) is not None), None)


def _named_parts(batch: Any) -> dict[str, Any]:
    if isinstance(batch, Mapping):
        return dict(batch)
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {}


def _is_sequence(batch: Any) -> bool:
    return isinstance(batch, Sequence) and not isinstance(batch, str | bytes)


def describe(batch: Any, depth: int = 0) -> str:
    """Say in one line what a batch or sample holds: shapes and dtypes of its tensors."""
    if isinstance(batch, torch.Tensor):
        return f"tensor {tuple(batch.shape)} {str(batch.dtype).removeprefix('torch.')}"
    if hasattr(batch, "shape") and hasattr(batch, "dtype"):
        return f"{type(batch).__name__} {tuple(batch.shape)} {batch.dtype}"
    named = _named_parts(batch)
    if depth < 2 and named:
        return "{" + ", ".join(f"{name}: {describe(part, depth + 1)}" for name, part in named.items()) + "}"
    if depth < 2 and _is_sequence(batch):
        shown = [describe(part, depth + 1) for part in batch[:4]] + ["..."] * (len(batch) > 4)
        return f"{type(batch).__name__} of {len(batch)}: " + ", ".join(shown)
    text = repr(batch)
    return text if len(text) <= 60 else f"{text[:57]}..."
