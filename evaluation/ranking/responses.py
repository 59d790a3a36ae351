"""What a network makes of images: the features that its last layer reads, and the probabilities that it gives."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from data.zoo_tasks import to_input


@dataclass(frozen=True)
class Responses:
    """Answers of one network to n images.

    Attributes:
        features: (n, d) float32, the input of the network's last layer.
        probabilities: (n, Z) float32 over the network's own source classes.
    """

    features: torch.Tensor
    probabilities: torch.Tensor


def last_layer(network: nn.Module) -> nn.Module:
    """Return the layer that turns features into logits: the last linear or convolutional one that is defined.

    Raises:
        ValueError: it has none.
    """
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(network).__name__} has no linear or convolutional layer to read features from.")
    return layers[-1]


@torch.no_grad()
def respond(network: nn.Module, inputs: torch.Tensor, classes: int | None = None) -> Responses:
    """Run a network in evaluation mode on images.

    Args:
        network: network that maps (n, channels, H, W) to logits (n, K).
        inputs: (n, channels, H, W) images, as the network reads them.
        classes: number of outputs that mean something, the first ones; None for all.
    """
    caught = []
    handle = last_layer(network).register_forward_pre_hook(lambda layer, arguments: caught.append(arguments[0]))
    training = network.training
    try:
        logits = network.eval()(inputs)
    finally:
        handle.remove()
        network.train(training)
    return Responses(caught[0].flatten(1).float(), logits[:, :classes].float().softmax(dim=1))


def respond_to_sets(network: nn.Module, sets: Sequence[torch.Tensor], classes: int | None = None) -> list[Responses]:
    """Run a network on several sets of uint8 images (n, 12, 12), all in one pass.

    Returns:
        The network's responses to each set.
    """
    everything = respond(network, to_input(torch.cat(list(sets))), classes)
    sizes = [len(images) for images in sets]
    parts = zip(everything.features.split(sizes), everything.probabilities.split(sizes), strict=True)
    return [Responses(features, probabilities) for features, probabilities in parts]


def stack_by_width(responses: Iterable[Responses]) -> list[tuple[list[int], torch.Tensor, torch.Tensor]]:
    """Put networks of one feature width and one number of classes together, so that scores run on all of them at once.

    Args:
        responses: features and probabilities of each of N networks for the same n images.

    Returns:
        For each group: places of its networks, features (m, n, d), probabilities (m, n, Z).
    """
    groups: dict[tuple[int, int], list[tuple[int, Responses]]] = {}
    for place, own in enumerate(responses):
        groups.setdefault((own.features.shape[1], own.probabilities.shape[1]), []).append((place, own))
    return [
        (
            [place for place, _ in members],
            torch.stack([own.features for _, own in members]),
            torch.stack([own.probabilities for _, own in members]),
        )
        for members in groups.values()
    ]
