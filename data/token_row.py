"""Tokens of one row, and by how much each is trained on: what rendering makes, and batches are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class TokenRow:
    """Tokens of one row.

    Attributes:
        ids: (L,) int32 token ids.
        weights: (L,) float32, by how much the prediction of each token counts; 0 for what is only read.
        place: where the row comes from, such as `line 5`.
        of_trained: what else a loss needs to know of each token that is trained on, by name: tensors (N, ...), where N
            is `trained`. All rows of a loader have the same.
    """

    ids: Tensor
    weights: Tensor
    place: str = ""
    of_trained: Mapping[str, Tensor] = field(default_factory=dict)

    @staticmethod
    def of(ids: Sequence[int], weights: Sequence[float], place: str = "") -> "TokenRow":
        """Make a row of lists, such as of sampled tokens: what was sampled has a weight, what was only read has 0.

        Raises:
            ValueError: there are not as many weights as ids.
        """
        if len(ids) != len(weights):
            raise ValueError(f"{len(ids)} ids and {len(weights)} weights of a row")
        tensors = torch.tensor(ids, dtype=torch.int32), torch.tensor(weights, dtype=torch.float32)
        return TokenRow(*tensors, place)

    @property
    def trained(self) -> int:
        """Number of tokens that are trained on."""
        return int((self.weights != 0).sum())

    def targets(self) -> list[list[int]]:
        """Return the ids that are trained on, run by run."""
        runs: list[list[int]] = []
        before = False
        for token, weight in zip(self.ids.tolist(), self.weights.tolist(), strict=True):
            if weight and not before:
                runs.append([])
            if weight:
                runs[-1].append(token)
            before = bool(weight)
        return runs

    def needed(self) -> "TokenRow":
        """Return the row up to its last trained token: what follows has no part in the loss."""
        last = int(self.weights.nonzero().max()) + 1 if self.trained else 0
        return self if last == len(self.ids) else replace(self, ids=self.ids[:last], weights=self.weights[:last])
