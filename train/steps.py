"""The optimizer step. `EagerStep` runs it operation by operation; faster forms take its place behind `__call__`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from data.batches import batch_size_of

Window = list[Any]  # the batches whose gradients make one optimizer step


def windows(loader: Iterable[Any], size: int) -> Iterator[Window]:
    """Group a loader's batches into windows of `size`; the last may be shorter."""
    window: Window = []
    for batch in loader:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


class EagerStep:
    """Forward, backward, clip, update. Nothing here waits for the device.

    Args:
        forward: maps a batch to its loss, a scalar tensor that is a mean over the batch.
        optimizer: updates the parameters it was given.
        clip: largest L2 norm of the whole gradient; 0 doesn't clip.
    """

    def __init__(
        self, forward: Callable[[Any], torch.Tensor], optimizer: torch.optim.Optimizer, clip: float = 0.0
    ) -> None:
        self.forward, self.optimizer, self.clip = forward, optimizer, clip

    def __call__(self, window: Window) -> None:
        """Do one step.

        Args:
            window: one or more batches. Each weighs as many samples as it has, so that several short batches give the
                gradient of one long one.
        """
        self.optimizer.zero_grad(set_to_none=True)
        sizes = [batch_size_of(batch) for batch in window]
        for batch, size in zip(window, sizes, strict=True):
            loss = self.forward(batch)
            share = size / sum(sizes)
            (loss if share == 1.0 else loss * share).backward()
        if self.clip:
            parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
            torch.nn.utils.clip_grad_norm_(parameters, self.clip)
        self.optimizer.step()
