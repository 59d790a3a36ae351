"""Averages over an epoch, weighted by sample, kept on the device until somebody reads them."""

from typing import Any

import torch

from train.process_group import ProcessGroup

_HELD = 256  # values that wait to be added in one go: one kernel for many instead of one for each


class EpochMeter:
    """Sums of values weighted by how many samples each stands for."""

    def __init__(self) -> None:
        self._sums: dict[str, torch.Tensor | float] = {}
        self._counts: dict[str, torch.Tensor | float] = {}
        self._held: dict[str, list[tuple[torch.Tensor, torch.Tensor | int]]] = {}
        self._kept: dict[str, tuple[torch.Tensor, torch.Tensor | float]] = {}

    def add(self, name: str, value: torch.Tensor | float, samples: int | torch.Tensor) -> None:
        """Add a mean over `samples` samples; a tensor stays on its device (no synchronisation).

        Args:
            name: name of the quantity that is averaged, such as `loss`.
            value: a number, or a tensor of any shape, of which the mean is taken.
            samples: weight of the value; a scalar tensor where only the device knows it.
        """
        if not isinstance(value, torch.Tensor):
            value = float(value)
            self.add_sum(name, value * samples, samples)
            return
        held = self._held.setdefault(name, [])
        held.append((value.detach() if value.dim() == 0 else value.detach().float().mean(), samples))
        if len(held) >= _HELD:
            self._add_up(name)

    def add_sum(self, name: str, total: torch.Tensor | float, samples: torch.Tensor | float) -> None:
        """Add a sum over `samples` samples (no synchronisation).

        Args:
            name: name of the quantity that is averaged, such as `loss`.
            total: sum of the quantity over the samples.
            samples: number of samples in the sum.
        """
        self._sums[name] = self._sums.get(name, 0.0) + total
        self._counts[name] = self._counts.get(name, 0) + samples

    def keep_sum(self, name: str, total: torch.Tensor, samples: torch.Tensor | float) -> None:
        """Take a sum that is added up elsewhere, in place of the one that was given before (no synchronisation).

        Args:
            name: name of the quantity that is averaged, such as `loss`.
            total: sum of the quantity over all samples of the epoch so far.
            samples: number of samples in the sum.
        """
        self._kept[name] = (total, samples)

    def kept(self, name: str) -> tuple[float, float]:
        """Return what `keep_sum` was given last. Host-device synchronisations."""
        total, samples = self._kept.get(name, (0.0, 0.0))
        return float(total), float(samples)

    def state_dict(self) -> dict[str, Any]:
        """Return plain data for a checkpoint: what waits to be added up too, since the order of sums shows in bits."""
        held = {name: [list(pair) for pair in pairs] for name, pairs in self._held.items()}
        return {"sums": dict(self._sums), "counts": dict(self._counts), "held": held, "kept": dict(self._kept)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a `state_dict`, whose tensors are on the device where what comes is measured."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
        self._held = {name: [(value, samples) for value, samples in pairs] for name, pairs in state["held"].items()}
        self._kept = {name: (total, samples) for name, (total, samples) in state["kept"].items()}

    def copy(self) -> "EpochMeter":
        """Return a meter that goes on from here by itself."""
        other = EpochMeter()
        other._sums, other._counts, other._kept = dict(self._sums), dict(self._counts), dict(self._kept)
        other._held = {name: list(held) for name, held in self._held.items()}
        return other

    def total(self, name: str) -> tuple[float, float]:
        """Return a sum and over how many samples. Host-device synchronisations."""
        self._add_up(name)
        total, samples = self._kept.get(name, (0.0, 0.0))
        return float(self._sums.get(name, 0.0) + total), float(self._counts.get(name, 0.0) + samples)

    def merge(self, other: "EpochMeter") -> None:
        """Add what another meter has measured (no synchronisation)."""
        for name in dict.fromkeys([*other._sums, *other._held]):
            other._add_up(name)
            self.add_sum(name, other._sums[name], other._counts[name])

    def _add_up(self, name: str) -> None:
        """Add what is held to the sums, in float64, so that a long epoch of small losses adds up; MPS has none."""
        held = self._held.get(name)
        if not held:
            return
        self._held[name] = []
        values = torch.stack([value for value, _ in held])
        values = values.to(torch.float32 if values.device.type == "mps" else torch.float64)
        samples = [samples for _, samples in held]
        if any(isinstance(count, torch.Tensor) for count in samples):
            weights = torch.stack([torch.as_tensor(count, device=values.device).to(values) for count in samples])
            self.add_sum(name, values @ weights, weights.sum())
        else:
            weights = torch.tensor(samples, dtype=values.dtype).to(values.device, non_blocking=True)
            self.add_sum(name, values @ weights, sum(samples))

    def over_processes(self, group: ProcessGroup) -> "EpochMeter":
        """Return what all processes have measured, the same to the bit in each. Host-device synchronisations.

        Args:
            group: process group, each process of which calls this with its own meter.
        """
        if group.is_single_process:
            return self
        whole = EpochMeter()
        for totals in group.all_gather_object({name: self.total(name) for name in self.names()}):
            for name, (total, samples) in totals.items():
                whole.add_sum(name, total, samples)
        return whole

    def mean_over_processes(self, group: ProcessGroup, name: str, own: float) -> float:
        """Return one of the averages that all processes have measured together, the same in each.

        Args:
            group: process group, each process of which calls this with its own meter.
            name: name of the quantity that is averaged, such as `loss`.
            own: the average of this process alone, which has been read.
        """
        if group.is_single_process:
            return own
        total, samples = group.all_reduce_sum(torch.tensor(self.total(name), dtype=torch.float64)).tolist()
        return total / max(samples, 1e-300)

    def names(self) -> list[str]:
        """Return what is averaged."""
        return list(dict.fromkeys([*self._sums, *self._held, *self._kept]))

    def read(self) -> dict[str, float]:
        """Return the averages so far. One host-device synchronisation for each name."""
        return {name: self.mean(name) for name in self.names()}

    def read_one(self, name: str) -> float | None:
        """Return one average so far, None if there is none. One host-device synchronisation."""
        known = name in self._sums or name in self._kept or self._held.get(name)
        return self.mean(name) if known else None

    def mean(self, name: str) -> float:
        """Return one average so far, 0 where there is none. One host-device synchronisation."""
        total, samples = self.total(name)
        return total / max(samples, 1e-300)

    def __len__(self) -> int:
        return len(self._sums) + len(self._held) + len(self._kept)
