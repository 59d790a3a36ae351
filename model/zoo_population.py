"""Many small networks trained at once: those of one family run as one batched network."""

from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from model.zoo_families import OUTPUTS, build_family, family_shapes

_UNUSED = -1e4  # logit of an output that a network does not use


class ZooPopulation(nn.Module):
    """Networks of several families, each with its own input, and the snapshots that are kept of them.

    Each network is one flat parameter vector, so an optimizer can treat each in its own way. A forward pass stacks the
    vectors of a family and runs its networks together under `torch.func.vmap`: a linear layer becomes one batched
    product, a convolution one grouped convolution.

    Args:
        families: the family of each network.
        init_seeds: the seed of each network's initial weights; two networks of one family and seed begin alike.
        class_counts: number of the 10 outputs that each network uses; the others are masked.
        snapshots: number of states that are kept of each network.
    """

    def __init__(
        self, families: Sequence[str], init_seeds: Sequence[int], class_counts: Sequence[int], snapshots: Sequence[int]
    ) -> None:
        super().__init__()
        self.families = tuple(families)
        self.vectors = nn.ParameterList(map(initial_vector, families, init_seeds))  # of each network: (parameters,)
        for number, vector in enumerate(self.vectors):
            # Buffers are part of a checkpoint, so a resumed run still has the snapshots that were taken before.
            self.register_buffer(
                f"snapshots_{number}", torch.zeros(snapshots[number], len(vector), dtype=torch.float16)
            )
        unused = torch.arange(OUTPUTS) >= torch.as_tensor(list(class_counts))[:, None]
        self.register_buffer("unused_outputs", unused, persistent=False)  # (networks, 10) bool
        # Only their forward is used, never their weights. In a dict, so they are no sub-modules.
        with torch.device("meta"):
            self._skeletons = {family: build_family(family) for family in dict.fromkeys(families)}

    def forward(
        self, networks: Sequence[int], images: torch.Tensor, vectors: Sequence[torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Run each named network on its own images.

        Args:
            networks: indices of the n networks, in ascending order, those of a family next to each other.
            images: (n, B, 1, 12, 12), input of each network.
            vectors: n flat parameter vectors in place of the networks' own; None takes those.

        Returns:
            Logits (n, B, 10); an output that a network does not use is -1e4.
        """
        states = [self.vectors[network] for network in networks] if vectors is None else vectors
        logits = []
        for family, part in self._family_slices(networks):
            stacked = unflatten(family, torch.stack(list(states[part])).to(images.dtype))
            logits.append(self._run_family(family, stacked, images[part]))
        return torch.cat(logits).masked_fill(self.unused_outputs[list(networks), None], _UNUSED)

    @torch.no_grad()
    def take_snapshot(self, network: int, slot: int) -> None:
        """Keep a network's present parameters, rounded to fp16, in one of its snapshot slots."""
        self.snapshots(network)[slot] = self.vectors[network].to(torch.float16)

    def snapshots(self, network: int) -> torch.Tensor:
        """Return a network's snapshots: (snapshots, parameters) fp16."""
        return getattr(self, f"snapshots_{network}")

    def _family_slices(self, networks: Sequence[int]) -> Iterator[tuple[str, slice]]:
        start = 0
        for place in range(1, len(networks) + 1):
            family = self.families[networks[start]]
            if place == len(networks) or self.families[networks[place]] != family:
                yield family, slice(start, place)
                start = place

    def _run_family(self, family: str, stacked: dict[str, torch.Tensor], images: torch.Tensor) -> torch.Tensor:
        skeleton = self._skeletons[family]
        return vmap(lambda state, own_images: functional_call(skeleton, state, (own_images,)))(stacked, images)


def unflatten(family: str, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """Split flat vectors into the named parameters of a family, in the order of `parameters()`.

    Args:
        family: a family of `model.zoo_families`.
        vectors: (..., parameters) flat parameters.

    Returns:
        Views of `vectors` by parameter name, each (..., *shape of the parameter).
    """
    shapes = family_shapes(family)
    parts = vectors.split([shape.numel() for shape in shapes.values()], dim=-1)
    leading = vectors.shape[:-1]
    return {name: part.reshape(*leading, *shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)}


def initial_vector(family: str, seed: int) -> nn.Parameter:
    """Draw the initial weights of a family (He et al. 2015; biases 0); the caller's random state is as before.

    Returns:
        (parameters,) float32.
    """
    with torch.random.fork_rng(devices=[]):  # PyTorch's own first weights are drawn in vain
        network = build_family(family)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if parameter.dim() > 1:  # what is left are biases and the scales of norms, which begin at 1
            nn.init.kaiming_normal_(parameter, nonlinearity="relu", generator=generator)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    return nn.Parameter(nn.utils.parameters_to_vector(network.parameters()).detach())
