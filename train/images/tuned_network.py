"""The network of a run: a pretrained one with a new head, what of it is trained, and by which rates."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW

from config import ConfigError
from config.image_classifier_trainer_config import ImageClassifierTrainerConfig
from constants import ZOO_DIR
from constants.nearest import nearest
from data.data_error import DataError
from data.pretrained.input_spec import InputSpec
from data.pretrained.pretrained_model import open_pretrained
from data.pretrained.zoo_manifest import ZooEntry, read_zoo_manifest, zoo_entry
from model.image_classifier import ImageClassifier
from model.weight_lora import add_low_rank_changes

_FEW_IMAGES = 1000  # to train on; below, their statistics in batch norms make it worse (docs/images.md)
_NETWORK = "network."  # how names of the network's parameters begin in the classifier


@dataclass(frozen=True, slots=True)
class TunedNetwork:
    """A classifier to be fine-tuned, and what is known of where it is from.

    Attributes:
        classifier: the network; what is not trained requires no gradient.
        entry: what the zoo says of the pretrained model.
        input: how the network is fed.
        groups: names of the classifier's parameters, from the input to the head, which is the last group.
        digest: SHA-256 of the pretrained weights.
        location: where they are from.
        licence: licence of the pretrained weights; None where nobody says.
        changed: layers with low-rank changes.
    """

    classifier: ImageClassifier
    entry: ZooEntry
    input: InputSpec
    groups: tuple[tuple[str, ...], ...]
    digest: str
    location: str
    licence: str | None
    changed: tuple[str, ...]

    def lines(self) -> list[str]:
        """Say which network it is and what of it is trained, for the log."""
        sizes = {True: 0, False: 0}
        for parameter in self.classifier.parameters():
            sizes[parameter.requires_grad] += parameter.numel()
        height, width = self.input.size
        licence = f", licence {self.licence}" if self.licence else ""
        line = f"{self.entry.name}: {sum(sizes.values()):,} parameters, {sizes[True]:,} of them trained; images of "
        lines = [f"{line}{width} x {height}{licence}; weights: {self.location}"]
        if self.changed:
            lines.append(
                f"low-rank changes of {len(self.changed)} layers, from {self.changed[0]} to {self.changed[-1]}"
            )
        return lines


def tuned_network(
    config: ImageClassifierTrainerConfig, classes: int, train_images: int, device: torch.device
) -> TunedNetwork:
    """Load the pretrained network that the settings name, and give it a head for some classes.

    Args:
        config: settings of the run.
        classes: how many classes there are.
        train_images: how many images are trained on.
        device: device that the run computes on.

    Raises:
        ConfigError: the manifest has no such model.
        DataError: the model can't be loaded.
    """
    entry = entry_of(config.model, config.zoo)
    pretrained = open_pretrained(entry)
    network = pretrained.with_new_head(classes)
    groups = pretrained.layer_groups()
    spec = pretrained.input
    known = {name for group in groups for name in group}
    strays = [name for name, _ in network.named_parameters() if name not in known]
    body, head = [list(group) for group in groups[:-1]], list(groups[-1])
    body = [[*strays, *body[0]], *body[1:]] if body else [strays]
    changed: list[str] = []
    if config.tune != "full":
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(name in head)
    if config.tune == "lora":
        changed = add_low_rank_changes(network, config.lora_rank, config.lora_alpha, frozenset(head))
        if not changed:
            raise ConfigError(
                [f"tune = lora: {entry.name} has no layer that is larger than lora_rank = {config.lora_rank}; take a "
                 "smaller rank, or tune = full"]
            )  # fmt: skip
    last = config.channels_last == "on" or (config.channels_last == "auto" and device.type == "cuda")
    # The network's own colours: image files are RGB, and are brought into its order where they are cut.
    fixed = config.batch_statistics == "off" or (config.batch_statistics == "auto" and train_images < _FEW_IMAGES)
    classifier = ImageClassifier(network, spec.mean, spec.std, config.tune != "full", fixed, last)
    named = tuple(tuple(_NETWORK + name for name in group) for group in [*body, head])
    return TunedNetwork(
        classifier, entry, spec, named, pretrained.weights_digest, pretrained.location, pretrained.licence,
        tuple(changed),
    )  # fmt: skip


def entry_of(model: str, zoo: Path | None) -> ZooEntry:
    """Return what is known of a model before it is loaded.

    Args:
        model: reference of the model, or its name in the manifest.
        zoo: file of a manifest; one called `hub` that isn't there is the one that ships. None for none.

    Raises:
        ConfigError: the manifest has no such name, and it is no reference.
        DataError: the manifest can't be read.
    """
    if zoo is None:
        return _reference(model, "Or name a manifest that has it: zoo=my_zoo.yaml.")
    path = ZOO_DIR / "hub.yaml" if zoo.name == "hub" and not zoo.exists() else zoo.expanduser()
    entries = read_zoo_manifest(path)
    found = next((entry for entry in entries if model in (entry.name, entry.reference)), None)
    if found is not None:
        return found
    near = nearest(model, [entry.name for entry in entries])
    meant = f"did you mean {near}?" if near else f"it has {', '.join(entry.name for entry in entries[:5])}"
    return _reference(model, f"nor is it in {path}: {meant}")


def _reference(model: str, otherwise: str) -> ZooEntry:
    try:
        return zoo_entry(model)
    except DataError as error:
        told = str(error).removeprefix(f"model {model!r}: ")
        raise ConfigError([f"model = {model}: {told} {otherwise}"]) from error


def optimizer_of(config: ImageClassifierTrainerConfig, tuned: TunedNetwork) -> AdamW:
    """Return AdamW over what is trained: rates by layer, and no decay of norms, biases and what is added to tokens.

    Args:
        config: settings of the run.
        tuned: the network.
    """
    parameters = dict(tuned.classifier.named_parameters())
    rates: dict[str, float] = {}
    head = len(tuned.groups) - 1
    for number, names in enumerate(tuned.groups):
        factor = config.head_rate_factor if number == head else config.layer_decay ** (head - 1 - number)
        rates |= dict.fromkeys(names, config.learning_rate * factor)
    without = _without_decay(tuned.classifier.network)
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in parameters.items():
        if parameter.requires_grad:
            # Low-rank changes are new, as the head is.
            rate = rates.get(name, config.learning_rate * config.head_rate_factor)
            decay = 0.0 if parameter.ndim <= 1 or name in without else config.weight_decay
            groups.setdefault((rate, decay), []).append(parameter)
    # First what learns at the rate that the settings name: it is the one that logs and tables show.
    order = sorted(groups, key=lambda key: (key[0] != config.learning_rate, -key[0], -key[1]))
    return AdamW([{"params": groups[key], "lr": key[0], "weight_decay": key[1]} for key in order], lr=order[0][0])


def _without_decay(network: nn.Module) -> set[str]:
    """Return names of parameters that a network of timm says shall not decay, and those that are added to tokens."""
    asked = getattr(network, "no_weight_decay", None)
    names = set(asked()) if callable(asked) else set()
    ends = ("pos_embed", "position_embeddings", "pos_embedding", "cls_token", "class_token", "dist_token",
            "relative_position_bias_table", "logit_scale")  # fmt: skip
    names |= {name for name, _ in network.named_parameters() if name.rpartition(".")[2] in ends}
    return {_NETWORK + name for name in names}
