"""BaseTrainer: one class that trains. Read `train`, `_pieces`, `_train_epoch` and `validate` first."""

import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from beautilog import logger
from safetensors.torch import save

from config import BaseTrainerConfig
from data.shares import SharedDraws
from storage.checkpoint_store import CheckpointStore
from storage.files import write_atomically
from storage.run_folder import RunFolder
from train.checkpointing.saver import Saver
from train.checkpointing.weights import plain_weights
from train.contract import TrainerType, measured, require_parts
from train.distributed import sharded_hook
from train.distributed.shard_files import ShardReader
from train.errors import TrainingError
from train.failures import bad_training_step, bad_validation
from train.loading.loader_faults import require_whole_pass
from train.loading.preparation import prepare
from train.loop.early_stopping import EarlyStopping
from train.loop.epoch_position import Position
from train.loop.loss_spikes import SpikeWatch
from train.loop.meters import EpochMeter
from train.loop.progress import ProgressBar
from train.loop.record import SCHEMA_VERSION, RunRecord
from train.loop.stop_signals import Interrupted, StopRequest
from train.machine import usable_device
from train.model_summary import summarize_model
from train.process_group import ProcessGroup, process_group
from train.schedulers import interval_of
from train.seeding import RandomSources, seed_everything
from train.session import training_session
from train.step_choice import build_step, build_update
from train.steps import Guard
from train.steps.precision import Precision
from train.steps.weight_average import WeightAverage
from train.trackers import Trackers

# Loaders ask for pinned memory so that they are fast on a GPU; on a machine without one that is no news.
warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator")


@dataclass
class RunOptions:
    """What the command line asks of the next trainer that is built.

    Attributes:
        resume: `latest`, a run id or a run folder to go on with; None starts a new run.
        dry_run: leave nothing behind.
        publish: let a finished run's weights be those that other trainers load.
        watch: is told each epoch that enters the history, with its numbers; ends the run as pruned by returning True.
    """

    resume: str | None = None
    dry_run: bool = False
    publish: bool = True
    watch: Callable[[int, dict[str, float]], bool] | None = None


class BaseTrainer(metaclass=TrainerType):
    """The loop, its files and its numbers. A trainer derives from this and gives `compute_loss` or `_forward_batch`.

    A trainer's `__init__` makes config, model, loaders, optimizer, scheduler and progress bar, then calls
    `super().__init__()`. `python train.py --list` shows the trainers there are; README.md shows how to write one.

    Attributes:
        history: lists by name. An epoch adds to train_loss, learning_rate and train_<metric>; a validation adds to
            val_loss, val_<metric> and val_epoch.
        results: what a trainer wants in the summary of metrics.json, by name.
    """

    options: ClassVar[RunOptions] = RunOptions()

    config: BaseTrainerConfig
    model: torch.nn.Module
    optimizer: torch.optim.Optimizer

    def __init__(self) -> None:
        require_parts(self)
        seed_everything(self.config.seed)
        self.model.to(self.device)  # in place: the optimizer's parameters stay the same objects
        self._draws = None if self._process_group.is_single_process else SharedDraws()
        self._sharded = sharded_hook(self)
        if self._sharded is not None:
            self._forward_batch = self._sharded.__call__  # puts the parameters together that it needs
        prepare(self)
        self.results: dict[str, Any] = {}
        self.record = RunRecord()
        config = self.config
        self.saver = Saver(config.saving_share, config.save_in_background, config.on_write_error == "go_on")
        self.history = self.record.history
        self.trackers = Trackers.of(config)
        self.early_stopping = EarlyStopping(self.config.early_stopping_patience, self.config.early_stopping_min_delta)
        self.first_losses: dict[str, torch.Tensor] = {}  # of the check that samples fit the model
        self.surveys: dict[str, tuple[int, float]] = {}  # operators, floating-point operations a sample; of that check
        self.in_session = False
        self.stop_request = StopRequest()
        self._random_sources = RandomSources(self.train_loader, self.val_loader, shared=self._draws)
        self._position = Position(self._random_sources)
        self._precision = Precision(self.config.precision, self.device)
        self._average = WeightAverage(self.model, self.config.ema_decay) if self.config.ema_decay else None
        self._guard = Guard(self.device, self.model.buffers())
        self._update = build_update(self)
        self._spikes = SpikeWatch(config.loss_spike_factor)
        self._scheduler_interval = interval_of(self.scheduler)
        self._meter = EpochMeter()
        self._batch_samples: int | None = None  # set while a batch is in the model
        self._loss_count: int | torch.Tensor = 1  # over how many samples the last loss is a mean

    # ------------------------------------------------------------------------------------- the hooks of a trainer

    @abstractmethod
    def compute_loss(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar tensor. For simple batches; else define `_forward_batch`."""

    @measured
    def _forward_batch(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar tensor; may call `_collect_batch_metrics` on the way."""
        return self.compute_loss(batch)

    def after_training(self) -> None:
        """Do what follows a finished run, with the best weights in the model: write files, add to `results`."""

    # ----------------------------------------------------------------------------------------------- the six verbs

    def train(self) -> None:
        """Train until the last epoch or until early stopping. A resumed run goes on where it was."""
        with self.session():
            for piece in self._pieces():
                self._step(piece)  # forward, backward, clip, update, once or many times: see train/steps
                del piece  # what it holds may be a copy of the epoch's data

    def _pieces(self) -> Iterator[Any]:
        """Yield the run's pieces of work, each to be done before the next is asked for; do all that is between them."""
        progress, position = self.record.progress, self._position
        stop = self.early_stopping.exhausted
        while position.validating or (progress.epoch < self.config.epochs and not stop):
            if not position.validating:  # else a run that was stopped there, and goes on
                yield from self._train_epoch()
            is_best = False
            if self._validation_is_due():
                val_loss = self.validate()
                is_best = self.record.note_best(val_loss, progress.epoch)
                self._step_scheduler("validation", val_loss)
                stop = self.check_early_stopping(val_loss)
            self._step_scheduler("epoch")
            self.save_metrics()
            self.save_checkpoint(progress.epoch, is_best)
            self.stop_request.obey()

    def _train_epoch(self) -> Iterator[Any]:
        progress, position = self.record.progress, self._position
        self.model.train()
        if not position.steps:  # else a run that was resumed inside the epoch
            self._meter = EpochMeter()
        if hasattr(self.train_loader, "set_epoch"):
            self.train_loader.set_epoch(progress.epoch)
        batches = position.steps * self.config.accumulation_steps  # done before a resume
        for piece in position.pieces(self._step, self.train_loader):
            yield piece
            progress.step += piece.steps
            position.advance(piece.steps)
            batches += len(piece)
            self.update_progress_bar(len(piece))
            usual = position.steps % max(self.config.log_every_n_steps, self._step.chunk) == 0
            if usual or piece.steps > 1:
                self._look(keep=usual)
            self._save_inside_epoch()
        require_whole_pass(self, "train_loader", batches)
        self._look(keep=True)
        self._end_epoch_meter()
        position.end_epoch()
        progress.epoch += 1

    @torch.no_grad()
    def validate(self) -> float:
        """Return the validation loss: the mean over all samples of val_loader. Metrics go to the history."""
        self._end_epoch_meter()  # of a trainer with a loop of its own
        self.model.eval()
        if hasattr(self.val_loader, "set_epoch"):
            self.val_loader.set_epoch(self.record.progress.epoch)
        try:
            with self._position.validation(), self.averaged_weights():
                require_whole_pass(self, "val_loader", self._step.evaluate(self.val_loader))
        except Interrupted:  # a resumed run does this validation anew
            self._meter = EpochMeter()
            self.saver.save_inside(self)
            raise
        self.record.measure("val", self._meter.over_processes(self._process_group), self._learning_rate())
        self._meter = EpochMeter()
        self.model.train()
        val_loss = self.record.pending("val_loss")
        if val_loss is None:
            raise TrainingError(f"val_loader gave no batch after epoch {self.record.progress.epoch}.")
        if not math.isfinite(val_loss):
            raise bad_validation(self)
        return val_loss

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save all that a resumed run needs; of the best epoch also the model. The config's `saving_share` says when.

        Args:
            epoch: epochs finished.
            is_best: whether its validation loss is the lowest so far.
        """
        self.saver.save(self, epoch, is_best)

    def save_model(self) -> None:
        """Write the model's weights (or their moving average) to model.safetensors in the run folder."""
        with self.averaged_weights():
            self.save_weights(plain_weights(self.model))

    def save_metrics(self) -> None:
        """Enter what was measured since the last call into the history, rewrite metrics.json, log a line."""
        if self.owns_loop:
            self._end_epoch_meter()
        self.record.flush(None if self.owns_loop else self.record.progress.epoch)
        self.saver.save_metrics(self.save_metrics_to_file, at_once=self.owns_loop)
        epochs = self.config.epochs
        last = self.record.progress.epoch >= epochs
        self.progress_bar.line(lambda: self.record.epoch_line(epochs), last)
        if self.trackers or self.options.watch:
            self._tell(self.record.new_rows())

    def check_early_stopping(self, val_loss: float) -> bool:
        """Note a validation loss and say whether the run should stop.

        Args:
            val_loss: what `validate` returned.

        Returns:
            True when `early_stopping_patience` validations in a row were not lower than the best by more than
            `early_stopping_min_delta`.
        """
        if self.owns_loop and self.record.note_best(val_loss, self._own_epoch()):
            self.save_model()
        stop = self.early_stopping.update(float(val_loss))
        if stop:
            bad = self.early_stopping.bad
            logger.info(f"early stopping: {bad} validations without improvement; {self.record.best_line()}")
        return stop

    # ------------------------------------------------------------------------------------- helpers for trainers

    @cached_property
    def _step(self) -> Any:
        """The optimizer step, in the form that the config asks for; made when the samples have been tried."""
        return build_step(self)

    def resume_step(self, state: dict[str, Any]) -> None:
        """Take the form that the resumed run had, as `state_dict` of the step gave it."""
        if self.config.step == "auto":
            self._step = build_step(self, state["form"])
        if self._step.name == state["form"] and not state["fast"]:
            self._step.fast = False

    @cached_property
    def device(self) -> torch.device:
        """Where the model is, from the config's `device`."""
        return usable_device(self.config.device, self._process_group.gpu)

    @cached_property
    def _process_group(self) -> ProcessGroup:
        """The processes that train this model together; mostly this one alone."""
        return process_group()

    @property
    def model_name(self) -> str:
        """The name of the model's folder in artifacts: the trainer's name without `Trainer`."""
        return type(self).__name__.removesuffix("Trainer") or type(self).__name__

    @cached_property
    def run_folder(self) -> RunFolder:
        """The run's folder, made when it is first asked for."""
        if self.options.dry_run or not self._process_group.is_main_process:
            return RunFolder.throwaway(self.model_name)
        if self.options.resume:
            return RunFolder.find(self.config.artifacts_dir, self.model_name, self.options.resume)
        return RunFolder.create(self.config.artifacts_dir, self.model_name)

    @cached_property
    def checkpoints(self) -> CheckpointStore:
        """The run's checkpoints."""
        shards = ShardReader(self._sharded.target if self._sharded is not None else None)
        return CheckpointStore(self.run_folder.path / "checkpoints", self.config.keep_last_checkpoints, shards)

    def save_weights(self, weights: dict[str, torch.Tensor]) -> None:
        """Write weights, as `plain_weights` gives them, to model.safetensors in the run folder."""
        write_atomically(self.get_run_file_path("model.safetensors"), save(weights))

    def get_run_file_path(self, name: str = "metrics.json") -> Path:
        """Return the path of a file in the run folder."""
        return self.run_folder.file(name)

    def get_model_save_path(self) -> Path:
        """Return where the best weights of the newest finished run are published: what other trainers load."""
        return self.run_folder.published

    def init_progress_bar(self, total: int, desc: str = "Training") -> None:
        """Prepare the bar over the whole run's batches; it appears when training starts."""
        self.progress_bar = ProgressBar(total, desc)

    def update_progress_bar(self, batches: int = 1, **numbers: float) -> None:
        """Move the bar on by some batches; show numbers behind it."""
        self.progress_bar.advance(batches)
        if self.owns_loop:  # the base class's loop asks after it has saved
            self.stop_request.obey()
        if numbers:
            self.progress_bar.show(**numbers)

    def _collect_batch_metrics(self, metrics: dict[str, torch.Tensor | float]) -> None:
        """Note metrics of the batch at hand; their mean by sample enters the history as train_<name> or val_<name>.

        Args:
            metrics: means over the batch. A tensor stays on the device, so this does not wait for it.
        """
        for name, value in metrics.items():
            self._meter.add(name, value, 1 if self._batch_samples is None else self._batch_samples)

    def _set_loss_count(self, count: int | torch.Tensor) -> None:
        """Say over how many items the loss of the batch at hand is a mean, where these are not the batch's samples.

        Called by a hook whose loss is a mean over the tokens that are no padding, say. Batches of a gradient
        accumulation, and of an epoch's mean loss, then weigh as many items as they have.

        Args:
            count: a number, or a scalar tensor, which is not waited for.
        """
        count = count.detach() if isinstance(count, torch.Tensor) else count
        self._loss_count = 0 if self._batch_samples == 0 else count

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Surround what uses the moving average of the weights, where the config's `ema_decay` asks for one."""
        return self._average.in_model() if self._average is not None else nullcontext()

    def save_metrics_to_file(self, state: str = "running", **more: Any) -> None:
        """Rewrite metrics.json.

        Args:
            state: running, finished, early_stopped, pruned, interrupted or failed.
            more: further entries at the top level.
        """
        head = {
            "schema_version": SCHEMA_VERSION,
            "trainer": type(self).__name__,
            "run_id": self.run_folder.id,
            "state": state,
        }
        saving = {"saving": self.saver.summary()}
        content = self.record.content(summarize_model(self.model) | saving | self.results)
        self.run_folder.write_json("metrics.json", head | content | more)

    def plot_metrics(self) -> None:
        """Draw the run's losses, learning rate and metrics into plots/."""
        from evaluation.plots.run_plots import plot_runs  # matplotlib takes a second to import
        from storage.saved_run import load_run

        plot_runs([load_run(self.run_folder.path)], self.run_folder.path / "plots")

    def session(self) -> AbstractContextManager[None]:
        """Return what surrounds training. `train.py` opens one too, for trainers with a loop of their own."""
        return training_session(self)

    # ------------------------------------------------------------------------------------------------- small parts

    @property
    def owns_loop(self) -> bool:
        """Whether the trainer has a `train()` of its own."""
        return type(self).train is not BaseTrainer.train

    @property
    def saves_plain_weights(self) -> bool:
        """Whether `save_model` is the base class's."""
        return type(self).save_model is BaseTrainer.save_model

    @property
    def step_flops(self) -> float | None:
        """Floating-point operations of an optimizer step: backward takes twice as many as forward. None if unknown."""
        if "train_loader" not in self.surveys:
            return None
        return 3 * self.surveys["train_loader"][1] * self.config.batch_size * self.config.accumulation_steps

    def _tell(self, rows: dict[int, dict[str, float]]) -> None:
        """Hand on what has entered the history, by epoch, to those who follow the run."""
        self.trackers.log(rows, self.record.progress.step)
        if self.options.watch and any([self.options.watch(epoch, numbers) for epoch, numbers in rows.items()]):
            self.stop_request.pruned = True

    def _own_epoch(self) -> int:
        """The epoch that a loop of the trainer's own is in: save_metrics, which counts it, may come later."""
        return self.record.progress.epoch + (self.record.pending("val_loss") is not None)

    def _validation_is_due(self) -> bool:
        epoch = self.record.progress.epoch
        return epoch % self.config.validate_every_n_epochs == 0 or epoch == self.config.epochs

    def _save_inside_epoch(self) -> None:
        config, stop = self.config, self.stop_request.wanted is not None
        if stop or self._position.is_due(config.checkpoint_every_n_steps, config.checkpoint_every_n_minutes):
            self._look()  # what is saved is sound
            self.saver.save_inside(self)
        if stop:
            self.stop_request.obey(agree=False)  # the step has asked the other processes, if there are any

    def obey_in_validation(self) -> None:
        """Leave a validation where somebody wants the run to stop: a resumed run does it anew."""
        if not self.owns_loop:
            self.stop_request.obey()

    def _step_scheduler(self, moment: str, val_loss: float | None = None) -> None:
        if self._scheduler_interval == moment:
            self.scheduler.step(*([] if val_loss is None else [val_loss]))

    def _learning_rate(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def _look(self, keep: bool = False) -> None:
        """Read what the device has found since the last look: two host-device synchronisations.

        Args:
            keep: the loss too, for the record: only where a run that is never interrupted looks as well.
        """
        progress = self.record.progress
        missed = self._guard.missed_steps()
        if missed:
            raise bad_training_step(self, missed)
        loss = self._meter.read_one("loss")
        if loss is None:
            raise TrainingError(f"train_loader gave no batch in epoch {progress.epoch + 1}.")
        if self._spikes.on:
            self._spikes.look(loss, self._meter.total("loss")[1], progress.step)  # host-device synchronisations
        if keep:
            loss = self._meter.mean_over_processes(self._process_group, "loss", loss)
            self.record.readings.add(progress.step, self._position.steps, loss)
        self.progress_bar.show(loss=loss, lr=self._learning_rate())

    def _end_epoch_meter(self) -> None:
        if len(self._meter):
            self.record.measure("train", self._meter.over_processes(self._process_group), self._learning_rate())
            self._meter = EpochMeter()

    def forget_measurements(self) -> None:
        """Drop what the check of the first samples measured."""
        self._meter = EpochMeter()
