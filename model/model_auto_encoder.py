"""ModelAutoEncoder: the parameters of networks to codes and back."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from model.weight_alignment import Groups, align_units, join_vector, split_vector
from model.weight_tokens import STATISTICS, TokenLayout, flat_layout, layer_columns, neuron_layout, weight_statistics

_POOLED_WEIGHT = 0.1  # of the pooled codes in a model token, beside standardised statistics
ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "relu": nn.ReLU, "tanh": nn.Tanh}


class ModelAutoEncoder(nn.Module):
    """Autoencoder over the tokens of networks of several families, and the model token made of their codes.

    A network is written as its difference from the nearest of its family's reference networks, in that reference's
    order of hidden units (`canonical`). The difference is cut into tokens, and each token is encoded given its slot
    (layer). The encoder is a linear map of the slot's own plus a perceptron that all slots share, so that it begins at
    the principal components of each slot (`fit_slots`) and learns what is not linear.

    Args:
        shapes: shape of each parameter by name, in the order of a flat vector, for each family.
        groups: hidden widths of each family (see `model.weight_alignment`).
        tokenization: `neuron` (a token is a unit's incoming weights) or `flat` (a token is the vector, in pieces).
        chunk_width: length of a piece, where tokenization is flat.
        code_dim: numbers of a model token; also of a piece's code where tokenization is flat.
        compression: weights for each number of a unit's code, where tokenization is neuron.
        hidden_dims: widths of the encoder's hidden layers; the decoder has them in reverse.
        activation: name of the activation function, a key of `ACTIVATIONS`.
        dropout: share of hidden values dropped in training, in both perceptrons.
        references: number of reference networks of each family; 0 leaves networks as they are.
        directions: directions in which whole networks of a family differ most (`fit_directions`). What a network has
            along them is a number each; tokens are what is left. Where tokenization is flat there are none.
    """

    mean: torch.Tensor
    scale: torch.Tensor
    mask: torch.Tensor
    code_mask: torch.Tensor
    statistics_mean: torch.Tensor
    statistics_scale: torch.Tensor
    pooled_scale: torch.Tensor

    def __init__(
        self,
        shapes: Mapping[str, Mapping[str, torch.Size]],
        groups: Mapping[str, Groups],
        tokenization: Literal["neuron", "flat"] = "neuron",
        chunk_width: int = 8192,
        code_dim: int = 512,
        compression: float = 4.0,
        hidden_dims: Sequence[int] = (512,),
        activation: str = "gelu",
        dropout: float = 0.0,
        references: Mapping[str, int] | None = None,
        directions: int = 0,
    ) -> None:
        super().__init__()
        self.shapes, self.groups, self.code_dim, self.tokenization = dict(shapes), dict(groups), code_dim, tokenization
        self.layouts: dict[str, TokenLayout] = {}
        self.first_slot: dict[str, int] = {}
        self.directions = directions if tokenization == "neuron" else 0
        lengths: list[int] = []
        for family, family_shapes in self.shapes.items():
            neuron = tokenization == "neuron"
            layout = neuron_layout(family_shapes) if neuron else flat_layout(family_shapes, chunk_width)
            self.layouts[family], self.first_slot[family] = layout, len(lengths)
            lengths += layout.lengths
            parameters = sum(shape.numel() for shape in family_shapes.values())
            self.register_buffer(f"references_{family}", torch.zeros((references or {}).get(family, 0), parameters))
            self.register_buffer(f"centre_{family}", torch.zeros(parameters))
            self.register_buffer(f"directions_{family}", torch.zeros(self.directions, parameters))
        codes = [max(1, int(length / compression)) if tokenization == "neuron" else code_dim for length in lengths]
        self._default_codes = codes
        self.width, self.code_width, slots = max(lengths), max(codes), len(lengths)
        self._places = max(len(family_shapes) for family_shapes in self.shapes.values())
        self._check_code_dim(codes)

        self.register_buffer("mask", (torch.arange(self.width) < torch.tensor(lengths)[:, None]).float())  # (S, W)
        self.register_buffer("code_mask", (torch.arange(self.code_width) < torch.tensor(codes)[:, None]).float())
        self.register_buffer("mean", torch.zeros(slots, self.width))
        self.register_buffer("statistics_mean", torch.zeros(self._places * STATISTICS))
        self.register_buffer("statistics_scale", torch.ones(self._places * STATISTICS))
        self.register_buffer("pooled_scale", torch.ones(()))
        self.register_buffer("scale", torch.ones(slots))
        # Flat pieces are too long for a linear map of their own: 8192 x 512 numbers each.
        linear = (slots, self.width, self.code_width) if tokenization == "neuron" else (slots, 0, 0)
        self.linear_in = nn.Parameter(torch.zeros(linear))
        self.linear_out = nn.Parameter(torch.zeros(linear).mT.contiguous())
        self.slot_embedding = nn.Embedding(slots, 32)
        act = ACTIVATIONS[activation]
        self.encoder = _perceptron([self.width + 32, *hidden_dims, self.code_width], act, dropout)
        self.decoder = _perceptron([self.code_width + 32, *reversed(hidden_dims), self.width], act, dropout)

    def forward(self, tokens: torch.Tensor, slots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode and decode tokens.

        Args:
            tokens: (B, W) differences of weights from the reference, padded with zeros.
            slots: (B,) int64, the slot of each token.

        Returns:
            Reconstructed tokens (B, W), zero in the padding, and codes (B, K), zero beyond the slot's code length.
        """
        codes = self.encode(tokens, slots)
        return self.decode(codes, slots), codes

    def encode(self, tokens: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Map tokens (B, W) of slots (B,) to codes (B, K)."""
        scaled = (tokens - self.mean[slots]) * self.mask[slots] / self.scale[slots, None]
        codes = self.encoder(torch.cat([scaled, self.slot_embedding(slots)], dim=1))
        return (codes + self._linear(scaled, slots, self.linear_in)) * self.code_mask[slots]

    def decode(self, codes: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        """Map codes (B, K) of slots (B,) to tokens (B, W)."""
        scaled = self.decoder(torch.cat([codes, self.slot_embedding(slots)], dim=1))
        scaled = scaled + self._linear(codes, slots, self.linear_out)
        return (scaled * self.scale[slots, None] + self.mean[slots]) * self.mask[slots]

    def _linear(self, rows: torch.Tensor, slots: torch.Tensor, weights: torch.Tensor) -> torch.Tensor | float:
        """Apply to each row (B, n) its slot's matrix (n, m): rows sorted by slot, one product a slot."""
        if weights.shape[1] == 0:
            return 0.0
        order = slots.argsort(stable=True)
        counts = torch.bincount(slots, minlength=len(weights)).tolist()  # host-device synchronisation
        parts = rows[order].split(counts)
        products = torch.cat([part @ weight for part, weight in zip(parts, weights, strict=True)])
        return products[order.argsort()]

    # --------------------------------------------------------------------------------------- whole networks

    def canonical(self, vectors: torch.Tensor, family: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Align networks to the nearest of their family's references.

        Args:
            vectors: (C, parameters) flat parameters of C networks of one family.
            family: family of the networks.

        Returns:
            The same networks with their hidden units reordered, (C, parameters), and the reference of each,
            (C, parameters): zeros where the family has none.
        """
        shapes, groups = self.shapes[family], self.groups[family]
        references = self.get_buffer(f"references_{family}").cpu()
        if len(references) == 0:
            return vectors, torch.zeros_like(vectors)
        aligned, nearest = [], []
        for vector in vectors.cpu():
            network = split_vector(vector, shapes)
            candidates = torch.stack(
                [join_vector(align_units(network, split_vector(reference, shapes), groups)) for reference in references]
            )
            best = (candidates - references).square().sum(1).argmin()
            aligned.append(candidates[best])
            nearest.append(references[best])
        return torch.stack(aligned).to(vectors.device), torch.stack(nearest).to(vectors.device)

    def along(self, differences: torch.Tensor, family: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Split networks' differences from their references (C, parameters) by the family's directions.

        Returns:
            How far each network lies along each direction, (C, directions), and what it is without the rest,
            (C, parameters).
        """
        centre, directions = self.get_buffer(f"centre_{family}"), self.get_buffer(f"directions_{family}")
        places = (differences - centre) @ directions.T
        return places, centre + places @ directions

    def tokens_of(
        self, differences: torch.Tensor, family: str, known: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cut what is left of networks' differences from their references into tokens.

        Args:
            differences: (C, parameters).
            family: family of the networks.
            known: (C, parameters) what is taken off; None takes off what lies along the family's directions.

        Returns:
            Tokens (C, T, W) with slots (T,).
        """
        layout = self.layouts[family]
        tokens = layout.tokens(differences - (self.along(differences, family)[1] if known is None else known))
        return nn.functional.pad(tokens, (0, self.width - tokens.shape[2])), layout.slots + self.first_slot[family]

    @torch.no_grad()
    def reconstruct(self, vectors: torch.Tensor, references: torch.Tensor, family: str) -> torch.Tensor:
        """Encode and decode whole networks (C, parameters), given as `canonical` returns them."""
        tokens, slots = self.tokens_of(vectors - references, family)
        flat_slots = slots.to(tokens.device).repeat(len(tokens))
        back = self(tokens.flatten(0, 1), flat_slots)[0].view_as(tokens)
        return (
            references
            + self.along(vectors - references, family)[1]
            + self.layouts[family].vectors(back[:, :, : self.layouts[family].index.shape[1]])
        )

    @torch.no_grad()
    def model_tokens(self, vectors: torch.Tensor, references: torch.Tensor, family: str) -> torch.Tensor:
        """Describe each network by one token.

        Where tokens are units: statistics of each layer's weights, then for each layer the mean and the standard
        deviation of its units' codes. Neither depends on the units' order. The statistics have common columns in all
        families and are standardised; the pooled codes, whose meaning is the family's own, count for a tenth, so that
        a linear probe on few networks is not lost in them (measured: see docs/model_tokens.md).
        Where tokens are pieces of the vector: the mean over their codes.

        Args:
            vectors: (C, parameters) aligned networks, as `canonical` returns them.
            references: (C, parameters) reference of each network, as `canonical` returns them.
            family: family of the networks.

        Returns:
            (C, code_dim), padded with zeros.
        """
        tokens, slots = self.tokens_of(vectors - references, family)
        slots = slots.to(tokens.device)
        codes = self.encode(tokens.flatten(0, 1), slots.repeat(len(tokens))).view(*tokens.shape[:2], -1)
        if self.tokenization == "flat":
            return codes.mean(1)
        pooled = self._pooled(codes, slots) * (_POOLED_WEIGHT / self.pooled_scale)
        statistics = (self._statistics(vectors, family) - self.statistics_mean) / self.statistics_scale
        token = torch.cat([statistics, pooled], dim=1)
        return nn.functional.pad(token, (0, self.code_dim - token.shape[1]))

    def _pooled(self, codes: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        parts = []
        for slot in slots.unique():
            kept = min(int(self.code_mask[slot].sum()), self._default_codes[slot])  # host-device synchronisation
            # As many columns whatever the slot was given: the same columns mean the same.
            used = nn.functional.pad(codes[:, slots == slot, :kept], (0, self._default_codes[slot] - kept))
            parts += [used.mean(1), used.std(1, unbiased=False)]
        return torch.cat(parts, dim=1)

    def _statistics(self, vectors: torch.Tensor, family: str) -> torch.Tensor:
        return layer_columns(weight_statistics(vectors, self.shapes[family]), self._places)

    @torch.no_grad()
    def fit_model_tokens(self, networks: Sequence[tuple[torch.Tensor, torch.Tensor, str]]) -> None:
        """Set what standardises model tokens, from training networks: vectors, references and family of each."""
        if self.tokenization == "flat":
            return
        statistics = torch.cat([self._statistics(vectors, family) for vectors, _, family in networks])
        self.statistics_mean.copy_(statistics.mean(0))
        self.statistics_scale.copy_(statistics.std(0).clamp(min=1e-6))
        self.pooled_scale.fill_(1.0)
        first = self._places * STATISTICS
        pooled = torch.cat([self.model_tokens(*network)[:, first:].flatten() for network in networks])
        used = pooled[pooled != 0]
        self.pooled_scale.fill_(float(used.std()) / _POOLED_WEIGHT if len(used) > 1 else 1.0)

    def fit_directions(self, differences: torch.Tensor, family: str) -> None:
        """Set a family's directions: the principal components of training networks' differences (C, parameters)."""
        centre, directions = principal_directions(differences, self.directions)
        self.get_buffer(f"centre_{family}").copy_(centre)
        self.get_buffer(f"directions_{family}").copy_(directions)

    @torch.no_grad()
    def fit_slots(self, tokens: torch.Tensor, slots: torch.Tensor) -> None:
        """Set each slot's mean, scale and linear maps from training tokens: its principal components.

        The perceptrons' last layers are set to zero, so training starts at the principal components. How many a slot
        keeps follows from their variances: the numbers of a whole network's codes are as many as before.

        Args:
            tokens: (N, W) training tokens.
            slots: (N,) number of the slot of each token.
        """
        axes: dict[int, torch.Tensor] = {}
        sizes: dict[int, torch.Tensor] = {}
        for slot in range(len(self.mask)):
            length = int(self.mask[slot].sum())
            rows = tokens[slots == slot, :length]
            if len(rows) == 0:
                continue
            self.mean[slot, :length] = rows.mean(0)
            centred = rows - rows.mean(0)
            self.scale[slot] = centred.square().mean().sqrt().clamp(min=1e-6)
            if self.linear_in.shape[1]:
                _, values, axes[slot] = torch.linalg.svd(centred, full_matrices=False)
                sizes[slot] = values.square() / len(rows)
        if self.linear_in.shape[1]:
            self._share_out(sizes)
        for slot, own in axes.items():
            kept = own[: int(self.code_mask[slot].sum())]
            self.linear_in[slot, : own.shape[1], : len(kept)] = kept.T
            self.linear_out[slot, : len(kept), : own.shape[1]] = kept
        if self.linear_in.shape[1]:
            for last in (self.encoder[-1], self.decoder[-1]):
                last.weight.zero_()
                last.bias.zero_()

    def _share_out(self, sizes: Mapping[int, torch.Tensor]) -> None:
        """Give the numbers of a family's codes to the slots whose units differ most, in place of an equal share.

        Args:
            sizes: variance along each principal component of a slot's tokens, by slot.
        """
        for family, layout in self.layouts.items():
            first, units = self.first_slot[family], torch.bincount(layout.slots).tolist()
            own = range(first, first + len(units))
            budget = sum(units[slot - first] * self._default_codes[slot] for slot in own) - self.directions
            components = sorted(
                ((float(size), slot) for slot in own if slot in sizes for size in sizes[slot][: self.code_width]),
                reverse=True,
            )
            used = dict.fromkeys(own, 0)
            for _, slot in components:
                if units[slot - first] <= budget:
                    used[slot] += 1
                    budget -= units[slot - first]
            for slot, count in used.items():
                self.code_mask[slot] = (torch.arange(self.code_width) < max(1, count)).float()

    def _check_code_dim(self, codes: Sequence[int]) -> None:
        if self.tokenization == "flat":
            return
        for family, layout in self.layouts.items():
            first = self.first_slot[family]
            needed = self._places * STATISTICS + 2 * sum(codes[first : first + len(layout.lengths)])
            if needed > self.code_dim:
                raise ValueError(
                    f"code_dim = {self.code_dim} is too small: the model token of a {family} network holds statistics "
                    f"of its layers and of their codes, {needed} numbers. Raise code_dim or compression."
                )


def _perceptron(sizes: Sequence[int], activation: type[nn.Module], dropout: float) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), activation(), nn.Dropout(dropout)]
    return nn.Sequential(*layers[:-2])


def principal_directions(differences: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean (parameters,) and first principal components (count, parameters) of rows (C, parameters).

    Where there are fewer rows than components, the rest are zero.
    """
    centre = differences.mean(0)
    axes = torch.linalg.svd(differences - centre, full_matrices=False).Vh[: min(count, len(differences) - 1)]
    return centre, nn.functional.pad(axes, (0, 0, 0, count - len(axes)))
