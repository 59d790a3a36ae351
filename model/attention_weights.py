"""What tokens look at: the weights of attention, which a pass never has whole, summed for some of its tokens."""

import torch
from torch import Tensor

from model.packed_attention import PackedRows, attend_rows, visible


class AttentionWeights:
    """Stands where a cache would in a pass of one row: each layer attends as without one, and is looked at.

    Args:
        places: (N,) int64, tokens whose weights are asked.

    Attributes:
        received: (T,) float32, by how much these tokens look at each token of the row, on average over them, over
            heads and over layers; it adds up to 1. Without a pass yet it is empty.
    """

    def __init__(self, places: Tensor) -> None:
        self._places, self._layers = places, 0
        self.received = torch.zeros(0, device=places.device)

    def begin(self, rows: PackedRows) -> "AttentionWeights":
        """Ready it for a row; `CausalLM.hidden` calls this.

        Raises:
            ValueError: there are several rows.
        """
        (length,) = rows.lengths
        self.received, self._layers = torch.zeros(length, device=self._places.device), 0
        return self

    def attend(self, layer: int, queries: Tensor, keys: Tensor, values: Tensor, window: int | None) -> Tensor:
        """Attend, and add what the asked tokens look at.

        Args:
            layer: number of the layer.
            queries: (T, heads, head_dim).
            keys: (T, kv_heads, head_dim).
            values: (T, kv_heads, head_dim).
            window: tokens that a token sees, itself included; None for all.

        Returns:
            (T, heads, head_dim).
        """
        length, heads, size = queries.shape
        shared = keys.float().repeat_interleave(heads // keys.shape[1], dim=1)
        scores = torch.einsum("nhd,thd->hnt", queries[self._places].float(), shared) * size**-0.5
        seen = visible(length, length, window, queries.device)[self._places]
        self.received += scores.masked_fill(~seen, float("-inf")).softmax(-1).mean((0, 1))
        self._layers += 1
        return attend_rows(queries, keys, values, (length,), window)

    def end(self) -> None:
        """Take the mean over layers; `CausalLM.hidden` calls this."""
        self.received /= self._layers
