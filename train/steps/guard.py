"""Sees when numbers go wrong, without waiting for the device, and keeps the weights as they were before."""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch

from data.batches import storage_parts, tensors_in

_REMEMBERED = 1000  # steps whose batches and random states are known
_HELD_BYTES = 2**26  # of batches, of the steps since the last look
_LARGEST_BUFFER = 2**20  # numbers; statistics are small, a large buffer is a table that stays as it is


@dataclass
class StepSnapshot:
    """What a step began with.

    Attributes:
        batches: batches of the step; None where they were too large to keep.
        random: state of torch's generator on the CPU, None if unknown.
        cuda_random: state of the generator of the model's CUDA device, None if unknown.
    """

    batches: list[Any] | None = None
    random: torch.Tensor | None = None
    cuda_random: torch.Tensor | None = None


class Guard:
    """Judges each step by its losses and its gradient's norm. From the first bad one on no step changes a parameter.

    On a device the verdict stays there: the host learns of it when it next looks, some steps later, and the parameters
    are still those of before the bad step. On the CPU there is nothing to wait for.

    Args:
        device: device that the losses are on.
        buffers: function that gives the buffers of the model, asked at the first step; those that steps change, such as
            running statistics, are kept too.

    Attributes:
        on_host: whether the host judges.
        blocked: whether the host knows of a bad step.
    """

    def __init__(
        self, device: torch.device | str = "cpu", buffers: Callable[[], Iterable[torch.Tensor]] = tuple
    ) -> None:
        self.on_host, self.blocked = torch.device(device).type == "cpu", False
        self._poison, self._flag, self._found, self._missed = torch.zeros(4, device=device).unbind()
        self._one = torch.ones((), device=device)
        self._missed_here = 0
        self._begun: deque[StepSnapshot] = deque(maxlen=_REMEMBERED)
        self._holds: int | None = None  # steps whose batches are kept
        self._draws = True  # whether steps draw random numbers
        self._random = torch.empty(0)  # torch's state at the last look
        self._buffers_now = buffers  # lazy layers have none before their first pass
        self._buffers: list[torch.Tensor] = []
        self._before: list[torch.Tensor] = []  # the buffers of before the first step, until it is done
        self._changing: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []

    def begin(self, batches: list[Any]) -> None:
        """Note what a step begins with, and at the first one the buffers."""
        if self._holds is None:
            tensors = [tensor for batch in batches for tensor in tensors_in(batch)]
            # A tensor that a worker has sent holds a file descriptor for as long as it lives.
            parts = [part for tensor in tensors for part in storage_parts(tensor)]
            sent = any(part.device.type == "cpu" and part.is_shared() for part in parts)
            size = sum(part.nbytes for part in parts)
            self._holds = 0 if sent else min(_REMEMBERED, _HELD_BYTES // max(size, 1))
            self._buffers = [buffer.detach() for buffer in self._buffers_now() if buffer.numel() <= _LARGEST_BUFFER]
            self._before = [buffer.clone() for buffer in self._buffers]
        begun = self._begun
        if self._draws:
            begun.append(StepSnapshot(batches, torch.get_rng_state(), self._cuda_random()))
        else:
            begun.append(StepSnapshot(batches))
        if len(begun) > self._holds:
            begun[-1 - self._holds].batches = None

    def see(self, loss: torch.Tensor) -> None:
        """Take a scalar that must be finite."""
        if self.on_host:
            self.blocked = self.blocked or not math.isfinite(loss.item())
        else:
            self._poison.add_(loss.detach(), alpha=0)  # 0 times what isn't finite, is not 0

    def verdict(self) -> torch.Tensor:
        """Return 0 where all that was seen was finite, for several processes to add up and `take_verdict`."""
        return torch.tensor(float(self.blocked), dtype=torch.float64) if self.on_host else self._poison.double()

    def take_verdict(self, total: torch.Tensor) -> None:
        """Take the verdicts of all processes: what is bad in one is bad in all.

        Args:
            total: sum of the verdicts of all processes, a scalar.
        """
        if self.on_host:
            self.blocked = bool(total)
        else:
            self._poison.copy_(total)

    def judge(
        self, norm: torch.Tensor | None = None, gradients: list[torch.Tensor] | tuple[()] = ()
    ) -> torch.Tensor | None:
        """Judge a step, before it changes parameters, by the losses that were seen and its gradient.

        Args:
            norm: norm of the gradient, where it is known.
            gradients: gradients of the parameters, of one dtype on one device, where the norm is not known.

        Returns:
            1 in a float32 scalar from the first bad step on, else 0: torch's fused kernels take it as `found_inf`. None
            where the host judges, which sets `blocked`.
        """
        if gradients:  # GradScaler's check, which is one pass: times 1, and 1 into `_found` where it isn't finite
            torch._amp_foreach_non_finite_check_and_unscale_(gradients, self._found, self._one)
        if self.on_host:
            self.blocked = self.blocked or not (norm is None or math.isfinite(norm.item())) or bool(self._found)
            self._missed_here += self.blocked
            return None
        if norm is not None:
            self._poison.add_(norm, alpha=0)
        self._flag.copy_(self._poison != self._poison)
        if gradients:
            torch.maximum(self._flag, self._found, out=self._flag)
        self._missed.add_(self._flag)
        return self._flag

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return a loss whose gradients aren't finite from the first bad step on, for a GradScaler to see."""
        return loss * (math.nan if self.blocked else 1 + self._poison)

    def keep(self) -> None:
        """Keep the buffers as a good step has left them."""
        if self._before:
            self._find_changing()
        if self._changing and not self.blocked:
            bad = self._flag.bool()
            for buffer, kept in zip(self._changing, self._kept, strict=True):
                torch.where(bad, kept, buffer, out=kept)

    def settle(self) -> None:
        """Keep the buffers as they are: all is well."""
        for buffer, kept in zip(self._changing, self._kept, strict=True):
            kept.copy_(buffer)

    def _find_changing(self) -> None:
        """Part the buffers that steps change from those that stay as they are.

        A host-device synchronisation for each, after the first step only: batch norm changes its statistics without
        counting up their version.
        """
        for buffer, before in zip(self._buffers, self._before, strict=True):
            if not torch.equal(buffer, before):
                self._changing.append(buffer)
                self._kept.append(before)
        self._before = []

    def missed_steps(self) -> int:
        """Return how many steps were left out, the bad one and all after it. A host-device synchronisation."""
        missed = self._missed_here or int(self._missed)
        if not missed:
            self._begun.clear()
            now = torch.get_rng_state()  # to note it at each step takes time, and most models have no use for it
            self._draws, self._random = not torch.equal(now, self._random), now
        return missed

    def note_bad(self, missed: int, begun: StepSnapshot) -> None:
        """Take what a form of the step has found, and put back, by itself.

        Args:
            missed: number of steps from the bad one on.
            begun: batches and random states that the bad step began with.
        """
        self.blocked, self._missed_here = True, missed
        self._changing, self._kept = [], []
        self._begun.clear()
        self._begun.extend([begun] * missed)

    def snapshot_of(self, missed: int) -> StepSnapshot:
        """Return what the first of the last `missed` steps began with."""
        if missed > len(self._begun):
            return StepSnapshot()
        begun = self._begun[-missed]
        if begun.random is None:  # nothing was drawn since
            begun.random, begun.cuda_random = torch.get_rng_state(), self._cuda_random()
        return begun

    def restore_buffers(self) -> None:
        """Put the buffers back to where the last good step has left them."""
        for buffer, kept in zip(self._changing, self._kept, strict=True):
            buffer.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """Return what a step changes here."""
        tensors = [self._poison, self._flag, self._found, self._missed, *self._kept]
        return {
            "blocked": self.blocked,
            "missed": self._missed_here,
            "tensors": [tensor.clone() for tensor in tensors],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a `state_dict`; buffers that are known to change since then are left as they are kept."""
        self.blocked, self._missed_here = state["blocked"], state["missed"]
        tensors = [self._poison, self._flag, self._found, self._missed, *self._kept]
        for tensor, value in zip(tensors, state["tensors"], strict=False):
            tensor.copy_(value)

    def _cuda_random(self) -> torch.Tensor | None:
        device = self._flag.device
        return torch.cuda.get_rng_state(device) if device.type == "cuda" else None  # the host has it
