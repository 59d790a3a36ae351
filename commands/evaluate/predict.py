"""`--predict`: what a run's best weights make of each sample, into a file."""

import sys
import time
from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
import torch

from commands.evaluate.request import EvaluationRequest
from commands.evaluate.trained import batches_of, faults_explained, load_trained, loader_list, place_told
from constants.time_spans import duration
from data.batch_indices import batch_indices
from data.batches import describe
from data.data_error import DataError
from data.epochs import set_epoch
from data.loaders import Loader, length_of
from storage.prediction_file import INDEX, Columns, write_prediction_file
from train.base_trainer import BaseTrainer
from train.context import RunContext
from train.errors import TrainerContractError

_LOADERS = ("predict_loader", "test_loader", "val_loader")  # the first one that there is
_ALONE = "prediction"  # name of the column where predict_batch returns no names


def command(trainer_class: type[BaseTrainer], request: EvaluationRequest) -> int:
    """Write what a run's best weights make of each sample of a loader: `--predict`."""
    if request.out is None:
        raise ValueError("--predict needs the file of --out")
    trained = load_trained(trainer_class, request)
    run = trained.run
    name = next(name for name in _LOADERS if name in run.loaders)
    loader = run.loaders[name]
    if type(run.trainer).predict_batch is BaseTrainer.predict_batch:
        raise TrainerContractError(_no_hook(run, name, loader))
    _refuse_left_out(run, name, loader)
    missing = [each for each in _LOADERS[: _LOADERS.index(name)]]
    why = f", as there is no {' and no '.join(missing)}" if missing else ""
    sys.stdout.write("".join(f"{line}\n" for line in [*trained.notes, f"predicts the samples of {name}{why}"]))
    sys.stdout.flush()
    start = time.monotonic()
    with faults_explained(run):
        columns, samples = predict(run, name, loader)
    write_prediction_file(request.out, columns, request.force)
    sys.stdout.write(f"{samples:,} rows of {', '.join(map(_shown, columns.items()))}\n")
    sys.stdout.write(f"predicted in {duration(time.monotonic() - start)}, written to {request.out}\n")
    return 0


def predict(run: RunContext, name: str, loader: Loader) -> tuple[Columns, int]:
    """Ask the trainer's predict_batch about each batch of a loader.

    Args:
        run: run whose model is in evaluation mode.
        name: name of the loader.
        loader: the loader itself.

    Returns:
        The columns, a row for each sample in the loader's order, and the number of samples. The column `index` has the
        samples' indices in the dataset, where these are known.

    Raises:
        TrainerContractError: predict_batch returns something else than a row for each sample.
        DataError: the loader gave no batch.
    """
    set_epoch(loader, 0)
    batches = length_of(loader)
    order = None if batches is None else batch_indices(loader, 0, batches)
    parts: dict[str, list[Any]] = {}
    samples = 0
    for number, batch in enumerate(batches_of(run, name, loader)):
        size = run.trainer.count_samples(batch)
        with place_told(run, name, loader, number), run.precision.autocast():
            made = run.trainer.predict_batch(batch)
        rows = {key: _rows(run, key, value, size) for key, value in _named(run, made).items()}
        if number and rows.keys() != parts.keys():
            raise TrainerContractError(
                f"{run.name}.predict_batch returned {_listed(rows)} for batch {number + 1}, before {_listed(parts)}."
            )
        for key, value in rows.items():
            parts.setdefault(key, []).append(value)
        samples += size
    if not samples:
        raise DataError(f"{run.name}: {name} gave no sample.")
    columns = {key: _joined(run, key, values) for key, values in parts.items()}
    known = None if order is None else [index for batch in order for index in batch]
    if known is not None and len(known) == samples and INDEX not in columns:
        columns = {INDEX: np.asarray(known) if all(isinstance(index, int) for index in known) else known, **columns}
    return columns, samples


def _named(run: RunContext, made: Any) -> dict[str, Any]:
    """Give what predict_batch returned its names."""
    if isinstance(made, Mapping) and made:
        return {str(key): value for key, value in made.items()}
    if isinstance(made, torch.Tensor | np.ndarray | list):
        return {_ALONE: made}
    raise TrainerContractError(
        f"{run.name}.predict_batch returned {describe(made)}; it must return a tensor, an array or a list with a row "
        "for each sample, or a dict of such, by the names of the columns."
    )


def _rows(run: RunContext, key: str, value: Any, size: int) -> "np.ndarray | list[Any]":
    """Bring a batch's column to the host: a host-device synchronisation."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        value = (value.float() if value.dtype in (torch.bfloat16, torch.float16) else value).numpy()
    elif isinstance(value, list | tuple):
        value = [_plain(each) for each in value]
    elif not isinstance(value, np.ndarray):
        raise TrainerContractError(
            f"{run.name}.predict_batch returned {describe(value)} as '{key}'; it must be a tensor, an array or a list "
            "with a row for each sample."
        )
    rows = len(value) if isinstance(value, list) or value.ndim else 0
    if rows != size:
        what = describe(value) if isinstance(value, list) or rows else "one number"
        raise TrainerContractError(
            f"{run.name}.predict_batch returned {rows} rows as '{key}' for a batch of {size} samples ({what}); it must "
            "return a row for each sample."
        )
    return value


def _plain(value: Any) -> Any:
    """Turn one sample's value into what a file holds."""
    if isinstance(value, torch.Tensor | np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return {str(key): _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _joined(run: RunContext, key: str, values: list[Any]) -> "np.ndarray | list[Any]":
    if all(isinstance(each, np.ndarray) for each in values):
        shapes = {each.shape[1:] for each in values}
        if len(shapes) == 1:
            return np.concatenate(values)
        if len({len(shape) for shape in shapes}) > 1:
            raise TrainerContractError(
                f"{run.name}.predict_batch returned rows of different shapes as '{key}': {shapes}."
            )
    return [each if not isinstance(each, np.ndarray) else each.tolist() for rows in values for each in rows]


def _refuse_left_out(run: RunContext, name: str, loader: Loader) -> None:
    dataset = getattr(loader, "dataset", None)
    size = getattr(loader, "batch_size", None)
    if getattr(loader, "drop_last", False) and size and isinstance(dataset, Sized) and len(dataset) % size:
        raise DataError(
            f"{run.name}: {name} has drop_last, so {len(dataset) % size} of {len(dataset):,} samples would have no "
            "prediction; make it with drop_last=False."
        )


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(f"'{name}'" for name in names)


def _shown(column: tuple[str, Any]) -> str:
    name, values = column
    return name if isinstance(values, list) or values.ndim == 1 else f"{name} {tuple(values.shape[1:])}"


def _no_hook(run: RunContext, name: str, loader: Loader) -> str:
    batch = next(iter(loader), None)
    first = next(iter(batch), None) if isinstance(batch, Mapping) else None
    given = f'batch["{first}"]' if first is not None else "batch[0]" if isinstance(batch, list | tuple) else "batch"
    return (
        f"{run.name} has no predict_batch(batch), which says what is written of each sample. For a classifier it is\n"
        "\n"
        "    def predict_batch(self, batch):\n"
        f"        logits = self.model({given}.to(self.device))\n"
        '        return {"class": logits.argmax(1), "probability": logits.softmax(1)}\n'
        "\n"
        f"A batch of {name} is {describe(batch)}. The loaders are {loader_list(run)}."
    )
