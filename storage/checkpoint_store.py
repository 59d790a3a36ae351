"""Checkpoints of a run: one folder each, complete or absent, verified before use."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from beautilog import logger
from safetensors import SafetensorError
from safetensors.torch import load, save

from storage.errors import ResumeError
from storage.files import TEMPORARY, output_errors, sync, write_file
from storage.plain_state import flatten, restore
from storage.weights_file import decode_weights, encode_weights

SCHEMA_VERSION = 3
_MANIFEST = "manifest.json"
SHARDS = "shards"  # the folder of a checkpoint that several processes have written together
_REPLACED = ".replaced"  # what the name of a checkpoint ends with while another one takes its place
_NAME = re.compile(r"epoch-(\d+)(?:-(?:step-(\d+)|(validation)))?")


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds.

    Attributes:
        weights: the model's state_dict, on the CPU: tensors, and the extra state of modules.
        state: everything else: optimizer, scheduler, counters, history, random number generators.
        sharded: whether this process has only its slices of the tensors.
    """

    weights: dict[str, Any]
    state: dict[str, Any]
    sharded: bool = False


class DamagedCheckpoint(Exception):
    """A checkpoint that does not hold what was written; the text says what is wrong with it."""


class ShardFiles(Protocol):
    """Reads the tensors that several processes have written together.

    Attributes:
        sliced: whether this process gets its slices of the tensors only.
    """

    sliced: bool

    def read(self, folder: Path) -> dict[str, torch.Tensor]:
        """Read all tensors of a checkpoint by their names.

        Args:
            folder: subfolder `shards` of the checkpoint.
        """
        ...


class CheckpointStore:
    """The folder `checkpoints/` of a run.

    A checkpoint is written as `.epoch-00007.tmp/`, each file synced, its manifest of digests last, then renamed to
    `epoch-00007/` and read back. Older ones are removed only after that, and the best one is kept. One of an inside of
    an epoch is `epoch-00007-step-00000120`: 7 epochs are done, and 120 steps of the eighth; `epoch-00007-validation` is
    in the validation of the eighth.

    Args:
        folder: folder `checkpoints/` of the run.
        keep_last: number of newest checkpoints that are kept, besides the best one.
        shards: reads and writes what several processes have written together; None refuses such checkpoints.
    """

    def __init__(self, folder: Path, keep_last: int, shards: "ShardFiles | None" = None) -> None:
        self.folder, self.keep_last, self._shards = folder, keep_last, shards

    def save(self, epoch: int, checkpoint: Checkpoint, best_epoch: int | None, inside: str = "", step: int = 0) -> Path:
        """Write a checkpoint.

        Args:
            epoch: epochs finished.
            checkpoint: weights and state to write.
            best_epoch: the epoch whose checkpoint must not be removed.
            inside: place in the unfinished epoch, such as `step-00000120`; empty at an epoch's end.
            step: optimizer steps of the run, for the manifest.

        Returns:
            The checkpoint's folder.

        Raises:
            OutputError: it can't be written; the older ones are untouched.
        """
        final = self.path_of(epoch, inside)
        where = {"epoch": epoch, "inside": inside, "step": step}
        self.begin(final)
        self.commit(final, lambda folder: _write_files(folder, where, checkpoint), best_epoch)
        return final

    def path_of(self, epoch: int, inside: str = "") -> Path:
        """Return the folder of a checkpoint.

        Args:
            epoch: epochs finished.
            inside: place in the unfinished epoch, such as `step-00000120`; empty at an epoch's end.
        """
        return self.folder / "-".join([f"epoch-{epoch:05d}", *([inside] if inside else [])])

    def begin(self, final: Path) -> Path:
        """Make the folder in which a checkpoint is written, and return it.

        Args:
            final: folder of the finished checkpoint.
        """
        with output_errors(final):
            self.tidy()
            temporary = _beside(final, TEMPORARY)
            temporary.mkdir(parents=True)
        return temporary

    def commit(self, final: Path, write: Callable[[Path], None], best_epoch: int | None) -> None:
        """Write what is left to write, put the checkpoint in its place, read it back, remove older ones.

        Args:
            final: folder of the finished checkpoint.
            write: function that is given the folder of `begin` and writes the missing files into it, the manifest last.
            best_epoch: the epoch whose checkpoint must not be removed.
        """
        temporary, replaced = _beside(final, TEMPORARY), _beside(final, _REPLACED)
        with output_errors(final):
            try:
                write(temporary)
                if final.exists():  # a resumed run does an epoch again
                    os.replace(final, replaced)
                os.replace(temporary, final)
                sync(self.folder)
                _read_back(final)
                shutil.rmtree(replaced, ignore_errors=True)
            finally:
                self.tidy()
        self._prune(keep={final.name} | ({f"epoch-{best_epoch:05d}"} if best_epoch is not None else set()))

    def load_newest(self) -> tuple[Checkpoint, Path] | None:
        """Load the newest checkpoint that is whole; each damaged one on the way is named in a warning.

        Returns:
            The checkpoint and its folder; None where the run has not come to its first checkpoint.

        Raises:
            ResumeError: all are damaged, or one was written by another version of this program.
        """
        known = self._all()
        for path in reversed(known):
            try:
                return self._read(path), path
            except DamagedCheckpoint as error:
                logger.warning(f"checkpoint {path} is damaged and is skipped: {error}")
        if known:
            raise ResumeError(f"no usable checkpoint in {self.folder}. Start the run again without --resume.")
        return None

    def load(self, path: Path) -> Checkpoint:
        """Load the checkpoint that the main process has found whole.

        Args:
            path: folder of the checkpoint.

        Raises:
            ResumeError: this process can't read it.
        """
        try:
            return self._read(path)
        except DamagedCheckpoint as error:
            raise ResumeError(f"{path}: {error}. All processes need to see the main one's artifacts_dir.") from error

    def _read(self, folder: Path) -> Checkpoint:
        """Read a checkpoint; nothing is looked at before all of it is known to be what was written."""
        digests = _read_manifest(folder)["files"]
        if self._shards is not None and any(name.startswith(f"{SHARDS}/") for name in digests):
            _verify(folder)
            tree = json.loads(_read_file(folder / "state.json", digests["state.json"]))
            return Checkpoint(**restore(tree, self._shards.read(folder / SHARDS)), sharded=self._shards.sliced)
        return _read_files(folder, digests)

    @property
    def empty(self) -> bool:
        """Whether the run has not come to its first checkpoint."""
        return not self._all()

    def epochs(self) -> list[int]:
        """Return of each checkpoint how many epochs were finished, the oldest first."""
        names = [_NAME.fullmatch(path.name) for path in self._all()]
        return [_age(name)[0] for name in names if name]

    def tidy(self) -> None:
        """Bring the folder in order after a kill in the middle of `save`: nothing half done, nothing good lost."""
        for path in self.folder.glob(f".*{_REPLACED}"):
            final = path.with_name(path.name[1:].removesuffix(_REPLACED))
            if not _is_whole(final):  # killed before the other one came, or before it was read back
                shutil.rmtree(final, ignore_errors=True)
                os.replace(path, final)
        for path in (*self.folder.glob(f".*{TEMPORARY}"), *self.folder.glob(f".*{_REPLACED}")):
            shutil.rmtree(path, ignore_errors=True)

    def _all(self) -> list[Path]:
        found = [(_NAME.fullmatch(path.name), path) for path in self.folder.glob("epoch-*")]
        return [path for _, path in sorted((_age(match), path) for match, path in found if match)]

    def _prune(self, keep: set[str]) -> None:
        for path in self._all()[: -self.keep_last]:
            if path.name not in keep:
                going = _beside(path, TEMPORARY)  # so that a kill leaves nothing that looks like a damaged checkpoint
                with output_errors(path):
                    os.replace(path, going)
                shutil.rmtree(going, ignore_errors=True)


def _beside(final: Path, ending: str) -> Path:
    return final.with_name(f".{final.name}{ending}")


def _age(name: re.Match[str]) -> tuple[int, bool, int]:
    """Return what sorts checkpoints by when they were made: as text, epoch-100000 would come before epoch-99999."""
    epoch, step, validation = name.groups()
    return int(epoch), validation is not None, int(step or 0)


def _write_files(folder: Path, where: dict[str, Any], checkpoint: Checkpoint) -> None:
    tree, tensors = flatten(checkpoint.state)
    digests = {}
    for name, content in (
        ("weights.safetensors", lambda: encode_weights(checkpoint.weights)),
        ("state.safetensors", lambda: save(tensors)),
        ("state.json", lambda: json.dumps(tree).encode()),
    ):
        written = content()  # one at a time: the weights may be large
        digests[name] = hashlib.sha256(written).hexdigest()
        write_file(folder / name, written)
    write_manifest(folder, where, digests)


def write_manifest(folder: Path, where: dict[str, Any], digests: dict[str, str]) -> None:
    """Write the manifest, after which the folder's content is complete.

    Args:
        folder: folder of the checkpoint, with all other files in it.
        where: the checkpoint's place in the run: `epoch`, `inside`, `step`.
        digests: SHA-256 of each file, by its path in the folder.
    """
    write_file(folder / _MANIFEST, _sealed({"schema_version": SCHEMA_VERSION, **where, "files": digests}))
    sync(folder)


def _sealed(content: dict[str, Any]) -> bytes:
    """Return the bytes of a manifest, with a digest over itself. All versions from 3 on have this form."""
    digest = hashlib.sha256(json.dumps(content).encode()).hexdigest()
    return json.dumps({"sha256": digest, "content": content}, indent=1).encode()


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return a manifest that is what was written, to the byte.

    Raises:
        DamagedCheckpoint: it isn't.
        ResumeError: another version of this program has written it.
    """
    try:
        written = (folder / _MANIFEST).read_bytes()
        manifest = json.loads(written)
        if "schema_version" in manifest:  # up to version 2 there was no digest over it
            raise _of_another_version(folder, int(manifest["schema_version"]))
        content = manifest["content"]
        whole = _sealed(content) == written
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DamagedCheckpoint(f"{_MANIFEST} can't be read ({type(error).__name__}: {error})") from error
    if not whole:
        raise DamagedCheckpoint(f"{_MANIFEST} does not have its own digest")
    if content["schema_version"] != SCHEMA_VERSION:
        raise _of_another_version(folder, content["schema_version"])
    return content


def _of_another_version(folder: Path, schema: int) -> ResumeError:
    age = "a newer" if schema > SCHEMA_VERSION else "an older"
    return ResumeError(
        f"checkpoint {folder} was written by {age} version of this program (schema {schema}, this one reads "
        f"{SCHEMA_VERSION}). Resume it with that version, or start the run again without --resume."
    )


def _read_file(path: Path, digest: str) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DamagedCheckpoint(f"{path.name} can't be read: {error.strerror}") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise DamagedCheckpoint(f"{path.name} does not have the digest in {_MANIFEST}")
    return content


def _read_files(folder: Path, digests: dict[str, str]) -> Checkpoint:
    content = {name: _read_file(folder / name, digest) for name, digest in digests.items()}
    try:
        tree = json.loads(content["state.json"])
        return Checkpoint(
            decode_weights(content["weights.safetensors"]), restore(tree, load(content["state.safetensors"]))
        )
    except (ValueError, KeyError, TypeError, SafetensorError) as error:  # whole, but not of this program's making
        raise DamagedCheckpoint(f"{type(error).__name__}: {error}") from error


def _verify(folder: Path) -> None:
    for name, digest in _read_manifest(folder)["files"].items():
        _read_file(folder / name, digest)


def _is_whole(folder: Path) -> bool:
    try:
        _verify(folder)
    except DamagedCheckpoint:
        return False
    except ResumeError:  # of another version, whose files this one doesn't judge
        return True
    return True


def _read_back(folder: Path) -> None:
    """Read what was just written, from the disk where the system can be asked to forget its copy.

    Raises:
        OSError: it is not what was written; the folder is gone then.
    """
    for path in folder.rglob("*"):
        if path.is_file():
            _forget_cached(path)
    try:
        _verify(folder)
    except DamagedCheckpoint as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise OSError(f"it reads back as something else: {error}") from error


def _forget_cached(path: Path) -> None:
    if hasattr(os, "posix_fadvise"):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(handle)
