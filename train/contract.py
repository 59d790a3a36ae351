"""What a trainer must have, checked before anything runs, so that the program itself says what is missing.

`TrainerType` is BaseTrainer's metaclass. A trainer's `__init__` belongs to its author and calls `super().__init__()`
last, so what must happen before it (seeding, or the initial weights would differ from run to run) and after it (the
check that a sample fits the model, when the author's own attributes exist) happens here.
"""

import functools
import inspect
import re
from abc import ABCMeta
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from beautilog import logger
from torch.optim.lr_scheduler import ReduceLROnPlateau

from config import BaseTrainerConfig, ConfigError, ConfigParser
from data.batches import describe
from data.data_error import DataError
from data.sharding import StandIn
from train import TRAINER_REGISTRY
from train.checkpointing.run_state import require_saveable
from train.context import RunContext
from train.error_location import location
from train.errors import TrainerContractError
from train.loading.first_check import check_loaders
from train.loop.long_phases import long_phase
from train.loop.record import intended, not_measured
from train.removed_arguments import explain_torch_argument
from train.seeding import draw_apart, seed_everything
from train.session import open_run

_ORDER = """the order in __init__ is:
  1 self.config = ConfigParser.get(...)    2 self.model = ...            3 self.train_loader, self.val_loader = ...
  4 self.optimizer = ...                   5 self.scheduler = ...        6 self.init_progress_bar(total=..., desc=...)
  7 super().__init__()                     8 anything of your own"""

# What of BaseTrainer is an author's to define; the rest is the loop's own, and another in its place would break it.
_OPEN_NAMES = frozenset(
    {
        "compute_loss", "_forward_batch", "predict_batch", "after_training", "train", "validate", "save_checkpoint",
        "save_model",
        "save_metrics", "check_early_stopping", "options", "device", "model_name", "run_folder", "get_run_file_path",
        "get_model_save_path", "init_progress_bar", "update_progress_bar", "plot_metrics", "save_metrics_to_file",
        "_collect_batch_metrics", "averaged_weights", "is_main_process", "epochs", "clip_gradients", "count_samples",
        "get_extra_state", "set_extra_state",
    }
)  # fmt: skip
_MADE_BY_BASE = frozenset({"run_context", "record"})  # what an author sets before would be lost unseen


class TrainerType(ABCMeta):
    """Metaclass of BaseTrainer: holds trainers to the contract when they are defined and when they are built."""

    def __init__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **options: Any) -> None:
        super().__init__(name, bases, namespace, **options)
        parents = [base for base in bases if isinstance(base, TrainerType)]
        for parent in parents:
            if any(isinstance(base, TrainerType) for base in parent.__bases__):
                raise TrainerContractError(
                    f"{name} derives from {parent.__name__}, which is a trainer itself. Derive from BaseTrainer and "
                    "share code through functions or modules."
                )
        if parents:
            _refuse_taken(cls, {key for base in cls.__mro__ if base not in parents[0].__mro__ for key in vars(base)})
        for verb in ("validate", "check_early_stopping"):
            if verb in namespace:
                setattr(cls, verb, heard(namespace[verb]))
        if parents and "train" in namespace:
            cls.train = in_session(namespace["train"])
        if parents and "_forward_batch" in namespace:
            cls._forward_batch = measured(namespace["_forward_batch"])
            cls.__abstractmethods__ = cls.__abstractmethods__ - {"compute_loss"}  # one of the two is enough

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if "compute_loss" in cls.__abstractmethods__:
            raise TrainerContractError(
                f"{cls.__name__} is abstract: it must define compute_loss(batch) or _forward_batch(batch), "
                "returning the loss as a scalar tensor."
            )
        seed_everything(ConfigParser.peek(TRAINER_REGISTRY.section_of(cls), "seed"))
        try:
            with long_phase(f"building {cls.__name__}: its __init__ makes the model and reads the data"):
                trainer = super().__call__(*args, **kwargs)
        except ValueError as error:
            # What torch's RandomSampler says of an empty dataset helps nobody.
            if "num_samples" in str(error):
                raise DataError(f"{cls.__name__}: a dataset is empty; a loader needs at least one sample.") from error
            raise
        except TypeError as error:
            told = explain_torch_argument(error)
            if told is not None:
                raise TrainerContractError(f"{cls.__name__}: {location(error)}{told}") from error
            raise
        except AttributeError as error:  # a property of BaseTrainer's that was set; its message names it in quotes
            found = re.search(r"property '(\w+)' .* has no setter|can't set attribute '(\w+)'", str(error))
            _refuse_taken(cls, set(found.groups(default="")) if found else set())
            raise
        if not hasattr(trainer, "history"):
            raise TrainerContractError(f"{cls.__name__}.__init__ must call super().__init__(); {_ORDER}")
        run: RunContext = trainer.run_context
        with long_phase("trying the first samples of the loaders"):
            check_loaders(run)
        run.begin_average()
        draw_apart(run.shared_rng, run.config.seed, run.process_group.rank)
        _refuse_taken(cls, set(vars(trainer)))
        trainer.gather_callbacks()
        _check_monitor(run)
        _check_plateau(run)
        run.watch_author()
        with long_phase("opening the run: its folder, what it is made of, its checkpoint where it goes on"):
            require_saveable(run)
            open_run(run)
        return trainer


def _refuse_taken(trainer_class: TrainerType, given: set[str]) -> None:
    """Refuse names of an author's that are BaseTrainer's own, before they take its place unseen.

    Args:
        trainer_class: class of the author's.
        given: names that it defines.

    Raises:
        TrainerContractError: one of them is not for authors to define.
    """
    base = next(base for base in reversed(trainer_class.__mro__) if isinstance(base, TrainerType))
    own = {key for key, value in vars(base).items() if callable(value) or isinstance(value, property)}
    taken = sorted(key for key in given & own - _OPEN_NAMES if not key.startswith("__"))
    if taken:
        raise TrainerContractError(
            f"{trainer_class.__name__} has a {taken[0]} of its own, but BaseTrainer's loop uses that name. Give yours "
            "another; docs/writing_a_trainer.md lists what a trainer may define."
        )


def require_parts(trainer: object) -> None:
    """Check that the author's `__init__` made all parts, before the base class takes over.

    Args:
        trainer: the trainer that is being built.

    Raises:
        TrainerContractError: a part is missing or unfit; the one error names all that is missing and shows the order.
    """
    parts = ("config", "model", "train_loader", "val_loader", "optimizer", "scheduler")
    missing = [f"self.{part}" for part in parts if not hasattr(trainer, part)]
    missing += [] if hasattr(trainer, "progress_bar") else ["self.init_progress_bar(...)"]
    name = type(trainer).__name__
    if missing:
        raise TrainerContractError(f"{name}.__init__ has not made {', '.join(missing)}; {_ORDER}")
    early = sorted(_MADE_BY_BASE & vars(trainer).keys())
    if early:
        raise TrainerContractError(
            f"{name}.__init__ sets self.{early[0]}, which BaseTrainer makes: it would be replaced. Give yours another "
            "name."
        )
    config, scheduler = vars(trainer)["config"], vars(trainer)["scheduler"]
    _require_steps(name, vars(trainer)["optimizer"], scheduler, getattr(trainer, "owns_loop", False))
    if not isinstance(config, BaseTrainerConfig):
        raise TrainerContractError(f"{name}: {type(config).__name__} must derive from BaseTrainerConfig.")
    try:
        _ = config.monitor_direction
    except ValueError as error:  # a `__post_init__` of the author's has taken the place of the base class's
        raise ConfigError([str(error)]) from None


def _check_plateau(run: RunContext) -> None:
    """Refuse a ReduceLROnPlateau that is the wrong way round; what it steps on is known to be measured by now.

    Raises:
        TrainerContractError: its mode is not the direction of what is monitored.
    """
    name, config, scheduler = run.name, run.config, run.scheduler
    direction = config.monitor_direction
    if isinstance(scheduler, ReduceLROnPlateau) and scheduler.mode != direction:
        steps_on = "the validation loss" if config.monitor == "val_loss" else config.monitor
        falls = "falls" if direction == "min" else "rises"
        raise TrainerContractError(
            f"{name}: ReduceLROnPlateau has mode='{scheduler.mode}'; it steps on {steps_on}, which {falls}: use "
            f"mode='{direction}', or mode=self.config.monitor_direction, which follows the setting monitor."
        )


def _require_steps(name: str, optimizer: object, scheduler: object, owns_loop: bool) -> None:
    """Refuse an optimizer or scheduler that the base class's loop can't step."""
    cures = {
        "optimizer": "make it one optimizer, with a parameter group for each part",
        "scheduler": "make it one: ChainedScheduler steps several at once, SequentialLR one after the other",
    }
    for part, given in (("optimizer", optimizer), ("scheduler", scheduler)):
        if not callable(getattr(given, "step", None)):
            several = isinstance(given, list | tuple | dict)
            cure = cures[part] if several else f"make it one of torch's {part}s"
            raise TrainerContractError(f"{name}: self.{part} is a {type(given).__name__}, which has no step(): {cure}.")
    if not owns_loop and _needs_closure(optimizer):
        kind = type(optimizer).__name__
        raise TrainerContractError(
            f"{name}: {kind}.step needs a closure, which computes the loss several times a step; BaseTrainer's loop "
            "computes it once. Write a train() of your own (docs/writing_a_trainer.md), or take an optimizer without "
            "closure, such as Adam."
        )


def _needs_closure(optimizer: object) -> bool:
    try:
        parameters = inspect.signature(type(optimizer).step).parameters  # type: ignore[attr-defined]  # it has one
    except (TypeError, ValueError):
        return False
    named = [each for each in parameters.values() if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return any(each.default is each.empty for each in named[1:])  # the first is self


class Measured(Protocol):
    """What a measured loss function belongs to: a trainer with its run."""

    run_context: RunContext


def measured(forward: Callable[[Any, Any], torch.Tensor]) -> Callable[[Any, Any], torch.Tensor]:
    """Wrap a `_forward_batch`: its loss is checked and enters the epoch's average, in every form of the loop.

    Args:
        forward: method to wrap, a function of a trainer and a batch.
    """

    @functools.wraps(forward)
    def wrapper(self: Measured, batch: Any) -> torch.Tensor:
        run = self.run_context
        if run.batch_samples is not None:  # a `super()._forward_batch(batch)` inside a `_forward_batch`
            return forward(self, batch)
        if type(batch) is StandIn:  # one of several processes, which has no sample of this batch
            batch, samples = batch.batch, 0
        else:
            samples = run.trainer.count_samples(batch)
        run.batch_samples = run.loss_count = samples
        try:
            with run.precision.autocast():
                loss = forward(self, batch)
            if type(loss) is not torch.Tensor or loss.dim() or not loss.requires_grad:
                _require_scalar(run, loss)
            run.meter.add("loss", loss, run.loss_count)
        finally:
            run.batch_samples = None
        return loss

    return wrapper


class WithSession(Measured, Protocol):
    """What a `train()` belongs to."""

    def session(self) -> AbstractContextManager[None]:
        """Return what surrounds training."""
        ...


def heard(verb: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `validate` or `check_early_stopping`: what it returns in the body of an own loop's epoch is noted.

    Args:
        verb: method to wrap.
    """

    @functools.wraps(verb)
    def wrapper(self: Measured, *args: Any, **kwargs: Any) -> Any:
        result = verb(self, *args, **kwargs)
        self.run_context.own_loop.hear(verb.__name__, result)
        return result

    return wrapper


def in_session(train: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a `train()` of an author's own: whoever calls it, the run's files are written and signals are heard.

    Args:
        train: method to wrap.
    """

    @functools.wraps(train)
    def wrapper(self: WithSession, *args: Any, **kwargs: Any) -> Any:
        with self.session():
            return train(self, *args, **kwargs)

    return wrapper


def _require_scalar(run: RunContext, loss: object) -> None:
    defined = "_forward_batch" if "_forward_batch" in type(run.trainer).__dict__ else "compute_loss"
    given = f"{run.name}.{defined} returned"
    if loss is None:
        raise TrainerContractError(
            f"{given} None; has a path through it no return? Each batch needs a loss, a scalar. To skip a batch, "
            "call self._set_loss_count(0) and return a loss of 0 that depends on the model: 0 * self.model(x).sum(). "
            "Or let the loader skip it: a collate_fn that leaves samples out."
        )
    if not isinstance(loss, torch.Tensor):
        raise TrainerContractError(f"{given} {describe(loss)} ({type(loss).__name__}); it must be a scalar tensor.")
    if loss.dim() != 0:
        raise TrainerContractError(f"{given} a {describe(loss)}; the loss must be a scalar: take its .mean().")
    if torch.is_grad_enabled() and run.model.training and not loss.requires_grad:
        raise TrainerContractError(
            f"{given} a loss without gradient: it does not depend on the model's trainable parameters "
            "(a .detach(), .item() or torch.no_grad() on the way?)."
        )


def _check_monitor(run: RunContext) -> None:
    """Tell early what the first validation would: that nothing measures what is monitored.

    What the first samples did not measure may still come: only what is plainly misspelt is refused.

    Raises:
        ConfigError: it is the name of a metric, written wrong.
    """
    monitor, trainer = run.config.monitor, type(run.trainer)
    seen = [f"val_{metric}" for metric in run.first_metrics.get("val_loader", [])]
    seen += [f"train_{metric}" for metric in run.first_metrics.get("train_loader", [])]
    base = next(base for base in reversed(trainer.__mro__) if isinstance(base, TrainerType))
    own = run.owns_loop or trainer.validate is not base.validate  # type: ignore[attr-defined]  # BaseTrainer
    others = own or run.callbacks.validation_end  # they may measure it
    if not seen or monitor in seen or others:
        return
    text = not_measured(monitor, seen)
    if intended(monitor, seen):
        raise ConfigError([text])
    logger.warning(f"{text}. Where the first validation does not measure it either, the run ends there")
