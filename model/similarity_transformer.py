"""Scores the models of a zoo for a dataset."""

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of a `SimilarityTransformer`.

    Attributes:
        dataset_dim: numbers of a dataset token.
        model_dim: numbers of a model token.
        pair_dim: numbers that are known of each pair of dataset and model; 0 for none.
        width: numbers of a hidden token.
        layers: number of transformer layers.
        heads: number of attention heads of each layer.
        dropout: share of hidden values dropped in training.
    """

    dataset_dim: int
    model_dim: int
    pair_dim: int
    width: int = 32
    layers: int = 2
    heads: int = 4
    dropout: float = 0.2


class SimilarityTransformer(nn.Module):
    """A transformer in which dataset tokens and model tokens attend to each other; each model gets a score.

    No token has a position, so permuting models permutes their scores, and the order of classes does not matter. What
    is known of a pair also enters the score linearly. A new transformer scores every model 0: whatever it says later it
    has learnt from measured accuracies.

    Args:
        shape: sizes of tokens and layers.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_dataset = nn.Sequential(nn.Dropout(shape.dropout), nn.Linear(shape.dataset_dim, shape.width))
        self.embed_model = nn.Sequential(nn.Dropout(shape.dropout), nn.Linear(shape.model_dim, shape.width))
        self.embed_pair = nn.Linear(shape.pair_dim, shape.width, bias=False) if shape.pair_dim else None
        self.kind = nn.Parameter(torch.randn(2, shape.width) * 0.02)  # of a token: dataset, model
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                shape.width, shape.heads, 2 * shape.width, shape.dropout, "gelu", batch_first=True, norm_first=True
            )
            for _ in range(shape.layers)
        )
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, 1, bias=False)
        nn.init.zeros_(self.head.weight)
        self.evidence = nn.Linear(shape.pair_dim, 1, bias=False) if shape.pair_dim else None
        if self.evidence is not None:
            nn.init.zeros_(self.evidence.weight)

    def forward(
        self,
        dataset_tokens: torch.Tensor,
        model_tokens: torch.Tensor,
        pair_features: torch.Tensor | None = None,
        dataset_mask: torch.Tensor | None = None,
        model_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Score every model of every list.

        Args:
            dataset_tokens: (B, M, dataset_dim), one of each class of the dataset.
            model_tokens: (B, N, model_dim), one of each model.
            pair_features: (B, N, pair_dim), known numbers of the dataset with each model; None where pair_dim is 0.
            dataset_mask: (B, M) bool, False where a list's dataset tokens are padded; None if none are.
            model_mask: (B, N) bool, False where a list's model tokens are padded; None if none are.

        Returns:
            Scores (B, N), higher is better; 0 where there is no model.
        """
        datasets = self.embed_dataset(dataset_tokens) + self.kind[0]
        models = self.embed_model(model_tokens) + self.kind[1]
        if self.embed_pair is not None:
            models = models + self.embed_pair(pair_features)
        tokens = torch.cat([datasets, models], dim=1)  # (B, M + N, width)
        masks = [
            torch.ones(part.shape[:2], dtype=torch.bool, device=part.device) if mask is None else mask
            for part, mask in ((datasets, dataset_mask), (models, model_mask))
        ]
        absent = ~torch.cat(masks, dim=1)
        for block in self.blocks:
            tokens = block(tokens, src_key_padding_mask=absent)
        scores = self.head(self.norm(tokens[:, datasets.shape[1] :])).squeeze(-1)
        if self.evidence is not None:
            scores = scores + self.evidence(pair_features).squeeze(-1)
        return scores.masked_fill(~masks[1], 0.0)


class SimilarityEnsemble(nn.Module):
    """Several transformers that differ in their initial weights and dropout.

    Args:
        shape: sizes of tokens and layers of each member.
        members: number of transformers.
    """

    def __init__(self, shape: TransformerShape, members: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(SimilarityTransformer(shape) for _ in range(members))

    def forward(self, *inputs: torch.Tensor | None) -> torch.Tensor:
        """Score with every member; inputs as of `SimilarityTransformer`, scores (K, B, N)."""
        return torch.stack([member(*inputs) for member in self.members])

    def evidence_weights(self) -> list[nn.Parameter]:
        """Return each member's weights of what is known of pairs."""
        members = [member for member in self.members if isinstance(member, SimilarityTransformer)]
        return [member.evidence.weight for member in members if member.evidence is not None]

    def recomputable_layers(self) -> list[nn.Module]:
        """Return the layers whose activations may be computed again in backward (`recompute_activations = on`)."""
        return [block for member in self.members for block in member.blocks]
