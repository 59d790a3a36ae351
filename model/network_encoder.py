"""NetworkEncoder: a network's weights to one token, from what its units pass to one another."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from model.weight_graph import UnitLayer, WeightTensor, weight_graph
from model.weight_tokens import STATISTICS, layer_columns, weight_statistics

_FORMS = 2  # weights as they are, and their sizes without the sign
_KERNEL_MIXES = 3  # learnt sums over a kernel's positions, of each form
_FURTHEST = 4.0  # deviations from the mean: what lies further out counts as that


@dataclass(frozen=True)
class Networks:
    """Networks of one family, made ready for the encoder.

    Attributes:
        weights: (n, parameters) balanced parameters, see `WeightGraph.balanced`.
        norms: (n, units, 2) logarithms of each unit's incoming and outgoing norm.
        statistics: (n, F) statistics of the weights, layer by layer.
    """

    weights: torch.Tensor
    norms: torch.Tensor
    statistics: torch.Tensor

    def __len__(self) -> int:
        return len(self.weights)

    def rows(self, index: torch.Tensor) -> "Networks":
        """Return some of the networks."""
        return Networks(self.weights[index], self.norms[index], self.statistics[index])

    def to(self, device: torch.device) -> "Networks":
        """Return the networks on a device."""
        return Networks(self.weights.to(device), self.norms.to(device), self.statistics.to(device))


class NetworkEncoder(nn.Module):
    """Reads networks of several families; the order of their hidden units does not matter.

    Each hidden unit is a token: what it receives from the units before (their tokens, summed with the weights), its
    bias and norms, and on the way back what it sends to the units after. Input positions and output classes have tokens
    of their own, which are learnt. The units of a layer are pooled to a layer token; a transformer reads the layer
    tokens and one of the layer statistics, and their mean is the code. From the code small perceptrons tell what is
    asked.

    Args:
        families: names of the families.
        targets: numbers that each head tells, by the head's name.
        unit_dim: width of a unit's token.
        code_dim: width of the code and of layer tokens.
        layers: number of transformer layers.
        dropout: share of values dropped in training, in the transformer and the heads.
    """

    def __init__(
        self,
        families: Sequence[str],
        targets: Mapping[str, int],
        unit_dim: int = 32,
        code_dim: int = 64,
        layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        self.families, self.code_dim = tuple(families), code_dim
        self.readers = nn.ModuleDict(
            {family: _FamilyReader(family, unit_dim, code_dim, dropout) for family in families}
        )
        self.places = max(len(weight_graph(family).shapes) for family in families)
        width = self.places * STATISTICS
        self.register_buffer("statistics_mean", torch.zeros(width))
        self.register_buffer("statistics_scale", torch.ones(width))
        self.statistics_token = nn.Sequential(nn.Linear(width, code_dim), nn.GELU(), nn.Linear(code_dim, code_dim))
        self.family_token = nn.Embedding(len(self.families), code_dim)
        layer = nn.TransformerEncoderLayer(
            code_dim, 4, 2 * code_dim, dropout, activation="gelu", batch_first=True, norm_first=True
        )
        self.transformer = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(code_dim)
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    nn.Linear(code_dim, code_dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(code_dim, numbers)
                )
                for name, numbers in targets.items()
            }
        )

    def prepare(self, vectors: torch.Tensor, family: str) -> Networks:
        """Make networks (n, parameters) of one family ready: once, before training."""
        graph = weight_graph(family)
        statistics = layer_columns(weight_statistics(vectors, graph.shapes), self.places)
        return Networks(*graph.balanced(vectors), statistics)

    @torch.no_grad()
    def fit_scales(self, networks: Mapping[str, Networks]) -> None:
        """Set what inputs are divided by, from the training networks of each family."""
        statistics = torch.cat([own.statistics for own in networks.values()])
        self.statistics_mean.copy_(statistics.mean(0))
        self.statistics_scale.copy_(statistics.std(0).clamp(min=1e-4))
        for family, own in networks.items():
            reader = self.readers[family]
            assert isinstance(reader, _FamilyReader)
            reader.fit_scales(own)

    def forward(self, networks: Mapping[str, Networks]) -> torch.Tensor:
        """Encode networks.

        Args:
            networks: networks by family.

        Returns:
            Codes (n, code_dim), those of the families in the order given.
        """
        codes = []
        for family, own in networks.items():
            reader = self.readers[family]
            statistics = ((own.statistics - self.statistics_mean) / self.statistics_scale).clamp(-_FURTHEST, _FURTHEST)
            number = torch.tensor(self.families.index(family), device=statistics.device)
            tokens = torch.cat([reader(own), self.statistics_token(statistics)[:, None]], dim=1)
            read = self.transformer(tokens + self.family_token(number))  # (n, layers + 1, code_dim)
            codes.append(self.norm(read.mean(1)))
        return torch.cat(codes)

    def tell(self, codes: torch.Tensor) -> dict[str, torch.Tensor]:
        """Answer what is asked of networks with these codes (n, code_dim): (n, numbers) by the head's name."""
        return {name: head(codes) for name, head in self.heads.items()}


class _FamilyReader(nn.Module):
    """Makes layer tokens of one family's networks."""

    weight_scale: torch.Tensor
    norm_mean: torch.Tensor
    norm_scale: torch.Tensor

    def __init__(self, family: str, unit_dim: int, token_dim: int, dropout: float) -> None:
        super().__init__()
        self.graph = graph = weight_graph(family)
        self.register_buffer("weight_scale", torch.ones(len(graph.shapes)))
        self.register_buffer("norm_mean", torch.zeros(graph.units, 2))
        self.register_buffer("norm_scale", torch.ones(graph.units, 2))
        self.begin = nn.ModuleList(_Beginning(layer, unit_dim) for layer in graph.layers)
        self.onward = nn.ModuleList(_Messages(tensor, unit_dim) for tensor in graph.tensors)
        # Inputs say nothing of a network that the units which read them don't say: nothing is sent back to them.
        self.back = nn.ModuleDict(
            {
                str(number): _Messages(tensor, unit_dim)
                for number, tensor in enumerate(graph.tensors)
                if not graph.layers[tensor.source].is_input
            }
        )
        self.dropout = nn.Dropout(dropout)
        self.read = [number for number, layer in enumerate(graph.layers) if not layer.is_input]
        self.pool = nn.ModuleList(nn.Linear(3 * unit_dim, token_dim) for _ in self.read)

    def fit_scales(self, networks: Networks) -> None:
        sizes = [shape.numel() for shape in self.graph.shapes.values()]
        scales = [part.square().mean().sqrt() for part in networks.weights.split(sizes, dim=1)]
        self.weight_scale.copy_(torch.stack(scales).clamp(min=1e-4))
        self.norm_mean.copy_(networks.norms.mean((0, 1)))  # of all units alike: their order has no meaning
        self.norm_scale.copy_(networks.norms.std((0, 1)).clamp(min=1e-4))

    def forward(self, networks: Networks) -> torch.Tensor:
        """Return the layers' tokens (n, layers, token_dim)."""
        graph = self.graph
        parts = {
            name: (part / scale).clamp(-_FURTHEST, _FURTHEST)
            for (name, part), scale in zip(graph.split(networks.weights).items(), self.weight_scale, strict=True)
        }
        norms = ((networks.norms - self.norm_mean) / self.norm_scale).clamp(-_FURTHEST, _FURTHEST)
        layer_norms = norms.split([own.units for own in graph.layers], dim=1)
        units = [
            begin(norm, [parts[name] for name in layer.vectors])
            for begin, norm, layer in zip(self.begin, layer_norms, graph.layers, strict=True)
        ]
        for tensor, messages in zip(graph.tensors, self.onward, strict=True):
            weights = parts[tensor.name]
            units[tensor.target] = messages(weights, units[tensor.source], units[tensor.target])
        for number, messages in reversed(list(self.back.items())):
            tensor = graph.tensors[int(number)]
            weights = parts[tensor.name].transpose(1, 2)
            units[tensor.source] = messages(weights, units[tensor.target], units[tensor.source])
        tokens = []
        for number, pool in zip(self.read, self.pool, strict=True):
            own = units[number]
            pooled = torch.cat([own.mean(1), own.std(1, unbiased=False), own.amax(1)], dim=1)
            tokens.append(pool(self.dropout(pooled)))
        return torch.stack(tokens, dim=1)


class _Beginning(nn.Module):
    """What a layer's units are before any of their weights are read."""

    def __init__(self, layer: UnitLayer, unit_dim: int) -> None:
        super().__init__()
        # Units that keep their places are each read in a way of their own: an output stands for a class.
        kinds, numbers = layer.units if layer.ordered else 1, 2 + len(layer.vectors)
        self.places = nn.Parameter(0.5 * torch.randn(kinds, unit_dim))
        self.numbers = nn.Parameter(torch.randn(kinds, numbers, unit_dim) / numbers**0.5)

    def forward(self, norms: torch.Tensor, vectors: Sequence[torch.Tensor]) -> torch.Tensor:
        """Map norms (n, units, 2) and vectors (n, units) to (n, units, unit_dim)."""
        numbers = torch.cat([norms, *(vector[..., None] for vector in vectors)], dim=2)  # (n, units, numbers)
        return self.places + (numbers[:, :, None] @ self.numbers)[:, :, 0]


class _Messages(nn.Module):
    """Adds to units what others send along the weights."""

    def __init__(self, tensor: WeightTensor, unit_dim: int) -> None:
        super().__init__()
        mixes = 1 if tensor.kernel == 1 else _KERNEL_MIXES
        self.mix = nn.Parameter(torch.randn(_FORMS, tensor.kernel, mixes) / tensor.kernel**0.5)
        self.update = nn.Sequential(
            nn.LayerNorm((1 + _FORMS * mixes) * unit_dim),
            nn.Linear((1 + _FORMS * mixes) * unit_dim, unit_dim),
            nn.GELU(),
            nn.Linear(unit_dim, unit_dim),
        )

    def forward(self, weights: torch.Tensor, senders: torch.Tensor, receivers: torch.Tensor) -> torch.Tensor:
        """Send.

        Args:
            weights: (n, receivers, senders, kernel).
            senders: (n, senders, unit_dim).
            receivers: (n, receivers, unit_dim).

        Returns:
            The receivers with what they got, (n, receivers, unit_dim).
        """
        count, rows, columns, _ = weights.shape
        forms = torch.stack([weights, weights.abs()])  # (forms, n, receivers, senders, kernel)
        mixed = torch.einsum("fnrsk,fkm->nrfms", forms, self.mix).reshape(count, -1, columns)
        sent = (mixed @ senders / columns**0.5).reshape(count, rows, -1)
        return receivers + self.update(torch.cat([receivers, sent], dim=2))
