"""Which class was taken for which, counted on the device."""

import numpy as np
import torch


class ClassCounts:
    """Counts of samples by true and predicted class.

    Its attributes lie in slots: what is counted in one validation is of no use to a run that goes on.

    Args:
        classes: how many classes there are.
        device: device of the predictions.
    """

    __slots__ = ("_classes", "_counts")

    def __init__(self, classes: int, device: torch.device) -> None:
        self._classes = classes
        self._counts = torch.zeros(classes * classes, dtype=torch.int64, device=device)

    def clear(self) -> None:
        """Forget what was counted."""
        self._counts.zero_()

    def add(self, labels: torch.Tensor, predicted: torch.Tensor) -> None:
        """Count a batch; nothing is waited for.

        Args:
            labels: true classes (n,) int64.
            predicted: predicted classes (n,) int64.
        """
        places = labels * self._classes + predicted
        self._counts.scatter_add_(0, places, torch.ones_like(places))

    @property
    def flat(self) -> torch.Tensor:
        """The counts as they are, (classes * classes,) int64 on the device."""
        return self._counts

    def matrix(self, flat: torch.Tensor) -> np.ndarray:
        """Return counts by true class (row) and predicted class (column): a host-device synchronisation.

        Args:
            flat: `flat` of this process, or the sum over all.
        """
        return flat.view(self._classes, self._classes).cpu().numpy()
