"""A small model for the sample trainers."""

import torch
from torch import nn


class FeatureFusionModel(nn.Module):
    """Autoencoder over vectors of 16."""

    def __init__(self, hidden_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.encoder = nn.Linear(16, hidden_dim)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden_dim, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # x: (B, 16)
        return self.decoder(self.dropout(torch.relu(self.encoder(x))))
