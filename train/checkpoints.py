"""Checkpoints of a run: one folder each, complete or absent, verified before use."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from beautilog import logger
from safetensors.torch import load_file, save_file

from train.errors import ResumeError
from train.files import output_errors, sync
from train.plain_state import flatten, restore

SCHEMA_VERSION = 2
_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        weights: the model's state_dict, on the CPU.
        state: everything else: optimizer, scheduler, counters, history, random number generators.
    """

    weights: dict[str, torch.Tensor]
    state: dict[str, Any]


class CheckpointStore:
    """The folder `checkpoints/` of a run.

    A checkpoint is written as `.epoch-00007.tmp/`, each file synced, its manifest of digests last, then renamed to
    `epoch-00007/`. Older ones are removed only after that, and the best one is kept.

    Args:
        folder: where they are.
        keep_last: how many of the newest are kept.
    """

    def __init__(self, folder: Path, keep_last: int) -> None:
        self.folder, self.keep_last = folder, keep_last

    def save(self, epoch: int, checkpoint: Checkpoint, best_epoch: int | None, steps: int = 0) -> Path:
        """Write a checkpoint.

        Args:
            epoch: epochs finished.
            checkpoint: its content.
            best_epoch: the epoch whose checkpoint must not be removed.
            steps: done in the epoch after these.

        Returns:
            Its folder.

        Raises:
            OutputError: it can't be written; the older ones are untouched.
        """
        final = self.folder / (f"epoch-{epoch:05d}" + (f"-step-{steps:08d}" if steps else ""))
        temporary = self.folder / f".{final.name}.tmp"
        with output_errors(final):
            try:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                _write_files(temporary, epoch, checkpoint)
                if final.exists():  # a resumed run does an epoch again
                    shutil.rmtree(final)
                os.replace(temporary, final)
                sync(self.folder)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
        self._prune(keep={final.name} | ({f"epoch-{best_epoch:05d}"} if best_epoch is not None else set()))
        return final

    def load_newest(self) -> tuple[Checkpoint, Path]:
        """Load the newest checkpoint that is whole; each damaged one on the way is named in a warning.

        Raises:
            ResumeError: there is none.
        """
        for path in reversed(self._all()):
            try:
                return _read_files(path), path
            except (OSError, ValueError, KeyError, TypeError) as error:
                logger.warning(f"checkpoint {path} is damaged and is skipped: {error}")
        raise ResumeError(f"no usable checkpoint in {self.folder}. Start the run again without --resume.")

    def _all(self) -> list[Path]:
        return sorted(self.folder.glob("epoch-*"))

    def _prune(self, keep: set[str]) -> None:
        for path in self._all()[: -self.keep_last]:
            if path.name not in keep:
                shutil.rmtree(path, ignore_errors=True)


def plain_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return a model's state_dict as safetensors takes it: contiguous, on the CPU, no memory shared (tied weights).

    Copying from a device is a host-device synchronisation.
    """
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in model.state_dict().items()}


def _write_files(folder: Path, epoch: int, checkpoint: Checkpoint) -> None:
    tree, tensors = flatten(checkpoint.state)
    save_file(checkpoint.weights, folder / "weights.safetensors")
    save_file(tensors, folder / "state.safetensors")
    (folder / "state.json").write_text(json.dumps(tree), encoding="utf-8")
    names = ("weights.safetensors", "state.safetensors", "state.json")
    digests = {name: _digest(folder / name) for name in names}
    manifest = {"schema_version": SCHEMA_VERSION, "epoch": epoch, "sha256": digests}
    (folder / _MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for name in (*names, _MANIFEST):
        sync(folder / name)
    sync(folder)


def _read_files(folder: Path) -> Checkpoint:
    manifest = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))
    if manifest["schema_version"] != SCHEMA_VERSION:
        raise ValueError(f"its schema version is {manifest['schema_version']}, this program reads {SCHEMA_VERSION}")
    for name, digest in manifest["sha256"].items():
        if _digest(folder / name) != digest:
            raise ValueError(f"{name} does not have the digest in {_MANIFEST}")
    tree = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    return Checkpoint(load_file(folder / "weights.safetensors"), restore(tree, load_file(folder / "state.safetensors")))


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
