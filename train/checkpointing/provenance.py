"""Where and from what a run was made: environment.json."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from typing import Any

import torch

from constants import PROJECT_ROOT, VERSION
from constants.commit import program_commit
from data.batches import describe
from train.context import RunContext
from train.process_group import process_group
from train.seeding import preserved_random_states, seed_everything

_PACKAGES = ("torch", "numpy", "beautilog", "tqdm", "matplotlib", "scikit-learn", "pyyaml", "safetensors", "pydantic")
_MAX_DIFF = 1_000_000  # characters; more is a checked-in data file, not a change of code
_SAMPLES = 16  # of a dataset that its fingerprint reads


def provenance(device: torch.device, datasets: dict[str, Any]) -> dict[str, Any]:
    """Gather what a reader needs to make a run again.

    Args:
        device: device that the run's model is on.
        datasets: the datasets by name, for their fingerprints.

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
        "data": {name: fingerprint(dataset) for name, dataset in datasets.items()},
    }


def datasets_of(run: RunContext) -> dict[str, Any]:
    """Return a run's datasets by name, as `provenance` takes them."""
    loaders = {"train": run.train_loader, "val": run.val_loader}
    return {name: getattr(loader, "dataset", None) for name, loader in loaders.items()}


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


def fingerprint(dataset: Any) -> dict[str, Any] | None:
    """Describe a dataset so that a changed one is noticed.

    Args:
        dataset: anything with a length and samples by index.

    Returns:
        The dataset's length, what a sample holds, and the SHA-256 of 16 samples spread over it; None where it can't be
            indexed.
    """
    try:
        length = len(dataset)
        digest = hashlib.sha256()
        with preserved_random_states():
            seed_everything(0)  # augmentation on the fly is drawn the same each time
            for position in range(min(length, _SAMPLES)):
                feed(digest, dataset[position * length // min(length, _SAMPLES)])
            sample = describe(dataset[0]) if length else None
    except (TypeError, NotImplementedError):  # an iterable dataset has no length or index
        return None
    return {"length": length, "sample": sample, "sha256": digest.hexdigest()}


def feed(digest: Any, sample: Any) -> None:
    """Put a sample into a hash: tensors, arrays and what has a repr, in containers of any depth."""
    if isinstance(sample, torch.Tensor):
        digest.update(sample.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
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
