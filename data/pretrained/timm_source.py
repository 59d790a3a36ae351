"""Models of timm, by its names: weights from the hub, from its cache, or from files of older releases of timm."""

import contextlib
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.hub_errors import hub_error, no_such_model, url_error
from data.pretrained.input_spec import InputSpec
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.torchvision_import import import_timm
from data.pretrained.zoo_manifest import ZooEntry

_FILES = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin", "open_clip_pytorch_model.bin")
_FITS = {"center": "shorter", "squash": "stretch", "border": "pad"}


def load_timm(entry: ZooEntry) -> LoadedNetwork:
    """Build a model of timm with its pretrained weights.

    Args:
        entry: `identifier` is timm's name with or without its tag: `resnet18.a1_in1k`; `weights` may name a file that
            is read instead of the hub's.

    Raises:
        ModelUnavailableError: timm has no such model, or its weights can't be had or don't fit.
    """
    timm = import_timm()
    registry = import_timm("timm.models")
    name = registry.get_deprecated_models().get(entry.identifier) or entry.identifier
    config = None
    with contextlib.suppress(RuntimeError):  # of a tag that there is not
        config = registry.get_pretrained_cfg(name)
    if config is None or not timm.is_model(name.partition(".")[0]):
        raise no_such_model(entry, f"timm {timm.__version__}", timm.list_pretrained(), "timm.list_pretrained()")
    if not config.has_weights and entry.weights is None:
        raise ModelUnavailableError(f"{entry.where}: timm {timm.__version__} has {name}, but no weights for it.")
    file = entry.weights or _own_file(config)
    overlay = {"file": str(file)} if file else None
    if file is not None and not file.is_file():
        raise ModelUnavailableError(f"{entry.where}: there is no file {file}; `weights` is relative to the manifest.")
    try:
        network = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay, **entry.arguments)
    except TypeError as error:  # of an argument that the architecture doesn't have
        raise ModelUnavailableError(f"{entry.where}: timm can't build {name} with {dict(entry.arguments)}: "
                                    f"{error}.") from error  # fmt: skip
    except Exception as error:  # of the network, the hub, torch and the file
        raise _explained(error, entry, config, file) from error
    settings = import_timm("timm.data").resolve_model_data_config(network)
    heads = network.pretrained_cfg.get("classifier") or ()
    return LoadedNetwork(
        network.eval(), timm_input(settings), (heads,) if isinstance(heads, str) else tuple(heads),
        str(file or _cached_file(config) or config.hf_hub_id or config.url), f"timm {timm.__version__}",
        network.pretrained_cfg.get("license"),
    )  # fmt: skip


def timm_input(settings: Mapping[str, Any]) -> InputSpec:
    """Turn what timm's `resolve_data_config` says into an input.

    Args:
        settings: input_size, mean, std, interpolation, crop_pct and crop_mode.
    """
    channels, height, width = settings["input_size"]
    interpolation = settings["interpolation"]
    return InputSpec(
        (height, width), channels, tuple(map(float, settings["mean"])), tuple(map(float, settings["std"])),
        "bilinear" if interpolation == "random" else interpolation, float(settings["crop_pct"]),
        _FITS.get(settings["crop_mode"], "shorter"),  # type: ignore[arg-type]  # of FITS
    )  # fmt: skip


def _own_file(config: Any) -> Path | None:
    """Return the file that an older release of timm has downloaded, where the hub's cache has none."""
    if not config.url or (config.hf_hub_id and _cached_file(config)):
        return None
    path = _checkpoint_of(config.url)
    return path if path.is_file() else None


def _checkpoint_of(url: str) -> Path:
    import torch

    return Path(torch.hub.get_dir()) / "checkpoints" / os.path.basename(urlparse(url).path)


def _cached_file(config: Any) -> Path | None:
    """Return the file of weights in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    if not config.hf_hub_id:
        return _checkpoint_of(config.url) if config.url else None
    for name in (config.hf_hub_filename,) if config.hf_hub_filename else _FILES:
        found = try_to_load_from_cache(config.hf_hub_id, name)
        if isinstance(found, str):
            return Path(found)
    return None


def _explained(error: Exception, entry: ZooEntry, config: Any, file: Path | None) -> ModelUnavailableError:
    fits = "state_dict" in str(error) and "loading" in str(error).lower()
    if fits:
        place = file or _cached_file(config)
        said = " ".join(str(error).split())[:400]
        return ModelUnavailableError(f"{entry.where}: the weights {place} don't fit {entry.identifier}: {said}")
    if file is not None:
        return ModelUnavailableError(f"{entry.where}: cannot read the weights {file}: {error}")
    if config.hf_hub_id:
        return hub_error(error, entry, config.hf_hub_id)
    return url_error(error, entry, config.url, _checkpoint_of(config.url))


logging.getLogger("timm.models._builder").setLevel(logging.ERROR)  # it tells where it loads from, to a hub's users
