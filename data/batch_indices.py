"""Which samples are in which batch of a loader, found without reading any."""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from data.loaders import EpochLoader, cpu_random_states_kept
from data.tensor_loader import TensorLoader


def batch_indices(loader: Any, first: int, count: int) -> list[list[Any]] | None:
    """Tell the dataset's indices of some batches of the pass that would begin now.

    No sample is read and nothing is drawn: afterwards the global random numbers and the loader with its samplers are as
    they were, so the next pass is the one that was told.

    Args:
        loader: a DataLoader, a TensorLoader or what `make_loader` gives; where it has a `set_epoch`, that was called.
        first: number of the first batch, from 0.
        count: number of batches; fewer come back where the pass ends before.

    Returns:
        A list of indices for each batch, whatever the sampler gives as such. None where there are none: a dataset that
        is only iterated, another class of loader, or a sampler that can't be copied.
    """
    if isinstance(loader, TensorLoader):
        return [rows.tolist() for rows in loader.epoch_batches()[first : first + count]]
    if not draws_like_torch(loader):
        return None
    with cpu_random_states_kept():  # no sampler draws on a GPU
        try:
            batches = begin_pass(loader)
        except Exception:  # a sampler may hold an open file, or anything else that has no copy
            return None
        return [_plain(batch) for batch in islice(batches, first, first + count)]


def draws_like_torch(loader: Any) -> bool:
    """Say whether a loader is a DataLoader over samples by index whose passes are torch's own."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return False
    return type(loader) is EpochLoader or type(loader).__iter__ is DataLoader.__iter__


def begin_pass(loader: DataLoader) -> Iterator[Any]:
    """Begin a pass as torch does, over a copy of the sampler: its generators and counters may move.

    Args:
        loader: one that `draws_like_torch`. The global random numbers are the caller's to put back.

    Returns:
        What the sampler gives for each batch: indices, or without a batch size one index.
    """
    own = loader.sampler if loader.batch_sampler is None else loader.batch_sampler
    # The data is not copied: a sampler may know the dataset, its own `data_source`, only to ask for its length.
    shared = [loader.dataset, getattr(loader.sampler, "data_source", None)]
    sampler, generator = copy.deepcopy((own, loader.generator), {id(thing): thing for thing in shared})
    if type(loader) is EpochLoader:
        sampler.sampler.epoch.fill_(loader.epoch)
        return iter(sampler)
    # With workers the sampler is asked twice, before and after the workers' seed is drawn. Workers that live on are
    # given no new seed.
    batches = iter(sampler)
    if not (loader.num_workers and loader.persistent_workers and loader._iterator is not None):
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        if loader.num_workers:
            batches = iter(sampler)
    return batches


def _plain(batch: Any) -> list[Any]:
    # Without a batch size the sampler's word is the index itself.
    indices = batch if isinstance(batch, list | tuple) or getattr(batch, "ndim", 0) else [batch]
    return [index.item() if isinstance(index, torch.Tensor | np.generic) else index for index in indices]
