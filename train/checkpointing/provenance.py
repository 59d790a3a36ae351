"""Where and from what a run was made: environment.json."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from constants import PROJECT_ROOT, VERSION
from constants.commit import program_commit
from data.batch_indices import batch_indices
from data.batches import describe, storage_parts
from data.loaders import Loader, length_of
from train.context import RunContext
from train.process_group import process_group
from train.seeding import preserved_random_states, seed_everything

_PACKAGES = ("torch", "numpy", "beautilog", "tqdm", "matplotlib", "scikit-learn", "pyyaml", "safetensors", "pydantic")
_MAX_DIFF = 1_000_000  # characters; more is a checked-in data file, not a change of code
_SAMPLES = 16  # of a dataset that its fingerprint reads


def provenance(device: torch.device, loaders: dict[str, Loader]) -> dict[str, Any]:
    """Gather what a reader needs to make a run again.

    Args:
        device: device that the run's model is on.
        loaders: loaders by name, for the fingerprints of their data.

    Returns:
        Plain data for environment.json.
    """
    return {
        "schema_version": 1,
        "command": [sys.executable, *sys.argv],
        "working_directory": os.getcwd(),
        "menagerie": {"version": VERSION, "commit": program_commit()},
        "git": _git(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "device": {
            "type": str(device),
            "name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
            "threads": torch.get_num_threads(),
            "processes": process_group().world_size,
        },
        "data": {name: fingerprint(loader) for name, loader in loaders.items()},
    }


def loaders_of(run: RunContext) -> dict[str, Loader]:
    """Return a run's loaders by name, as `provenance` takes them."""
    return {"train": run.train_loader, "val": run.val_loader}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    """The project's commit and what differs from it; None where it is under no version control, or without git."""

    def run(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=PROJECT_ROOT, capture_output=True, text=True, errors="replace", timeout=10, check=True
        )
        return done.stdout

    try:
        diff = run("diff", "HEAD")
        return {
            "commit": run("rev-parse", "HEAD").strip(),
            "diff": diff if len(diff) <= _MAX_DIFF else f"{diff[:_MAX_DIFF]}\n... cut at {_MAX_DIFF} characters",
            "untracked": run("ls-files", "--others", "--exclude-standard").splitlines()[:1000],
        }
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(loader: Loader) -> dict[str, Any] | None:
    """Describe a loader's data so that other data is noticed.

    Args:
        loader: loader of a `dataset` with samples by index.

    Returns:
        The dataset's length, what a sample holds, and the SHA-256 of 16 samples spread over it, or, where the dataset
            has other indices than numbers, of 16 that the sampler gives first. None where it can't be indexed.
    """
    dataset = getattr(loader, "dataset", None)
    length = length_of(dataset)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        return None
    with preserved_random_states():
        spread = range(min(length or 0, _SAMPLES))
        found = _digest(dataset, [position * length // len(spread) for position in spread]) if length else None
        if found is None and isinstance(loader, DataLoader):
            seed_everything(0)  # the same order each time
            batches = batch_indices(loader, 0, _SAMPLES) or []
            found = _digest(dataset, [index for batch in batches for index in batch][:_SAMPLES])
            length = length if length is not None else length_of(loader.sampler)
    if found is None and length != 0:
        return None
    return {
        "length": length,
        "sample": found and found[0],
        "sha256": (found and found[1]) or hashlib.sha256().hexdigest(),
    }


def _digest(dataset: Any, indices: list[Any]) -> tuple[str, str] | None:
    """Return what a sample holds, and a hash of some; None where none of them can be read."""
    seed_everything(0)  # augmentation on the fly is drawn the same each time
    digest, shown = hashlib.sha256(), None
    for index in indices:
        try:
            sample = dataset[index]
        except Exception as error:  # one that no sampler draws may well be damaged
            digest.update(type(error).__name__.encode())
            continue
        feed(digest, sample)
        shown = shown or describe(sample)
    return None if shown is None else (shown, digest.hexdigest())


def feed(digest: Any, sample: Any) -> None:
    """Put a sample into a hash: tensors, arrays and what has a repr, in containers of any depth."""
    if isinstance(sample, torch.Tensor):
        parts = storage_parts(sample)
        if parts[0] is not sample:  # an empty row between two values moves them, and neither values nor indices say so
            digest.update(describe(sample).encode())
        for part in parts:
            digest.update(part.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    elif isinstance(sample, dict):
        for key, part in sample.items():
            digest.update(str(key).encode())
            feed(digest, part)
    elif isinstance(sample, list | tuple):
        for part in sample:
            feed(digest, part)
    elif hasattr(sample, "tobytes"):
        digest.update(sample.tobytes())
    else:
        digest.update(repr(sample).encode())
