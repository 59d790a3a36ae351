"""Sees on the device when numbers go wrong, and keeps the weights as they were before. Nothing here waits for it."""

from collections import deque
from collections.abc import Iterable

import torch

_REMEMBERED = 1000  # steps whose random states are known
_LARGEST_BUFFER = 2**20  # numbers; statistics are small, a large buffer is a table that stays as it is


class Guard:
    """Judges each step by its losses and its gradient's norm. From the first bad one on no step changes a parameter.

    The host learns of it when it next looks, some steps later; the parameters are still those of before the bad step.

    Args:
        device: where the losses are.
        buffers: the model's; those that steps change, such as running statistics, are kept too.

    Attributes:
        flag: a float32 scalar, 1 from the first bad step on. torch's fused kernels take it as `found_inf`.
    """

    def __init__(self, device: torch.device | str = "cpu", buffers: Iterable[torch.Tensor] = ()) -> None:
        self._poison, self.flag, self._missed = torch.zeros(3, device=device).unbind()
        self.on_cpu = self.flag.device.type == "cpu"
        self._randoms: deque[tuple[torch.Tensor, torch.Tensor | None]] = deque(maxlen=_REMEMBERED)
        self._buffers = [buffer.detach() for buffer in buffers if buffer.numel() <= _LARGEST_BUFFER]
        self._before: list[torch.Tensor] | None = None  # the buffers of before the first step, until it is done
        self._changing: list[torch.Tensor] = []
        self._kept: list[torch.Tensor] = []

    @property
    def tensors(self) -> list[torch.Tensor]:
        """What a step changes here."""
        return [self._poison, self.flag, self._missed, *self._kept]

    def begin(self) -> None:
        """Note what a step begins with: the random states, and at the first one the buffers."""
        self._randoms.append((torch.get_rng_state(), None if self.on_cpu else _cuda_state(self.flag.device)))
        if self._before is None:
            self._before = [buffer.clone() for buffer in self._buffers]

    def see(self, value: torch.Tensor) -> None:
        """Take a scalar that must be finite: 0 times what isn't, is not 0."""
        self._poison.add_(value.detach(), alpha=0)

    def judge(self, norm: torch.Tensor | None = None) -> torch.Tensor:
        """Judge a step, before it changes parameters, by its gradient's norm and what was seen; returns `flag`."""
        if norm is not None:
            self._poison.add_(norm, alpha=0)
        torch.ne(self._poison, self._poison, out=self.flag)
        self._missed.add_(self.flag)
        return self.flag

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """Return a loss whose gradients aren't finite from the first bad step on, for a GradScaler to see."""
        return loss * (1 + self._poison)

    def keep(self) -> None:
        """Keep the buffers as a good step has left them."""
        if self._before:
            self._find_changing()
        if self._changing:
            bad = self.flag.bool()
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
        missed = int(self._missed)
        if not missed:
            self._randoms.clear()
        return missed

    def note_bad(self, missed: int, random: torch.Tensor | None) -> None:
        """Take what a form of the step has found, and put back, by itself.

        Args:
            missed: steps from the bad one on.
            random: torch's state on the CPU when it began.
        """
        self._missed.fill_(missed)
        self._changing, self._kept = [], []
        self._randoms.clear()
        if random is not None:
            self._randoms.extend([(random, None)] * missed)

    def random_before(self, missed: int) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Return the states on the CPU and on CUDA when the first of the last `missed` steps began."""
        return self._randoms[-missed] if missed <= len(self._randoms) else (None, None)

    def restore_buffers(self) -> None:
        """Put the buffers back to where the last good step has left them."""
        for buffer, kept in zip(self._changing, self._kept, strict=True):
            buffer.copy_(kept)


def _cuda_state(device: torch.device) -> torch.Tensor | None:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else None  # the host has it
