"""Keys and values of the tokens that a decoder has seen, for many rows at once; long beginnings are shared."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

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
                new = torch.zeros(room, device=old.device, dtype=old.dtype)
                new[: old.shape[0], :, : old.shape[2]] = old
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
        self._one_each = _OneEach.of(rows, places, own, prefixes)

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
        if self._one_each is not None:
            return self._one_each.attend(layer, stored, queries, keys, values, window)
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
        begin = 0
        for place, own, end in zip(self._places, self._own, self._rows.ends(), strict=True):
            for memory, new in zip(stored, (keys, values), strict=True):
                memory[place, :, own : own + end - begin] = new[begin:end].transpose(0, 1)
            begin = end


@dataclass(frozen=True)
class _OneEach:
    """One new token of each of the rows that lie side by side in memory."""

    rows: int
    begin: int  # place of the first row
    own: tuple[int, ...]
    runs: tuple[tuple[int, int, SharedPrefix | None], ...]  # rows side by side that have one prefix
    at: tuple[Tensor, Tensor]  # where the new tokens go: places, tokens
    bias: (
        Tensor | None
    )  # (rows, 1, 1, longest own part) 0, or -inf where there is nothing; None where all are that long

    @staticmethod
    def of(
        rows: PackedRows, places: Sequence[int], own: Sequence[int], prefixes: Sequence[SharedPrefix | None]
    ) -> "_OneEach | None":
        side_by_side = all(after == before + 1 for before, after in pairwise(places))
        if any(length != 1 for length in rows.lengths) or not side_by_side:
            return None
        device = rows.positions.device
        counts = torch.tensor(own, device=device)
        runs: list[tuple[int, int, SharedPrefix | None]] = []
        for row, prefix in enumerate(prefixes):
            if runs and runs[-1][2] is prefix:
                runs[-1] = (runs[-1][0], row + 1, prefix)
            else:
                runs.append((row, row + 1, prefix))
        at = (torch.tensor(places, device=device), counts)
        if len(set(own)) == 1:
            return _OneEach(len(own), places[0], tuple(own), tuple(runs), at, None)
        behind = torch.arange(max(own) + 1, device=device)[None] > counts[:, None]
        bias = torch.zeros(behind.shape, device=device).masked_fill_(behind, float("-inf"))[:, None, None]
        return _OneEach(len(own), places[0], tuple(own), tuple(runs), at, bias)

    def attend(
        self, layer: int, stored: tuple[Tensor, Tensor], queries: Tensor, keys: Tensor, values: Tensor,
        window: int | None,
    ) -> Tensor:  # fmt: skip
        memory_keys, memory_values = stored
        longest, end = max(self.own) + 1, self.begin + self.rows
        if self.bias is None:  # all rows are equally long
            memory_keys[self.begin : end, :, longest - 1] = keys
            memory_values[self.begin : end, :, longest - 1] = values
        else:
            memory_keys[self.at[0], :, self.at[1]] = keys
            memory_values[self.at[0], :, self.at[1]] = values
        heads, kv_heads, size = queries.shape[1], keys.shape[1], queries.shape[2]
        own_keys = memory_keys[self.begin : end, :, :longest]
        own_values = memory_values[self.begin : end, :, :longest]
        # Query heads that share a key-value head are handled as so many queries of it.
        grouped = (queries * size**-0.5).reshape(self.rows, kv_heads, heads // kv_heads, size)
        scores = torch.matmul(grouped, own_keys.transpose(2, 3))
        if self.bias is not None:
            scores.add_(self.bias.to(queries.dtype))
        if window is not None:
            distance = self.at[1][:, None] - torch.arange(longest, device=queries.device)[None]
            scores.masked_fill_((distance >= window)[:, None, None], float("-inf"))
        if all(prefix is None for _, _, prefix in self.runs):
            return torch.matmul(scores.float().softmax(-1).to(queries.dtype), own_values).reshape(queries.shape)
        done = []
        for begin, end, prefix in self.runs:
            done.append(self._run(layer, grouped, scores, own_values, begin, end, prefix, window))
        return torch.cat(done).reshape(queries.shape)

    def _run(
        self, layer: int, grouped: Tensor, scores: Tensor, own_values: Tensor, begin: int, end: int,
        prefix: SharedPrefix | None, window: int | None,
    ) -> Tensor:  # fmt: skip
        own = scores[begin:end]
        if prefix is None:
            return torch.matmul(own.float().softmax(-1).to(own.dtype), own_values[begin:end])
        rows, kv_heads, group, size = grouped[begin:end].shape
        asked = grouped[begin:end].transpose(0, 1).reshape(kv_heads, rows * group, size)
        before = torch.matmul(asked, prefix.keys[layer].transpose(1, 2))  # one product for all rows
        before = before.view(kv_heads, rows, group, prefix.length).transpose(0, 1)
        if window is not None:
            distance = prefix.length + self.at[1][begin:end, None] - torch.arange(prefix.length, device=own.device)
            before = before.masked_fill((distance >= window)[:, None, None], float("-inf"))
        shares = torch.cat([before, own], dim=-1).float().softmax(-1).to(own.dtype)
        of_prefix, of_own = shares.split([prefix.length, own.shape[-1]], dim=-1)
        of_prefix = of_prefix.transpose(0, 1).reshape(kv_heads, rows * group, prefix.length)
        found = torch.matmul(of_prefix, prefix.values[layer]).view(kv_heads, rows, group, size).transpose(0, 1)
        return found + torch.matmul(of_own, own_values[begin:end])
