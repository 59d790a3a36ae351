"""BaseTrainer: one class that trains. Read `train`, `training_loop`, `validate`; docs/architecture.md has a map."""

import logging
import math
import warnings
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from beautilog import logger
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from config import BaseTrainerConfig
from constants.counting import counted
from data.epochs import set_epoch
from data.loaders import Loader
from data.sharding import SharedRNG
from storage.files import output_errors, write_atomically
from storage.monitor import Monitor
from storage.run_folder import RunFolder
from storage.run_label import read_label
from storage.saved_run import METRICS_SCHEMA_VERSION, load_run
from storage.weights_file import encode_weights
from train.callbacks import Callback, Callbacks, callbacks_named, require_list
from train.callbacks.loss_spikes import LossSpikes
from train.checkpointing.run_state import capture, size_of_state
from train.checkpointing.saver import CheckpointSource, Saver
from train.checkpointing.segment_record import begin_segment
from train.context import RunContext, RunOptions
from train.contract import TrainerType, measured, require_parts
from train.errors import TrainerContractError, TrainingError
from train.failures import bad_training_step, bad_validation
from train.loading.loader_faults import require_whole_pass
from train.loading.preparation import prepare
from train.loop.early_stopping import EarlyStopping
from train.loop.epoch_position import EpochPosition
from train.loop.meters import EpochMeter
from train.loop.progress import ProgressBar
from train.loop.record import TAKEN_METRICS, RunRecord
from train.loop.stop_signals import Interrupted, StopRequest
from train.machine import usable_device
from train.model_summary import summarize_model
from train.process_group import process_group
from train.seeding import RandomSources, seed_everything
from train.session import training_session
from train.step_choice import build_step, build_update, shard_if_asked
from train.steps.eager import StepInput
from train.steps.guard import Guard
from train.steps.precision import Precision
from train.steps.update import clip_gradient_norm
from train.trackers import Trackers
from train.weights import plain_weights

# Loaders ask for pinned memory so that they are fast on a GPU; on a machine without one that is no news.
warnings.filterwarnings("ignore", message="'pin_memory' argument is set as true but no accelerator")
# torch's own optimizers give rise to it, where gradients are sparse.
warnings.filterwarnings("ignore", message="Sparse invariant checks are implicitly disabled")


class BaseTrainer(metaclass=TrainerType):
    """The loop, its files and its numbers. A trainer derives from this and gives `compute_loss` or `_forward_batch`.

    A trainer's `__init__` makes config, model, loaders, optimizer, scheduler and progress bar, then calls
    `super().__init__()`. `python train.py --list` shows the trainers there are; README.md shows how to write one.

    Attributes:
        callbacks: an author's own callbacks, called at the moments of the run (docs/callbacks.md).
        history: lists by name. An epoch adds to train_loss, learning_rate and train_<metric>; a validation adds to
            val_loss, val_<metric> and val_epoch.
        results: entries that a trainer adds to the summary of metrics.json, by name.
        run_context: the framework's own parts of this run, beside those of the author.
        test_loader: loader of the batches that `--test` measures; an author may make one in `__init__`.
        predict_loader: loader of the batches that `--predict` writes about, where these are not test_loader's.
    """

    options: ClassVar[RunOptions] = RunOptions()

    config: BaseTrainerConfig
    model: torch.nn.Module
    train_loader: Loader
    val_loader: Loader
    test_loader: Loader | None = None
    predict_loader: Loader | None = None
    optimizer: Optimizer
    scheduler: LRScheduler
    progress_bar: ProgressBar

    def __init__(self) -> None:
        require_parts(self)
        config, group = self.config, process_group()
        seed_everything(config.seed)
        self.model.to(self.device)  # in place: the optimizer's parameters stay the same objects
        shared_rng = None if group.is_single_process else SharedRNG()
        sharded = shard_if_asked(self, self._forward_batch)
        if sharded is not None:
            # Puts the parameters together that it needs, whoever calls it.
            self._forward_batch = sharded.__call__  # type: ignore[method-assign]  # this run's alone, in its place
        prepare(self, shared_rng)
        self.callbacks: list[Callback] = require_list(type(self).__name__, getattr(self, "callbacks", []))
        self.results: dict[str, Any] = {}
        monitor = Monitor(config.monitor, config.monitor_direction)
        self.record = RunRecord(monitor)
        self.history = self.record.history
        patience, min_delta = config.early_stopping_patience, config.early_stopping_min_delta
        self.early_stopping = EarlyStopping(patience, min_delta, monitor)
        self.trackers = Trackers.of(config)
        random_sources = RandomSources(self.train_loader, self.val_loader, shared=shared_rng)
        precision, guard = Precision(config.precision, self.device), Guard(self.device, self.model.buffers)
        self.run_context = run = RunContext(
            trainer=self,
            loss_function=self._forward_batch,
            options=self.options,
            device=self.device,
            process_group=group,
            record=self.record,
            early_stopping=self.early_stopping,
            step_factory=build_step,
            random_sources=random_sources,
            position=EpochPosition(random_sources),
            precision=precision,
            guard=guard,
            update=build_update(
                self.optimizer, config.gradient_clip_value, precision.scaler, guard, sharded is not None
            ),
            shared_rng=shared_rng,
            sharded=sharded,
        )
        # Those of the run itself; an author's own ones may still come.
        spikes = LossSpikes(config.loss_spike_factor, lambda: run.meter.total("loss")[1])
        self._run_callbacks = [*([spikes] if config.loss_spike_factor else []), *self.options.callbacks]
        self._config_callbacks = callbacks_named(config.callbacks)
        source = CheckpointSource(self.record, partial(capture, run), lambda: run.checkpoints, sharded is not None)
        run.saver = Saver(source, config.saving_share, config.save_in_background, config.on_write_error == "go_on")

    # ---------------------------------------------------------------------------------- the loss function of a trainer

    @abstractmethod
    def compute_loss(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar tensor. For simple batches; else define `_forward_batch`.

        Args:
            batch: batch as a loader gives it.
        """

    @measured
    def _forward_batch(self, batch: Any) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar tensor; may call `_collect_batch_metrics` on the way."""
        return self.compute_loss(batch)

    def count_samples(self, batch: Any) -> int:
        """Return how many samples a batch has: by that its loss and metrics weigh. May be replaced.

        The base class's goes by the loader's first batch: it takes the first dimension, or length, that is the number
        of samples which the loader has put into it. Where that can't be told it warns, and takes the first dimension of
        the first tensor.

        Args:
            batch: batch as a loader gives it.
        """
        return self.run_context.sample_counter(batch)

    def after_training(self) -> None:
        """Do what follows a finished run, with the best weights in the model: write files, add to `results`."""

    def predict_batch(self, batch: Any) -> Any:
        """Return what `--predict` writes about a batch, with the best weights in the model, without gradients.

        Args:
            batch: batch as a loader gives it.

        Returns:
            A tensor, an array or a list with a row for each sample; or a dict of such, by the names of the columns.
        """
        raise NotImplementedError(f"{type(self).__name__} has no predict_batch(batch)")

    def get_extra_state(self) -> dict[str, Any]:
        """Return what a checkpoint is to hold beside all that is found by itself: plain data and tensors."""
        return {}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on from what `get_extra_state` gave; called when a run is resumed, before its first step.

        Args:
            state: a copy of what was returned, tensors on the CPU.
        """

    # --------------------------------------------------------------------------------------------------------- the loop

    def train(self) -> None:
        """Train until the last epoch or until early stopping. A resumed run goes on where it was."""
        run = self.run_context
        with self.session():
            for step_input in self.training_loop():
                run.step(step_input)  # forward, backward, clip, update: train/steps/eager.py, which all forms equal
                del step_input  # it may hold a copy of the epoch's data

    def training_loop(self) -> Iterator[StepInput]:
        """Go through the run. The caller does each optimizer step; all that lies between two steps is done here.

        Yields:
            What the next call of `run_context.step` takes: one or more batches, or in fast forms many steps' of them.
        """
        run, progress = self.run_context, self.record.progress
        run.own_loop.follow_base_loop()
        begin_segment(run)
        stop = self.early_stopping.exhausted
        step_input: StepInput | None
        while run.position.validating or (progress.epoch < self.config.epochs and not stop):
            if not run.position.validating:  # else a resumed run that had come as far as its validation
                self._begin_epoch()
                for step_input in run.position.remaining(run.step, self.train_loader):
                    yield step_input  # <- the optimizer step happens in the caller
                    self._after_step(step_input)
                step_input = None  # it may hold a copy of the epoch's data
                self._end_epoch()
            stop = self._after_epoch()

    def epochs(self, step_scheduler: bool = False) -> Iterator[int]:
        """Go through the epochs that are still to do, in a `train()` of one's own: `for epoch in self.epochs():`.

        Before each body: the model in training mode, `set_epoch` of the train_loader. After it: the means of what the
        body measured, a validation where one is due and the body made none, the best model, early stopping unless the
        body asked for it, metrics.json, a checkpoint; a stop that was asked for. So a resumed run goes on with the
        epoch after its last whole one, and an epoch that was cut off is done anew, to the same bits.

        Args:
            step_scheduler: whether `scheduler` steps here after each epoch; False leaves that to the body.

        Yields:
            The epoch's number, from 1 to the config's `epochs`.
        """
        run, progress = self.run_context, self.record.progress
        run.own_loop.in_use = True
        begin_segment(run)
        stop = run.own_loop.close() or self.early_stopping.exhausted
        while progress.epoch < self.config.epochs and not stop:
            self._begin_epoch()
            run.own_loop.open(partial(self._end_own_epoch, step_scheduler))
            yield progress.epoch + 1
            stop = run.own_loop.close()

    def _begin_epoch(self) -> None:
        run = self.run_context
        self.model.train()
        if not run.position.steps:  # else a run that was resumed inside the epoch
            run.meter = EpochMeter()
            if run.callbacks.epoch_begin:
                run.callbacks.on_epoch_begin(self, self.record.progress.epoch + 1)
        run.position.batches = run.position.steps * self.config.accumulation_steps  # done before a resume
        run.tell_epoch()

    def _after_step(self, step_input: StepInput) -> None:
        """Count what is done, read the running loss, save inside the epoch: where it is time for that."""
        run, config = self.run_context, self.config
        self.record.progress.step += step_input.steps
        run.position.advance(step_input.steps, len(step_input))
        self.update_progress_bar(len(step_input))
        if run.callbacks.step_end:
            run.callbacks.on_step_end(self, step_input.steps)
        usual = run.position.steps % max(config.log_every_n_steps, run.step.chunk) == 0
        if usual or step_input.steps > 1:
            self.check_and_log(keep=usual)
        stop = run.stop_request.wanted is not None
        if stop or run.position.is_due(config.checkpoint_every_n_steps, config.checkpoint_every_n_minutes):
            self.check_and_log()  # what is saved is sound
            self._save_inside_epoch()
        if stop:
            run.stop_request.obey(agree=False)  # the step has asked the other processes, if there are any

    def _end_epoch(self) -> None:
        run = self.run_context
        require_whole_pass(run, "train_loader", run.position.batches)
        self.check_and_log(keep=True)
        self._end_epoch_meter()
        run.position.end_epoch()
        self.record.progress.epoch += 1

    def _after_epoch(self) -> bool:
        """Validate, step the scheduler, write metrics and checkpoint; return whether early stopping ends the run."""
        run, epoch = self.run_context, self.record.progress.epoch
        is_best = stop = False
        if self._validation_is_due(epoch):
            val_loss = self.validate()
            value = self.record.monitored(val_loss)
            is_best = self.record.note_best(value, epoch)
            run.step_scheduler("validation", value)
            stop = self.check_early_stopping(val_loss)
        run.step_scheduler("epoch")
        self.save_metrics()
        self.save_checkpoint(epoch, is_best)
        run.stop_request.obey()
        return stop

    def _end_own_epoch(self, step_scheduler: bool) -> bool:
        """Do what follows the body of an epoch in a loop over `epochs()`; return whether early stopping ends it."""
        run, own = self.run_context, self.run_context.own_loop
        self._end_epoch_meter()
        self.record.progress.epoch += 1
        epoch = self.record.progress.epoch
        self._require_finite_loss(epoch)
        val_loss, is_best, stop = own.val_loss, own.is_best, own.stop
        if not own.validated and self._validation_is_due(epoch):
            val_loss = self.validate()
        if val_loss is not None:
            if self.record.pending("val_loss") is None:  # of a validate() of the author's own
                self.record.note({"val_loss": val_loss})
            value = self.record.monitored(val_loss)
            is_best = self.record.note_best(value, epoch) or is_best
            if step_scheduler:
                run.step_scheduler("validation", value)
            stop = self.check_early_stopping(val_loss) if stop is None else stop
        if step_scheduler:
            run.step_scheduler("epoch")
        if self.progress_bar.total is not None:
            self.progress_bar.reach(self.progress_bar.total * epoch // self.config.epochs)
        self.save_metrics()
        self.save_checkpoint(epoch, is_best)
        run.stop_request.obey()
        return bool(stop)

    def _require_finite_loss(self, epoch: int) -> None:
        loss = self.record.pending("train_loss")
        if loss is not None and not math.isfinite(loss):
            raise TrainingError(
                f"the mean training loss of epoch {epoch} is {loss}: the run ends here, and its newest checkpoint is "
                f"of epoch {epoch - 1}. Try a lower learning rate, or clip the gradients."
            )

    # ------------------------------------------------------------------------------------------------------- the verbs

    @torch.no_grad()
    def validate(self) -> float:
        """Return the validation loss: the mean over all samples of val_loader. Metrics go to the history."""
        run = self.run_context
        if not run.own_loop.is_open:
            self._end_epoch_meter()  # of a plain loop of the trainer's own
        training, run.meter = run.meter, run.new_meter()  # the body of an own loop's epoch may go on after it
        self.model.eval()
        set_epoch(self.val_loader, self.record.progress.epoch)
        try:
            with run.position.validation(), self.averaged_weights():
                require_whole_pass(run, "val_loader", run.step.evaluate(self.val_loader))
        except Interrupted:  # a resumed run does this validation anew
            run.meter = EpochMeter()
            self._save_inside_epoch()
            raise
        numbers = self.record.measure("val", run.meter.over_processes(run.process_group), run.learning_rate())
        run.meter = training
        self.model.train()
        val_loss = self.record.pending("val_loss")
        if val_loss is None:
            raise TrainingError(f"val_loader gave no batch after epoch {self.record.progress.epoch}.")
        if not math.isfinite(val_loss):
            raise bad_validation(run)
        if run.callbacks.validation_end:
            run.callbacks.on_validation_end(self, numbers)
            self.record.note(numbers)
        return val_loss

    def save_checkpoint(self, epoch: int, is_best: bool = False) -> None:
        """Save all that a resumed run needs; of the best epoch also the model.

        The saver writes it now, or keeps it in memory until the config's `saving_share` allows, at the latest to the
        end of the run, whatever ends it.

        Args:
            epoch: epochs finished.
            is_best: whether the epoch is the best so far, by what the config's `monitor` names.
        """
        run = self.run_context
        if run.own_loop.is_open:  # `epochs` does it, when the epoch is whole
            return
        writer = self._best_model_writer if is_best else None
        run.saver.save(epoch, writer, self._loops_plainly, size_of_state(self.model))
        run.tell_checkpoints()

    def save_model(self) -> None:
        """Write the model's weights (or their moving average) to model.safetensors in the run folder."""
        with self.averaged_weights():
            self._write_weights(plain_weights(self.model))

    def save_metrics(self) -> None:
        """Enter what was measured since the last call into the history, rewrite metrics.json, log a line."""
        run, progress = self.run_context, self.record.progress
        if run.own_loop.is_open:  # `epochs` does it, when the epoch is whole
            return
        if self._loops_plainly:
            run.own_loop.require_resumable()
            self._end_epoch_meter()
        self.record.flush(None if self._loops_plainly else progress.epoch)
        saves = type(self).save_checkpoint is BaseTrainer.save_checkpoint  # else perhaps there is none to wait for
        run.saver.save_metrics(self.save_metrics_to_file, at_once=self._loops_plainly or not saves)
        epochs = self.config.epochs
        line = self.record.epoch_line(epochs)
        if self.progress_bar.line_is_due(last=progress.epoch >= epochs):
            logger.info(line)
        else:
            self.run_folder.log_only(line, logging.INFO)
        if run.callbacks.epoch_end:
            run.callbacks.on_epoch_end(self, self.record.new_rows())
        if self._loops_plainly:
            run.tell_epoch()  # nobody else says that the next one begins

    def check_early_stopping(self, val_loss: float) -> bool:
        """Note a validation and say whether the run should stop.

        Args:
            val_loss: validation loss that `validate` returned; what else the config's `monitor` may name is taken from
                the same validation.

        Returns:
            True when `early_stopping_patience` validations in a row were not better than the best by more than
            `early_stopping_min_delta`.
        """
        own, value = self.run_context.own_loop, self.record.monitored(val_loss)
        if own.is_open:
            own.is_best = self.record.note_best(value, self.record.progress.epoch + 1) or own.is_best
        elif self._loops_plainly and self.record.note_best(value, self._own_epoch()):
            self.save_model()
        stop = self.early_stopping.update(value)
        if stop:
            bad = self.early_stopping.bad
            logger.info(f"early stopping: {counted(bad, 'validation')} without improvement; {self.record.best_line()}")
        return stop

    # -------------------------------------------------------------------------------------------- helpers for trainers

    @cached_property
    def device(self) -> torch.device:
        """Where the model is, from the config's `device`."""
        return usable_device(self.config.device, process_group().gpu)

    @property
    def model_name(self) -> str:
        """The name of the model's folder in artifacts: the trainer's name without `Trainer`."""
        return type(self).__name__.removesuffix("Trainer") or type(self).__name__

    @cached_property
    def run_folder(self) -> RunFolder:
        """The run's folder, made when it is first asked for."""
        if self.options.evaluated is not None:
            return RunFolder(self.options.evaluated)
        if self.options.dry_run or not process_group().is_main_process:
            return RunFolder.throwaway(self.model_name)
        if self.options.resume:
            name = type(self).__name__
            return RunFolder.find(self.config.artifacts_dir, self.model_name, self.options.resume, name)
        return RunFolder.create(self.config.artifacts_dir, self.model_name)

    def get_run_file_path(self, name: str = "metrics.json") -> Path:
        """Return the path of a file in the run folder.

        Args:
            name: path of the file in the run folder.
        """
        return self.run_folder.file(name)

    def get_model_save_path(self) -> Path:
        """Return where the best weights of the newest finished run are published: what other trainers load.

        Of a run that lies elsewhere than in artifacts_dir, which publishes nothing, it is its own model.safetensors.
        """
        return self.run_folder.published or self.run_folder.path / "model.safetensors"

    def init_progress_bar(self, total: int | None, desc: str = "Training") -> None:
        """Prepare the bar over the whole run's batches; it appears when training starts.

        Args:
            total: batches of the whole run; None where nobody knows, as with a loader without a length.
            desc: text before the bar.
        """
        if total is not None and (not isinstance(total, int | float) or total < 0):
            raise TrainerContractError(
                f"{type(self).__name__}: init_progress_bar(total={total!r}): total is the number of batches of the "
                "whole run, such as len(self.train_loader) * self.config.epochs; None where nobody knows it."
            )
        self.progress_bar = ProgressBar(total, desc)

    def update_progress_bar(self, batches: int = 1, **numbers: float) -> None:
        """Move the bar on by some batches; show numbers behind it.

        Args:
            batches: number of batches done since the last call.
            numbers: numbers to show behind the bar, by name.
        """
        self.progress_bar.advance(batches)
        if self.owns_loop and (self.run_context.own_loop.is_open or self._loops_plainly):
            self.stop_request.obey()  # the base class's loop asks after it has saved
        if numbers:
            self.progress_bar.show(**numbers)

    def _collect_batch_metrics(
        self, metrics: Mapping[str, torch.Tensor | float], count: int | torch.Tensor | None = None
    ) -> None:
        """Note metrics of the batch at hand; their mean by sample enters the history as train_<name> or val_<name>.

        Args:
            metrics: mean of each metric over the batch, by name. A tensor stays on the device, so this does not wait
                for it.
            count: number of items that the metrics are means over, where these are not the batch's samples; a number,
                or a scalar tensor, which is not waited for.
        """
        run = self.run_context
        samples: int | torch.Tensor = 1 if run.batch_samples is None else run.batch_samples
        if count is not None and samples:  # a stand-in of several processes counts for nothing
            samples = count.detach() if isinstance(count, torch.Tensor) else count
        if not TAKEN_METRICS.isdisjoint(metrics):
            taken = " and ".join(f"'{name}'" for name in sorted(TAKEN_METRICS & metrics.keys()))
            raise TrainerContractError(
                f"{type(self).__name__} gives _collect_batch_metrics a metric {taken}, and that name is taken: the "
                "loss that is returned enters the history as train_loss and val_loss, and val_epoch counts the epochs. "
                "Give it another, such as 'task_loss'."
            )
        for name, value in metrics.items():
            run.meter.add(name, value, samples)

    def _set_loss_count(self, count: int | torch.Tensor) -> None:
        """Say over how many items the loss of the batch at hand is a mean, where these are not the batch's samples.

        Called by a loss function whose loss is a mean over the tokens that are no padding, say. Batches of a gradient
        accumulation, and of an epoch's mean loss, then weigh as many items as they have.

        Args:
            count: a number, or a scalar tensor, which is not waited for.
        """
        count = count.detach() if isinstance(count, torch.Tensor) else count
        self.run_context.loss_count = 0 if self.run_context.batch_samples == 0 else count

    def clip_gradients(self, optimizer: Optimizer | None = None) -> None:
        """Scale gradients down to a norm of `gradient_clip_value`, in a loop of one's own; 0 leaves them as they are.

        Args:
            optimizer: optimizer whose parameters' gradients are meant, taken together; None takes the trainer's.
        """
        limit = self.config.gradient_clip_value
        if limit > 0:  # torch's clip_grad_norm_ takes 0 for a norm of 0, and all gradients would be gone
            groups = (self.optimizer if optimizer is None else optimizer).param_groups
            clip_gradient_norm([weight for group in groups for weight in group["params"]], limit)

    def averaged_weights(self) -> AbstractContextManager[None]:
        """Surround what uses the moving average of the weights, where the config's `ema_decay` asks for one."""
        return self.run_context.averaged_weights()

    def save_metrics_to_file(self, state: str = "running", **more: Any) -> None:
        """Rewrite metrics.json.

        Args:
            state: running, finished, early_stopped, pruned, interrupted or failed.
            more: further entries at the top level.
        """
        head = {
            "schema_version": METRICS_SCHEMA_VERSION,
            "trainer": type(self).__name__,
            "run_id": self.run_folder.id,
            "state": state,
        }
        head |= read_label(self.run_folder.path).entries()
        saving = {"saving": self.run_context.saver.summary()}
        content = self.record.content(summarize_model(self.model) | saving | self.results)
        self.run_folder.write_json("metrics.json", head | content | more)

    def plot_metrics(self) -> None:
        """Draw the run's losses, learning rate and metrics into plots/."""
        from evaluation.plots.run_plots import plot_runs  # matplotlib takes a second to import

        folder = self.run_folder.path / "plots"
        with output_errors(folder):
            plot_runs([load_run(self.run_folder.path)], folder)

    def session(self) -> AbstractContextManager[None]:
        """Return what surrounds training. `train.py` opens one too, for trainers with a loop of their own."""
        if not self.run_context.in_session:
            self.gather_callbacks()
            chosen = [*self._config_callbacks, *self.callbacks] if self.owns_loop else []
            for name in self.run_context.callbacks.names_without_loop(chosen):
                logger.warning(
                    f"callback {name} misses epochs' begins, steps and readings: the trainer has its own train()"
                )
            if self.owns_loop:
                self.run_context.tell_epoch()
        return training_session(self.run_context)

    def gather_callbacks(self) -> None:
        """Take up the callbacks that there are now: the run's own, and those of the author."""
        trackers: list[Callback] = [self.trackers] if len(self.trackers) else []
        own = require_list(type(self).__name__, self.callbacks)
        self.run_context.callbacks = Callbacks([*trackers, *self._run_callbacks, *self._config_callbacks, *own])

    # ------------------------------------------------------------------------------------------------- what a run tells

    @property
    def stop_request(self) -> StopRequest:
        """Asks the run to stop: `self.stop_request.ask("reason")` lets it finish the step, save and leave."""
        return self.run_context.stop_request

    def keep_gradient_norms(self) -> None:
        """Let each optimizer step keep its gradient's norm, for `last_gradient_norm`."""
        self.run_context.update.keeps_norm = True

    @property
    def last_gradient_norm(self) -> torch.Tensor | None:
        """L2 norm of the last step's gradient before clipping, a scalar on the device; None where none is kept."""
        return self.run_context.update.norm

    @cached_property  # which, unlike a property, leaves the name to an author who sets it
    def is_main_process(self) -> bool:
        """Whether this process writes the run's files; of several processes one does."""
        return process_group().is_main_process

    @property
    def owns_loop(self) -> bool:
        """Whether the trainer has a `train()` of its own."""
        return type(self).train is not BaseTrainer.train

    @property
    def counts_own_samples(self) -> bool:
        """Whether the trainer has a `count_samples` of its own."""
        return type(self).count_samples is not BaseTrainer.count_samples

    @property
    def saves_plain_weights(self) -> bool:
        """Whether `save_model` is the base class's."""
        return type(self).save_model is BaseTrainer.save_model

    def check_and_log(self, keep: bool = False) -> None:
        """Read what the device has found since the last time: two host-device synchronisations.

        Args:
            keep: whether to note the loss in the record too: only where a run that is never interrupted reads it as
                well.

        Raises:
            TrainingError: numbers have gone wrong, or there was no batch.
        """
        run, progress = self.run_context, self.record.progress
        missed = run.guard.missed_steps()
        if missed:
            raise bad_training_step(run, missed)
        loss = run.meter.read_one("loss")
        if loss is None:
            raise TrainingError(f"train_loader gave no batch in epoch {progress.epoch + 1}.")
        if keep and self.record.step_losses.is_new(progress.step):
            numbers = {"train_loss": run.meter.mean_over_processes(run.process_group, "loss", loss)}
            numbers["learning_rate"] = run.learning_rate()
            if run.callbacks.log:
                run.callbacks.on_log(self, numbers)
            self.record.step_losses.add(progress.step, run.position.steps, numbers)
        self.progress_bar.show(loss=loss, lr=run.learning_rate())

    # ------------------------------------------------------------------------------------------------------ small parts

    def _validation_is_due(self, epoch: int) -> bool:
        return epoch % self.config.validate_every_n_epochs == 0 or epoch == self.config.epochs

    @property
    def _loops_plainly(self) -> bool:
        """Whether the trainer has a loop of its own that does not go through `epochs` (or the base class's loop)."""
        return self.owns_loop and not self.run_context.own_loop.in_use

    def _own_epoch(self) -> int:
        """The epoch that a plain loop of the trainer's own is in: save_metrics, which counts it, may come later."""
        return self.record.progress.epoch + (self.record.pending("val_loss") is not None)

    def _save_inside_epoch(self) -> None:
        """Write a checkpoint from inside an epoch, or from its validation, at once."""
        run, progress = self.run_context, self.record.progress
        run.saver.save_inside(progress.epoch - run.position.validating, run.position.name)
        run.position.note_saved(run.position.steps)
        run.tell_checkpoints()

    def _best_model_writer(self, weights: dict[str, Any]) -> Callable[[], None] | None:
        """Return what writes the model as it is now, whenever it is called; None where that is done already.

        Args:
            weights: weights of the model, as the checkpoint has them; of a sharded model this process's slices.
        """
        run = self.run_context
        if not self.saves_plain_weights:  # whatever a save_model of the trainer's own writes, it writes now
            self.save_model()
            return None
        if run.average is not None or run.sharded is not None:
            with self.averaged_weights():
                weights = plain_weights(self.model)
        return partial(self._write_weights, weights)

    def _write_weights(self, weights: dict[str, Any]) -> None:
        """Write weights, as `plain_weights` gives them, to model.safetensors in the run folder."""
        write_atomically(self.get_run_file_path("model.safetensors"), encode_weights(weights))

    def _end_epoch_meter(self) -> None:
        run = self.run_context
        if len(run.meter):
            self.record.measure("train", run.meter.over_processes(run.process_group), run.learning_rate())
            run.meter = EpochMeter()
