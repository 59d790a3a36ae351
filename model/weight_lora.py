"""Low-rank changes of the weights of any network: of its linear layers and of convolutions that mix all channels."""

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class LowRankChange(nn.Module):
    """Adds `alpha / rank * B @ A` to a weight (Hu et al. 2021), which of a convolution is taken as a matrix.

    Args:
        weight: weight (outputs, ...), which is left alone.
        rank: rows of A and columns of B.
        alpha: the change's scale is this divided by the rank.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float) -> None:
        super().__init__()
        outputs, inputs = weight.shape[0], weight[0].numel()
        self.scale = alpha / rank
        self.a = nn.Parameter(torch.empty(rank, inputs, device=weight.device))
        self.b = nn.Parameter(torch.zeros(outputs, rank, device=weight.device))
        nn.init.kaiming_uniform_(self.a, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """Return the changed weight, in full precision whatever the layer computes in."""
        with torch.autocast(weight.device.type, enabled=False):
            return weight + self.scale * (self.b @ self.a).view_as(weight)


def add_low_rank_changes(network: nn.Module, rank: int, alpha: float, without: frozenset[str]) -> list[str]:
    """Let the linear layers and convolutions of a network have low-rank changes.

    Layers whose weight is smaller than rank + 1 in one dimension, and convolutions by groups, have none: a change
    would be as large as the weight.

    Args:
        network: network whose layers get them, in place.
        rank: rank of each change.
        alpha: the changes' scale is this divided by the rank.
        without: names of parameters whose layers get none, such as the head's.

    Returns:
        Names of the changed layers.
    """
    changed = []
    for name, layer in list(network.named_modules()):
        whole = isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv1d | nn.Conv2d) and layer.groups == 1)
        if not whole or f"{name}.weight" in without:
            continue
        weight = layer.weight
        if min(weight.shape[0], weight[0].numel()) > rank:
            parametrize.register_parametrization(layer, "weight", LowRankChange(weight, rank, alpha))
            changed.append(name)
    return changed


def merged_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return the state of a network by the names that it had without its changes, which are in the weights.

    Args:
        network: network, with changes or without.
    """
    state = {}
    for name, value in network.state_dict().items():
        layer, inside, rest = name.partition(".parametrizations.")
        if not inside:
            state[name] = value
        elif rest.endswith(".original"):
            weight = rest.removesuffix(".original")
            with torch.no_grad():
                state[f"{layer}.{weight}"] = getattr(network.get_submodule(layer), weight).detach()
    return state
