"""Averages over an epoch, weighted by sample, kept on the device until somebody reads them."""

from numbers import Real

import torch


class EpochMeter:
    """Sums of values weighted by how many samples each stands for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, int] = {}

    def add(self, name: str, value: torch.Tensor | Real, samples: int) -> None:
        """Add a mean over `samples` samples; a tensor stays on its device (no synchronisation).

        Args:
            name: what is averaged.
            value: a number, or a tensor of any shape, of which the mean is taken.
            samples: the weight.
        """
        if isinstance(value, torch.Tensor):
            value = value.detach()
            value = value if value.dim() == 0 else value.float().mean()
            if not isinstance(self._sums.get(name), torch.Tensor):
                # float64, so that a long epoch of small losses adds up; MPS has none.
                dtype = torch.float32 if value.device.type == "mps" else torch.float64
                self._sums[name] = torch.full((), self._sums.get(name, 0.0), dtype=dtype, device=value.device)
            self._sums[name].add_(value, alpha=samples)  # no synchronisation
        else:
            self._sums[name] = self._sums.get(name, 0.0) + float(value) * samples
        self._counts[name] = self._counts.get(name, 0) + samples

    def read(self) -> dict[str, float]:
        """Return the averages so far. One host-device synchronisation for each name."""
        return {name: float(total) / max(1, self._counts[name]) for name, total in self._sums.items()}

    def read_one(self, name: str) -> float | None:
        """Return one average so far, None if there is none. One host-device synchronisation."""
        return float(self._sums[name]) / max(1, self._counts[name]) if name in self._sums else None

    def __len__(self) -> int:
        return len(self._sums)
