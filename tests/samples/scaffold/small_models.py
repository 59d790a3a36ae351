"""Models that trainers are made for by `--new`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


class SmallAutoEncoder(nn.Module):
    """Vectors to codes and back.

    Args:
        input_dim: numbers of a sample.
        hidden_dims: widths of the hidden layers, the
            encoder's.
        dropout: share of hidden values that are dropped.
        activation: between the layers.
        seed: of the model's own.
        norm: a layer for the output.
    """

    def __init__(
        self,
        input_dim: int,
        hidden_dims: Sequence[int] = (12,),
        dropout: float = 0,
        activation: Literal["relu", "tanh"] = "relu",
        bias: bool = True,
        seed: int | None = None,
        norm: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.encoder = nn.Linear(input_dim, hidden_dims[0], bias=bias)
        self.dropout, self.norm = nn.Dropout(dropout), norm or nn.Identity()
        self.activation = torch.relu if activation == "relu" else torch.tanh
        self.decoder = nn.Linear(hidden_dims[0], input_dim)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        codes = self.activation(self.encoder(x))
        return self.norm(self.decoder(self.dropout(codes))), codes


class SmallCnn(nn.Module):
    """Classifies images of 16 x 16 only."""

    def __init__(self, channels: int = 4, num_classes: int = 3) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, channels, 3, stride=2, padding=1)
        self.head = nn.Linear(channels * 8 * 8, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.convolution(images)).flatten(1))


class SmallRanker(nn.Module):
    """Scores models for a dataset."""

    def __init__(self, dataset_dim: int, model_dim: int = 5, hidden_dim: int = 8) -> None:
        super().__init__()
        self.dataset, self.model = nn.Linear(dataset_dim, hidden_dim), nn.Linear(model_dim, hidden_dim)
        self.score = nn.Linear(hidden_dim, 1)

    def forward(self, dataset_tokens: torch.Tensor, model_tokens: torch.Tensor, *, scale: float = 1.0) -> torch.Tensor:
        asked = self.dataset(dataset_tokens).mean(1, keepdim=True)
        return scale * self.score(torch.tanh(asked + self.model(model_tokens))).squeeze(-1)


class SmallTransformer(nn.Module):
    """Predicts the next vector of a series."""

    def __init__(self, d_model: int, num_heads: int = 2, layers: int = 1) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(d_model, num_heads, 2 * d_model, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(d_model, d_model)

    def forward(self, series: torch.Tensor) -> torch.Tensor:
        ahead = torch.full((series.shape[1], series.shape[1]), -torch.inf, device=series.device).triu(1)
        return self.head(self.blocks(series, mask=ahead))


class SmallLanguageModel(nn.Module):
    """Predicts the next token; the embedding that comes first is that of the places."""

    def __init__(self, block_size: int, vocabulary: int = 11, width: int = 8) -> None:
        super().__init__()
        self.places = nn.Embedding(block_size, width)
        self.embed, self.cell = nn.Embedding(vocabulary, width), nn.GRU(width, width, batch_first=True)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = self.places(torch.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.cell(self.embed(tokens) + places)[0])


class SmallDenoiser(nn.Module):
    """Gives vectors back, told a time and a class."""

    def __init__(self, dim: int = 6, classes: int = 5) -> None:
        super().__init__()
        self.x, self.t, self.label = nn.Linear(dim, dim), nn.Linear(1, dim), nn.Embedding(classes, dim)

    def forward(self, x: torch.Tensor, t: torch.Tensor, *, label: torch.Tensor) -> torch.Tensor:
        return self.x(x) + self.t(t[:, None]) + self.label(label)


class OddWidth(nn.Module):
    """Takes vectors of 77, which nothing tells."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(0.5 * torch.eye(77))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.matrix


class NeedsALayer(nn.Module):
    """Has a parameter that no config can hold."""

    def __init__(self, layer: nn.Module, width: int = 4) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


@dataclass
class Widths:
    """Sizes of a `Bundled`.

    Attributes:
        input_dim: numbers of a sample.
        hidden: of the hidden layer; 0 has none.
    """

    input_dim: int
    hidden: int = 8
    activation: Literal["relu", "tanh"] = "relu"
    epochs: int = 3


class Bundled(nn.Module):
    """Takes its sizes as one object."""

    def __init__(self, widths: Widths, bias: bool = True) -> None:
        super().__init__()
        self.encoder = nn.Linear(widths.input_dim, widths.hidden, bias=bias)
        self.decoder = nn.Linear(widths.hidden, widths.input_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder(self.encoder(x).relu())


@dataclass
class Layers:
    """Settings that a config can't hold."""

    layer: nn.Module
    width: int = 4


class NeedsLayers(nn.Module):
    """Takes an object with what no config can hold."""

    def __init__(self, layers: Layers) -> None:
        super().__init__()
        self.layer = layers.layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


class MaskedRanker(nn.Module):
    """Ranks the items that are there."""

    def __init__(self, item_dim: int) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(item_dim, 2, 16, 0.0, batch_first=True)
        self.blocks, self.head = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False), nn.Linear(item_dim, 1)

    def forward(self, items: torch.Tensor, key_padding_mask: torch.Tensor) -> torch.Tensor:
        return self.head(self.blocks(items, src_key_padding_mask=key_padding_mask)).squeeze(-1)


class MaskedText(nn.Module):
    """Classifies the mean of the words that are there, by a mask of numbers."""

    def __init__(self, vocabulary: int = 20, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, width), nn.Linear(width, classes)

    def forward(self, words: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        there = (1.0 - (1.0 - mask))[:, :, None]
        return self.head((self.embed(words) * there).sum(1) / there.sum(1))


class LazyClassifier(nn.Module):
    """Takes its sizes from the first batch."""

    def __init__(self, hidden: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.LazyLinear(hidden), nn.LazyBatchNorm1d(), nn.LazyLinear(classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.norm(self.first(x)).relu())


class HidingRanker(MaskedRanker):
    """Its mask hides where it is True, as torch's do, which the name does not tell."""

    def forward(self, items: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return super().forward(items, mask)
