"""A network as its source gives it: built, with its weights, in evaluation mode."""

from dataclasses import dataclass

from torch import nn

from data.pretrained.input_spec import InputSpec


@dataclass(frozen=True)
class LoadedNetwork:
    """What a source loads for an entry of a zoo.

    Attributes:
        network: network that maps (n, C, H, W) to logits (n, K), or to features where it has no classifier.
        input: how the network is fed.
        heads: names of the modules that turn features into logits; empty where the source doesn't know.
        location: where the weights were read from: a file, or what names it.
        code: what the network's code is: a version, or a digest; part of the key of cached features.
        licence: licence of the weights as their source says, in lower case; None where it doesn't.
    """

    network: nn.Module
    input: InputSpec
    heads: tuple[str, ...]
    location: str
    code: str
    licence: str | None = None
