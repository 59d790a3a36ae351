"""A DataLoader over a TensorDataset, read as what it is: tensors in an order. Same batches, without a row at a time."""

import weakref
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, TensorDataset, default_collate

from data.memory import free_bytes

_VIEWS: weakref.WeakKeyDictionary[DataLoader, "TensorRows | None"] = weakref.WeakKeyDictionary()


class TensorRows:
    """The batches of a DataLoader, cut from one permuted copy of its tensors.

    Bit by bit the same batches in the same order, and the same draws from torch's random numbers.

    Args:
        loader: a DataLoader over a TensorDataset on the CPU, as `quick` accepts it.
    """

    def __init__(self, loader: DataLoader) -> None:
        self._loader = loader
        self.batch_size = loader.batch_size

    def __len__(self) -> int:
        return len(self._loader)

    def epoch_rows(self) -> list[torch.Tensor]:
        """Draw an epoch's order and return the rows in it: a tensor (N', ...) for each of the dataset's."""
        # A DataLoader draws a seed for its workers before its sampler draws, also where it has none.
        torch.empty((), dtype=torch.int64).random_(generator=self._loader.generator)
        order = torch.tensor([index for batch in self._loader.batch_sampler for index in batch])
        return [tensor.index_select(0, order) for tensor in self._loader.dataset.tensors]

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        columns = [rows.split(self.batch_size) for rows in self.epoch_rows()]
        return map(list, zip(*columns, strict=True))


def quick(loader: Iterable[Any], memory_share: float = 0.5) -> Iterable[Any]:
    """Return what gives a loader's batches fastest: the loader itself, or `TensorRows` where that is possible.

    Args:
        loader: a DataLoader over a TensorDataset on the CPU, without workers, with torch's own samplers and collation,
            is read as tensors; any other stays.
        memory_share: share of the free memory that a copy of the data may take, from 0 to 1.
    """
    if type(loader) is not DataLoader:
        return loader
    if loader not in _VIEWS:
        _VIEWS[loader] = TensorRows(loader) if _is_plain(loader) and _fits(loader, memory_share) else None
    view = _VIEWS[loader]
    return loader if view is None else view


def _is_plain(loader: DataLoader) -> bool:
    return (
        type(loader.dataset) is TensorDataset
        and all(tensor.device.type == "cpu" and tensor.layout == torch.strided for tensor in loader.dataset.tensors)
        and loader.num_workers == 0
        and type(loader.batch_sampler) is BatchSampler
        and type(loader.sampler) in (RandomSampler, SequentialSampler)
        and loader.collate_fn is default_collate
    )


def _fits(loader: DataLoader, memory_share: float) -> bool:
    free = free_bytes(torch.device("cpu"))
    return free is None or sum(tensor.nbytes for tensor in loader.dataset.tensors) <= memory_share * free
