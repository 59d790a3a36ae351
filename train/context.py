"""One run: its parts by their names, and the one list of those that have a state.

A trainer belongs to its author. What the framework needs beside it is here, public and typed; the parts of a run take
this, or better the two things of it that they need.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LRScheduler

from config import BaseTrainerConfig
from data.batch_size import SampleCounter
from data.epochs import set_epoch
from data.loaders import Loader
from data.sharding import SharedRNG
from storage.checkpoint_store import CheckpointStore
from storage.run_folder import RunFolder
from storage.run_label import RunLabel
from train.callbacks import Callback, Callbacks
from train.checkpointing.author_state import AuthorState, Survey, modules_of, survey_data, survey_trainer
from train.checkpointing.optimizer_groups import OptimizerGroups, TrainableFlags
from train.checkpointing.saver import Saver
from train.distributed.shard_files import ShardReader
from train.loop.early_stopping import EarlyStopping
from train.loop.epoch_position import EpochPosition
from train.loop.meters import EpochMeter
from train.loop.own_loop import OwnLoop
from train.loop.progress import ProgressBar
from train.loop.record import RunRecord
from train.loop.stop_signals import StopRequest
from train.machine import needs_one_thread
from train.process_group import ProcessGroup
from train.schedulers import interval_of
from train.seeding import RandomSources
from train.steps.eager import Step
from train.steps.guard import Guard
from train.steps.precision import Precision
from train.steps.update import Update
from train.steps.weight_average import WeightAverage
from train.trainer_protocol import Trainer, loaders_of, other_modules
from train.weights import BufferShapes, ModuleState

if TYPE_CHECKING:  # takes half a second, which runs of one process never need
    from train.distributed.sharding import ShardedLoss

# Tensors, arrays and collections that one value may have to be kept. A dataset's cache would fill each checkpoint.
_MOST_PARTS, _MOST_PARTS_OF_DATA = 10_000, 1000


@dataclass
class RunOptions:
    """What the command line asks of the next trainer that is built.

    Attributes:
        resume: run to go on with: `latest`, a run id or a run folder; None starts a new run.
        dry_run: whether the run leaves nothing behind.
        preview: whether only rows of text are shown, with the account of them.
        publish: whether a finished run's weights become those that other trainers load.
        callbacks: callbacks that are called before the trainer's own.
        evaluated: folder of a saved run whose weights are evaluated, and nothing is trained; None otherwise.
        part_of: what the run is part of, `seeds` or `sweep`; empty for a run of its own.
        label: name and note to give the run.
    """

    resume: str | None = None
    dry_run: bool = False
    preview: bool = False
    publish: bool = True
    callbacks: list[Callback] = field(default_factory=list)
    evaluated: Path | None = None
    part_of: str = ""
    label: RunLabel = field(default_factory=RunLabel)


class Stateful(Protocol):
    """A part whose state can be taken and put back."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state as plain data and tensors."""
        ...

    def load_state_dict(self, state: Any) -> object:
        """Go on from a `state_dict`."""
        ...


@dataclass(frozen=True)
class StatefulPart:
    """One entry of the list of what a run's state is.

    Attributes:
        name: key of the part in a checkpoint; `modules.<path>` for a module beside the model, `objects.<path>` for
            another object with a state of its own.
        part: object with the part's state.
        by_step: whether an optimizer step changes the part; else only what lies between two steps does.
        saved: whether a checkpoint holds the part.
        in_place: whether the part's `state_dict` gives the very tensors that the part goes on changing, not copies.
        tensors_only: whether the part's state is parameters and buffers of modules, or averages of them.
        optional: whether a checkpoint may be without the part, which is then as a new run has it. So checkpoints from
            before there was such a part go on working.
    """

    name: str
    part: Stateful
    by_step: bool = False
    saved: bool = True
    in_place: bool = False
    tensors_only: bool = False
    optional: bool = False


class ExtraState:
    """What a trainer's `get_extra_state` gives, as a stateful part.

    Args:
        trainer: trainer that is asked.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def state_dict(self) -> dict[str, Any]:
        """Return the trainer's extra state; empty where it has none."""
        return self._trainer.get_extra_state()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Give the trainer its extra state, where there is one."""
        if state:
            self._trainer.set_extra_state(state)


@dataclass(eq=False, repr=False)
class RunContext:
    """What a run is made of.

    Attributes:
        trainer: the author's part: model, loaders, optimizer, scheduler, and the verbs.
        loss_function: function that maps a batch to its loss, a scalar tensor: the trainer's `_forward_batch`, measured
            and checked.
        options: options of the command line for this run.
        device: device that the model is on.
        process_group: processes that train this model together; mostly this one alone.
        record: numbers of the run.
        early_stopping: counter of validations without improvement.
        saver: writer of the run's files, which decides when.
        step_factory: function that makes the optimizer step in a form; None takes the form that the config asks for.
        callbacks: callbacks that are told of the run's moments.
        stop_request: note that somebody wants the run to stop.
        random_sources: all generators that the run draws from.
        position: steps and batches done in the epoch at hand.
        precision: number format that forward and backward compute with.
        guard: guard that keeps bad steps from the weights.
        update: update that clips gradients and changes parameters.
        average: the moving average of the weights; None where the config asks for none, and before `begin_average`.
        shared_rng: random numbers that several processes draw alike; None for one process.
        sharded: the loss over a model whose weights are spread over the processes; None where they are not.
        meter: averages of the epoch, or validation, at hand.
        new_meter: what makes the averages of a validation.
        sample_counter: rule by which the samples of a batch are counted, where the trainer has none of its own.
        batch_samples: number of samples of the batch that is in the model; None while there is none.
        loss_count: number of samples that the last loss is a mean over.
        first_losses: losses of the check that samples fit the model, by loader.
        first_metrics: names of what was measured in that check, by loader.
        flop_counts: calls of torch operators, and floating-point operations a sample, in the check that samples fit the
            model, by loader.
        threads_before: CPU threads that the run, or the one whose config.ini it reads, had before; 0 if there was none.
        in_session: whether `train()` runs at the moment.
        work_kept: whether a resumed run finds work of this one that is in no checkpoint.
        own_loop: what a `train()` of the trainer's own does in the epoch at hand.
        segment_begun: whether this process's segment of the run is written down.
        provenance: where and from what this process was started, as environment.json has it; empty before it is known.
        epoch_told: number of the epoch that the training data was told last; None before it was told any.
        author: what the run changes in the trainer's own objects; None until the trainer is built.
        groups: parameter groups that optimizers get while training; None until the trainer is built.
        trainable: parameters that are frozen or thawed while training; None until the trainer is built.
        buffer_shapes: shapes that the model's buffers began with; None until the trainer is built.
    """

    trainer: Trainer
    loss_function: Callable[[Any], torch.Tensor]
    options: RunOptions
    device: torch.device
    process_group: ProcessGroup
    record: RunRecord
    early_stopping: EarlyStopping
    step_factory: "Callable[[RunContext, str | None], Step]"
    random_sources: RandomSources
    position: EpochPosition
    precision: Precision
    guard: Guard
    update: Update
    average: WeightAverage | None = None
    shared_rng: SharedRNG | None = None
    sharded: "ShardedLoss | None" = None
    callbacks: Callbacks = field(default_factory=Callbacks)
    stop_request: StopRequest = field(default_factory=StopRequest)
    meter: EpochMeter = field(default_factory=EpochMeter)
    new_meter: Callable[[], EpochMeter] = EpochMeter
    sample_counter: SampleCounter = field(default_factory=SampleCounter)
    batch_samples: int | None = None
    loss_count: int | torch.Tensor = 1
    first_losses: dict[str, torch.Tensor] = field(default_factory=dict)
    first_metrics: dict[str, list[str]] = field(default_factory=dict)
    flop_counts: dict[str, tuple[int, float]] = field(default_factory=dict)
    threads_before: int = 0
    in_session: bool = False
    work_kept: bool = False
    own_loop: OwnLoop = field(default_factory=OwnLoop)
    segment_begun: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)
    epoch_told: int | None = None
    author: AuthorState | None = None
    groups: OptimizerGroups | None = None
    trainable: TrainableFlags | None = None
    buffer_shapes: BufferShapes | None = None
    saver: Saver = field(init=False)

    # ------------------------------------------------------------------------------------------ the author's parts

    @property
    def name(self) -> str:
        """The trainer's class name."""
        return type(self.trainer).__name__

    @property
    def config(self) -> BaseTrainerConfig:
        """The resolved settings."""
        return self.trainer.config

    @property
    def model(self) -> nn.Module:
        """The network that is trained."""
        return self.trainer.model

    @property
    def optimizer(self) -> Optimizer:
        """What updates the parameters."""
        return self.trainer.optimizer

    @property
    def scheduler(self) -> LRScheduler:
        """What sets the learning rate."""
        return self.trainer.scheduler

    @property
    def train_loader(self) -> Loader:
        """What gives training batches."""
        return self.trainer.train_loader

    @property
    def val_loader(self) -> Loader:
        """What gives validation batches."""
        return self.trainer.val_loader

    @property
    def loaders(self) -> dict[str, Loader]:
        """The trainer's loaders by name, those there are: train_loader, val_loader, test_loader, predict_loader."""
        return loaders_of(self.trainer)

    @property
    def folder(self) -> RunFolder:
        """The run's folder."""
        return self.trainer.run_folder

    @property
    def owns_loop(self) -> bool:
        """Whether the trainer has a `train()` of its own."""
        return self.trainer.owns_loop

    @property
    def goes_on(self) -> bool:
        """Whether `--resume` can go on with the run: not with one of a plain loop of the trainer's own."""
        return not self.owns_loop or self.own_loop.in_use

    @property
    def attributes(self) -> dict[str, Any]:
        """The trainer's own attributes, by name: its namespace itself, not a copy."""
        return vars(self.trainer)

    # ------------------------------------------------------------------------------------------------------- the step

    @cached_property
    def step(self) -> Step:
        """The optimizer step, in the form that the config asks for; made when it is first asked for."""
        return self.step_factory(self, None)

    def resume_step(self, state: dict[str, Any]) -> None:
        """Take the form of the step that the resumed run had.

        Args:
            state: `state_dict` of that run's step.
        """
        if self.config.step == "auto":
            self.step = self.step_factory(self, state["form"])
        if self.step.name == state["form"] and not state["fast"]:
            self.step.fast = False

    @property
    def step_flops(self) -> float | None:
        """Floating-point operations of an optimizer step: backward takes twice as many as forward. None if unknown."""
        if "train_loader" not in self.flop_counts:
            return None
        return 3 * self.flop_counts["train_loader"][1] * self.config.batch_size * self.config.accumulation_steps

    @property
    def operator_flops(self) -> float | None:
        """Floating-point operations of a batch's forward pass by its torch operators, on average. None if unknown."""
        if "train_loader" not in self.flop_counts:
            return None
        operators, flops = self.flop_counts["train_loader"]
        return flops * self.config.batch_size / max(operators, 1)

    @property
    def cpu_threads(self) -> int:
        """CPU threads of torch that this run wants: those of the config, or which it began with, or that suit its step.

        0 leaves what is set.
        """
        if self.config.threads or self.threads_before:
            return self.config.threads or self.threads_before
        return int(needs_one_thread(self.step_flops, self.operator_flops))

    def tell_checkpoints(self) -> None:
        """Tell the callbacks which checkpoints have been written since the last call."""
        self.callbacks.on_checkpoint(self.trainer, self.saver.take_written())

    def tell_epoch(self) -> None:
        """Tell the training data which epoch comes next, once: its loader, samplers and datasets."""
        epoch, loader = self.record.progress.epoch, self.train_loader
        if self.epoch_told != epoch:
            self.epoch_told = epoch
            set_epoch(loader, epoch, itself=False)
        # In a plain loop of the trainer's own a loader that counts its passes goes on counting.
        if getattr(loader, "draws_by_epoch", False) and (self.own_loop.in_use or not self.owns_loop):
            set_epoch(loader, epoch, parts=False)

    def step_scheduler(self, moment: str, value: float | None = None) -> None:
        """Step the scheduler, if this is its moment: nothing else in a run does (`--check` tries one on probation).

        Args:
            moment: `step` after each optimizer step (called by every form of the step as its `after_update`, and by
                seeds in lockstep): OneCycleLR, CyclicLR and what has `interval = "step"`. `validation` after each
                validation (by `BaseTrainer._after_epoch`): ReduceLROnPlateau. `epoch` after each epoch (by the same):
                all others.
            value: what ReduceLROnPlateau steps on: the validation's value of what the config's `monitor` names.
        """
        if self.scheduler_interval == moment:
            if moment == "step":
                self.record.note_rates(self.optimizer)  # a step's own, which what follows changes
            step: Callable[..., None] = self.scheduler.step  # ReduceLROnPlateau's takes a value, others' takes nothing
            if value is None:
                step()
            else:
                step(value)

    @cached_property
    def scheduler_interval(self) -> str:
        """When the scheduler steps: `validation`, `epoch` or `step`."""
        return interval_of(self.scheduler)

    def learning_rate(self) -> float:
        """Return the learning rate that the last step used, of the optimizer's first group."""
        return self.record.learning_rates(self.optimizer)[0]

    # ---------------------------------------------------------------------------------------------------- measurements

    @contextmanager
    def measuring_with(self, meter: EpochMeter) -> Iterator[None]:
        """Let another meter take what is measured in a block."""
        before, self.meter = self.meter, meter
        try:
            yield
        finally:
            self.meter = before

    def forget_measurements(self) -> None:
        """Drop what has been measured in this epoch."""
        self.meter = EpochMeter()

    def begin_average(self) -> None:
        """Begin the moving average where the config asks for one, from the weights as they are.

        Lazy layers have no weights before the first batches have been tried.
        """
        if self.config.ema_decay:
            self.average = WeightAverage(self.model, self.config.ema_decay)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Surround what uses the moving average of the weights, where the config's `ema_decay` asks for one."""
        return self.average.in_model() if self.average is not None else nullcontext()

    def obey_in_validation(self) -> None:
        """Leave a validation where somebody wants the run to stop: a resumed run does it anew."""
        if not self.owns_loop:
            self.stop_request.obey()

    # ---------------------------------------------------------------------------------------------------------- state

    def watch_author(self) -> None:
        """Note what the trainer's own objects are like now that it is built: what changes from here on is kept."""
        trainer, loaders = self.trainer, {"train_loader": self.train_loader, "val_loader": self.val_loader}
        # A loader may hold a method of an object that these are attributes of too: they are no part of the data.
        own = [self, *self.callbacks.all, self.optimizer, self.scheduler]
        beside = [trainer, self.config, *self.model.modules(), *own]
        data = AuthorState(lambda: survey_data(loaders, beside), self.device, _MOST_PARTS_OF_DATA)
        self.random_sources.data = data

        def look() -> Survey:
            theirs = set(map(id, beside))
            visited = [each for each in data.survey.visited if id(each) not in theirs]
            return survey_trainer(trainer, [*own, *loaders.values(), *visited])

        author = AuthorState(look, self.device, _MOST_PARTS)
        self.author = author
        self.groups = OptimizerGroups(lambda: self._optimizers(author), lambda: author.survey.modules)
        self.trainable = TrainableFlags(lambda: author.survey.modules)
        self.buffer_shapes = BufferShapes(self.model)

    def _optimizers(self, author: AuthorState) -> dict[str, Optimizer]:
        others = {path: part for path, part in author.objects.items() if isinstance(part, Optimizer)}
        return {"self.optimizer": self.optimizer, **others}

    def other_modules(self) -> dict[str, nn.Module]:
        """Return the modules with a state that a trainer has beside its model, such as a loss with parameters."""
        if self.author is None:
            return other_modules(self.trainer)
        self.author.refresh()
        return modules_of(self.author.survey, self.model)

    def stateful_parts(self) -> list[StatefulPart]:
        """Return all whose state a run changes: what checkpoints hold, what is put back after steps on probation."""
        author = self.author
        others = {f"modules.{name}": module for name, module in self.other_modules().items()}
        parts = [
            StatefulPart(
                name, ModuleState(module), by_step=True, in_place=True, tensors_only=True, optional="." in name
            )
            for name, module in {"weights": self.model, **others}.items()
        ]
        if self.buffer_shapes is not None:  # before the weights, which bring shapes of their own
            parts.insert(0, StatefulPart("buffer_shapes", self.buffer_shapes, optional=True))
        if self.groups is not None and self.trainable is not None:  # before the optimizers, which must fit
            parts += [StatefulPart("trainable", self.trainable, optional=True)]
            parts += [StatefulPart("groups", self.groups, optional=True)]
        # Of torch's own optimizers it is known that a state, once made, changes in place.
        in_place = type(self.optimizer) in (Adam, AdamW, SGD)
        parts += [StatefulPart("optimizer", self.optimizer, by_step=True, in_place=in_place)]
        if self.precision.scaler is not None:
            parts += [StatefulPart("scaler", self.precision.scaler, by_step=True, optional=True)]
        if self.average is not None:
            parts += [StatefulPart("average", self.average, by_step=True, in_place=True, tensors_only=True)]
        for path, part in author.objects.items() if author is not None else ():
            name = f"objects.{path.removeprefix('self.')}"
            parts += [StatefulPart(name, part, by_step=True, optional=True)]
        parts += [
            StatefulPart("random", self.random_sources, by_step=True),
            StatefulPart("guard", self.guard, by_step=True, saved=False),  # what is saved is sound
            StatefulPart("scheduler", self.scheduler),
            StatefulPart("early_stopping", self.early_stopping),
            StatefulPart("position", self.position),
            StatefulPart("callbacks", self.callbacks, optional=True),
        ]
        if author is not None:
            parts += [StatefulPart("author", author, optional=True)]
        return [*parts, StatefulPart("extra", ExtraState(self.trainer), optional=True)]

    @property
    def progress_bar(self) -> ProgressBar:
        """What a person sees while the run goes on."""
        return self.trainer.progress_bar

    @cached_property
    def checkpoints(self) -> CheckpointStore:
        """The run's checkpoints."""
        shards = ShardReader(self.sharded.target if self.sharded is not None else None)
        return CheckpointStore(self.folder.path / "checkpoints", self.config.keep_last_checkpoints, shards)

    def file(self, name: str) -> Path:
        """Return the path of a file in the run folder."""
        return self.trainer.get_run_file_path(name)
