"""Classifies images of digits."""

import torch
from torch import nn


class DigitsClassifier(nn.Module):
    """Two linear layers.

    Args:
        hidden_dim: width of the hidden layer.
        dropout: share of hidden values that are dropped in training.
    """

    def __init__(self, hidden_dim: int = 64, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(64, hidden_dim), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden_dim, 10)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map images (B, 64), pixels from 0 to 1, to logits (B, 10)."""
        return self.layers(images)
