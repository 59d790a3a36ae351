"""Many networks of one family trained at once, each with a learning rate and a weight decay of its own."""

from typing import Any

import torch
from torch import nn
from torch.func import functional_call, vmap

from model.zoo_families import FAMILIES, OUTPUTS, build_family, family_shapes
from model.zoo_population import initial_vector, unflatten

_LARGEST_GRADIENT = 5.0  # norm of one network's gradient: a large rate makes a poor network, not one that is infinite
_IMAGES_AT_ONCE = 128


class NetworkCohort(nn.Module):
    """The networks that are trained now, and the results of all that were trained before.

    Args:
        rows: number of networks that are trained at once.
        networks: number of networks for which results are kept.
        measures: numbers kept of each network.
        fixed_images: number of images whose logits are kept.
    """

    results: torch.Tensor  # (networks, measures), NaN where nothing is measured yet
    final: torch.Tensor  # (networks, parameters) fp16
    outputs: torch.Tensor  # (networks, fixed images, 10) fp16

    def __init__(self, rows: int, networks: int, measures: int, fixed_images: int) -> None:
        super().__init__()
        width = max(sum(shape.numel() for shape in family_shapes(family).values()) for family in FAMILIES)
        self.vectors = nn.Parameter(torch.zeros(rows, width))  # padded: families differ in length
        self.register_buffer("results", torch.full((networks, measures), torch.nan))
        self.register_buffer("final", torch.zeros(networks, width, dtype=torch.float16))
        self.register_buffer("outputs", torch.zeros(networks, fixed_images, OUTPUTS, dtype=torch.float16))
        with torch.device("meta"):  # only their forward is used
            self._skeletons = {family: build_family(family) for family in FAMILIES}

    @torch.no_grad()
    def begin(self, family: str, init_seeds: list[int], scales: list[float]) -> None:
        """Put initial weights in place of what was trained before."""
        self.vectors.zero_()
        for row, (seed, scale) in enumerate(zip(init_seeds, scales, strict=True)):
            vector = initial_vector(family, seed).detach()
            for part in unflatten(family, vector).values():
                if part.dim() > 1:  # scales of norms stay 1
                    part.mul_(scale)
            self.vectors[row, : len(vector)] = vector

    def forward(self, family: str, images: torch.Tensor, vectors: torch.Tensor | None = None) -> torch.Tensor:
        """Run the first networks, each on its own images.

        Args:
            family: family of the cohort.
            images: (n, B, 1, 12, 12) float32, images of the first n networks.
            vectors: (n, W) parameters in place of the cohort's.

        Returns:
            Logits (n, B, 10).
        """
        states = self.vectors[: len(images)] if vectors is None else vectors
        parameters = sum(shape.numel() for shape in family_shapes(family).values())
        skeleton = self._skeletons[family]
        run = vmap(lambda state, batch: functional_call(skeleton, state, (batch,)))
        return run(unflatten(family, states[:, :parameters]), images)

    def training_logits(
        self, family: str, images: torch.Tensor, rates: torch.Tensor, decays: torch.Tensor
    ) -> torch.Tensor:
        """Run the first networks so that plain SGD with learning rate 1 trains each as its own rate and decay say.

        Args:
            family: family of the cohort.
            images: (n, B, 1, 12, 12) float32.
            rates: (n,) learning rate of each network at this step.
            decays: (n,) weight decay of each network.

        Returns:
            Logits (n, B, 10).
        """
        return self(family, images, _OwnRate.apply(self.vectors[: len(images)], rates, decays))

    @torch.no_grad()
    def logits(self, family: str, images: torch.Tensor) -> torch.Tensor:
        """Return logits (n, B, 10) of many images (n, B, 1, 12, 12), a part at a time."""
        return torch.cat([self(family, part) for part in images.split(_IMAGES_AT_ONCE, dim=1)], dim=1)


class _OwnRate(torch.autograd.Function):
    """Gives each row its gradient, clipped, with the decay added, times the row's learning rate."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor, rates: torch.Tensor, decays: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(vectors, rates, decays)
        return vectors.view_as(vectors)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        vectors, rates, decays = ctx.saved_tensors
        norms = gradient.norm(dim=1, keepdim=True)
        gradient = gradient * (_LARGEST_GRADIENT / norms.clamp(min=_LARGEST_GRADIENT))
        return rates[:, None] * (gradient + decays[:, None] * vectors), None, None
