"""Batches of rows of tokens, laid end to end: no padding, no row lost, an order that follows from (seed, epoch)."""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

from data.data_error import DataError
from data.tensor_loader import epoch_generator
from data.token_row import TokenRow
from model.packed_attention import PackedRows

_OF_EACH_TOKEN = ("ids", "weights")
_JITTER = 0.5  # rows are packed in the order of their lengths, each made longer by up to this share


@dataclass
class TokenBatch:
    """Rows of tokens, laid end to end.

    Attributes:
        tokens: (T,) int64 what the model reads: each row but its last token.
        rows: where each row begins, and the position of each token in it.
        places: (N,) int64 which of the tokens have a prediction that counts; logits are needed for these only.
        targets: (N,) int64 the tokens that are to be predicted there.
        weights: (N,) float32 by how much each counts, never 0.
        numbers: number of each row in the data.
        total_weight: sum of the weights, known without asking the device.
        of_trained: what the rows have beside, by name: (N, ...).
    """

    tokens: Tensor
    rows: PackedRows
    places: Tensor
    targets: Tensor
    weights: Tensor
    numbers: tuple[int, ...] = ()
    total_weight: float = 0.0
    of_trained: dict[str, Tensor] = field(default_factory=dict)

    @property
    def batch_size(self) -> int:
        """Number of rows."""
        return len(self.rows.lengths)


def pack_rows(rows: Sequence[TokenRow | Mapping[str, Tensor]], numbers: Sequence[int] = ()) -> TokenBatch:
    """Lay rows end to end.

    Args:
        rows: rows of 2 tokens or more, or mappings with their `ids`, `weights`, and what is in `of_trained`.
        numbers: number of each row in the data.

    Returns:
        The batch, in the order of the rows.

    Raises:
        ValueError: a row has no token to predict, or not of each token that is trained on what else there is.
    """
    parts = [row if isinstance(row, Mapping) else _mapping(row) for row in rows]
    if not parts or any(len(row["ids"]) < 2 for row in parts):
        raise ValueError("a row needs 2 tokens: one to read, and one to predict")
    lengths = [len(row["ids"]) - 1 for row in parts]
    tokens = torch.cat([row["ids"][:-1] for row in parts]).long()
    targets = torch.cat([row["ids"][1:] for row in parts]).long()
    weights = torch.cat([row["weights"][1:] for row in parts]).float()
    places = weights.nonzero().flatten()  # on the CPU: nothing waits
    kept = weights[places]
    beside = {name: torch.cat([row[name] for row in parts]) for name in parts[0] if name not in _OF_EACH_TOKEN}
    for name, tensor in beside.items():
        if len(tensor) != len(places):
            raise ValueError(f"{name} has {len(tensor)} entries for {len(places)} tokens that are trained on")
    total = float(kept.double().sum())
    return TokenBatch(tokens, PackedRows.of(lengths), places, targets[places], kept, tuple(numbers), total, beside)


def _mapping(row: TokenRow) -> dict[str, Tensor]:
    return {"ids": row.ids, "weights": row.weights, **row.of_trained}


class TokenBatches:
    """A loader of batches of tokens.

    An epoch's batches follow from (seed, epoch) alone; `set_epoch` chooses it (`BaseTrainer` calls it), without a call
    the epochs count themselves. Each row is in an epoch once, the last batch may be smaller, and all epochs have the
    same number of batches. With `max_tokens` rows are spread over batches so that these are about equally long.

    Args:
        rows: rows of tokens; what they hold is copied, so that a million of them takes no objects.
        batch_size: rows a batch; 0 for as many as `max_tokens` lets in.
        max_tokens: most tokens that a batch's rows read; 0 for no limit.
        shuffle: draw new batches each epoch; else rows come as they lie.
        seed: seed of the order.
        pin: put batches in pinned memory, from which a copy to CUDA runs beside the computation.

    Attributes:
        origins: of each row where it comes from, such as `line 5`.
        stand_ins: numbers of the pass's batches of which this process has no row; see `shard_loader`.

    Raises:
        DataError: no rows, a row that no batch can hold, or a setting out of range.
    """

    draws_by_epoch = True  # its order follows from (seed, epoch), not from the global random numbers
    drop_last = False
    collate_fn = staticmethod(pack_rows)  # for code that makes a batch of samples of `dataset`

    def __init__(
        self,
        rows: Sequence[TokenRow],
        batch_size: int = 0,
        max_tokens: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        pin: bool = False,
    ) -> None:
        if not rows:
            raise DataError("TokenBatches: there are no rows.")
        for name, value in (("batch_size", batch_size), ("max_tokens", max_tokens), ("seed", seed)):
            if value < 0:
                raise DataError(f"TokenBatches: {name} is {value}; it must be at least 0.")
        if not batch_size and not max_tokens:
            raise DataError(
                "TokenBatches: batch_size and max_tokens are both 0; one of them must say how large a batch is."
            )
        self._lengths = [len(row.ids) - 1 for row in rows]
        if min(self._lengths) < 1:
            raise DataError("TokenBatches: a row has fewer than 2 tokens: nothing in it can be predicted.")
        longest = max(self._lengths)
        if 0 < max_tokens < longest:
            raise DataError(
                f"TokenBatches: max_tokens is {max_tokens:,}, but the longest row reads {longest:,} tokens. Give "
                "max_tokens that much, or leave out longer rows."
            )
        self.origins = tuple(row.place for row in rows)
        self._ids = torch.cat([row.ids.to(torch.int32) for row in rows])
        self._weights = torch.cat([row.weights.float() for row in rows])
        self._starts = [0, *accumulate(length + 1 for length in self._lengths)]
        self._trained = [0, *accumulate(row.trained for row in rows)]
        if any(row.of_trained.keys() != rows[0].of_trained.keys() for row in rows):
            raise DataError("TokenBatches: rows differ in what they have of the tokens that are trained on.")
        self._beside = {name: torch.cat([row.of_trained[name] for row in rows]) for name in rows[0].of_trained}
        self.batch_size, self.max_tokens, self.shuffle, self.seed = batch_size, max_tokens, shuffle, seed
        self.pin, self.epoch = pin, 0
        self._share = (0, 1)
        self.stand_ins: frozenset[int] = frozenset()

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next pass gives."""
        self.epoch = epoch

    def shard_loader(self, rank: int, size: int) -> None:
        """Give one process's rows of each batch from now on; of a batch without any, its first row.

        Args:
            rank: number of the process, from 0.
            size: number of processes that share each batch.
        """
        self._share = (rank, size)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[TokenBatch]:
        batches = self.epoch_batches()
        rank, size = self._share
        self.stand_ins = frozenset(number for number, rows in enumerate(batches) if len(rows) <= rank)
        self.epoch += 1
        return (self._batch(rows[rank::size] or rows[:1]) for rows in batches)

    def epoch_batches(self) -> list[list[int]]:
        """Return the rows of each batch of the epoch at hand, longest first, of all processes. It counts no pass."""
        generator = epoch_generator(self.seed, self.epoch)
        count = len(self._lengths)
        order = torch.randperm(count, generator=generator).tolist() if self.shuffle else list(range(count))
        if not self.max_tokens:
            batches = [order[start : start + self.batch_size] for start in range(0, count, self.batch_size)]
        elif not self.shuffle:
            batches = self._in_a_row(order)
        else:
            longer = (1 + _JITTER * torch.rand(count, generator=generator)).tolist()
            order.sort(key=lambda row: -self._lengths[row] * longer[row])
            packed = self._spread(order, self._count)
            if packed is None:  # in the order of the lengths themselves it is known to fit
                packed = self._spread(sorted(order, key=lambda row: -self._lengths[row]), self._count)
            assert packed is not None
            batches = [packed[number] for number in torch.randperm(self._count, generator=generator).tolist()]
        return [sorted(batch, key=lambda row: -self._lengths[row]) for batch in batches]

    def first_batch(self) -> TokenBatch:
        """Return the first batch of the epoch at hand. It is not counted as a pass."""
        rows = self.epoch_batches()[0]
        return self._batch(rows[self._share[0] :: self._share[1]] or rows[:1])

    def token_row(self, number: int) -> TokenRow:
        """Return a row as it was given."""
        row = self.dataset[number]
        return TokenRow(row.pop("ids"), row.pop("weights"), self.origins[number], row)

    def first_rows(self, count: int) -> list[TokenRow]:
        """Return the first rows as they were given; all, where there are fewer.

        Args:
            count: number of rows.
        """
        return [self.token_row(number) for number in range(min(count, len(self._lengths)))]

    @property
    def dataset(self) -> "TokenBatches._Rows":
        """The rows by index, as a DataLoader's `dataset`."""
        return self._Rows(self)

    class _Rows:
        def __init__(self, loader: "TokenBatches") -> None:
            self._loader = loader

        def __len__(self) -> int:
            return len(self._loader._lengths)

        def __getitem__(self, index: int) -> dict[str, Tensor]:
            if not -len(self) <= index < len(self):
                raise IndexError(f"row {index} of {len(self)}")
            return self._loader._row(index % len(self))

    def _row(self, row: int) -> dict[str, Tensor]:
        part = slice(self._starts[row], self._starts[row + 1])
        trained = slice(self._trained[row], self._trained[row + 1])
        beside = {name: tensor[trained] for name, tensor in self._beside.items()}
        return {"ids": self._ids[part], "weights": self._weights[part], **beside}

    def _batch(self, rows: Sequence[int]) -> TokenBatch:
        batch = pack_rows([self._row(row) for row in rows], rows)
        if self.pin:
            for name in ("tokens", "places", "targets", "weights"):
                setattr(batch, name, getattr(batch, name).pin_memory())
            batch.of_trained = {name: tensor.pin_memory() for name, tensor in batch.of_trained.items()}
        return batch

    @cached_property
    def _count(self) -> int:
        """Number of batches of every epoch."""
        count = len(self._lengths)
        if not self.max_tokens:
            return -(-count // self.batch_size)
        if not self.shuffle:
            return len(self._in_a_row(range(count)))
        longest_first = sorted(range(count), key=lambda row: -self._lengths[row])
        number = -(-sum(self._lengths) // self.max_tokens)
        number = max(number, -(-count // self.batch_size) if self.batch_size else 1)
        while self._spread(longest_first, number) is None:
            number += max(1, number // 100)
        return number

    def _in_a_row(self, order: Sequence[int]) -> list[list[int]]:
        batches: list[list[int]] = []
        tokens = 0
        for row in order:
            tokens += self._lengths[row]
            full = not batches or tokens > self.max_tokens or len(batches[-1]) == (self.batch_size or len(order))
            if full:
                batches.append([])
                tokens = self._lengths[row]
            batches[-1].append(row)
        return batches

    def _spread(self, order: Sequence[int], number: int) -> list[list[int]] | None:
        """Put each row into the batch with the fewest tokens; None where they don't fit.

        In the order of the lengths, what fits depends on the lengths alone, not on which row has which.
        """
        batches: list[list[int]] = [[] for _ in range(number)]
        emptiest = [(0, place) for place in range(number)]
        most = self.batch_size or len(order)
        for row in order:
            if not emptiest:
                return None
            tokens, place = emptiest[0]
            tokens += self._lengths[row]
            if tokens > self.max_tokens:
                return None
            batches[place].append(row)
            if len(batches[place]) == most:
                heapq.heappop(emptiest)
            else:
                heapq.heapreplace(emptiest, (tokens, place))
        return batches if all(batches) else None
