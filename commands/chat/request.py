"""Which model is meant by the words of a command line: a run, an exported folder, or a base model."""

from dataclasses import dataclass
from pathlib import Path

import torch

from constants.nearest import nearest
from llm.base_model import SMOLLM2, TINY
from llm.saved_model import SavedModel, is_model_folder, open_base, open_folder, open_run
from storage.saved_run import RunNotFoundError, find_run
from train.machine import usable_device

_DTYPES = {"auto": None, "fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class ModelRequest:
    """A model that is asked for.

    Attributes:
        text: `latest`, a run's id, name or folder, an exported folder, or a base model.
        model_name: name of the trainer's folder in artifacts, whose newest run is `latest`; None for that of all runs.
        artifacts_dir: folder of all runs.
        out: folder to write to, where something is written; None for one of the run's.
        force: whether that folder may have other things in it.
    """

    text: str
    model_name: str | None
    artifacts_dir: Path
    out: Path | None = None
    force: bool = False


def open_model(request: ModelRequest, device: str, precision: str = "auto") -> SavedModel:
    """Find a model and load it.

    Args:
        request: which one.
        device: name of a device, as in the config.
        precision: `fp32` or `bf16` for the base model's weights; `auto` for those of the training.

    Returns:
        The model.

    Raises:
        ModelError: it can't be loaded.
        RunNotFoundError: there is no such run.
        ConfigError: there is no such device.
    """
    place, dtype = usable_device(device), _DTYPES[precision]
    text, path = request.text, Path(request.text).expanduser()
    if path.is_dir() and is_model_folder(path):
        return open_folder(path, place, dtype)
    if text == SMOLLM2 or text.partition(":")[0] == TINY or path.suffix == ".gguf" or _is_hub_id(text, path):
        return open_base(text, place, dtype)
    return open_run(run_of(request), place, dtype)


def run_of(request: ModelRequest) -> Path:
    """Return the folder of the run that is meant.

    Args:
        request: what was asked for.

    Raises:
        RunNotFoundError: there is no such run; the text says what else may be asked for.
    """
    text = request.text
    latest = text == "latest" and request.model_name is not None
    try:
        return find_run(request.model_name if latest and request.model_name else text, request.artifacts_dir)
    except RunNotFoundError as error:
        near = nearest(text, (SMOLLM2, TINY), cutoff=0.7)
        hint = f"Did you mean the base model {near}? " if near else ""
        raise RunNotFoundError(
            f"{error}\n{hint}Allowed are a run (latest, its id, name or folder), an exported folder, and base models: "
            f"{SMOLLM2}, {TINY}, a GGUF file, a hub id such as HuggingFaceTB/SmolLM2-135M-Instruct"
        ) from error


def _is_hub_id(text: str, path: Path) -> bool:
    return text.count("/") == 1 and not text.startswith((".", "/", "~")) and not path.parent.exists()
