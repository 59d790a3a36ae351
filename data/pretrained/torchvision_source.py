"""Models of torchvision, by its names: weights from the cache of torch.hub, or downloaded to it."""

import os
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.hub_errors import is_offline, no_such_model, url_error
from data.pretrained.input_spec import InputSpec
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.module_source import load_weights
from data.pretrained.torchvision_import import import_torchvision
from data.pretrained.zoo_manifest import ZooEntry
from storage.weights_file import read_tensors


def load_torchvision(entry: ZooEntry) -> LoadedNetwork:
    """Build a classifier of torchvision with its pretrained weights.

    Args:
        entry: `identifier` is its name, `resnet50`, with the name of weights if not the default ones are meant:
            `resnet50.IMAGENET1K_V1`; `weights` may name a file that is read instead of torchvision's.

    Raises:
        ModelUnavailableError: torchvision has no such classifier, or its weights can't be had.
    """
    torchvision = import_torchvision()
    models = import_torchvision("torchvision.models")
    name, _, tag = entry.identifier.partition(".")
    if name not in models.list_models(module=models):
        names = [each for each in models.list_models(module=models) if each not in ("raft", "mvit")]
        raise no_such_model(entry, f"torchvision {torchvision.__version__}", names, "torchvision.models.list_models()")
    choices = models.get_model_weights(name)
    if tag and tag not in choices.__members__:
        raise ModelUnavailableError(
            f"{entry.where}: torchvision's {name} has no weights {tag}; it has {', '.join(choices.__members__)}."
        )
    weights = choices[tag] if tag else choices.DEFAULT
    target = Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(weights.url).path)
    try:
        if entry.weights is not None:
            network = models.get_model(name, weights=None, **entry.arguments)
            load_weights(network, entry.weights, entry.where)
        else:
            if is_offline() and not target.exists():
                raise url_error(ConnectionError(), entry, weights.url, target)
            if target.exists():
                read_tensors(target)  # torchvision would unpickle whatever is there
            network = models.get_model(name, weights=weights, progress=False, **entry.arguments)
    except ModelUnavailableError:
        raise
    except TypeError as error:
        raise ModelUnavailableError(
            f"{entry.where}: torchvision can't build {name} with {dict(entry.arguments)}: {error}."
        ) from error
    except (RuntimeError, SafetensorError) as error:
        if "state_dict" not in str(error):
            raise url_error(error, entry, weights.url, target) from error
        said = " ".join(str(error).split())[:400]
        raise ModelUnavailableError(
            f"{entry.where}: the weights {target} don't fit {entry.identifier}: {said}"
        ) from error
    except Exception as error:  # of the network and the file
        raise url_error(error, entry, weights.url, target) from error
    if getattr(network, "aux_logits", False):  # heads in the middle, of training in 2014
        network.aux_logits = False
        for auxiliary in ("aux1", "aux2", "AuxLogits"):
            if hasattr(network, auxiliary):
                setattr(network, auxiliary, None)
    location = str(entry.weights or target)
    return LoadedNetwork(network.eval(), torchvision_input(weights), (), location,
                         f"torchvision {torchvision.__version__}")  # fmt: skip


def torchvision_input(weights: Any) -> InputSpec:
    """Turn the transforms of torchvision's weights into an input.

    Args:
        weights: member of a `WeightsEnum`.
    """
    transforms = weights.transforms
    preset = transforms() if isinstance(transforms, partial) else transforms
    side, resize = preset.crop_size[0], preset.resize_size[0]
    return InputSpec(
        (side, side), 3, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, min(1.0, side / resize),
        resize=resize,
    )  # fmt: skip
