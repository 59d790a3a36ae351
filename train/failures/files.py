"""The folder `failure/` of a run: the bad step, so that it can be repeated. Nothing in it is ever unpickled."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from data.batches import tensors_in
from storage.failed_runs import FOLDER, REPORT, ReplayError, read_report
from storage.files import TEMPORARY, jsonable, output_errors, sync, write_file
from storage.plain_state import flatten, restore
from storage.weights_file import decode_weights, encode_weights

SCHEMA_VERSION = 1
_LARGEST_BATCH = 10**9  # bytes


@dataclass(frozen=True)
class SavedFailure:
    """What is in the folder.

    Attributes:
        report: the content of report.json.
        weights: the model's state_dict of before the bad step.
        state: random states, and the state_dicts of other modules.
        batches: batches of the bad step; None where they were left out.
    """

    report: dict[str, Any]
    weights: dict[str, Any]
    state: dict[str, Any]
    batches: list[Any] | None


def write_failure(run: Path, saved: SavedFailure) -> Path:
    """Write the folder; one of an earlier failure is replaced when this one is complete.

    Args:
        run: the run's folder.
        saved: content of the folder. Batches that aren't plain, or are large, are left out.

    Returns:
        The folder.

    Raises:
        OutputError: it can't be written.
    """
    final, temporary = run / FOLDER, run / f".{FOLDER}{TEMPORARY}"
    with output_errors(final):
        try:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
            digests = {}
            for name, content in _contents(saved):
                digests[name] = hashlib.sha256(content).hexdigest()
                write_file(temporary / name, content)
            report = {"schema_version": SCHEMA_VERSION, **jsonable(saved.report), "files": digests}
            write_file(temporary / REPORT, f"{json.dumps(report, indent=1)}\n".encode())
            shutil.rmtree(final, ignore_errors=True)
            os.replace(temporary, final)
            sync(run)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return final


def _contents(saved: SavedFailure) -> Iterator[tuple[str, bytes]]:
    yield "weights.safetensors", encode_weights(saved.weights)
    parts: dict[str, Any] = {"state": saved.state}
    size = sum(tensor.nbytes for tensor in tensors_in(saved.batches))
    if saved.batches is not None and _is_plain(saved.batches) and size <= _LARGEST_BATCH:
        parts["batch"] = saved.batches
    for name, part in parts.items():
        tree, tensors = flatten(part)
        yield f"{name}.json", json.dumps(tree).encode()
        yield f"{name}.safetensors", save(tensors)


def _is_plain(value: Any) -> bool:
    """Say whether a value comes back as what it was: exact types only, since a named tuple would come back a tuple."""
    if type(value) is torch.Tensor:
        return value.layout is torch.strided and not value.is_quantized and not value.is_nested
    if type(value) in (list, tuple):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(map(_is_plain, value)) and all(map(_is_plain, value.values()))
    return value is None or type(value) in (bool, int, float, str)


def read_failure(run: Path) -> SavedFailure:
    """Read the folder.

    Args:
        run: the run's folder.

    Raises:
        ReplayError: a file is missing or is not what was written; the text names it.
    """
    folder, report = run / FOLDER, read_report(run)
    try:
        digests = dict(report["files"])
    except (KeyError, TypeError, ValueError) as error:
        raise ReplayError(f"{folder / REPORT} is damaged: it does not say which files there are.") from error
    content = {name: _read(folder / name, digest) for name, digest in digests.items()}
    try:
        weights = decode_weights(content["weights.safetensors"])
        state, batches = (_restored(content, name) for name in ("state", "batch"))
    except (ValueError, KeyError, TypeError, SafetensorError) as error:  # whole, but not of this program's making
        raise ReplayError(f"{folder} can't be read: {type(error).__name__}: {error}") from error
    return SavedFailure(report, weights, state or {}, batches)


def _restored(content: Mapping[str, bytes], name: str) -> Any:
    if f"{name}.json" not in content:
        return None
    return restore(json.loads(content[f"{name}.json"]), load(content[f"{name}.safetensors"]))


def _read(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ReplayError(
            f"{path} can't be read: {error.strerror}. The failure can't be repeated without it."
        ) from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ReplayError(f"{path} is damaged: it does not have the digest that {REPORT} names.")
    return content


def newest_finite(checkpoints: Sequence[Path]) -> str | None:
    """Return the name of the newest checkpoint whose weights are all finite.

    Args:
        checkpoints: folders of the checkpoints, oldest first.
    """
    for path in reversed(checkpoints):
        try:
            weights = decode_weights((path / "weights.safetensors").read_bytes())
        except (OSError, SafetensorError):  # damaged: not a good one
            continue
        if all(not tensor.is_floating_point() or bool(tensor.isfinite().all()) for tensor in weights.values()):
            return path.name
    return None
