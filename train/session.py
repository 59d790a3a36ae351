"""What surrounds training: the files a run begins with, the log, and a true last word in metrics.json."""

import os
import traceback
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from beautilog import logger

from config import ConfigParser
from constants import command
from constants.counting import counted
from constants.time_spans import duration
from data.sharding import unshard_loader
from storage.checkpoint_store import Checkpoint
from storage.errors import OutputError, ResumeError
from storage.run_label import name_problem, write_label
from storage.saved_run import RunDamagedError, chosen_threads, read_metrics
from storage.weights_file import load_weights_file
from train.checkpointing.provenance import loaders_of, provenance
from train.checkpointing.resume_check import check_resume
from train.checkpointing.run_state import restore
from train.checkpointing.segment_record import begin_segment, end_segment
from train.context import RunContext
from train.errors import TrainerContractError, TrainingError
from train.failures.hook_errors import note_place_in_run, repeated_eagerly
from train.loading.loader_faults import explain_loader_fault, first_death_heard
from train.loop.long_phases import long_phase
from train.loop.stop_signals import Interrupted, Pruned
from train.machine import cpu_threads, keep_freed_memory
from train.model_summary import model_lines
from train.process_group import lost_peer
from train.weights import fit_buffers, load_weights, shapes_of_buffers


def open_run(run: RunContext) -> None:
    """Make a run's folder with its config.ini and environment.json, or enter the one to resume.

    Args:
        run: run of a trainer that is built and whose data is checked.
    """
    group = run.process_group
    run.threads_before = group.broadcast_object(partial(_threads_before, run))
    if run.options.dry_run:
        return
    found: tuple[Checkpoint, Path] | None = None

    def enter() -> tuple[Path, Path | None]:
        nonlocal found
        found = _enter(run)
        return run.folder.path, found and found[1]

    folder, path = group.broadcast_object(enter)
    if not group.is_main_process:
        run.folder.follow(folder, group.rank)
        found = (run.checkpoints.load(path), path) if path else None
    if found:
        restore(run, *found)


def _threads_before(run: RunContext) -> int:
    """Return the CPU threads that a resumed run, or the one whose config.ini is read, had chosen; 0 where none had.

    They are kept, as far as this machine has them: another number changes the last bits.
    """
    resumed = run.options.resume and not run.options.dry_run
    return min(chosen_threads(run.folder.path if resumed else ConfigParser.path().parent), os.cpu_count() or 1)


def _enter(run: RunContext) -> tuple[Checkpoint, Path] | None:
    """Make the run's files, or return the checkpoint to go on from, and where it is."""
    folder = run.folder
    folder.lock()
    folder.open_log()
    _label(run)
    if run.options.resume:
        folder.tidy()
        run.checkpoints.tidy()
        if not run.checkpoints.empty:
            with machine_for(run):
                check_resume(run)
            return run.checkpoints.load_newest()
        _require_no_history(run)
        if folder.began:
            logger.warning(f"run {folder.id} has no checkpoint yet; it begins anew")
    with machine_for(run):  # as it will be
        run.provenance = provenance(run.device, loaders_of(run))
        folder.write_json("environment.json", run.provenance)
    begin_segment(run)
    return None


def _label(run: RunContext) -> None:
    """Give the run the name and note of the command line; a resumed one keeps what it isn't given.

    Raises:
        ResumeError: another run of this model has the name.
    """
    folder, label = run.folder.path, run.options.label
    if label.name and (
        problem := name_problem(label.name, run.config.artifacts_dir, folder.parent.parent.name, own=folder)
    ):
        raise ResumeError(problem)
    write_label(folder, label)


def _require_no_history(run: RunContext) -> None:
    """See to it that a run without a checkpoint has nothing to lose where it begins anew in its folder.

    Raises:
        ResumeError: it has trained.
    """
    folder = run.folder
    if not (folder.path / "metrics.json").exists():
        return
    lost = f"run {folder.id} has no checkpoint to go on from"
    try:
        content = read_metrics(folder.path)
        summary, state = content.get("summary") or {}, str(content.get("state"))
        epochs, saved = int(summary.get("epochs") or 0), (summary.get("saving") or {}).get("checkpoints")
    except (RunDamagedError, ValueError, TypeError, AttributeError) as error:
        raise ResumeError(f"{lost}, and its numbers can't be read: {error}") from None
    in_first_save = not run.owns_loop and epochs <= 1 and saved == 0  # as a second Ctrl-C may break it off
    if state not in ("finished", "early_stopped") and (not epochs or in_first_save):
        return
    why = (
        f" {run.name} has a train() of its own: written as `for epoch in self.epochs():` it saves one after each epoch "
        "(docs/writing_a_trainer.md)."
    )
    raise ResumeError(
        f"{lost}, but has trained {counted(epochs, 'epoch')} ({state}): beginning anew in its folder would "
        f"overwrite its results.{why if run.owns_loop else ''} Without --resume a new run starts, in a folder of its "
        "own."
    )


def _read_by(run: RunContext) -> str:
    """Say what the training data does before there is a batch: a loader may have a word of its own for it."""
    return str(getattr(getattr(run.trainer, "train_loader", None), "reading", "batches are read"))


@contextmanager
def training_session(run: RunContext) -> Iterator[None]:
    """Surround a trainer's `train()`, the base class's or its own. A session inside a session does nothing.

    Args:
        run: the run that trains.
    """
    if run.in_session:
        yield
        return
    run.in_session = True
    run.record.start_clock()
    handlers = ExitStack()
    try:
        handlers.enter_context(run.stop_request.listening())
        with first_death_heard(handlers):
            _announce(run)
            with machine_for(run), _hearing_own_loop(run):
                run.callbacks.on_train_begin(run.trainer)
                before, progress = run.record.progress.step, run.record.progress
                what = f"on the way to the first step: {_read_by(run)}, code is compiled (step = {run.config.step})"
                with long_phase(what, ended=lambda: progress.step > before):
                    yield
                run.own_loop.close()  # an epoch whose body was left by `break`
            with long_phase("writing the last checkpoint"):
                run.saver.flush()
                run.tell_checkpoints()
            run.stop_request.obey()
            with run.stop_request.at_once():
                _finish(run)
    except ResumeError:  # before anything was trained or written
        raise
    except BaseException as error:
        reported = explain_loader_fault(run, error) or repeated_eagerly(run, error) or error
        run.process_group.hold_signals()
        reported = lost_peer(reported) or reported
        if isinstance(reported, KeyboardInterrupt | Pruned):
            state = "pruned" if isinstance(reported, Pruned) else "interrupted"
            _last_word(run, state, together=isinstance(reported, Interrupted))
            reported.saved = run.work_kept or not run.checkpoints.empty  # type: ignore[union-attr]  # for `--resume`
        else:
            if reported is error and not isinstance(error, TrainingError | OutputError | TrainerContractError):
                note_place_in_run(run, error)
            run.folder.log_only(traceback.format_exc())
            run.callbacks.on_failure(run.trainer, reported)
            _last_word(run, "failed", error=f"{type(reported).__name__}: {reported}")
        if reported is not error:
            raise reported from error
        raise
    finally:
        run.progress_bar.close()
        run.folder.close_log()
        run.folder.unlock()
        run.in_session = False
        handlers.close()


def _hearing_own_loop(run: RunContext) -> AbstractContextManager[None]:
    """Surround a `train()` of the trainer's own: its steps are counted, and it hears of signals after them."""
    if not run.owns_loop:
        return nullcontext()
    done = run.record.progress.epoch
    refusal = (
        f"run {run.folder.id} can't be gone on with: {run.name}.train() is a plain loop, which would begin again at "
        f"its first epoch. Write it as `for epoch in self.epochs():` (docs/writing_a_trainer.md), and `--resume` goes "
        f"on after epoch {done}; without --resume a new run starts."
    )
    return run.own_loop.listening(run.optimizer, run.record, run.stop_request, refusal if done else "")


@contextmanager
def machine_for(run: RunContext) -> Iterator[None]:
    """Set the machine up for a run's steps, for a block.

    Args:
        run: run whose device, settings and size of a step decide.
    """
    if run.device.type == "cpu":
        keep_freed_memory()
    with cpu_threads(run.cpu_threads):
        yield


def threads_line(run: RunContext) -> str:
    """Say how many CPU threads torch has for a run, and why; inside `machine_for`."""
    shown = counted(torch.get_num_threads(), "CPU thread")
    if run.config.threads or run.device.type != "cpu":
        return shown
    if run.threads_before:
        return f"{shown} as before"
    return f"{shown} (its operations are small)" if run.cpu_threads else shown


def _announce(run: RunContext) -> None:
    for line in model_lines(run.model):
        logger.info(line)
    group = run.process_group
    together = "" if group.is_single_process else f"{group.world_size} processes, "
    with machine_for(run):
        logger.info(f"{together}device {run.device}, {threads_line(run)}, run folder {run.folder.path}")
    done, epochs = run.record.progress.epoch, run.config.epochs
    if done >= epochs and not run.position.validating:
        told = "the 1 epoch of this run is" if epochs == 1 else f"all {epochs} epochs of this run are"
        logger.info(f"{told} done; raise epochs to train on")
    total = run.progress_bar.total
    run.progress_bar.open(done=0 if total is None else int(total * min(done, epochs) // epochs))


def _finish(run: RunContext) -> None:
    trainer, main = run.trainer, run.process_group.is_main_process
    best_model = run.file("model.safetensors")
    if not run.process_group.broadcast_object(best_model.exists) and (main or run.sharded is not None):
        trainer.save_model()
    if run.sharded is not None:
        run.sharded.load_whole(load_weights_file(best_model) if main else {})
    else:
        if main and best_model.exists():  # a trainer with a save_model of its own may write something else
            load_weights(run.model, load_weights_file(best_model))
        if not run.process_group.is_single_process:
            fit_buffers(run.model, run.process_group.broadcast_object(lambda: shapes_of_buffers(run.model)))
        run.process_group.broadcast(run.model)
    if not run.process_group.is_single_process:
        for loader in (run.train_loader, run.val_loader):
            unshard_loader(loader)
    run.progress_bar.close()
    with long_phase(f"after the last epoch: {run.name}.after_training()"):
        trainer.after_training()
    if best_model.exists() and run.options.publish:
        with long_phase("publishing the weights"):
            run.folder.publish()
    stopped = run.early_stopping.exhausted and run.record.progress.epoch < run.config.epochs
    state = "early_stopped" if stopped else "finished"
    trainer.save_metrics_to_file(state)
    end_segment(run, state)
    if run.config.plot_at_end and main:
        with long_phase("drawing the plots"):
            trainer.plot_metrics()
    with long_phase("telling callbacks and trackers of the end"):
        run.callbacks.on_train_end(trainer, state)
    logger.info(f"done in {duration(run.record.seconds())}: {run.record.best_line()}")
    logger.info(f"results are in {run.folder.path}")
    if "test_loader" in run.loaders:
        logger.info(f"test_loader was not touched: `{command('train')} {run.trainer.model_name} --test` measures it")


def _last_word(run: RunContext, state: str, together: bool = False, **more: Any) -> None:
    """Write what waits and say in metrics.json how the run ended; no second error must hide what ended it."""
    for what, write in (
        ("the last checkpoint is not written", lambda: run.saver.flush(together)),
        (
            f"metrics.json does not say that the run {state}",
            lambda: run.trainer.save_metrics_to_file(state, **more),
        ),
        ("not all callbacks know of the last checkpoint", run.tell_checkpoints),
    ):
        try:
            write()
        except Exception as error:  # a full disk; a GPU that computes no more, of which torch tells everybody again
            logger.warning(f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
    end_segment(run, state)
    run.callbacks.on_train_end(run.trainer, state)
