"""A loader for data that fits in memory: no per-sample Python, no collate."""

from collections.abc import Iterator, Mapping

import torch

from data.data_error import DataError

Tensors = torch.Tensor | dict[str, torch.Tensor]


class TensorLoader:
    """Batches of one tensor, or of a dict of tensors, held where they are used.

    An epoch's order is a permutation drawn from (seed, epoch) alone, so it does not depend on what else drew random
    numbers. `set_epoch` chooses it (`BaseTrainer` calls it); without a call the epochs count themselves.

    Args:
        tensors: a tensor (N, ...), or a dict of tensors with one N.
        batch_size: samples a batch.
        shuffle: draw a new order each epoch.
        drop_last: leave out a last batch that is not full.
        seed: seed of the order.
        device: where the tensors are kept; None leaves them where they are.

    Raises:
        DataError: no tensors, or tensors of unequal length.
    """

    def __init__(
        self,
        tensors: torch.Tensor | Mapping[str, torch.Tensor],
        batch_size: int,
        shuffle: bool = False,
        drop_last: bool = False,
        seed: int = 0,
        device: torch.device | str | None = None,
    ) -> None:
        self._plain = isinstance(tensors, torch.Tensor)
        named = {"": tensors} if self._plain else dict(tensors)
        lengths = {name or "tensor": len(tensor) for name, tensor in named.items()}
        if not lengths or len(set(lengths.values())) > 1:
            raise DataError(f"TensorLoader needs tensors of one length, one row a sample; given: {lengths or 'none'}.")
        self.tensors = {name: tensor if device is None else tensor.to(device) for name, tensor in named.items()}
        self.length = next(iter(lengths.values()))
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.epoch = 0

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
            return self._loader._shape({name: tensor[index] for name, tensor in self._loader.tensors.items()})

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order the next pass uses."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.batch_size if self.drop_last else -(-self.length // self.batch_size)

    def __iter__(self) -> Iterator[Tensors]:
        rows = self.tensors
        if self.shuffle:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
            order = torch.randperm(self.length, generator=generator)
            # One gather an epoch; batches are then views of it.
            rows = {name: tensor.index_select(0, order.to(tensor.device)) for name, tensor in rows.items()}
        self.epoch += 1
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            yield self._shape({name: tensor[start : start + self.batch_size] for name, tensor in rows.items()})

    def _shape(self, named: dict[str, torch.Tensor]) -> Tensors:
        return named[""] if self._plain else named
