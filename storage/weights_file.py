"""A file of weights: safetensors, which anybody reads, and beside the tensors what it has no place for."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, load_file, save

from storage.plain_state import UNSTORED, flatten, restore

_OTHER = "plain_state"  # of the file's metadata: JSON of what is no tensor that safetensors knows


def encode_weights(weights: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of weights.

    Args:
        weights: tensors by name, dense and on the CPU, and the extra state of modules: plain data. A complex128 tensor
            is stored as one of float64 with its two parts in a last dimension.

    Raises:
        TypeError: something that is neither; the text says where.
    """
    other = {name: value for name, value in weights.items() if not _is_known(value)}
    tensors = {name: value for name, value in weights.items() if name not in other}
    tree, more = flatten(other, root="")
    return save(tensors | more, {_OTHER: json.dumps(tree)} if other else None)


def require_dense(weights: Mapping[str, Any], root: str) -> None:
    """Refuse weights that `encode_weights` has no place for: sparse tensors.

    Args:
        weights: tensors by name, and the extra state of modules.
        root: what the weights are of, such as `self.model`.

    Raises:
        TypeError: a tensor is sparse; the text says which.
    """
    for name, value in weights.items():
        if isinstance(value, torch.Tensor) and value.layout is not torch.strided:
            layout = str(value.layout).removeprefix("torch.")
            raise TypeError(f"{root}.{name} is a tensor that is {layout}; a file of weights holds dense ones.")


def decode_weights(content: bytes) -> dict[str, Any]:
    """Return what `encode_weights` was given.

    Args:
        content: bytes of the file; also of one that any other program has written.

    Raises:
        safetensors.SafetensorError: they are no such file.
    """
    tensors: dict[str, Any] = load(content)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    written = header.get("__metadata__", {}).get(_OTHER)
    if written is None:
        return tensors
    packed = json.loads(written)
    other = restore(packed, tensors)
    used = flatten(other, probe=True, root="")[1]
    return {name: value for name, value in tensors.items() if name not in used} | other


def load_weights_file(path: Path) -> dict[str, Any]:
    """Read a file of weights, onto the CPU.

    Args:
        path: file that `encode_weights` made, or any safetensors file.
    """
    return decode_weights(path.read_bytes())


def read_tensors(path: Path) -> Any:
    """Read a file of weights of others, onto the CPU: safetensors, or what `torch.save` wrote, without running code.

    Args:
        path: the file; its content says which of the two it is, not its name.

    Returns:
        Tensors by name, or what else a file of PyTorch holds: tensors in dicts and lists, beside plain data.

    Raises:
        OSError: the file can't be read.
        safetensors.SafetensorError: it is a damaged safetensors file.
        ValueError: it is a pickle that holds more than tensors and plain data, or none that PyTorch reads.
    """
    with path.open("rb") as stream:
        start = stream.read(16)
    is_torch = start[:2] == b"PK" or start[:1] == b"\x80"  # a zip archive; a pickle of releases before 1.6
    if not is_torch:
        return load_file(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # pickle.UnpicklingError, RuntimeError of the archive, EOFError
        raise ValueError(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__) from error


def _is_known(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype not in UNSTORED
