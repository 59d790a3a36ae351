"""The first batch of each loader goes through the loss function before a run begins; nothing else notices."""

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from beautilog import logger
from torch import nn

from constants.counting import counted
from data.batches import describe, fresh, to_device
from data.data_error import DataError
from data.first_batch import FirstBatch, UnreadableSampleError, first_batch, single_sample_batch
from data.loaders import Loader, length_of
from train.checkpointing.author_state import is_stateful
from train.context import RunContext
from train.copies import copied
from train.error_advice import advice, explained, is_of_code
from train.errors import TrainerContractError, TrainingError
from train.loading.worker_transfer import refuse_unsendable
from train.machine import FlopCounter
from train.side_effects import SideEffectSnapshot, is_unsized, namespaces_of, tensors_of

_MOST_WEIGHTS = 2**30  # bytes of parameters that are copied; of a larger model only buffers are


def check_loaders(run: RunContext) -> None:
    """Check that both loaders give batches and that the first ones go through the trainer's loss function.

    As in the run: a training batch in training mode and with gradients, a validation batch without. The batch is the
    one that the loader itself begins with. Random states, buffers, the trainer's attributes and the loaders are
    afterwards as if nothing had been tried; lazy layers have their sizes.

    Args:
        run: run whose loaders and model are checked.

    Raises:
        DataError: a loader of length zero, a sample that can't be read, a batch that the loss function can't take.
        TrainingError: the loss function fails for another reason.
        TrainerContractError: what the loss function returns is no loss, or a layer's size is still not known.
    """
    for name, loader in run.loaders.items():
        _refuse_empty(run, name, loader)
        if name == "predict_loader":
            continue  # its samples need no labels, so they need not fit the loss function
        with as_if_untried(run):
            refuse_unsendable(run.name, name, loader)
            first = _read(run, name, loader)
            if first is not None:
                unclear = run.sample_counter.learn(first)
                _try(run, name, first)
                if unclear:
                    _tell_unclear(run, name, first.batch, unclear)
                _try_single_sample(run, name, loader, first)
    unsized = [name for name, module in run.model.named_modules() if is_unsized(module)]
    if unsized:
        raise TrainerContractError(
            f"{run.name}: the size of the lazy layer `{unsized[0]}` is not known: the first batches don't reach it. "
            "Give it its size, or call the model on an example in __init__."
        )


def _refuse_empty(run: RunContext, name: str, loader: Loader) -> None:
    if length_of(loader) == 0:
        dataset = getattr(loader, "dataset", None)
        samples = f"its dataset has {counted(len(dataset), 'sample')}" if isinstance(dataset, Sized) else "no samples"
        drop = ", and drop_last leaves out a batch that is not full" if getattr(loader, "drop_last", False) else ""
        raise DataError(
            f"{run.name}: {name} gives no batches: {samples}, batch_size is "
            f"{getattr(loader, 'batch_size', None)}{drop}. Give it data, or a smaller batch_size."
        )


def _read(run: RunContext, name: str, loader: Loader) -> FirstBatch | None:
    try:
        return first_batch(loader)
    except UnreadableSampleError as unread:
        error, what = unread.__cause__ or unread, f"{name}.dataset[{unread.index!r}]"
    except Exception as other:  # whatever a user's loader or collate_fn raises
        error, what = other, f"the first batch of {name}"
    if getattr(loader, "num_workers", 0):
        return None  # it may be meant to be read in workers, which tell it themselves
    raise DataError(f"{run.name}: {what} can't be read: {explained(error)}") from error


def _try(run: RunContext, name: str, first: FirstBatch) -> None:
    """Put a batch through the loss function, and count what that takes."""
    training = name == "train_loader"
    # As in the loop, where CUDA has its batches copied ahead.
    batch = to_device(first.batch, run.device) if run.device.type == "cuda" else first.batch
    run.model.train(training)
    # A model whose weights are spread over processes waits for a backward pass after a forward pass with gradients.
    with torch.set_grad_enabled(training and run.sharded is None):
        try:
            with FlopCounter() as counter:
                loss = run.loss_function(fresh(batch))
            run.flop_counts[name] = counter.of(run.model, run.trainer.count_samples(batch))
        except (TrainerContractError, torch.OutOfMemoryError):
            raise
        except Exception:  # that may be the counting, which not every operation lets itself be watched by
            loss = _loss_of(run, name, fresh(batch))
    run.first_losses[name] = loss.detach()
    run.first_metrics[name] = run.meter.names()


def _try_single_sample(run: RunContext, name: str, loader: Loader, first: FirstBatch) -> None:
    """Try a batch of one sample too, where the loader gives one beside larger ones: batch norm can't train on it.

    Raises:
        DataError: the loss function fails with it.
    """
    if not run.process_group.is_single_process or run.trainer.count_samples(first.batch) < 2:
        return
    try:
        single = single_sample_batch(loader)
    except Exception:  # what can't be read is told when it is read
        return
    if single is None:
        return
    losses, counts, metrics = dict(run.first_losses), dict(run.flop_counts), dict(run.first_metrics)
    try:
        _try(run, name, single)
    except (DataError, TrainingError) as told:
        error = told.__cause__ or told
        size = f"batch_size {getattr(loader, 'batch_size', None) or 'of its batch sampler'}"
        known = length_of(getattr(loader, "dataset", None))
        samples = f"{counted(known, 'sample')}, {size}" if known is not None else size
        hint = "" if advice(error) else f"\n  Give {name} drop_last=True, or another batch_size."
        raise DataError(
            f"{run.name}: the loss function fails with a batch of one sample, which {name} gives ({samples}): with "
            f"drop_last=True it is left out.\n  failed: {explained(error)}{hint}"
        ) from error
    finally:
        run.first_losses, run.flop_counts, run.first_metrics = losses, counts, metrics


def _tell_unclear(run: RunContext, name: str, batch: Any, unclear: str) -> None:
    """Warn where the tensors of a batch disagree over how many samples it has, and nobody tells it."""
    samples = run.trainer.count_samples(batch)
    told = isinstance(run.loss_count, torch.Tensor) or run.loss_count != samples
    if not told and not run.trainer.counts_own_samples:
        logger.warning(
            f"{name}: it isn't clear how many samples a batch has, by which its loss and metrics weigh ({unclear}); "
            f"{samples} is taken. A method count_samples(batch) tells it, or an integer `batch_size` in the batch."
        )


def _loss_of(run: RunContext, name: str, batch: Any) -> torch.Tensor:
    try:
        return run.loss_function(batch)
    except (TrainerContractError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        defined = "_forward_batch" if "_forward_batch" in type(run.trainer).__dict__ else "compute_loss"
        text = (
            f"{run.name}.{defined} fails with the first batch of {name}.\n"
            f"  batch: {describe(batch)}\n"
            f"  failed: {explained(error)}"
        )
        if advice(error) and not is_of_code(error):
            raise DataError(text) from error
        raise TrainingError(f"{text}\n  `--debug` shows the traceback.") from error


# ------------------------------------------------------------------------------------------------- nothing was tried


@contextmanager
def as_if_untried(run: RunContext) -> Iterator[None]:
    """Put back after a block what loss functions and loaders change: whatever the run's own steps would begin from.

    Args:
        run: run that has done no step yet.
    """
    lazy = [module for module in run.model.modules() if is_unsized(module)]
    places = list(namespaces_of(run))
    random, effects, others = run.random_sources.state_dict(), SideEffectSnapshot(places), _OtherStates(run)
    weights = _Weights(places, whole=run.sharded is None)
    try:
        yield
    finally:
        folder = run.attributes.get("run_folder")
        effects.restore()
        if folder is not None:  # a loss function has written a file, and made the folder for it
            run.attributes["run_folder"] = folder
        weights.restore()
        others.restore()
        for module in lazy:
            reset = getattr(module, "reset_running_stats", None)
            if not is_unsized(module) and callable(reset):
                reset()
        run.random_sources.load_state_dict(random)
        run.forget_measurements()


class _Weights:
    """The parameters and buffers of all modules, and whether they require a gradient."""

    def __init__(self, places: Sequence[dict[str, Any]], whole: bool) -> None:
        parameters = tensors_of(places, "_parameters")
        whole = whole and sum(tensor.nbytes for tensor in parameters) <= _MOST_WEIGHTS
        self._flags = [(tensor, tensor.requires_grad) for tensor in parameters]
        kept = [*tensors_of(places, "_buffers"), *(parameters if whole else [])]
        self._kept = [(tensor, tensor.detach(), tensor.detach().clone()) for tensor in kept]

    @torch.no_grad()
    def restore(self) -> None:
        for tensor, same, value in self._kept:
            if tensor.layout is torch.strided and tensor.data_ptr() != same.data_ptr():  # `weight.data = ...`
                tensor.data = same
            tensor.copy_(value)
        for tensor, requires in self._flags:
            tensor.requires_grad_(requires)
            tensor.grad = None


class _OtherStates:
    """The states of a trainer's other parts, such as a second optimizer that its loss function steps."""

    def __init__(self, run: RunContext) -> None:
        self._kept = []
        loaders = (run.train_loader, run.val_loader)  # one with a state may begin a pass to tell it
        for part in _things_in(run.attributes):
            if not isinstance(part, nn.Module) and is_stateful(part) and all(part is not loader for loader in loaders):
                try:
                    self._kept.append((part, copied(part.state_dict())))
                except Exception:  # not every state has a copy
                    continue

    def restore(self) -> None:
        for part, state in self._kept:
            if not _alike(part.state_dict(), state):
                part.load_state_dict(state)


def _things_in(attributes: dict[str, Any]) -> Iterator[Any]:
    for value in attributes.values():
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        else:
            yield value


def _alike(one: Any, other: Any) -> bool:
    """Say whether two states are the same; what can't be compared is."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        return one.shape == other.shape and torch.equal(one, other)  # host-device synchronisation, before the run
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(_alike, one, other))
    plain = (int, float, str, bool, type(None))
    return bool(one == other) if isinstance(one, plain) and isinstance(other, plain) else True
