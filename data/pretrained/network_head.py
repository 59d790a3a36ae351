"""Where a network turns features into logits: found by running it once."""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.input_spec import InputSpec

_SIDES_OF_A_PROBE = 2  # images; with one, a network that normalises over the batch would not run


@dataclass(frozen=True)
class Head:
    """The last layer of a network.

    Attributes:
        names: names of the modules that read the features; mostly one, two in distilled transformers.
        feature_size: how many features an image has.
        outputs: how many logits it has; 0 where the network has no classifier.
        is_last: whether what the layer gives is what the network gives: it may be taken off. Otherwise the network does
            something with it (a softmax), or it has several heads.
        gives_tensor: whether the network gives logits as they are, not in an object or a tuple.
    """

    names: tuple[str, ...]
    feature_size: int
    outputs: int
    is_last: bool
    gives_tensor: bool = True


class LogitsOnly(nn.Module):
    """A network that gives its logits in an object, a mapping or a tuple, as one that gives them as they are."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the logits (n, K)."""
        return logits_of(self.network(pixels))


def logits_of(output: Any) -> torch.Tensor:
    """Return the tensor in what a network gives: itself, `logits` of an object or a mapping, the first of a tuple.

    Raises:
        TypeError: there is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    named = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", None)
    if isinstance(named, torch.Tensor):
        return named
    if isinstance(output, tuple | list) and output and isinstance(output[0], torch.Tensor):
        return output[0]
    raise TypeError(f"a {type(output).__name__}; needed are logits (n, classes): a tensor, or `logits`, or a tuple")


@torch.no_grad()
def find_head(network: nn.Module, spec: InputSpec, named: Sequence[str], where: str) -> Head:
    """Run a network on two images of noise and see which layer gives what it gives.

    Args:
        network: network in evaluation mode, on the CPU.
        spec: how the network is fed.
        named: modules that are the head, as the source says; without them the last linear layer is searched.
        where: what the network is, for messages.

    Raises:
        ModelUnavailableError: the network can't be run on such images, or has no last linear layer.
    """
    records: list[tuple[str, torch.Tensor, torch.Tensor]] = []
    handles = []
    for name, module in network.named_modules():
        wanted = name in named if named else _is_linear(module)
        if wanted:
            handles.append(module.register_forward_hook(_recorder(name, records)))
    images = torch.randn(_SIDES_OF_A_PROBE, spec.channels, *spec.size, generator=torch.Generator().manual_seed(0))
    try:
        with contextlib.redirect_stdout(sys.stderr):  # what a network prints is not the program's answer
            given = network(images)
        output, plain = logits_of(given), isinstance(given, torch.Tensor)
    except Exception as error:  # the network may be a user's own, and raise anything
        shape = ", ".join(map(str, ("n", spec.channels, *spec.size)))
        raise ModelUnavailableError(
            f"{where} can't be run on images ({shape}): {type(error).__name__}: {error}."
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    flat = output.flatten(1)
    ends = [each for each in records if torch.equal(each[2].flatten(1), flat)] if output.ndim >= 2 else []
    if ends:
        name, features, _ = ends[-1]
        module = network.get_submodule(name)
        outputs = 0 if isinstance(module, nn.Identity) else flat.shape[1]
        return Head((name,), _pooled(features, module).shape[1], outputs, True, plain)
    if named and len(records) == len(named) > 1:
        return Head(tuple(named), _pooled(records[0][1], network).shape[1], 0, True, plain)
    linear = [each for each in records if isinstance(network.get_submodule(each[0]), nn.Linear)]
    if not linear:
        raise ModelUnavailableError(
            f"{where}: {type(network).__name__} has no last linear layer that features could be read from, and that a "
            "new head could replace. Let it end in nn.Linear, or name a module that does."
        )
    name, features, logits = linear[-1]
    module = network.get_submodule(name)
    return Head((name,), _pooled(features, module).shape[1], logits.shape[-1], False, plain)


def _recorder(name: str, records: list[tuple[str, torch.Tensor, torch.Tensor]]) -> Any:
    def record(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        if given and isinstance(given[0], torch.Tensor) and isinstance(output, torch.Tensor):
            records.append((name, given[0], output))

    return record


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, nn.Linear) or (isinstance(module, nn.Conv2d) and module.kernel_size == (1, 1))


def _pooled(features: torch.Tensor, module: nn.Module) -> torch.Tensor:
    return pool(features, channels_first=not isinstance(module, nn.Linear))


def pool(features: torch.Tensor, channels_first: bool) -> torch.Tensor:
    """Return (n, d): the mean over places where features are (n, d, H, W), or (n, T, d) of tokens.

    Args:
        features: what a layer reads.
        channels_first: whether the second dimension is that of features, as convolutions have it.
    """
    if features.ndim <= 2:
        return features
    return features.flatten(2).mean(2) if channels_first else features.flatten(1, -2).mean(1)
