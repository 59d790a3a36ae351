"""What a batch is: a tensor, or a mapping, sequence or dataclass that holds tensors."""

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch.nn.utils.rnn import PackedSequence
from torch.utils.data import default_collate


def size_of(part: Any, dim: int) -> int:
    """Return the size of a tensor or array in a dimension; nested tensors have no shape, but a first size."""
    if isinstance(part, torch.Tensor) and part.is_nested:
        return part.size(dim)
    return int(part.shape[dim])


def storage_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """Return the strided tensors that hold what a tensor is: itself, or the indices and values of a sparse one.

    Args:
        tensor: strided, sparse (COO, CSR, CSC, BSR, BSC) or nested tensor.
    """
    if tensor.is_nested:
        if tensor.layout is torch.jagged:
            return [tensor.values(), tensor.offsets()]
        return list(tensor.unbind())
    if tensor.layout is torch.sparse_coo:
        return [tensor._indices(), tensor._values()]  # as they are: `indices()` refuses what is not coalesced
    if tensor.layout in (torch.sparse_csr, torch.sparse_bsr):
        return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
    if tensor.layout in (torch.sparse_csc, torch.sparse_bsc):
        return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return [tensor]


def bytes_of(tensor: torch.Tensor) -> int:
    """Return how many bytes a tensor of any layout takes."""
    return sum(part.numel() * part.element_size() for part in storage_parts(tensor))


def shape_of(tensor: torch.Tensor) -> str:
    """Write the shape of a tensor: `(8, 3)`; a nested one of rows of several lengths has none: `8 nested`."""
    return f"{tensor.size(0)} nested" if tensor.is_nested else str(tuple(tensor.shape))


def named_parts(batch: Any) -> dict[str, Any]:
    """Return the parts of a mapping, dataclass or named tuple by name; nothing of anything else."""
    if isinstance(batch, Mapping):
        return dict(batch)
    if isinstance(batch, tuple) and hasattr(batch, "_fields") and not isinstance(batch, PackedSequence):
        return dict(zip(batch._fields, batch, strict=True))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        return {field.name: getattr(batch, field.name) for field in dataclasses.fields(batch)}
    return {}


def is_sequence(batch: Any) -> bool:
    """Say whether something is a list, tuple or such, but no text."""
    return isinstance(batch, Sequence) and not isinstance(batch, str | bytes)


def to_device(batch: Any, device: torch.device | str) -> Any:
    """Move all tensors of a batch to a device.

    Args:
        batch: a tensor, or mappings, lists, tuples and dataclasses that hold some, in any depth. What has a `to` of its
            own (PackedSequence, a tokenizer's output) is asked for it; anything else stays as it is.
        device: device that the tensors are moved to. A copy from pinned memory to CUDA is only begun: the current
            stream orders what follows.

    Returns:
        A batch of the same types (a mapping that is not a dict becomes one); the given one is not changed.
    """
    # The other way, to the host, a copy that is only begun could be read before it is there.
    non_blocking = torch.device(device).type == "cuda"

    def move(part: Any) -> Any:
        if isinstance(part, torch.Tensor):
            return part.to(device, non_blocking=non_blocking)
        return part.to(device) if callable(getattr(part, "to", None)) else _rebuilt(part, move)

    return move(batch)


def fresh(batch: Any) -> Any:
    """Return a batch in containers of its own, with the very tensors of the given one."""

    def same(part: Any) -> Any:
        return _rebuilt(part, same)

    return same(batch)


def _rebuilt(batch: Any, change: Callable[[Any], Any]) -> Any:
    """Return a container of the same type whose parts went through `change`; anything else unchanged."""
    if isinstance(batch, dict):
        return _with_items(batch, {name: change(part) for name, part in batch.items()})
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*map(change, batch))
    if isinstance(batch, list | tuple):
        return type(batch)(map(change, batch))
    if dataclasses.is_dataclass(batch) and not isinstance(batch, type):
        new = copy.copy(batch)
        for name, part in named_parts(batch).items():
            object.__setattr__(new, name, change(part))  # frozen ones too
        return new
    if isinstance(batch, Mapping):
        return {name: change(part) for name, part in batch.items()}
    return batch


def _with_items(batch: dict[Any, Any], items: dict[Any, Any]) -> dict[Any, Any]:
    if type(batch) is dict:
        return items
    new = copy.copy(batch)  # a subclass may hold more than its items, such as a default factory
    new.update(items)
    return new


def tensors_in(batch: Any) -> Iterator[torch.Tensor]:
    """Go through all tensors that a batch holds."""
    if isinstance(batch, torch.Tensor):
        yield batch
        return
    parts = batch if isinstance(batch, list | tuple) else named_parts(batch).values()
    if not parts and callable(getattr(batch, "to", None)):  # not a container, but `to_device` moves it
        parts = getattr(batch, "__dict__", {}).values()
    for part in parts:
        yield from tensors_in(part)


def named_tensors(batch: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """Go through all tensors that a batch holds, with where they are: `images`, `[0]`, `pair.left`; "" is itself."""
    if isinstance(batch, torch.Tensor):
        yield name, batch
    elif is_sequence(batch):
        for number, part in enumerate(batch):
            yield from named_tensors(part, f"{name}[{number}]")
    else:
        for key, part in named_parts(batch).items():
            yield from named_tensors(part, f"{name}.{key}" if name else str(key))


def with_tensors(batch: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """Return a batch like the given one that holds other tensors.

    Args:
        batch: a tensor, or mappings, lists, tuples and dataclasses that hold some, in any depth.
        tensors: new tensors, as many as `tensors_in(batch)` gives and in its order.

    Returns:
        A batch of the same types; the given one is not changed.
    """
    rest = iter(tensors)

    def take(part: Any) -> Any:
        return next(rest) if isinstance(part, torch.Tensor) else _rebuilt(part, take)

    return take(batch)


def collate(samples: Sequence[Any]) -> Any:
    """Make a batch of samples as torch does, and of dataclasses of tensors a dataclass of stacked ones.

    Args:
        samples: samples of one kind, at least one.

    Returns:
        A batch of the samples' kind, each tensor (B, ...).
    """
    first = samples[0]
    if not dataclasses.is_dataclass(first):
        return default_collate(samples)
    names = named_parts(first)
    return type(first)(**{name: collate([getattr(sample, name) for sample in samples]) for name in names})


def describe(batch: Any, depth: int = 0) -> str:
    """Say in one line what a batch or sample holds: shapes and dtypes of its tensors."""
    if isinstance(batch, torch.Tensor):
        return _described(batch)
    if isinstance(batch, PackedSequence):
        return f"PackedSequence of {int(batch.batch_sizes[0])}: {_described(batch.data)}"
    if hasattr(batch, "shape") and hasattr(batch, "dtype"):
        return f"{type(batch).__name__} {tuple(batch.shape)} {batch.dtype}"
    named = named_parts(batch)
    if depth < 2 and named:
        return "{" + ", ".join(f"{name}: {describe(part, depth + 1)}" for name, part in named.items()) + "}"
    if depth < 2 and is_sequence(batch):
        shown = [describe(part, depth + 1) for part in batch[:4]] + ["..."] * (len(batch) > 4)
        return f"{type(batch).__name__} of {len(batch)}: " + ", ".join(shown)
    text = repr(batch)
    if text.startswith("<") and " object at 0x" in text:  # an address says nothing
        text = f"{type(batch).__name__} object"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _described(tensor: torch.Tensor) -> str:
    dtype = str(tensor.dtype).removeprefix("torch.")
    layout = "" if tensor.layout is torch.strided else f"{str(tensor.layout).removeprefix('torch.')} "
    return f"{layout}tensor {shape_of(tensor)} {dtype}"
