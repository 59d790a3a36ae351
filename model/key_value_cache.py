"""Keys and values of the tokens that a decoder has seen, for many rows at once; long beginnings are shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from model.packed_attention import PackedRows, attend_rows, visible


@dataclass(frozen=True, eq=False)
class SharedPrefix:
    """Keys and values of a beginning that several rows have in common; never changed.

    Attributes:
        length: number of its tokens.
        keys: of each layer (kv_heads, length, head_dim).
        values: of each layer (kv_heads, length, head_dim).
    """

    length: int
    keys: tuple[Tensor, ...]
    values: tuple[Tensor, ...]

    def cut(self, length: int) -> "SharedPrefix":
        """Return the first `length` tokens of it, in the same memory."""
        if length == self.length:
            return self
        if not 0 < length < self.length:
            raise ValueError(f"a prefix of {self.length} tokens has no beginning of {length}")
        return SharedPrefix(length, tuple(keys[:, :length] for keys in self.keys),
                            tuple(values[:, :length] for values in self.values))  # fmt: skip

    def nbytes(self) -> int:
        """Return the memory it takes."""
        return sum(tensor.nbytes for tensor in (*self.keys, *self.values))


class KeyValueCache:
    """Keys and values of rows, each in a slot, perhaps after a shared prefix.

    Memory for slots and tokens is taken beforehand and doubled where it doesn't suffice. Rows in use lie side by side,
    so that one more token of each of them is attended in a few operations without copies.

    Args:
        layers: number of layers.
        kv_heads: key-value heads of each.
        head_dim: numbers of a head.
        slots: rows there is room for at first.
        capacity: tokens of a row there is room for at first, without a shared prefix.
        device: where they are kept.
        dtype: of the model.
    """

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        slots: int = 8,
        capacity: int = 256,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        sizes = (max(slots, 1), kv_heads, max(capacity, 1), head_dim)
        self._keys = [torch.zeros(sizes, device=device, dtype=dtype) for _ in range(layers)]
        self._values = [torch.zeros(sizes, device=device, dtype=dtype) for _ in range(layers)]
        self._slots: list[int] = []  # in the order of the memory
        self._places: dict[int, int] = {}
        self._own: dict[int, int] = {}  # tokens of a slot after its prefix
        self._prefixes: dict[int, SharedPrefix | None] = {}
        self._next = 0

    @property
    def slots(self) -> tuple[int, ...]:
        """Slots in use, in the order in which one more token of each is attended fastest."""
        return tuple(self._slots)

    def bytes(self) -> int:
        """Return the memory taken, without shared prefixes."""
        return sum(tensor.nbytes for tensor in (*self._keys, *self._values))

    def length(self, slot: int) -> int:
        """Return the tokens that a slot holds, its prefix included."""
        prefix = self._prefixes[slot]
        return self._own[slot] + (prefix.length if prefix else 0)

    def take(self, prefix: SharedPrefix | None = None) -> int:
        """Begin a row.

        Args:
            prefix: what the row begins with; None for nothing.

        Returns:
            The row's slot, a number that is never given again.
        """
        if len(self._slots) == self._keys[0].shape[0]:
            self._grow(slots=2 * len(self._slots))
        slot, self._next = self._next, self._next + 1
        self._places[slot], self._own[slot], self._prefixes[slot] = len(self._slots), 0, prefix
        self._slots.append(slot)
        return slot

    def take_copy(self, prefix: SharedPrefix) -> int:
        """Begin a row with a copy of a prefix in its own memory: faster than a prefix that no other row has.

        Args:
            prefix: what the row begins with.

        Returns:
            The row's slot.
        """
        slot = self.take()
        if prefix.length > self._keys[0].shape[2]:
            self._grow(capacity=max(prefix.length, 2 * self._keys[0].shape[2]))
        place = self._places[slot]
        for stored, begun in ((self._keys, prefix.keys), (self._values, prefix.values)):
            for memory, beginning in zip(stored, begun, strict=True):
                memory[place, :, : prefix.length] = beginning
        self._own[slot] = prefix.length
        return slot

    def fork(self, slot: int) -> int:
        """Begin a row that holds what another one holds; a shared prefix stays shared.

        Args:
            slot: the other row, which goes on as it is.

        Returns:
            The new row's slot.
        """
        new = self.take(self._prefixes[slot])
        length = self._own[slot]
        for memory in (*self._keys, *self._values):
            memory[self._places[new], :, :length] = memory[self._places[slot], :, :length]
        self._own[new] = length
        return new

    def crop(self, slot: int, length: int) -> None:
        """Forget the last tokens of a row, so that `length` are left; those of a shared prefix stay."""
        prefix = self._prefixes[slot]
        own = length - (prefix.length if prefix else 0)
        if not 0 <= own <= self._own[slot]:
            raise ValueError(f"slot {slot} holds {self.length(slot)} tokens; it can't be cropped to {length}")
        self._own[slot] = own

    def arrange(self, slots: Sequence[int]) -> None:
        """Change the order of the rows in memory, so that rows that are alike lie side by side.

        Args:
            slots: all slots in use, in the order wanted.
        """
        if sorted(slots) != sorted(self._slots):
            raise ValueError("arrange needs each slot in use once")
        if list(slots) == self._slots:
            return
        order = torch.tensor([self._places[slot] for slot in slots], device=self._keys[0].device)
        longest = max(self._own.values())
        for memory in (*self._keys, *self._values):
            memory[: len(slots), :, :longest] = memory[order, :, :longest]
        self._slots = list(slots)
        self._places = {slot: place for place, slot in enumerate(slots)}

    def own_length(self, slot: int) -> int:
        """Return the tokens that a slot holds in its own memory, after a shared prefix."""
        return self._own[slot]

    def prefix(self, slot: int) -> SharedPrefix | None:
        """Return the shared prefix of a slot; None where it has none."""
        return self._prefixes[slot]

    def free(self, slot: int) -> None:
        """End a row. The last row in memory moves to its place."""
        place, last = self._places.pop(slot), self._slots.pop()
        if last != slot:
            length = self._own[last]
            for tensor in (*self._keys, *self._values):
                tensor[place, :, :length] = tensor[len(self._slots), :, :length]
            self._slots[place], self._places[last] = last, place
        del self._own[slot], self._prefixes[slot]

    def share(self, slot: int, length: int | None = None) -> SharedPrefix:
        """Copy what a slot holds for other rows to begin with.

        Args:
            slot: the slot; it goes on as it is.
            length: number of its first tokens; None for all.

        Returns:
            The prefix, which lives as long as somebody has it.
        """
        prefix, place = self._prefixes[slot], self._places[slot]
        length = self.length(slot) if length is None else length
        if not 0 < length <= self.length(slot):
            raise ValueError(f"slot {slot} holds {self.length(slot)} tokens; {length} of them can't be shared")
        own = length - (prefix.length if prefix else 0)

        def copied(layer: int, stored: Tensor, begun: tuple[Tensor, ...]) -> Tensor:
            if own <= 0:
                return begun[layer][:, :length].clone()
            new = stored[place, :, :own]
            return torch.cat([begun[layer], new], dim=1) if begun else new.clone()

        return SharedPrefix(
            length,
            tuple(copied(i, stored, prefix.keys if prefix else ()) for i, stored in enumerate(self._keys)),
            tuple(copied(i, stored, prefix.values if prefix else ()) for i, stored in enumerate(self._values)),
        )

    def rows(self, slots: Sequence[int], lengths: Sequence[int]) -> PackedRows:
        """Lay out the next tokens of some slots.

        Args:
            slots: the slots, each once.
            lengths: new tokens of each.

        Returns:
            What `CausalLM.hidden` takes beside the tokens.
        """
        if len(set(slots)) != len(slots):
            raise ValueError("a slot is named twice")
        starts = [self.length(slot) for slot in slots]
        return PackedRows.of(lengths, starts, slots, self._keys[0].device)

    def begin(self, rows: PackedRows) -> "CacheStep":
        """Ready the cache for the new tokens of rows; `CausalLM.hidden` calls this."""
        if len(rows.slots) != len(rows.lengths):
            raise ValueError("rows name no slots of the cache: make them by KeyValueCache.rows")
        for slot, start in zip(rows.slots, rows.starts, strict=True):
            if slot not in self._own or self.length(slot) != start:
                raise ValueError(f"slot {slot} holds no {start} tokens: rows were made before it changed")
        needed = max(self._own[slot] + length for slot, length in zip(rows.slots, rows.lengths, strict=True))
        if needed > self._keys[0].shape[2]:
            self._grow(capacity=max(needed, 2 * self._keys[0].shape[2]))
        places = [self._places[slot] for slot in rows.slots]
        own = [self._own[slot] for slot in rows.slots]
        return CacheStep(self, rows, places, own, [self._prefixes[slot] for slot in rows.slots])

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        """Return the keys and values (places, kv_heads, capacity, head_dim) of a layer."""
        return self._keys[index], self._values[index]

    def advance(self, rows: PackedRows) -> None:
        """Count the new tokens of rows, which all layers have now; `CausalLM.hidden` calls this."""
        for slot, length in zip(rows.slots, rows.lengths, strict=True):
            self._own[slot] += length

    def _grow(self, slots: int = 0, capacity: int = 0) -> None:
        for tensors in (self._keys, self._values):
            for index, old in enumerate(tensors):
                room = (max(slots, old.shape[0]), old.shape[1], max(capacity, old.shape[2]), old.shape[3])
                new = torch.zeros(room, device=old.device, dtype=old.dtype)  # memory is committed where it is written
                for slot, place in self._places.items():
                    length = self._own.get(slot, 0)
                    new[place, :, :length] = old[place, :, :length]
                tensors[index] = new


class CacheStep:
    """One pass through the layers with a cache: each layer stores its new keys and values and attends.

    Args:
        cache: the cache.
        rows: rows of the pass.
        places: of each row its place in memory.
        own: of each row the tokens in its own memory before the pass.
        prefixes: of each row its shared prefix or None.
    """

    def __init__(
        self,
        cache: KeyValueCache,
        rows: PackedRows,
        places: Sequence[int],
        own: Sequence[int],
        prefixes: Sequence[SharedPrefix | None],
    ) -> None:
        self._cache, self._rows, self._places, self._own, self._prefixes = cache, rows, places, own, prefixes
        self._one_each: _OneEach | None = None
        self._at: Tensor | None = None  # where new keys and values go, head by head

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Store new keys and values and let the new tokens see all of their rows.

        Args:
            layer: number of the layer.
            queries: (T, heads, head_dim).
            keys: (T, kv_heads, head_dim).
            values: (T, kv_heads, head_dim).
            window: tokens that a token sees, itself included; None for all.

        Returns:
            (T, heads, head_dim).
        """
        stored = self._cache.layer(layer)
        if all(length == 1 for length in self._rows.lengths):
            if self._one_each is None:
                self._one_each = _OneEach.of(self._places, self._own, self._prefixes, stored[0], window)
            return self._one_each.attend(layer, stored, queries, keys, values)
        self._store(stored, keys, values)
        if not any(self._rows.starts):
            return attend_rows(queries, keys, values, self._rows.lengths, window)
        done = []
        begin = 0
        for row, end in enumerate(self._rows.ends()):
            prefix, total = self._prefixes[row], self._own[row] + end - begin
            seen = [tensor[self._places[row], :, :total] for tensor in stored]
            if prefix is not None:
                seen = [torch.cat([prefix.keys[layer], seen[0]], 1), torch.cat([prefix.values[layer], seen[1]], 1)]
            mask = visible(end - begin, seen[0].shape[1], window, queries.device)
            query = queries[begin:end].transpose(0, 1)
            out = functional.scaled_dot_product_attention(
                query[None], seen[0][None], seen[1][None], mask, enable_gqa=query.shape[0] != seen[0].shape[0]
            )
            done.append(out[0].transpose(0, 1))
            begin = end
        return torch.cat(done)

    def end(self) -> None:
        """Count the new tokens, after the last layer."""
        self._cache.advance(self._rows)

    def _store(self, stored: tuple[Tensor, Tensor], keys: Tensor, values: Tensor) -> None:
        _, kv_heads, capacity, size = stored[0].shape
        if self._at is None:  # the same for all layers
            parts = zip(self._places, self._own, self._rows.lengths, strict=True)
            tokens = torch.cat([torch.arange(n) + (place * kv_heads * capacity + own) for place, own, n in parts])
            self._at = (tokens[:, None] + torch.arange(kv_heads) * capacity).flatten().to(keys.device)
        for memory, new in zip(stored, (keys, values), strict=True):
            memory.view(-1, size).index_copy_(0, self._at, new.reshape(-1, size))


# What one more run of rows costs in each layer, in tokens of keys and values that could be read meanwhile.
_RUN_COST = 400


@dataclass(frozen=True)
class _Run:
    """Rows of a pass that lie side by side in memory, have one prefix, and are of like length."""

    rows: slice
    places: slice
    prefix: SharedPrefix | None
    longest: int
    bias: Tensor | None  # (rows, 1, 1, longest): 0, or -inf where a row has nothing; None where all are as long
    prefix_bias: Tensor | None  # (rows, 1, 1, prefix.length): -inf for what lies before the window


class _OneEach:
    """One new token of each row of a pass."""

    def __init__(self, runs: Sequence[_Run], at: Tensor) -> None:
        self._runs, self._at = runs, at

    @staticmethod
    def of(
        places: Sequence[int], own: Sequence[int], prefixes: Sequence[SharedPrefix | None], memory: Tensor,
        window: int | None,
    ) -> "_OneEach":  # fmt: skip
        """Plan a pass.

        Args:
            places: of each row its place in memory.
            own: of each row the tokens in its own memory before the pass.
            prefixes: of each row its prefix.
            memory: keys of any layer.
            window: tokens that a token sees; None for all.
        """
        _, kv_heads, capacity, _ = memory.shape
        firsts = torch.tensor([place * kv_heads * capacity + length for place, length in zip(places, own, strict=True)])
        at = (firsts[:, None] + torch.arange(kv_heads) * capacity).flatten()
        runs, begin = [], 0
        for end in range(1, len(places) + 1):
            if end < len(places) and places[end] == places[end - 1] + 1 and prefixes[end] is prefixes[begin]:
                continue
            for first, last in _like_lengths(own[begin:end]):
                rows = slice(begin + first, begin + last)
                runs.append(_run(rows, places, own, prefixes[begin], memory, window))
            begin = end
        return _OneEach(runs, at.to(memory.device))

    def attend(
        self, layer: int, stored: tuple[Tensor, Tensor], queries: Tensor, keys: Tensor, values: Tensor
    ) -> Tensor:
        """Store keys and values (rows, kv_heads, head_dim); return what queries (rows, heads, head_dim) find."""
        heads, kv_heads, size = queries.shape[1], keys.shape[1], queries.shape[2]
        for memory, new in zip(stored, (keys, values), strict=True):
            memory.view(-1, size).index_copy_(0, self._at, new.reshape(-1, size))
        # Query heads that share a key-value head are handled as so many queries of it.
        grouped = queries.view(-1, kv_heads, heads // kv_heads, size)
        done = [self._attend_run(run, layer, stored, grouped[run.rows]) for run in self._runs]
        return (done[0] if len(done) == 1 else torch.cat(done)).reshape(queries.shape)

    def _attend_run(self, run: _Run, layer: int, stored: tuple[Tensor, Tensor], grouped: Tensor) -> Tensor:
        own_keys, own_values = (memory[run.places, :, : run.longest] for memory in stored)
        if run.prefix is None:
            bias = None if run.bias is None else run.bias.to(grouped.dtype)
            return functional.scaled_dot_product_attention(grouped, own_keys, own_values, bias)
        rows, kv_heads, group, size = grouped.shape
        length = run.prefix.length
        grouped = grouped * size**-0.5
        asked = grouped.transpose(0, 1).reshape(kv_heads, rows * group, size)
        scores = torch.empty(rows, kv_heads, group, length + run.longest, dtype=grouped.dtype, device=grouped.device)
        before = torch.matmul(asked, run.prefix.keys[layer].transpose(1, 2))  # one product for all rows
        scores[..., :length] = before.view(kv_heads, rows, group, length).transpose(0, 1)
        scores[..., length:] = torch.matmul(grouped, own_keys.transpose(2, 3))
        if run.bias is not None:
            scores[..., length:] += run.bias
        if run.prefix_bias is not None:
            scores[..., :length] += run.prefix_bias
        shares = scores.float().softmax(-1).to(scores.dtype)
        of_prefix = shares[..., :length].transpose(0, 1).reshape(kv_heads, rows * group, length)
        found = torch.matmul(of_prefix, run.prefix.values[layer]).view(kv_heads, rows, group, size).transpose(0, 1)
        return torch.matmul(shares[..., length:], own_values).add_(found)


def _run(
    rows: slice, places: Sequence[int], own: Sequence[int], prefix: SharedPrefix | None, memory: Tensor,
    window: int | None,
) -> _Run:  # fmt: skip
    counts = own[rows]
    longest, begun = max(counts) + 1, prefix.length if prefix else 0
    bias = prefix_bias = None
    if min(counts) + 1 < longest or (window is not None and begun + longest > window):
        last = torch.tensor(counts)[:, None]
        hidden = torch.arange(longest) > last
        if window is not None:
            hidden |= torch.arange(longest) <= last - window
            before = torch.arange(begun) <= last + begun - window
            if before.any():
                prefix_bias = _bias(before, memory.device)
        bias = _bias(hidden, memory.device)
    place = places[rows.start]
    return _Run(rows, slice(place, place + len(counts)), prefix, longest, bias, prefix_bias)


def _bias(hidden: Tensor, device: torch.device) -> Tensor:
    return torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None, None].to(device)


def reading_cost(lengths: Sequence[int]) -> int:
    """Return the tokens that are read of rows in this order in memory, and what their runs cost in tokens."""
    return sum(_RUN_COST + max(lengths[a:b]) * (b - a) for a, b in _like_lengths(lengths)) if lengths else 0


def _like_lengths(lengths: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Cut rows into runs, so that little is read beyond the end of short rows and there are few runs.

    Args:
        lengths: of each row its tokens, in the order of the memory.

    Returns:
        Of each run its first row and the row after its last.
    """
    least = min(lengths)  # as all grow alike, what each run costs does too, and the runs stay
    return _runs_of(tuple(length - least for length in lengths))


@lru_cache(maxsize=64)
def _runs_of(lengths: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
    if max(lengths) * len(lengths) - sum(lengths) <= _RUN_COST:
        return ((0, len(lengths)),)
    # Runs end where lengths change: a cut between rows of one length could move to one of its ends at no cost.
    ends = [end for end in range(1, len(lengths)) if lengths[end] != lengths[end - 1]] + [len(lengths)]
    begins = [0, *ends[:-1]]
    best, cut = {0: 0}, {}  # by the number of rows dealt with: the lowest cost, and where the last run begins
    for number, end in enumerate(ends):
        longest, costs = 0, []
        for begin in reversed(begins[: number + 1]):
            longest = max(longest, lengths[begin])
            costs.append((best[begin] + _RUN_COST + longest * (end - begin), begin))
        best[end], cut[end] = min(costs)
    runs, end = [], len(lengths)
    while end:
        runs.append((cut[end], end))
        end = cut[end]
    return tuple(runs[::-1])
