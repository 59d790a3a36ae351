"""The zoo's networks as data for the autoencoder: who is in which split, and loaders over their tokens."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from constants.counting import counted
from data.data_error import DataError
from data.model_zoo import ModelZoo
from data.tensor_loader import TensorLoader, epoch_generator

Tokens = dict[str, torch.Tensor]


@dataclass(frozen=True)
class NetworkSplit:
    """Indices of a zoo's networks. All checkpoints of a network are in one part.

    Attributes:
        train: indices of the networks that the autoencoder learns from.
        val: indices of the networks that early stopping looks at.
        test: indices of the networks that are reported on, and used for nothing else.
    """

    train: tuple[int, ...]
    val: tuple[int, ...]
    test: tuple[int, ...]


def split_networks(zoo: ModelZoo, val_share: float, test_share: float, seed: int) -> NetworkSplit:
    """Split a zoo by network, each family in the same proportion.

    Args:
        zoo: networks to split.
        val_share: validation part's share of each family's networks, from 0 to 1.
        test_share: test part's share of each family's networks, from 0 to 1.
        seed: seed of the draw of the parts.

    Raises:
        DataError: a part would be empty.
    """
    draw = np.random.default_rng(seed)
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for family in dict.fromkeys(entry.family for entry in zoo):
        members = draw.permutation([index for index, entry in enumerate(zoo) if entry.family == family]).tolist()
        test, val = round(test_share * len(members)), round(val_share * len(members))
        parts["test"] += members[:test]
        parts["val"] += members[test : test + val]
        parts["train"] += members[test + val :]
    if empty := [name for name, members in parts.items() if not members]:
        raise DataError(
            f"the zoo in {zoo.path} has {counted(len(zoo), 'network')}; with val_share = {val_share:g} and "
            f"test_share = {test_share:g} there is none for {', '.join(empty)}. Change the shares or use a larger zoo."
        )
    return NetworkSplit(**{name: tuple(sorted(members)) for name, members in parts.items()})


def join_tokens(parts: Sequence[Tokens]) -> Tokens:
    """Put tokens of several networks below each other."""
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


class AugmentedLoader:
    """Shuffled batches of tensors that are made anew each epoch.

    What an epoch draws comes from (seed, epoch) alone, as in `TensorLoader`.

    Args:
        make: function that returns an epoch's tensors; it draws from the generator that it is given.
        batch_size: rows a batch.
        seed: seed of augmentation and order.
    """

    def __init__(self, make: Callable[[torch.Generator], Tokens], batch_size: int, seed: int) -> None:
        self._make, self.batch_size, self.seed, self.epoch = make, batch_size, seed, 0
        self._share, self.stand_ins = (0, 1), frozenset()
        first = self._loader(0)
        self.dataset, self._length = first.dataset, len(first)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose tensors the next pass gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._length

    def shard_loader(self, rank: int, size: int) -> None:
        """Give one process's part of each batch from now on: see `TensorLoader.shard_loader`."""
        self._share = (rank, size)
        self.stand_ins = self._loader(0).stand_ins

    def __iter__(self) -> Iterator[Tokens]:
        loader = self._loader(self.epoch)
        self.epoch += 1
        yield from loader

    def epoch_rows(self) -> Tokens | None:
        """Give all of the epoch at hand at once, in its order, and count it: see `TensorLoader.epoch_rows`."""
        rows = self._loader(self.epoch).epoch_rows()
        self.epoch += rows is not None
        return rows

    def _loader(self, epoch: int) -> TensorLoader:
        generator = epoch_generator(self.seed, epoch)
        loader = TensorLoader(self._make(generator), self.batch_size, shuffle=True, seed=self.seed)
        loader.set_epoch(epoch)
        loader.shard_loader(*self._share)
        return loader
