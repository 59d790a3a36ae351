"""The tensors of a sharded checkpoint: each process writes its slices, as torch.distributed.checkpoint has them.

The files are safetensors, whose headers say which slice of which tensor they hold. torch's other format has its index
in a pickle, which is not to be read (nothing here is ever unpickled).
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp

from train.checkpoints import SHARDS
from train.errors import OutputError


def write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write tensors; all processes do this together.

    Args:
        folder: of the checkpoint, which all processes see.
        tensors: sharded ones, of which each process has a slice, and others, which are the same in each process.

    Raises:
        OutputError: they can't be written.
    """
    writer = dcp.HuggingFaceStorageWriter(str(folder / SHARDS), save_distributed=True)
    try:
        dcp.save(tensors, storage_writer=writer)
    except dcp.CheckpointException as error:  # in all processes, where one could not
        reasons = "; ".join(str(failure[0]) for failure in error.failures.values())
        raise OutputError(f"cannot write {folder}: {reasons}. What was saved before is intact.") from error


def read_shards(
    folder: Path, target: Callable[[str, tuple[int, ...], torch.dtype], torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Read tensors that any number of processes have written.

    Args:
        folder: of the checkpoint.
        target: gives a tensor to read into, of a name, shape and dtype; a sharded one gets its slice only.
    """
    reader = dcp.HuggingFaceStorageReader(str(folder / SHARDS))
    known = reader.read_metadata().state_dict_metadata
    tensors = {name: target(name, tuple(entry.size), entry.properties.dtype) for name, entry in known.items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        dcp.load(tensors, storage_reader=reader, no_dist=True)  # each process reads its slices by itself
    return tensors
