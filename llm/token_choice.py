"""Drawing the next token of many rows at once, each by its own settings and random numbers."""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import torch
from torch import Tensor

from llm.sampling_settings import SamplingSettings

# Likeliest tokens that are sorted first for top_p; where they don't add up to it, more are.
_FIRST_CANDIDATES = 128
_DRAWN_AT_ONCE = 64
# Tokens of a large vocabulary whose shares are added up first.
_BLOCK = 256


class SampleRandom:
    """The random numbers of one sample: they depend on the seed and the sample's number alone.

    Args:
        seed: any integer; None for one that nobody knows.
        index: number of the sample among those of its request.
    """

    def __init__(self, seed: int | None, index: int) -> None:
        source = secrets.token_hex(16) if seed is None else str(seed)
        key = hashlib.sha256(f"{source}:{index}".encode()).digest()[:16]
        self._generator = numpy.random.Generator(numpy.random.Philox(key=int.from_bytes(key, "little")))
        self._ahead: list[float] = []

    def next(self) -> float:
        """Return a number from 0 to below 1."""
        if not self._ahead:
            self._ahead = self._generator.random(_DRAWN_AT_ONCE).tolist()[::-1]
        return self._ahead.pop()

    def give_back(self, numbers: Sequence[float]) -> None:
        """Take the last numbers back, in their order: they come again."""
        self._ahead += reversed(numbers)


@dataclass(frozen=True)
class Chosen:
    """The next tokens of rows.

    Attributes:
        tokens: of each row its token.
        logprobs: of each row the token's logprob; NaN where the row's logits are not finite.
        likeliest: of each row that asked for them so many (token, logprob), the likeliest first; else None.
    """

    tokens: list[int]
    logprobs: list[float]
    likeliest: list[list[tuple[int, float]] | None]


class TokenChoice:
    """Draws the next token of rows; made once for as long as the rows stay the same.

    Args:
        settings: of each row its settings.
        device: where the logits are.
    """

    def __init__(self, settings: Sequence[SamplingSettings], device: torch.device) -> None:
        self._settings, self._device = list(settings), device
        drawn = [row for row, each in enumerate(settings) if not each.greedy]
        limited = [row for row in drawn if settings[row].top_k is not None or settings[row].top_p < 1]
        self._free = [row for row in drawn if row not in set(limited)]
        self._limited = limited
        self.drawn = drawn  # rows that need a random number
        self._temperatures = torch.tensor([each.temperature for each in settings], device=device)
        self._without_top_k = any(settings[row].top_k is None for row in limited)
        self._top_k = torch.tensor([settings[row].top_k or 0 for row in limited], device=device)
        self._top_p = torch.tensor([settings[row].top_p for row in limited], device=device, dtype=torch.float64)
        self._most = max((each.logprobs for each in settings), default=0)
        self._as_drawn = [row for row, each in enumerate(settings) if each.logprobs_of == "sampling"]

    def choose(self, logits: Tensor, randoms: Sequence[float], ruled: Tensor | None = None) -> Chosen:
        """Draw.

        Args:
            logits: (rows, vocabulary), the model's.
            randoms: of each row in `drawn` a number from 0 to below 1.
            ruled: (rows, vocabulary), float32: the logits to draw from where they are others than the model's; -inf is
                never drawn.

        Returns:
            The tokens.
        """
        logits = logits.float()
        totals = logits.logsumexp(-1)
        rows = len(self._settings)
        numbers = torch.tensor(randoms, dtype=torch.float64, device=self._device)
        at = {row: number for number, row in enumerate(self.drawn)}
        of_draw = torch.zeros(rows, device=self._device)
        own, logits = logits, logits if ruled is None else ruled
        if len(self._free) == rows:
            tokens, of_draw = self._draw_free(logits, self._temperatures, numbers)
        else:
            tokens = logits.argmax(-1)
            if self._free:
                some = torch.tensor(self._free, device=self._device)
                mine = numbers[[at[row] for row in self._free]]
                tokens[some], of_draw[some] = self._draw_free(logits[some], self._temperatures[some], mine)
            if self._limited:
                some = torch.tensor(self._limited, device=self._device)
                mine = numbers[[at[row] for row in self._limited]]
                tokens[some], of_draw[some] = self._draw_limited(logits[some], self._temperatures[some], mine)
        if ruled is not None:  # rounding may let a draw end beside the token that it was to hit
            forbidden = ruled.gather(1, tokens[:, None]).squeeze(1) == -torch.inf
            tokens = torch.where(forbidden, ruled.argmax(-1), tokens)
        logprobs = own.gather(1, tokens[:, None]).squeeze(1) - totals
        if self._as_drawn:
            some = torch.tensor(self._as_drawn, device=self._device)
            logprobs[some] = of_draw[some]
        logprobs.masked_fill_(~totals.isfinite(), float("nan"))
        both = torch.stack([tokens.double(), logprobs.double()]).tolist()  # synchronisation
        return Chosen([int(token) for token in both[0]], both[1], self._likeliest(own, totals))

    def _draw_free(self, logits: Tensor, temperatures: Tensor, randoms: Tensor) -> tuple[Tensor, Tensor]:
        """Draw from all tokens; returns the tokens and the logs of their probabilities."""
        return _draw(_scaled(logits, temperatures).exp_(), randoms)

    def _draw_limited(self, logits: Tensor, temperatures: Tensor, randoms: Tensor) -> tuple[Tensor, Tensor]:
        scaled = _scaled(logits, temperatures)
        vocabulary = scaled.shape[1]
        tops = torch.where(self._top_k > 0, self._top_k, vocabulary)
        whole = self._top_p  # what top_p is a share of where there is no top_k; else it is not looked at
        if self._without_top_k:
            whole = scaled.exp().sum(-1).double()
        wanted = [row.top_k or _FIRST_CANDIDATES for row in (self._settings[each] for each in self._limited)]
        tokens = torch.zeros(len(scaled), dtype=torch.int64, device=self._device)
        logs = torch.zeros(len(scaled), device=self._device)
        left, size = list(range(len(scaled))), min(vocabulary, max(wanted))
        while left:
            some = torch.tensor(left, device=self._device)
            values, candidates = scaled[some].topk(size)
            shares = values.double().exp_()
            shares.masked_fill_(torch.arange(size, device=self._device)[None] >= tops[some, None], 0.0)
            total = torch.where(self._top_k[some] > 0, shares.sum(-1), whole[some])
            before = shares.cumsum(-1) - shares
            # The likeliest token always stays.
            keep = (before < (self._top_p[some] * total)[:, None]).index_fill_(1, some.new_zeros(1), True)
            enough = (tops[some] <= size) | ~keep[:, -1] | (size == vocabulary)
            picked, mine = _draw(shares * keep, randoms[some])
            tokens[some] = candidates.gather(1, picked[:, None]).squeeze(1)
            logs[some] = mine
            left = [row for row, fine in zip(left, enough.tolist(), strict=True) if not fine]  # synchronisation
            size = min(vocabulary, size * 8)
        return tokens, logs

    def _likeliest(self, logits: Tensor, totals: Tensor) -> list[list[tuple[int, float]] | None]:
        if not self._most:
            return [None] * len(self._settings)
        return [each[: row.logprobs] if row.logprobs else None
                for each, row in zip(likeliest(logits, totals, self._most), self._settings, strict=True)]  # fmt: skip


def likeliest(logits: Tensor, totals: Tensor, number: int) -> list[list[tuple[int, float]]]:
    """Return the likeliest tokens of rows of logits.

    Args:
        logits: (rows, vocabulary).
        totals: (rows,), log of the sum of their exponentials.
        number: how many, or all there are.

    Returns:
        Of each row (token, logprob), the likeliest first.
    """
    values, tokens = logits.topk(min(number, logits.shape[1]))
    pairs = zip(tokens.tolist(), (values - totals[:, None]).tolist(), strict=True)  # synchronisation
    return [list(zip(*each, strict=True)) for each in pairs]


def _scaled(logits: Tensor, temperatures: Tensor) -> Tensor:
    """Return logits over the temperature, the highest at 0, so that no temperature is too small."""
    lowered = logits - logits.amax(-1, keepdim=True)
    return lowered.div_(temperatures[:, None].clamp(min=torch.finfo(torch.float32).tiny))


def _draw(shares: Tensor, randoms: Tensor) -> tuple[Tensor, Tensor]:
    """Draw from shares (rows, n) that need not add up to 1: the first whose running sum is above the random part."""
    if shares.shape[1] < 4 * _BLOCK:
        picked, total, _ = _first_above(shares, randoms)
    else:  # a running sum over all would take longer than all else
        picked, total = _draw_by_blocks(shares, randoms)
    mine = shares.gather(1, picked).double()
    return picked.squeeze(1), (mine / total).log().squeeze(1).float()


def _draw_by_blocks(shares: Tensor, randoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the tokens (rows, 1), by drawing a block of tokens and one in it, and the sums (rows, 1) of the shares."""
    size = shares.shape[1]
    whole = size - size % _BLOCK
    sums = shares[:, :whole].unflatten(1, (-1, _BLOCK)).sum(-1)
    if whole < size:
        sums = torch.cat([sums, shares[:, whole:].sum(-1, keepdim=True)], dim=1)
    block, total, left = _first_above(sums, randoms)
    within = block * _BLOCK + torch.arange(_BLOCK, device=shares.device)
    inside = shares.gather(1, within.clamp(max=size - 1)).masked_fill_(within >= size, 0.0)
    place, _, _ = _first_above(inside, left)
    return (block * _BLOCK + place).clamp_(max=size - 1), total


def _first_above(shares: Tensor, randoms: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the place (rows, 1) where the running sum passes the random part of all, all (rows, 1), and what is left.

    What is left of the random number, (rows,), says where in the place's own share it fell.
    """
    sums = shares.cumsum(-1, dtype=torch.float64)
    total = sums[:, -1:]
    wanted = randoms[:, None] * total
    picked = torch.searchsorted(sums, wanted, right=True).clamp_(max=shares.shape[1] - 1)
    own = shares.gather(1, picked).double()
    return picked, total, ((wanted - sums.gather(1, picked) + own) / own).clamp_(0, 1).squeeze(1)
