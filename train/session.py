"""What surrounds training: the files a run begins with, the log, and a true last word in metrics.json."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from beautilog import logger
from safetensors.torch import load_file

from config import ConfigParser
from data.shares import give_back_share
from storage.checkpoint_store import Checkpoint
from storage.errors import OutputError
from train.checkpointing.provenance import datasets_of, environment
from train.checkpointing.resume_check import report_drift
from train.checkpointing.run_state import restore
from train.errors import TrainingError
from train.loading.loader_faults import explain_loader_fault
from train.loop.progress import duration
from train.loop.stop_signals import Interrupted, Pruned
from train.machine import cpu_threads, keep_freed_memory
from train.model_summary import model_lines
from train.process_group import lost_peer


def open_run(trainer: Any) -> None:
    """Make a run's folder with its config.ini and environment.json, or enter the one to resume.

    Args:
        trainer: a BaseTrainer that is built and whose data is checked.
    """
    if trainer.options.dry_run:
        return
    world, found = trainer._process_group, []

    def enter() -> tuple[Path, Path | None]:
        found.append(_enter(trainer))
        return trainer.run_folder.path, found[0] and found[0][1]

    folder, path = world.broadcast_object(enter)
    if not world.is_main_process:
        trainer.run_folder.follow(folder, world.rank)
        found = [(trainer.checkpoints.load(path), path) if path else None]
    if found[0]:
        restore(trainer, *found[0])


def _enter(trainer: Any) -> tuple[Checkpoint, Path] | None:
    """Make the run's files, or return the checkpoint to go on from, and where it is."""
    folder = trainer.run_folder
    folder.lock()
    folder.open_log()
    if trainer.options.resume:
        folder.tidy()
        trainer.checkpoints.tidy()
        if not trainer.checkpoints.empty:
            with machine_for(trainer):
                report_drift(trainer)
            return trainer.checkpoints.load_newest()
        if folder.began:
            logger.warning(f"run {folder.id} has no checkpoint yet; it begins anew")
    folder.write_text("config.ini", ConfigParser.dump(trainer.config))
    with machine_for(trainer):  # as it will be
        folder.write_json("environment.json", environment(trainer.device, datasets_of(trainer)))
    return None


@contextmanager
def training_session(trainer: Any) -> Iterator[None]:
    """Surround a trainer's `train()`, the base class's or its own. A session inside a session does nothing.

    Args:
        trainer: a BaseTrainer.
    """
    if trainer.in_session:
        yield
        return
    trainer.in_session = True
    trainer.record.start_clock()
    try:
        _announce(trainer)
        with machine_for(trainer), trainer.stop_request.listening():
            trainer.trackers.start(trainer)
            yield
        trainer.saver.flush(trainer)
        _finish(trainer)
    except BaseException as error:
        told = explain_loader_fault(trainer, error) or error  # first: a worker that dies is told again at any line
        trainer._process_group.hold_signals()
        told = lost_peer(told) or told
        if isinstance(told, KeyboardInterrupt | Pruned):
            state = "pruned" if isinstance(told, Pruned) else "interrupted"
            _last_word(trainer, state, together=isinstance(told, Interrupted))
        else:
            trainer.run_folder.log_only(traceback.format_exc())
            _last_word(trainer, "failed", error=f"{type(told).__name__}: {told}")
        if told is not error:
            raise told from error
        raise
    finally:
        trainer.progress_bar.close()
        trainer.run_folder.close_log()
        trainer.run_folder.unlock()
        trainer.in_session = False


@contextmanager
def machine_for(trainer: Any) -> Iterator[None]:
    """Set the machine up for a trainer's loop."""
    if trainer.device.type == "cpu":
        keep_freed_memory()
    with cpu_threads(trainer.config.threads, trainer.step_flops):
        yield


def _announce(trainer: Any) -> None:
    for line in model_lines(trainer.model):
        logger.info(line)
    together = "" if trainer._process_group.is_single_process else f"{trainer._process_group.world_size} processes, "
    logger.info(f"{together}device {trainer.device}, run folder {trainer.run_folder.path}")
    done, epochs = trainer.record.progress.epoch, trainer.config.epochs
    if done >= epochs and not trainer._position.validating:
        logger.info(f"all {epochs} epochs of this run are done; raise epochs to train on")
    trainer.progress_bar.open(done=trainer.progress_bar.total * min(done, epochs) // epochs)


def _finish(trainer: Any) -> None:
    best_model, main = trainer.get_run_file_path("model.safetensors"), trainer._process_group.is_main_process
    if not trainer._process_group.broadcast_object(best_model.exists) and (main or trainer._sharded is not None):
        trainer.save_model()
    if trainer._sharded is not None:
        trainer._sharded.load_whole(load_file(best_model) if main else {})
    else:
        if main and best_model.exists():  # a trainer with a save_model of its own may write something else
            trainer.model.load_state_dict(load_file(best_model, device=str(trainer.device)))
        trainer._process_group.broadcast(trainer.model)
    for loader in (trainer.train_loader, trainer.val_loader) if not trainer._process_group.is_single_process else ():
        give_back_share(loader)
    trainer.progress_bar.close()
    trainer.after_training()
    if best_model.exists() and trainer.options.publish:
        trainer.run_folder.publish()
    stopped = trainer.early_stopping.exhausted and trainer.record.progress.epoch < trainer.config.epochs
    state = "early_stopped" if stopped else "finished"
    trainer.save_metrics_to_file(state)
    if trainer.config.plot_at_end and main:
        trainer.plot_metrics()
    trainer.trackers.finish(trainer, state)
    logger.info(f"done in {duration(trainer.record.seconds())}: {trainer.record.best_line()}")
    logger.info(f"results are in {trainer.run_folder.path}")


def _last_word(trainer: Any, state: str, together: bool = False, **more: Any) -> None:
    """Write what waits and say in metrics.json how the run ended; a full disk must not hide what ended it."""
    for what, write in (
        ("the last checkpoint is not written", lambda: trainer.saver.flush(trainer, together)),
        (f"metrics.json does not say that the run {state}", lambda: trainer.save_metrics_to_file(state, **more)),
    ):
        try:
            write()
        except (TrainingError, OutputError) as error:
            logger.warning(f"{what}: {error}")
    trainer.trackers.finish(trainer, state)
