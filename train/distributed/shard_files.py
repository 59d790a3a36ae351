"""The tensors of a sharded checkpoint: each process writes its slices, as torch.distributed.checkpoint has them.

The files are safetensors, whose headers say which slice of which tensor they hold. torch's other format has its index
in a pickle, which is not to be read (nothing here is ever unpickled).
"""

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from storage.checkpoint_store import SHARDS, Checkpoint, CheckpointStore, write_manifest
from storage.errors import OutputError
from storage.files import file_digest, sync, write_file
from storage.plain_state import flatten
from train.process_group import process_group

Target = Callable[[str, tuple[int, ...], torch.dtype], torch.Tensor]


class ShardReader:
    """Reads tensors that any number of processes have written.

    Args:
        target: function that gives a tensor to read into, of a name, shape and dtype; a sharded one gets its slice
            only. None reads whole tensors.
    """

    def __init__(self, target: Target | None = None) -> None:
        self.sliced = target is not None
        self._target = target or _whole_tensor

    def read(self, folder: Path) -> dict[str, torch.Tensor]:
        """Read all tensors of a checkpoint by their names.

        Args:
            folder: subfolder `shards` of the checkpoint.
        """
        import torch.distributed.checkpoint as dcp  # takes half a second, which runs of one process never need

        reader = dcp.HuggingFaceStorageReader(str(folder))
        tensors = {
            name: self._target(name, tuple(entry.size), entry.properties.dtype)
            for name, entry in reader.read_metadata().state_dict_metadata.items()
            if isinstance(entry, dcp.metadata.TensorStorageMetadata)
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            dcp.load(tensors, storage_reader=reader, no_dist=True)  # each process reads its slices by itself
        return tensors


def save_together(
    store: CheckpointStore, epoch: int, checkpoint: Checkpoint, best_epoch: int | None, inside: str = "", step: int = 0
) -> Path:
    """Write a sharded checkpoint: all processes call this.

    Args:
        store: checkpoints of the run, to which this one is added.
        epoch: epochs finished.
        checkpoint: weights and state to write; of sharded tensors each process has its slice.
        best_epoch: the epoch whose checkpoint must not be removed.
        inside: place in the unfinished epoch, such as `step-00000120`; empty at an epoch's end.
        step: optimizer steps of the run, for the manifest.

    Returns:
        The checkpoint's folder.

    Raises:
        OutputError: it can't be written; the older ones are untouched.
    """
    final, group = store.path_of(epoch, inside), process_group()
    where = {"epoch": epoch, "inside": inside, "step": step}
    tree, tensors = flatten({"weights": checkpoint.weights, "state": checkpoint.state})
    _write_shards(group.broadcast_object(lambda: store.begin(final)), tensors)
    group.broadcast_object(lambda: store.commit(final, lambda folder: _finish_shards(folder, where, tree), best_epoch))
    return final


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors, of which each process has a slice or, of those that are not sharded, the whole."""
    import torch.distributed.checkpoint as dcp  # takes half a second, which runs of one process never need

    writer = dcp.HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer)
    except dcp.CheckpointException as error:  # in all processes, where one could not
        reasons = "; ".join(str(failure[0]) for failure in error.failures.values())
        raise OutputError(f"cannot write {folder}: {reasons}. What was saved before is intact.") from error


def _finish_shards(folder: Path, where: dict[str, Any], tree: Any) -> None:
    """Write what is beside the shards, which are there."""
    write_file(folder / "state.json", json.dumps(tree).encode())
    digests = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        sync(path)
        digests[path.relative_to(folder).as_posix()] = file_digest(path)
    sync(folder / SHARDS)
    write_manifest(folder, where, digests)


def _whole_tensor(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype)
