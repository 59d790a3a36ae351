"""Networks of one's own: a class, or a function that returns a network, and a file of weights."""

import contextlib
import hashlib
import importlib
import inspect
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from data.pretrained.errors import ModelUnavailableError
from data.pretrained.loaded_network import LoadedNetwork
from data.pretrained.zoo_manifest import ZooEntry
from storage.weights_file import read_tensors

_NESTS = ("state_dict", "model_state_dict", "model", "ema", "net", "network")  # keys under which others put weights
_PREFIXES = ("module.", "_orig_mod.", "model.")  # DataParallel, torch.compile, Lightning


def load_module(entry: ZooEntry) -> LoadedNetwork:
    """Import a class, build the network and load its weights.

    Args:
        entry: `identifier` is `package.module:Class`, also `package.module:Class.from_name`.

    Raises:
        ModelUnavailableError: the module or the weights are missing, damaged, or they don't fit each other.
    """
    if entry.input is None:
        raise ModelUnavailableError(
            f"{entry.where}: nobody says how {entry.identifier} is fed. Name it in a manifest with `input: {{size: [H, "
            "W], channels: 3, mean: [..], std: [..]}`, and give that to --zoo."
        )
    with _importable(entry.folder):
        network = _build(entry)
    if entry.weights is None:
        _require_finite(network, entry.where, "the network as it is built")
    else:
        load_weights(network, entry.weights, entry.where)
    location = str(entry.weights) if entry.weights is not None else entry.identifier
    return LoadedNetwork(network.eval(), entry.input, (), location, _code_digest(network))


def load_weights(network: nn.Module, path: Path, where: str) -> None:
    """Put the weights of a file into a network: all of them, and nothing else.

    Args:
        network: network that was built with the arguments of the file's.
        path: safetensors; or .pth, .pt or .bin of PyTorch, which are read only if they hold nothing but tensors and
            plain data. Weights that lie under `state_dict` or `model`, and names that begin with `module.`, are found.
        where: what the network is, for messages.

    Raises:
        ModelUnavailableError: the file can't be read, holds code, doesn't fit, or holds values that aren't finite.
    """
    try:
        content = read_tensors(path)
    except OSError as error:
        raise ModelUnavailableError(f"{where}: cannot read the weights {path}: {error}.") from error
    except (SafetensorError, ValueError) as error:
        raise ModelUnavailableError(
            f"{where}: cannot read the weights {path}: {error}. Weights must be a safetensors file, never a pickle "
            "with more than tensors: safetensors.torch.save_file(network.state_dict(), path)."
        ) from error
    weights = _fitting_names(_unpacked(content), set(network.state_dict()))
    try:
        network.load_state_dict(weights, strict=True)
    except (RuntimeError, TypeError) as error:
        reason = " ".join(str(error).split())
        raise ModelUnavailableError(f"{where}: the weights {path} don't fit: {reason[:400]}") from error
    _require_finite(network, where, f"the weights {path}")


def _unpacked(content: Any) -> dict[str, Any]:
    """Return the weights in what a file holds, which may have them under a name beside an optimizer's state."""
    while isinstance(content, Mapping):
        inner = next((content[key] for key in _NESTS if isinstance(content.get(key), Mapping)), None)
        if inner is None or any(isinstance(value, torch.Tensor) for value in content.values()):
            return dict(content)
        content = inner
    return {}


def _fitting_names(weights: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Drop the beginnings that wrappers give to names, where the network doesn't have them."""
    for prefix in _PREFIXES:
        if weights and not wanted & weights.keys() and all(name.startswith(prefix) for name in weights):
            weights = {name.removeprefix(prefix): value for name, value in weights.items()}
    return weights


def _require_finite(network: nn.Module, where: str, what: str) -> None:
    for value in network.state_dict().values():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ModelUnavailableError(f"{where}: {what} hold values that are not finite.")


@contextlib.contextmanager
def _importable(folder: Path | None) -> Iterator[None]:
    """Let modules be found in the manifest's folder, then in the current one; only while networks are built."""
    before = list(sys.path)
    sys.path[:0] = [str(place) for place in (folder, Path.cwd()) if place is not None]
    try:
        # What a module prints on import must not end up in the program's own output.
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.path[:] = before


def _build(entry: ZooEntry) -> nn.Module:
    module_name, _, attribute = entry.identifier.partition(":")
    try:
        maker: Any = importlib.import_module(module_name)
        for name in attribute.split("."):
            maker = getattr(maker, name)
    except Exception as error:  # the module is the user's code, and may raise anything
        raise ModelUnavailableError(
            f"{entry.where}: {entry.identifier} can't be imported: {type(error).__name__}: {error}. Modules are looked "
            "for in the manifest's folder, the current folder and what is installed; names of this program's own "
            "packages (config, constants, data, evaluation, model, train) are taken."
        ) from error
    try:
        network = maker(**entry.arguments)
    except Exception as error:
        raise ModelUnavailableError(
            f"{entry.where}: {attribute}({dict(entry.arguments)}) failed: {type(error).__name__}: {error}."
        ) from error
    if not isinstance(network, nn.Module):
        kind = type(network).__name__
        raise ModelUnavailableError(
            f"{entry.where}: {entry.identifier} makes a {kind}; it must make a torch.nn.Module."
        )
    return network


def _code_digest(network: nn.Module) -> str:
    """Return the digest of the file that a network's class is in: it may change beside the same weights."""
    try:
        return hashlib.sha256(Path(inspect.getfile(type(network))).read_bytes()).hexdigest()
    except (OSError, TypeError):
        return type(network).__qualname__
