"""An adapter to go on from, on disk: PEFT's files, the optimizer's moments, what it is of. Whole or not there."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from llm.adapter_files import load_adapter, save_adapter
from llm.base_model import BaseModel
from llm.engine import AdapterState, version_of
from llm.model_error import ModelError
from llm.shown_digest import shown_digest
from model.lora import LoraAdapter
from storage.files import TEMPORARY, file_digest, output_errors, sync, write_json

STATE, OPTIMIZER, GRADIENTS = "adapter_state.json", "optimizer.safetensors", "gradients.safetensors"
_FORMAT = 1


def save_state(folder: Path, base: BaseModel, state: AdapterState, notes: dict[str, Any] | None = None) -> str:
    """Write a state into a folder of its own, which PEFT reads too.

    The folder is written beside its place and then moved there, so it is whole or not there, whenever this is cut off.

    Args:
        folder: where to; an earlier save there is replaced.
        base: the model that it is of.
        state: what `Engine.state` gave; with moments, what is loaded from it can go on with them.
        notes: further plain data to be kept with it.

    Returns:
        The version of the weights.

    Raises:
        OutputError: it can't be written; what was there is as it was.
    """
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}{TEMPORARY}")
    version = version_of(base.digest, state.adapter)
    with output_errors(folder):
        shutil.rmtree(temporary, ignore_errors=True)
        try:
            save_adapter(temporary, state.adapter, base.source, base.model.linear_sites())
            if state.moments is not None:
                moments = {
                    f"{name}.{kind}": tensor.cpu().contiguous()
                    for name, both in zip(_names(state.adapter), state.moments, strict=True)
                    for kind, tensor in zip(("mean", "square"), both, strict=True)
                }
                save_file(moments, temporary / OPTIMIZER)
                sync(temporary / OPTIMIZER)
            if state.gradients is not None:
                named = zip(_names(state.adapter), state.gradients, strict=True)
                save_file({name: tensor.cpu().contiguous() for name, tensor in named}, temporary / GRADIENTS)
                sync(temporary / GRADIENTS)
            files = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
            told = {"format": _FORMAT, "version": version, "step": state.step, "base_model": base.source}
            told |= {"base_digest": base.digest, "files": files, "notes": notes or {}}
            write_json(temporary / STATE, told, durable=True)
            _move_into_place(temporary, folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return version


def load_state(folder: Path, base: BaseModel, device: torch.device | str = "cpu") -> AdapterState:
    """Read a state, or an adapter of PEFT's, which has weights only.

    Args:
        folder: what `save_state` has written, or PEFT.
        base: the model that it is for.
        device: where its tensors go.

    Returns:
        The state; its moments are None where they weren't saved.

    Raises:
        ModelError: there is none, it is damaged, or it is of another model.
    """
    if not folder.is_dir():
        raise ModelError(f"there is no saved adapter {folder}")
    if not (folder / STATE).is_file():
        return AdapterState(load_adapter(folder, base.model, device).requires_grad_(False))
    told = read_told(folder)
    for name, digest in told["files"].items():
        try:
            sound = file_digest(folder / name) == digest
        except OSError as error:
            raise ModelError(f"{folder / name} can't be read: {error.strerror or error}") from error
        if not sound:
            raise ModelError(f"{folder / name} is damaged: it is not what was written. Load another save")
    if told["base_digest"] != base.digest:
        raise ModelError(
            f"{folder} is of the base model {told['base_model']} (digest {shown_digest(told['base_digest'])}), not of "
            f"{base.source} (digest {shown_digest(base.digest)})"
        )
    adapter = load_adapter(folder, base.model, device).requires_grad_(False)
    moments = None
    if OPTIMIZER in told["files"]:
        stored = _tensors(folder / OPTIMIZER, device)
        try:
            moments = [(stored[f"{name}.mean"], stored[f"{name}.square"]) for name in _names(adapter)]
        except KeyError as error:
            raise ModelError(f"{folder / OPTIMIZER} lacks {error}") from error
    gradients = None
    if GRADIENTS in told["files"]:
        stored = _tensors(folder / GRADIENTS, device)
        try:
            gradients = [stored[name] for name in _names(adapter)]
        except KeyError as error:
            raise ModelError(f"{folder / GRADIENTS} lacks {error}") from error
    return AdapterState(adapter, told["step"], moments, gradients)


def read_told(folder: Path) -> dict[str, Any]:
    """Return what a save tells of itself: version, step, base_model, base_digest, files, notes.

    Raises:
        ModelError: it can't be read, or a newer program has written it.
    """
    path = folder / STATE
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        number = told["format"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} can't be read: {error}") from error
    if number != _FORMAT:
        raise ModelError(f"{path} has the format {number}; this program knows {_FORMAT}: a newer one has written it")
    return told


def _names(adapter: LoraAdapter) -> list[str]:
    return [name for name, _ in adapter.named_parameters()]


def _tensors(path: Path, device: torch.device | str) -> dict[str, torch.Tensor]:
    try:  # copied: a file's tensors lie as they come, and where they lie may decide how sums are rounded
        return {name: tensor.clone() for name, tensor in load_file(path, str(device)).items()}
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error


def _move_into_place(temporary: Path, folder: Path) -> None:
    before = folder.with_name(f".{folder.name}.before{TEMPORARY}")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():
        folder.rename(before)
    try:
        temporary.rename(folder)
    except OSError:
        if before.exists():
            before.rename(folder)
        raise
    sync(folder.parent)
    shutil.rmtree(before, ignore_errors=True)
