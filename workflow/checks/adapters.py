"""Weights on disk: whole files of finite numbers, adapters of pairs that fit. Read without torch."""

import json
import math
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from constants.counting import counted
from workflow.checks.result import CheckResult, UnusableError

_KINDS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_HEADER = 100_000_000  # bytes; a longer one is none


def tensors_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], tuple[int, int]]]:
    """Return kind, shape and bytes (first and end, from the file's start) of each tensor of a safetensors file.

    Raises:
        UnusableError: it is none, or is cut.
    """
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
            length = struct.unpack("<Q", start)[0] if len(start) == 8 else _HEADER + 1
            if length > _HEADER:
                raise UnusableError(f"{path.name} is no safetensors file")
            header = json.loads(stream.read(length))
    except (ValueError, UnicodeDecodeError):
        raise UnusableError(f"{path.name} is no safetensors file, or was cut") from None
    except OSError as error:
        raise UnusableError(f"{path.name}: {error.strerror}") from None
    size = path.stat().st_size
    found = {}
    for name, facts in header.items():
        if name == "__metadata__":
            continue
        first, end = facts["data_offsets"]
        if 8 + length + end > size:
            raise UnusableError(f"{path.name} was cut: {name} ends at byte {8 + length + end:,} of {size:,}")
        found[name] = (str(facts["dtype"]), tuple(facts["shape"]), (8 + length + first, 8 + length + end))
    return found


def check_weights(path: Path) -> None:
    """Read every number of a checkpoint: a file, or a folder with at least one safetensors file.

    Raises:
        UnusableError: there are no weights, a file is cut, or a number is not finite.
    """
    files = sorted(path.rglob("*.safetensors")) if path.is_dir() else [path]
    if not files:
        raise UnusableError(f"{path.name} has no safetensors file")
    for file in files:
        for name, values in _values(file):
            if not np.isfinite(values).all():
                raise UnusableError(f"{file.name}: {name} has numbers that are not finite")


def check_adapter(folder: Path) -> CheckResult:
    """Check a LoRA adapter in peft's form: its config, pairs of matrices of one rank, and that it has learned.

    Args:
        folder: folder with adapter_config.json and adapter_model.safetensors.
    """
    config_file, weights = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for file in (config_file, weights):
        if not file.is_file():
            return CheckResult(False, f"{folder.name} has no {file.name}")
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
        rank, base = int(config["r"]), str(config["base_model_name_or_path"])
    except (ValueError, KeyError, TypeError) as error:
        return CheckResult(False, f"{folder.name}/adapter_config.json can't be used: {error}")
    check_weights(weights)
    shapes = {name: shape for name, (_, shape, _) in tensors_of(weights).items()}
    firsts = [name for name in shapes if ".lora_A." in name]
    if not firsts:
        return CheckResult(False, f"{weights.name} has no lora_A: it is no LoRA adapter")
    for name in firsts:
        other = name.replace(".lora_A.", ".lora_B.")
        if other not in shapes:
            return CheckResult(False, f"{name} has no lora_B beside it")
        if shapes[name][0] != shapes[other][-1]:
            return CheckResult(False, f"{name} is {shapes[name]} and its lora_B {shapes[other]}: the ranks differ")
    learned = any(np.any(values) for name, values in _values(weights) if ".lora_B." in name)
    told = f"{folder.name}: {counted(len(firsts), 'pair')} of rank {rank} for {base}"
    if not learned:
        return CheckResult(False, f"{told}; every lora_B is 0: nothing was learned")
    numbers = sum(math.prod(shape) for shape in shapes.values())
    return CheckResult(True, told, {"pairs": len(firsts), "rank": rank, "parameters": numbers})


def _values(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the numbers of each tensor of a float kind, bfloat16 as float32."""
    tensors = tensors_of(path)
    with path.open("rb") as stream:
        for name, (kind, _, (first, end)) in tensors.items():
            if kind not in _KINDS:
                continue
            stream.seek(first)
            values = np.frombuffer(stream.read(end - first), dtype=_KINDS[kind])
            if kind == "BF16":
                values = (values.astype("<u4") << 16).view("<f4")
            yield name, values
