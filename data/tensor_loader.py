"""A loader for data that fits in memory: no per-sample Python, no collate."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from itertools import chain, repeat
from typing import Any, ClassVar, Protocol

import torch
from beautilog import logger

from data.batches import collate, tensors_in
from data.data_error import DataError
from data.memory import free_bytes, readable_bytes
from data.sharding import own_part


class DataclassOfTensors(Protocol):
    """Any dataclass whose fields are tensors."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


Tensors = torch.Tensor | dict[str, torch.Tensor] | DataclassOfTensors

_PART = 1024  # batches that are cut at once: a pass over many millions of rows must not hold a view of each batch


def epoch_generator(seed: int, epoch: int) -> torch.Generator:
    """Return the generator of all that an epoch's order draws: it depends on (seed, epoch) alone."""
    return torch.Generator().manual_seed(seed * 1_000_003 + epoch)


class TensorLoader:
    """Batches of one tensor, or of a dict or dataclass of tensors, held where they are used.

    An epoch's order is drawn from (seed, epoch) alone, so it does not depend on what else drew random numbers.
    `set_epoch` chooses it (`BaseTrainer` calls it); without a call the epochs count themselves.

    A pass gathers the rows in their order once and gives views of that copy. Where the copy would take more than
    `memory_share` of the free memory (found out at the first pass), each batch is gathered by itself: the same batches,
    slower. Batches of a loader that draws no order are views of its tensors: change a batch in place and the data
    changes.

    Args:
        tensors: a tensor (N, ...), or a dict of tensors with one N, or a dataclass of such tensors; a batch is of the
            same kind.
        batch_size: samples a batch.
        shuffle: draw a new order each epoch.
        drop_last: leave out a last batch that is not full.
        seed: seed of the order.
        device: device that the tensors are kept on; None leaves them where they are. See `to`.
        weights: (N,) finite numbers, not negative: an epoch is N draws with replacement in proportion to them, in
            random order, with or without `shuffle`.
        memory_share: the share of a device's free memory that the tensors, and then their copy, may take.

    Attributes:
        resident: whether the tensors are on the device that was asked for; else each batch is moved there.
        stand_ins: numbers of the batches of which this process has no sample; see `shard_loader`.

    Raises:
        DataError: no tensors, tensors of unequal length, bad weights, or a setting out of range.
    """

    collate_fn = staticmethod(collate)  # for code that makes a batch of samples of `dataset`

    def __init__(
        self,
        tensors: torch.Tensor | Mapping[str, torch.Tensor] | DataclassOfTensors,
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
        weights: torch.Tensor | Sequence[float] | None = None,
        memory_share: float = 0.5,
    ) -> None:
        self.draws_by_epoch = True  # its order follows from (seed, epoch), not from the global random numbers
        self._plain = isinstance(tensors, torch.Tensor)
        self._kind = type(tensors) if is_dataclass(tensors) else dict
        if is_dataclass(tensors):
            tensors = {field.name: getattr(tensors, field.name) for field in fields(tensors)}
        self.tensors = {"": tensors} if self._plain else dict(tensors)
        self.length = _common_length(self.tensors)
        if batch_size < 1:
            raise DataError(f"TensorLoader: batch_size is {batch_size}; it must be at least 1.")
        if not 0 < memory_share <= 1:
            raise DataError(f"TensorLoader: memory_share is {memory_share}; it must be above 0 and at most 1.")
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.memory_share = memory_share
        self._cumulative = None if weights is None else _cumulative(weights, self.length)
        self.epoch = 0
        self._share = (0, 1)
        self.stand_ins: frozenset[int] = frozenset()
        self.device: torch.device | None = None
        self.resident = True
        self._pin = False  # whether batches go through pinned memory on their way to the device
        self._copy_fits: bool | None = None  # found out when first needed
        if device is not None:
            self.to(device)

    def to(self, device: torch.device | str) -> "TensorLoader":
        """Keep the tensors on a device from now on.

        Where they would take more than `memory_share` of what is free there, they stay where they are, a warning says
        so, and each batch is moved when it is asked for.

        Args:
            device: device to keep the tensors on, such as `cpu`, `cuda`, `cuda:1`.

        Returns:
            The loader itself.
        """
        device = torch.device(device)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        size = sum(tensor.nbytes for tensor in self.tensors.values() if tensor.device != device)
        free = free_bytes(device) if size else None
        warned = not self.resident and self.device == device
        self.device, self.resident, self._copy_fits = device, free is None or size <= self.memory_share * free, None
        if self.resident:
            self.tensors = {name: tensor.to(device) for name, tensor in self.tensors.items()}
            return self
        self._pin = device.type == "cuda" and _can_pin()
        if not warned:
            places = ", ".join(sorted({str(tensor.device) for tensor in self.tensors.values()}))
            logger.warning(
                f"TensorLoader: the data takes {readable_bytes(size)}, more than memory_share = {self.memory_share:g} "
                f"of the {readable_bytes(free)} free on {device}; it stays on {places} and each batch is moved when it "
                "is asked for, which is slower. Fewer samples, a smaller dtype or a larger memory_share would avoid it."
            )
        return self

    def shard_loader(self, rank: int, size: int) -> None:
        """Give one process's part of each batch from now on; of a batch without any, its first sample.

        Args:
            rank: number of the process, from 0.
            size: number of processes that share each batch.
        """
        self._share = (rank, size)
        last = self._kept - (len(self) - 1) * self.batch_size
        sizes = {0: self.batch_size, len(self) - 1: last}
        if self.batch_size <= rank:
            sizes = dict.fromkeys(range(len(self)), 0)
        self.stand_ins = frozenset(number for number, count in sizes.items() if count <= rank)

    @property
    def dataset(self) -> "TensorLoader._Rows":
        """The samples by index, as a DataLoader's `dataset`."""
        return self._Rows(self)

    class _Rows:
        def __init__(self, loader: "TensorLoader") -> None:
            self._loader = loader

        def __len__(self) -> int:
            return self._loader.length

        def __getitem__(self, index: int) -> Tensors:
            if not -len(self) <= index < len(self):
                raise IndexError(f"sample {index} of {len(self)}")
            rows = {name: tensor[index] for name, tensor in self._loader.tensors.items()}
            if not self._loader.resident:
                rows = {name: row.to(self._loader.device) for name, row in rows.items()}
            return self._loader._shape(rows)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass uses."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def epoch_rows(self) -> Tensors | None:
        """Give the whole epoch at hand at once, for code that cuts batches itself, and count it as a pass does.

        Returns:
            What the batches of one pass are cut from, (N', ...) each: the rows in the epoch's order on their device,
            less those that `drop_last` leaves out. Without an order these are the tensors themselves, no copy.
            None, and the epoch is not counted, where that needs too much memory: iterate instead.
        """
        if not self.resident or (self._draws and not self._copy_is_affordable()):
            return None
        order = self._next_order()
        if order is not None:
            return self._shape(
                {name: tensor.index_select(0, order.to(tensor.device)) for name, tensor in self.tensors.items()}
            )
        kept = self._kept
        return self._shape(
            {name: tensor if kept == self.length else tensor[:kept] for name, tensor in self.tensors.items()}
        )

    def epoch_order(self) -> torch.Tensor:
        """Return the rows of the epoch at hand in their order, (N',) int64 on the CPU. It is not counted as a pass."""
        order = self._order()
        return torch.arange(self._kept) if order is None else order

    def epoch_batches(self) -> list[torch.Tensor]:
        """Return the rows of each batch of the epoch at hand, of this process's share. It is not counted as a pass."""
        whole = self.epoch_order().split(self.batch_size)
        parts = [rows[own_part(len(rows), *self._share)] for rows in whole]
        return [part if len(part) else rows[:1] for part, rows in zip(parts, whole, strict=True)]

    def first_batch(self) -> Tensors:
        """Return the first batch of the epoch at hand. It is not counted as a pass."""
        return self._rows_from(0)

    def last_batch(self) -> Tensors:
        """Return the last batch of the epoch at hand. It is not counted as a pass."""
        return self._rows_from((len(self) - 1) * self.batch_size)

    def _rows_from(self, start: int) -> Tensors:
        order = self._order()
        end = min(start + self.batch_size, self._kept)
        rows = torch.arange(start, end) if order is None else order[start:end]
        part = rows[own_part(len(rows), *self._share)]
        return self._rows(part if len(part) else rows[:1])

    def _rows(self, rows: torch.Tensor) -> Tensors:
        cut = {name: tensor.index_select(0, rows.to(tensor.device)) for name, tensor in self.tensors.items()}
        return self._shape(cut if self.resident else {name: self._moved(part) for name, part in cut.items()})

    def __iter__(self) -> Iterator[Tensors]:
        if self._share != (0, 1):
            return self._own_batches()
        rows = self.epoch_rows()
        if rows is None:
            order = self._next_order()
            columns = [self._gathered(tensor, order) for tensor in self.tensors.values()]
        else:
            columns = [_batches(tensor, self.batch_size, tensor.device) for tensor in tensors_in(rows)]
        if self._plain:
            return columns[0]
        # {name: batch, ...} for each batch. No Python runs between two of them: it would cost more than the views.
        named = map(dict, map(zip, repeat(tuple(self.tensors)), zip(*columns, strict=True)))
        return named if self._kind is dict else map(self._shape, named)

    def _own_batches(self) -> Iterator[Tensors]:
        batches = self.epoch_batches() if self.length else []
        self.epoch += 1
        for rows in batches:
            yield self._rows(rows)

    @property
    def _draws(self) -> bool:
        return self.shuffle or self._cumulative is not None

    @property
    def _kept(self) -> int:
        return len(self) * self.batch_size if self.drop_last else self.length

    def _next_order(self) -> torch.Tensor | None:
        """Draw the order of the epoch at hand and go on to the next."""
        order = self._order()
        self.epoch += 1
        return order

    def _order(self) -> torch.Tensor | None:
        """Draw the order of the epoch at hand, (N',) int64 on the CPU; None is as they lie."""
        generator = epoch_generator(self.seed, self.epoch)
        if self._cumulative is not None:
            # torch.multinomial stops at 2**24 rows. A draw is below 1 and the total at least 1, so it stays below the
            # total; `right` passes over rows of weight 0, whose sum is that of the row before.
            draws = torch.rand(self.length, dtype=torch.float64, generator=generator) * self._cumulative[-1]
            return torch.searchsorted(self._cumulative, draws, right=True)[: self._kept]
        return torch.randperm(self.length, generator=generator)[: self._kept] if self.shuffle else None

    def _gathered(self, tensor: torch.Tensor, order: torch.Tensor | None) -> Iterator[torch.Tensor]:
        if order is None:
            batches = _batches(tensor[: self._kept], self.batch_size, tensor.device)
        else:
            batches = map(tensor.index_select, repeat(0), _batches(order, self.batch_size, tensor.device))
        return batches if self.resident else map(self._moved, batches)

    def _moved(self, batch: torch.Tensor) -> torch.Tensor:
        # Only from pinned memory does a copy run beside the computation. Pinning a batch at a time, not all data once,
        # needs no second copy of data that is large.
        if self._pin and batch.device.type == "cpu":
            return batch.pin_memory().to(self.device, non_blocking=True)
        return batch.to(self.device)

    def _copy_is_affordable(self) -> bool:
        # Asked once: the answer costs as much as cutting dozens of batches, and with CUDA more.
        if self._copy_fits is None:
            sizes: dict[torch.device, int] = {}
            for tensor in self.tensors.values():
                sizes[tensor.device] = sizes.get(tensor.device, 8 * self.length) + tensor.nbytes  # 8: the order, int64
            free = {device: free_bytes(device) for device in sizes}
            self._copy_fits = all(
                free[device] is None or size <= self.memory_share * free[device] for device, size in sizes.items()
            )
        return self._copy_fits

    def _shape(self, named: dict[str, torch.Tensor]) -> Tensors:
        return named[""] if self._plain else named if self._kind is dict else self._kind(**named)


def _batches(rows: torch.Tensor, batch_size: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Cut rows into batches on a device. `split` makes all views of a part in one call into C++."""
    if not len(rows):
        return iter(())
    return chain.from_iterable(part.to(device).split(batch_size) for part in rows.split(batch_size * _PART))


def _common_length(tensors: dict[str, torch.Tensor]) -> int:
    strange = [
        f"{name} is of type {type(part).__name__}" for name, part in tensors.items() if not torch.is_tensor(part)
    ]
    if strange:
        raise DataError(f"TensorLoader needs tensors, one row a sample: {', '.join(strange)}.")
    lengths = {name or "tensor": len(tensor) if tensor.dim() else "a scalar" for name, tensor in tensors.items()}
    if not lengths or len(set(lengths.values())) > 1 or "a scalar" in lengths.values():
        raise DataError(f"TensorLoader needs tensors of one length, one row a sample; given: {lengths or 'none'}.")
    return next(iter(lengths.values()))


def _cumulative(weights: torch.Tensor | Sequence[float], length: int) -> torch.Tensor:
    """Check weights and add them up, (N,) float64 on the CPU. The largest counts as 1, so nothing overflows."""
    weights = torch.as_tensor(weights, dtype=torch.float64, device="cpu").detach()
    if weights.shape != (length,):
        raise DataError(
            f"TensorLoader: weights has shape {tuple(weights.shape)}; it must be ({length},), one a sample."
        )
    bad = (~torch.isfinite(weights) | (weights < 0)).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"TensorLoader: weights[{bad[0]}] is {weights[bad[0]].item():g} ({len(bad)} of {length} are bad); weights "
            "must be finite and not negative."
        )
    if not (weights > 0).any():
        raise DataError("TensorLoader: no weight is above 0, so no sample could be drawn; at least one must be.")
    return (weights / weights.max()).cumsum(0)


def _can_pin() -> bool:
    try:
        torch.empty(1, pin_memory=True)
    except RuntimeError:  # the system allows this process no locked memory
        return False
    return True
