"""Every network of a zoo, several times over, fine-tuned on one task at once."""

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call, vmap

from model.zoo_families import OUTPUTS, build_family, family_shapes
from model.zoo_population import unflatten


class FineTunePopulation(nn.Module):
    """Copies of pre-trained networks with new heads, and the accuracies measured so far.

    The copies of a family are one parameter (networks x copies, parameters of a network) and run as one under
    `torch.func.vmap`.

    Args:
        families: family of each network.
        vectors: flat pre-trained parameters (parameters,) of each network.
        copies: number of copies of each network; they differ in the images that they are fed.
        tasks: number of tasks for which accuracies are kept.
    """

    accuracies: torch.Tensor  # (tasks, networks, copies), NaN where nothing is measured yet

    def __init__(self, families: Sequence[str], vectors: Sequence[torch.Tensor], copies: int, tasks: int) -> None:
        super().__init__()
        self.copies = copies
        self.members = {
            family: [index for index, own in enumerate(families) if own == family] for family in dict.fromkeys(families)
        }
        self._pretrained = {
            family: torch.stack([vectors[index].float() for index in members])
            for family, members in self.members.items()
        }
        self.vectors = nn.ParameterDict(
            {family: rows.repeat_interleave(copies, dim=0) for family, rows in self._pretrained.items()}
        )
        self.register_buffer("accuracies", torch.full((tasks, len(families), copies), math.nan))
        with torch.device("meta"):  # only their forward is used
            self._skeletons = {family: build_family(family) for family in self.members}

    @torch.no_grad()
    def reset(self) -> None:
        """Go back to the pre-trained weights, with a new head of zeros.

        Zeros rather than a random draw: with a few dozen images and steps, the draw of a head moves an accuracy by more
        than most networks differ (measured: 0.025 against 0.005), and the table would rank heads.
        """
        for family, rows in self._pretrained.items():
            fresh = rows.clone()
            head_size = family_shapes(family)["head.weight"].numel() + OUTPUTS  # the last of a family's layers
            fresh[:, -head_size:] = 0.0
            self.vectors[family].copy_(fresh.repeat_interleave(self.copies, dim=0))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Run every copy of every network.

        Args:
            images: (copies, B, 1, 12, 12), images that the copies of each network see.

        Returns:
            Logits by family, (networks of the family, copies, B, 10).
        """
        logits = {}
        for family, members in self.members.items():
            skeleton = self._skeletons[family]
            own = images.repeat(len(members), 1, 1, 1, 1)  # (networks x copies, B, 1, 12, 12)
            run = vmap(lambda state, batch, skeleton=skeleton: functional_call(skeleton, state, (batch,)))
            flat = run(unflatten(family, self.vectors[family]), own)
            logits[family] = flat.unflatten(0, (len(members), self.copies))
        return logits
