"""Checks of the data: it fits, it is sane, and training and validation are apart."""

import hashlib
import math
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch.utils.data import Subset

from commands.check.report import Verdict, failed, listed, ok, skipped, warning
from commands.check.subject import Budget, Subject
from constants.counting import counted
from data.batch_indices import batch_indices
from data.batch_size import batch_size_of
from data.batches import describe, named_tensors, shape_of, storage_parts
from data.loaders import Loader
from train.checkpointing.provenance import feed
from train.errors import TrainerContractError
from train.seeding import preserved_random_states

_MOST_SAMPLES = 50_000  # of each loader that are read to be compared
_SECONDS = 2.0  # of each loader
_FEW = 0.01  # share of the validation samples: public data sets have as many duplicates


def samples_fit(subject: Subject) -> Verdict:
    """A batch of each loader goes through the trainer's hook: in training mode and in evaluation."""
    run, shown = subject.run, []
    for loader, batches in ((run.train_loader, subject.batches), (run.val_loader, subject.val_batches)):
        run.model.train(loader is run.train_loader)
        # A loss that is no scalar, or has no gradient, has a line of its own.
        with torch.set_grad_enabled(loader is run.train_loader), suppress(TrainerContractError):
            run.loss_function(batches[0])
        sample = _first_sample(loader)
        of = f"a batch is {_shapes(batches[0])}" if sample is None else _shapes(sample)
        shown.append(f"{of}; batches of {run.trainer.count_samples(batches[0]):,}")
    same = shown[0] == shown[1]
    return ok(f"training and validation: {shown[0]}" if same else f"training: {shown[0]}\nvalidation: {shown[1]}")


def _first_sample(loader: Loader) -> Any:
    """Return the first sample by number; None where there is none, or it is not for reading."""
    found = _samples(loader)
    try:
        return None if found is None else found[0](0)
    except Exception:  # a dataset may go by names, or its sampler leave this one out
        return None


def _shapes(sample: Any) -> str:
    tensors = [
        f"{name} {shape_of(tensor)} {str(tensor.dtype).removeprefix('torch.')}".lstrip()
        for name, tensor in named_tensors(sample)
    ]
    return listed(tensors) if tensors else describe(sample)


def data_are_sane(subject: Subject) -> Verdict:
    """The first batches hold no NaN or infinite value, and no tensor of one value only."""
    bad, constant, ranges = [], [], []
    for part, batches in (("training", subject.batches), ("validation", subject.val_batches)):
        for name, tensor in _joined(batches).items():
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            finite = tensor.isfinite()
            wrong = int((~finite).sum())  # host-device synchronisation, as all figures below
            if wrong:
                bad.append(f"{wrong:,} of {tensor.numel():,} values of {part} {name} are NaN or infinite")
                continue
            low, high = float(tensor.min()), float(tensor.max())
            if low == high and not name.rpartition(".")[2].startswith(("weight", "mask")):  # these may well be all 1
                constant.append(f"all values of {part} {name} are {low:g}")
            elif part == "training":
                ranges.append(f"{name} {low:.3g} to {high:.3g}, mean {tensor.double().mean():.3g}")
    if bad:
        losses = [float(trainer_loss) for trainer_loss in _losses(subject)]
        finite_losses = all(loss == loss and abs(loss) != float("inf") for loss in losses)
        text = "; ".join(bad)
        return warning(f"{text}; the loss is finite, so the model may expect them") if finite_losses else failed(text)
    if constant:
        return warning("; ".join(constant))
    return ok(listed(ranges) if ranges else "no floating-point tensor in the first batches")


def _losses(subject: Subject) -> Iterator[torch.Tensor]:
    with torch.no_grad():
        for batch in (*subject.batches, *subject.val_batches):
            yield subject.run.loss_function(batch)


def _joined(batches: list[Any]) -> dict[str, torch.Tensor]:
    """Put the values of batches together by name, flat."""
    found: dict[str, list[torch.Tensor]] = {}
    for batch in batches:
        for name, tensor in named_tensors(batch):
            values = [part.detach().flatten() for part in storage_parts(tensor) if part.dtype == tensor.dtype]
            found.setdefault(name or "values", []).extend(values)
    return {name: torch.cat(parts) for name, parts in found.items() if len({part.dtype for part in parts}) == 1}


# --------------------------------------------------------------------------------------- training and validation apart


def no_shared_samples(subject: Subject) -> Verdict:
    """No validation sample is a training sample too: by index where both loaders read one dataset, and by content."""
    run = subject.run
    by_index = _same_indices(run.train_loader, run.val_loader)
    if by_index:
        return failed(
            f"{counted(len(by_index), 'sample')} {'is' if len(by_index) == 1 else 'are'} in both: indices "
            f"{listed(by_index)} of the same dataset"
        )
    with preserved_random_states():
        train, of_train = _digests(run.train_loader, subject.batches)
        val, of_val = _digests(run.val_loader, subject.val_batches)
    if not train or not val:
        return skipped("no sample can be told apart in a batch")
    known = set(train.values())
    shared = sorted(index for index, digest in val.items() if digest in known)
    compared = f"{_count(len(val), of_val)} validation samples against {_count(len(train), of_train)} of training"
    if not shared:
        return ok(f"{compared}: no exact duplicate")
    text = f"{len(shared):,} are exact duplicates ({compared}), such as number {shared[0]:,}"
    repeats = 1 - len(set(val.values())) / len(val)  # a small world, where samples come again everywhere
    if len(shared) <= _FEW * len(val):
        return warning(text)
    if repeats >= 0.5 * len(shared) / len(val):
        return warning(f"{text}; {100 * repeats:.0f} % repeat within validation too")
    return failed(text)


def _count(compared: int, there: int | None) -> str:
    if there is None:
        return f"the first {compared:,}"
    return f"{compared:,}" if compared == there else f"{compared:,} of {there:,}"


def _same_indices(train: Loader, val: Loader) -> list[int]:
    """Return the indices that both loaders read, where they read one dataset."""
    bases = [_base(loader) for loader in (train, val)]
    if bases[0] is None or bases[0] is not bases[1]:
        return []
    read, read_too = _indices(train), _indices(val)
    return [] if read is None or read_too is None else sorted(read & read_too)


def _base(loader: Loader) -> Any:
    dataset = _dataset(loader)
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    return dataset


def _dataset(loader: Loader) -> Any:
    dataset = getattr(loader, "dataset", None)
    return getattr(dataset, "dataset", dataset) if getattr(loader, "draws_by_epoch", False) else dataset


def _indices(loader: Loader) -> set[int] | None:
    try:
        batches = batch_indices(loader, 0, len(loader))
    except TypeError:
        return None
    if batches is None:
        return None
    found = [index for batch in batches for index in batch]
    dataset = _dataset(loader)
    while isinstance(dataset, Subset):
        found = [int(dataset.indices[index]) for index in found]
        dataset = dataset.dataset
    return set(found)


def _samples(loader: Loader) -> tuple[Callable[[int], Any], int] | None:
    """Return how to read a loader's sample, and how many there are; None where they have no index."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
        return None
    return dataset.__getitem__, len(dataset)


def _digests(loader: Loader, batches: list[Any]) -> tuple[dict[int, bytes], int | None]:
    """Hash samples that are spread over a loader's dataset, or else those of its first batches.

    Returns:
        Digests by the sample's number, and how many samples there are; None where nobody knows.
    """
    found = _samples(loader)
    if found is None or _first_sample(loader) is None:
        return dict(enumerate(_digest(row) for batch in batches for row in _rows(batch))), None
    read, length = found
    digests: dict[int, bytes] = {}
    stride = _stride(length)
    for number in Budget(min(length, _MOST_SAMPLES), _SECONDS, fewest=16):
        _seed_alike()
        index = number * stride % length
        digests[index] = _digest(read(index))
    return digests, length


def _seed_alike() -> None:
    """Let a sample draw the same at random as the one before, so that duplicates stay such. No sample draws on a GPU,
    and to seed those too would take longer than most samples.
    """
    random.seed(0)
    np.random.seed(0)
    torch.default_generator.manual_seed(0)


def _stride(length: int) -> int:
    """Return a step that visits every index once, and any few of them spread over the whole (the golden ratio)."""
    stride = max(1, round(0.6180339887 * length))
    while math.gcd(stride, length) > 1:
        stride += 1
    return stride


def _rows(batch: Any) -> Iterator[Any]:
    size = batch_size_of(batch)
    tensors = [tensor for _, tensor in named_tensors(batch) if tensor.dim() and len(tensor) == size]
    for number in range(size if tensors else 0):
        yield [tensor[number] for tensor in tensors]


def _digest(sample: Any) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    feed(digest, sample)
    return digest.digest()
