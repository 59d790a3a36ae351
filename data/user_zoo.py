"""Zoos of users: a YAML manifest that names classes and their safetensors weights.

    models:
      - name: my-resnet
        module: my_package.networks:ResNet   # a class, or a function that returns a network
        arguments: {width: 32}               # of the class; may be left out
        weights: my-resnet.safetensors       # relative to the manifest
        input: {size: [32, 32], channels: 3, mean: [0.5, 0.5, 0.5], std: 0.25}   # of pixels from 0 to 1
        classes: 10                          # outputs that mean something; may be left out
        source_accuracy: 0.91                # may be left out

The module that a manifest names is imported, and so is code that runs: from the manifest's folder, the current folder,
or what is installed. Weights are safetensors, which can hold no code.
"""

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from data.data_error import DataError

_REQUIRED = ("name", "module", "weights", "input")
_OPTIONAL = ("arguments", "classes", "source_accuracy")
_LARGEST_SIDE = 4096


@dataclass(frozen=True)
class UserModel:
    """A network of a user's zoo.

    Attributes:
        name: name of the network, unique in the manifest.
        network: network that maps (n, channels, H, W) to logits (n, K).
        size: (H, W) of the images that the network reads.
        channels: channels of the images that the network reads, 1 or 3.
        mean: number subtracted from pixels (from 0 to 1), one for each channel.
        std: number that pixels are divided by after the subtraction of `mean`, one for each channel.
        classes: number of outputs that mean something, the first ones; None for all.
        source_accuracy: accuracy of the network on its source data, from 0 to 1; None if unknown.
    """

    name: str
    network: nn.Module = field(repr=False)
    size: tuple[int, int]
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: int | None = None
    source_accuracy: float | None = None

    @property
    def parameters(self) -> int:
        """How many numbers it has learnt."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    def prepare(self, images: np.ndarray) -> torch.Tensor:
        """Turn grey images (n, h, w) uint8 into what the network reads: (n, channels, H, W) float32."""
        pixels = torch.from_numpy(np.ascontiguousarray(images)).float().div(255)[:, None]
        pixels = F.interpolate(pixels, self.size, mode="bilinear", antialias=True)
        mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (self.mean, self.std))
        return (pixels.expand(-1, self.channels, -1, -1) - mean) / std


def load_user_zoo(path: Path) -> list[UserModel]:
    """Read a manifest and build all of its networks.

    Args:
        path: the YAML file.

    Returns:
        The networks, in evaluation mode.

    Raises:
        DataError: the manifest, a module or a weights file is missing, damaged, or they don't fit each other.
    """
    try:
        manifest = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DataError(f"cannot read the manifest {path}: {error}.") from error
    items = manifest.get("models") if isinstance(manifest, dict) else None
    if not isinstance(items, list) or not items:
        raise DataError(f"{path} is no zoo manifest: it needs a list `models` with at least one entry.")
    folder = path.resolve().parent
    with _importable(folder):
        models = [_read_model(item, f"{path}, model {number}", folder) for number, item in enumerate(items, start=1)]
    names = [model.name for model in models]
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{path} lists {twice[0]!r} twice; names must differ.")
    return models


@contextlib.contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let modules be found in the manifest's folder, then in the current one; only while networks are built."""
    before = list(sys.path)
    sys.path[:0] = [str(folder), str(Path.cwd())]
    try:
        # What a module prints on import must not end up in the program's own output.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:] = before


def _read_model(item: Any, where: str, folder: Path) -> UserModel:
    if not isinstance(item, dict):
        raise DataError(f"{where} must be a mapping with {', '.join(_REQUIRED)}.")
    where = f"{where} ({item['name']})" if "name" in item else where
    if missing := [key for key in _REQUIRED if key not in item]:
        raise DataError(f"{where} lacks {', '.join(missing)}.")
    if unknown := [str(key) for key in item if key not in _REQUIRED + _OPTIONAL]:
        raise DataError(f"{where}: unknown key {unknown[0]!r}; allowed: {', '.join(_REQUIRED + _OPTIONAL)}.")
    size, channels, mean, std = _read_input(item["input"], where)
    classes, accuracy = item.get("classes"), item.get("source_accuracy")
    if classes is not None and not (_is_whole(classes) and classes >= 2):
        raise DataError(f"{where}: classes is {classes!r}; it must be a whole number of at least 2.")
    if accuracy is not None and not (_is_number(accuracy) and 0 <= accuracy <= 1):
        raise DataError(f"{where}: source_accuracy is {accuracy!r}; it must be from 0 to 1.")
    network = _build(item["module"], item.get("arguments") or {}, where)
    _load_weights(network, folder / str(item["weights"]), where)
    return UserModel(str(item["name"]), network.eval(), size, channels, mean, std, classes, accuracy)


def _read_input(given: Any, where: str) -> tuple[tuple[int, int], int, tuple[float, ...], tuple[float, ...]]:
    """Read size, channels, mean and std, the last two with a number for each channel."""
    allowed = ("size", "channels", "mean", "std")
    if not isinstance(given, dict) or "size" not in given or any(key not in allowed for key in given):
        raise DataError(f"{where}: input is {given!r}; needed: {{size: [H, W], channels: 1 or 3, mean: .., std: ..}}.")
    size, channels = given["size"], given.get("channels", 1)
    if not (isinstance(size, list) and len(size) == 2 and all(_is_whole(n) and 1 <= n <= _LARGEST_SIDE for n in size)):
        raise DataError(f"{where}: input size is {size!r}; needed: [H, W], whole numbers from 1 to {_LARGEST_SIDE}.")
    if not _is_whole(channels) or channels not in (1, 3):
        raise DataError(f"{where}: input channels is {channels!r}; it must be 1 or 3.")
    rows = []
    for key, default in (("mean", 0.0), ("std", 1.0)):
        value = given.get(key, default)
        row = value if isinstance(value, list) else [value] * channels
        if len(row) != channels or not all(map(_is_number, row)) or (key == "std" and min(row) <= 0):
            above = " above 0" if key == "std" else ""
            raise DataError(
                f"{where}: input {key} is {value!r}; needed: a number{above}, or a list with one for each channel."
            )
        rows.append(tuple(float(number) for number in row))
    return (size[0], size[1]), channels, rows[0], rows[1]


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))


def _build(spec: Any, arguments: Any, where: str) -> nn.Module:
    module_name, colon, class_name = str(spec).partition(":")
    if not colon or not module_name or not class_name:
        raise DataError(f"{where}: module is {spec!r}; it must name a class: package.module:Class.")
    if not isinstance(arguments, dict):
        raise DataError(f"{where}: arguments is {arguments!r}; it must be a mapping of names to values.")
    try:
        maker = getattr(importlib.import_module(module_name), class_name)
    except Exception as error:  # the module is the user's code, and may raise anything
        raise DataError(
            f"{where}: {spec} can't be imported: {type(error).__name__}: {error}. Modules are looked for in the "
            "manifest's folder, the current folder and what is installed; names of this program's own packages "
            "(config, constants, data, evaluation, model, train) are taken."
        ) from error
    try:
        network = maker(**arguments)
    except Exception as error:
        raise DataError(f"{where}: {class_name}({arguments}) failed: {type(error).__name__}: {error}.") from error
    if not isinstance(network, nn.Module):
        raise DataError(f"{where}: {spec} makes a {type(network).__name__}; it must make a torch.nn.Module.")
    return network


def _load_weights(network: nn.Module, path: Path, where: str) -> None:
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"{where}: cannot read the weights {path}: {error}. Weights must be a safetensors file, never a pickle: "
            "safetensors.torch.save_file(network.state_dict(), path)."
        ) from error
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: the weights {path} don't fit: {reason[:400]}") from error
    if not all(bool(torch.isfinite(value).all()) for value in weights.values() if value.is_floating_point()):
        raise DataError(f"{where}: the weights {path} hold values that are not finite.")
