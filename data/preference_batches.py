"""Batches of pairs of answers, laid end to end."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Dataset

from data.preference_pairs import PreferencePair
from data.token_batches import TokenBatch, pack_rows


@dataclass
class PreferenceBatch:
    """Pairs of answers.

    Attributes:
        rows: the rows of all pairs laid end to end: all that are chosen, then all that are rejected, in the same order.
        counts: (2P,) int64, tokens of each row's answer.
        numbers: (P,) int64, number of each pair in the data.
    """

    rows: TokenBatch
    counts: Tensor
    numbers: Tensor

    @property
    def batch_size(self) -> int:
        """Number of pairs."""
        return len(self.numbers)


class PreferencePairs(Dataset[tuple[int, PreferencePair]]):
    """Pairs by their number.

    Args:
        pairs: the pairs.
    """

    def __init__(self, pairs: Sequence[PreferencePair]) -> None:
        self.pairs = tuple(pairs)

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> tuple[int, PreferencePair]:
        return index, self.pairs[index]


def pack_pairs(numbered: Sequence[tuple[int, PreferencePair]]) -> PreferenceBatch:
    """Lay pairs end to end.

    Args:
        numbered: pairs with their numbers in the data.
    """
    rows = [pair.chosen for _, pair in numbered] + [pair.rejected for _, pair in numbered]
    counts = torch.tensor([int((row.weights[1:] != 0).sum()) for row in rows])
    return PreferenceBatch(pack_rows(rows), counts, torch.tensor([number for number, _ in numbered]))
