"""Models that were trained, as they lie on disk: a run's best weights, an exported folder, an adapter over its base."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError

from data.chat_renderer import Renderer
from llm.adapter_files import CONFIG, base_of, empty_adapter, load_adapter
from llm.base_model import BaseModel, load
from llm.model_error import ModelError
from llm.model_record import RECORD, ModelRecord, read_record
from model.lora import LoraAdapter
from storage.weights_file import load_weights_file

WEIGHTS = "model.safetensors"
_ADAPTER, _MODEL = "adapter", "model"  # folders of a run with what it exports
_OF_ADAPTER = "adapter."  # what the names of an adapter's tensors begin with in a run's model.safetensors


@dataclass
class SavedModel:
    """A model ready to be asked.

    Attributes:
        base: the base model, with the template and the ids that end an answer of the training. Where all weights were
            trained, it holds these.
        adapter: the adapter over it; None where there is none.
        renderer: the renderer of prompts, as in the training.
        record: what the training noted; None of a model that was not trained here.
        weights: what the trained weights were read from; None of a base model.
    """

    base: BaseModel
    adapter: LoraAdapter | None
    renderer: Renderer
    record: ModelRecord | None
    weights: Path | None

    def lines(self) -> list[str]:
        """Say what it is: the base, and the weights over it."""
        size = sum(parameter.numel() for parameter in self.base.model.parameters())
        dtype = str(next(self.base.model.parameters()).dtype).removeprefix("torch.")
        what = f"{size:,} parameters in {dtype}, context {self.base.context:,} tokens"
        if self.weights is None:
            return [f"base model {self.base.source}: {what}"]
        if self.adapter is None:
            of = f", trained from {self.record.base_model}" if self.record is not None else ""
            return [f"model {self.weights}: {what}{of}"]
        ranks = sorted({part.rank for part in self.adapter.parts() if part.rank})
        rank = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        return [f"base model {self.base.source}: {what}", f"adapter {self.weights}: {rank}"]


def is_model_folder(folder: Path) -> bool:
    """Say whether a folder may be an exported model, or an adapter.

    Args:
        folder: the folder; it need not be there.
    """
    return any((folder / name).is_file() for name in ("config.json", CONFIG))


def open_run(run: Path, device: torch.device | str, dtype: torch.dtype | None = None) -> SavedModel:
    """Load what a run has trained: its best weights, whether it has ended or not.

    Args:
        run: the run's folder.
        device: where the model goes.
        dtype: of the base model's weights; None for the run's own.

    Returns:
        The model.

    Raises:
        ModelError: the run has no weights yet or is of no language model, or they can't be read.
    """
    record = read_record(run)
    if record is None:
        exported = [run / name for name in (_ADAPTER, _MODEL) if is_model_folder(run / name)]
        if not exported:
            raise ModelError(f"run {run.name} is of no language model: there is no {RECORD} in {run}")
        return open_folder(exported[0], device, dtype)
    file = run / WEIGHTS
    if not file.is_file():
        raise ModelError(
            f"run {run.name} has no {WEIGHTS}: it has not come to the end of a validation. Go on with it (--resume), "
            "or take another run"
        )
    base = load(record.base_model, device, dtype or _dtype(record))
    record.require_base(run, base)
    try:
        weights = load_weights_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"{file} is damaged: {error}. Train again, or take another run") from error
    if record.adapter is None:
        _fill(base.model, weights, file)
        return _complete(base, None, record, file)
    adapter = empty_adapter(record.adapter, base.model, device)
    _fill(adapter, {name.removeprefix(_OF_ADAPTER): value for name, value in weights.items()}, file)
    return _complete(base, adapter, record, file)


def open_folder(folder: Path, device: torch.device | str, dtype: torch.dtype | None = None) -> SavedModel:
    """Load an exported model: an adapter over its base, or a whole one.

    Args:
        folder: folder with PEFT's files, or with a model that transformers loads.
        device: where the model goes.
        dtype: of its weights; None for the training's own, else fp32.

    Returns:
        The model.

    Raises:
        ModelError: it can't be loaded.
    """
    record = read_record(folder)
    if not (folder / CONFIG).is_file():
        base = load(str(folder), device, dtype or (_dtype(record) if record else torch.float32))
        return _complete(base, None, record, folder)
    name = record.base_model if record is not None else base_of(folder)
    if not name:
        raise ModelError(f"{folder / CONFIG} does not say of which base model the adapter is (base_model_name_or_path)")
    base = load(name, device, dtype or (_dtype(record) if record else torch.float32))
    if record is not None:
        record.require_base(folder, base)
    return _complete(base, load_adapter(folder, base.model, device), record, folder)


def open_base(source: str, device: torch.device | str, dtype: torch.dtype | None = None) -> SavedModel:
    """Load a base model as it is.

    Args:
        source: as `llm.base_model.load` takes it.
        device: where it goes.
        dtype: of its weights; None for fp32.

    Returns:
        The model.

    Raises:
        ModelError: it can't be loaded.
    """
    return _complete(load(source, device, dtype or torch.float32), None, None, None)


def _complete(
    base: BaseModel, adapter: LoraAdapter | None, record: ModelRecord | None, weights: Path | None
) -> SavedModel:
    renderer = Renderer(base.tokenizer, base.template, base.end_ids) if record is None else record.renderer(base)
    base = replace(base, template=renderer.template, end_ids=renderer.end_ids)
    return SavedModel(base, adapter, renderer, record, weights)


def _dtype(record: ModelRecord) -> torch.dtype:
    found = getattr(torch, record.dtype, None)
    if not isinstance(found, torch.dtype):
        raise ModelError(f"{RECORD}: dtype {record.dtype} is none of torch's")
    return found


def _fill(module: torch.nn.Module, weights: dict[str, torch.Tensor], file: Path) -> None:
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:  # torch's words have a line for each tensor
        told = "; ".join(_lines(str(error).splitlines()[1:3]))
        raise ModelError(f"{file} does not fit the model that {RECORD} beside it names: {told}") from error


def _lines(lines: Sequence[str]) -> list[str]:
    return [line.strip() for line in lines]
