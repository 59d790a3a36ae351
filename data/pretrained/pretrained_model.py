"""A pretrained model, whatever library it is from: features, the logits of its own classes, a new head."""

import contextlib
import copy
import dataclasses
import hashlib
import sys

import torch
from torch import nn

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.input_spec import InputSpec, Preprocessing
from data.pretrained.layer_groups import layer_groups
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.network_head import Head, LogitsOnly, find_head, pool
from data.pretrained.zoo_manifest import ZooEntry


class PretrainedModel(nn.Module):
    """A network with its own head, in evaluation mode.

    Attributes:
        entry: what the zoo says of the model.
        input: how the model is fed.
        preprocessing: from an image to what the model reads.
        feature_size: how many features `features` gives.
        classes: how many classes `source_logits` tells apart; 0 where the model has no classifier.
        weights_digest: SHA-256 of the weights and of what the code is, 64 hexadecimal digits: equal digests, equal
            features.
        location: where the weights were read from: a file, or what names it.
        licence: licence of the weights, as the entry or the source says; None where nobody does.
    """

    def __init__(self, entry: ZooEntry, loaded: LoadedNetwork, spec: InputSpec, head: Head) -> None:
        super().__init__()
        self.entry, self.input, self.location = entry, spec, loaded.location
        self.preprocessing = Preprocessing(spec)
        self.licence = entry.licence or loaded.licence
        self.weights_digest = _digest(entry, loaded)
        self.feature_size = head.feature_size
        self.classes = min(head.outputs, entry.classes or head.outputs)
        self.body = loaded.network
        if not head.gives_tensor:
            self.body = LogitsOnly(loaded.network)
            head = dataclasses.replace(head, names=tuple(f"network.{name}" for name in head.names))
        self._head = head
        self.heads = nn.ModuleList([self.body.get_submodule(name) for name in head.names])
        if head.is_last:
            for name in head.names:
                _replace(self.body, name, nn.Identity())
        else:
            self.heads[0].register_forward_pre_hook(_take)

    def features(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute what the model's head reads.

        Args:
            pixels: (n, C, H, W) as `preprocessing` makes them.

        Returns:
            (n, feature_size), pooled.
        """
        output = self.body(pixels)
        if self._head.is_last:
            return pool(output, channels_first=True)
        return pool(_taken_from(self.heads[0]), channels_first=False)

    def source_logits(self, features: torch.Tensor) -> torch.Tensor | None:
        """Compute the logits of the model's own classes.

        Args:
            features: (n, feature_size), of `features`.

        Returns:
            (n, classes); None where the model has no classifier, or one that needs more than the features.
        """
        if not self.classes or len(self.heads) != 1:
            return None
        head = self.heads[0]
        given = features[:, :, None, None] if isinstance(head, nn.Conv2d) else features
        logits: torch.Tensor = head(given)
        return logits.flatten(1)[:, : self.classes]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Compute the logits of the model's own classes; the features where it has none."""
        features = self.features(pixels)
        logits = self.source_logits(features)
        return features if logits is None else logits

    def with_new_head(self, classes: int) -> nn.Module:
        """Return the same body with a new head whose weights are zero, so that all classes begin equal.

        Args:
            classes: how many classes the new head tells apart.

        Returns:
            A copy that maps (n, C, H, W) to logits (n, classes). Its parameters have the names that the source gives
            them (after `network.` where the source's network gives more than a tensor), and the body's have the
            pretrained values.
        """
        network = copy.deepcopy(self.body)
        for name, old in zip(self._head.names, self.heads, strict=True):
            _replace(network, name, _new_head(old, self._feature_count(old), classes))
        return network

    def layer_groups(self) -> list[list[str]]:
        """Return the parameters' names of `with_new_head` in groups from the input to the head, which is the last."""
        return layer_groups(self.with_new_head(2), self._head.names)

    def _feature_count(self, old: nn.Module) -> int:
        return old.in_features if isinstance(old, nn.Linear) else self.feature_size


def open_pretrained(entry: ZooEntry) -> PretrainedModel:
    """Load a model with its weights: from its hub's cache on this machine, or from the hub.

    Args:
        entry: the model.

    Raises:
        ModelUnavailableError: it can't be loaded or run; says what to do.
    """
    with contextlib.redirect_stdout(sys.stderr):  # what libraries say of downloads is not the program's answer
        loaded = load_network(entry)
    spec = _checked(entry, dataclasses.replace(loaded.input, **entry.changed))
    return PretrainedModel(entry, loaded, spec, find_head(loaded.network, spec, loaded.heads, entry.where))


def load_network(entry: ZooEntry) -> LoadedNetwork:
    """Load the network of an entry as its source builds it.

    Raises:
        ModelUnavailableError: it can't be loaded; says what to do.
    """
    # Imported here: each source needs a library of its own, which the others don't.
    if entry.source == "module":
        from data.pretrained.module_source import load_module

        return load_module(entry)
    if entry.source == "torchvision":
        from data.pretrained.torchvision_source import load_torchvision

        return load_torchvision(entry)
    if entry.source == "hf" and not entry.identifier.startswith("timm/"):
        from data.pretrained.hf_source import load_hf

        return load_hf(entry)
    from data.pretrained.timm_source import load_timm

    return load_timm(dataclasses.replace(entry, identifier=entry.identifier.removeprefix("timm/")))


def _checked(entry: ZooEntry, spec: InputSpec) -> InputSpec:
    if len(spec.mean) != spec.channels or len(spec.std) != spec.channels:
        raise ModelUnavailableError(
            f"{entry.where}: input has {spec.channels} channels, but mean {spec.mean} and std {spec.std}; needed is a "
            "number for each channel."
        )
    return spec


def _digest(entry: ZooEntry, loaded: LoadedNetwork) -> str:
    """Return the SHA-256 of all that a network's answers depend on."""
    digest = hashlib.sha256()
    what = (entry.source, entry.identifier, sorted((key, repr(value)) for key, value in entry.arguments.items()))
    digest.update(repr((what, loaded.code, entry.classes)).encode())
    for name, value in sorted(loaded.network.state_dict().items()):
        if isinstance(value, torch.Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _take(layer: nn.Module, given: tuple[torch.Tensor, ...]) -> None:
    """Remember what a head that can't be taken off was given."""
    layer.__dict__["_given"] = given[0]


def _taken_from(layer: nn.Module) -> torch.Tensor:
    taken: torch.Tensor = layer.__dict__.pop("_given")
    return taken


def _replace(network: nn.Module, name: str, new: nn.Module) -> None:
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, new)


def _new_head(old: nn.Module, features: int, classes: int) -> nn.Module:
    new = nn.Conv2d(old.in_channels, classes, 1) if isinstance(old, nn.Conv2d) else nn.Linear(features, classes)
    nn.init.zeros_(new.weight)
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    return new
