"""Attention of rows that lie end to end: each sees its own tokens only."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class PackedRows:
    """Rows of tokens laid end to end, without padding.

    Attributes:
        lengths: new tokens of each row.
        starts: tokens of each row that a cache holds already; zeros in training.
        positions: (T,) int64, position of each token in its row.
        slots: of each row its place in the cache; empty without a cache.
    """

    lengths: tuple[int, ...]
    starts: tuple[int, ...]
    positions: Tensor
    slots: tuple[int, ...] = ()

    @staticmethod
    def of(
        lengths: Sequence[int],
        starts: Sequence[int] | None = None,
        slots: Sequence[int] = (),
        device: torch.device | str | None = None,
    ) -> "PackedRows":
        """Lay out rows.

        Args:
            lengths: new tokens of each row, each 1 or more.
            starts: tokens of each row that a cache holds already; None for none.
            slots: of each row its place in the cache.
            device: where the tokens are.

        Returns:
            The rows, with the position of each token.

        Raises:
            ValueError: a row has no token, or the numbers of rows differ.
        """
        starts = [0] * len(lengths) if starts is None else starts
        if len(starts) != len(lengths) or (slots and len(slots) != len(lengths)):
            raise ValueError(f"{len(lengths)} lengths, {len(starts)} starts and {len(slots)} slots of rows")
        if any(length < 1 for length in lengths):
            raise ValueError("a row has no token")
        if all(length == 1 for length in lengths):
            numbers = torch.tensor(list(starts))
        else:
            numbers = torch.cat([torch.arange(start, start + length)
                                 for start, length in zip(starts, lengths, strict=True)])  # fmt: skip
        return PackedRows(tuple(lengths), tuple(starts), numbers.to(device), tuple(slots))

    def ends(self) -> tuple[int, ...]:
        """Return for each row the number of the token after its last, counted over the whole batch."""
        return tuple(accumulate(self.lengths))


def attend_rows(
    queries: Tensor, keys: Tensor, values: Tensor, lengths: Sequence[int], window: int | None = None
) -> Tensor:
    """Let the tokens of each row see themselves and those before them in the row.

    Args:
        queries: (T, heads, head_dim).
        keys: (T, kv_heads, head_dim); query heads share them in groups.
        values: (T, kv_heads, head_dim).
        lengths: tokens of each row.
        window: tokens that a token sees, itself included; None for all.

    Returns:
        (T, heads, head_dim).
    """
    grouped = queries.shape[1] != keys.shape[1]
    done, begin = [], 0
    for length, rows in groupby(lengths):  # rows of one length are attended together
        number = len(list(rows))
        end = begin + number * length
        query, key, value = (tensor[begin:end].unflatten(0, (number, length)).transpose(1, 2)
                             for tensor in (queries, keys, values))  # fmt: skip
        mask = None if window is None or length <= window else visible(length, length, window, queries.device)
        out = functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=mask is None, enable_gqa=grouped
        )
        done.append(out.transpose(1, 2).flatten(0, 1))
        begin = end
    return done[0] if len(done) == 1 else torch.cat(done)


def visible(new: int, total: int, window: int | None, device: torch.device) -> Tensor:
    """Return what the last `new` of `total` tokens see: (new, total) bool."""
    queries = torch.arange(total - new, total, device=device)[:, None]
    keys = torch.arange(total, device=device)[None]
    seen = keys <= queries
    return seen if window is None else seen & (keys > queries - window)
