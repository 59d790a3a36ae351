"""A member while it is trained with others in one process: its trainer, and all that is global but its own."""

import contextlib
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from beautilog import logger

from storage.errors import OutputError
from train.errors import TrainingError
from train.loop.stop_signals import Interrupted, StopRequest
from train.seeding import random_states, set_random_states


class PassedOn(StopRequest):
    """What members are asked to stop by. Nobody signals it: the loop that trains them passes a request on."""

    def listening(self) -> AbstractContextManager[None]:
        """Leave the signals to that loop."""
        return nullcontext()


class RunningMember:
    """A trainer whose steps somebody else does.

    Args:
        seed: its.
        trainer: a BaseTrainer that has just been built, so that the random numbers are those that it begins with.
        stop: asks it to stop.

    Attributes:
        piece: the work to be done next; None once the run has ended.
        random: the states of the global generators when it was last at work.
        interrupted: what it was stopped by.
    """

    def __init__(self, seed: int, trainer: Any, stop: PassedOn) -> None:
        self.seed, self.trainer = seed, trainer
        self.piece: Any = None
        self.random = random_states()
        self.interrupted: Interrupted | None = None
        trainer.stop_request, trainer.progress_bar.silent = stop, True
        trainer.run_folder.close_log()
        self._steps = len(trainer.train_loader)
        self._work = self._run()

    def _run(self) -> Iterator[Any]:
        with self.trainer.session():
            yield from self.trainer._pieces()

    @property
    def inside(self) -> bool:
        """Whether what it does until its next piece draws no random numbers, looks at no tensors and says nothing."""
        trainer, config = self.trainer, self.trainer.config
        saves = config.checkpoint_every_n_steps or config.checkpoint_every_n_minutes
        looks = (trainer.record.progress.step + 1) % config.log_every_n_steps == 0 and config.loss_spike_factor
        last = trainer._position.steps + 1 == self._steps
        return not (saves or looks or last)

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Give it the global random numbers, its log, and keep what it says off the terminal, unless it warns."""
        folder = self.trainer.run_folder
        terminal, aside = list(logging.getLogger().handlers), _Aside(self.seed)
        set_random_states(self.random)
        folder.open_log()
        for handler in terminal:
            handler.addFilter(aside)
        try:
            yield
        finally:
            for handler in terminal:
                handler.removeFilter(aside)
            folder.close_log()
            self.random = random_states()

    def advance(self, inside: bool = False) -> None:
        """Let it do all that comes before its next piece, which may be a validation, a checkpoint, its end.

        Args:
            inside: see `inside`; all members that are trained at once are at the same step.
        """
        if inside:
            self.piece = next(self._work)
        else:
            with self._ending(), self.at_work():
                self.piece = next(self._work)

    def train_alone(self, stop: StopRequest) -> None:
        """Let it do its own steps from here to its end.

        Args:
            stop: what it is asked to stop by from here on.
        """
        self.trainer.stop_request = stop
        with self._ending(), self.at_work():
            while True:
                try:
                    self.trainer._step(self.piece)
                except BaseException as error:
                    self._work.throw(error)  # which tells the session around the loop
                self.piece = next(self._work)

    def fail(self) -> None:
        """Let it end by the bad step that its guard has noted."""
        with self._ending(), self.at_work():
            self.trainer.record.progress.step += 1
            self.trainer._position.advance(1)
            try:
                self.trainer._look()
            except TrainingError as error:
                self._work.throw(error)

    def drop(self, error: BaseException) -> None:
        """Let it end by an error that came from elsewhere, and is raised there."""
        self.piece = None
        with contextlib.suppress(BaseException), self.at_work():
            self._work.throw(error)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Note the end of its run, whichever it is; a full disk, or a second Ctrl-C, is the others' end too."""
        try:
            yield
        except StopIteration:
            self.piece = None
        except OutputError:
            self.piece = None
            raise
        except TrainingError as error:
            self.piece = None
            logger.error(f"seed {self.seed} failed: {error}")
        except Interrupted as error:
            self.piece, self.interrupted = None, error

    def generator(self) -> torch.Generator:
        """Return a generator that goes on where torch's global one is for this member."""
        generator = torch.Generator()
        generator.set_state(self.random["torch"])
        return generator


class _Aside(logging.Filter):
    """Keeps what a member says off the terminal; a warning gets its seed."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._seed = seed

    def filter(self, record: logging.LogRecord) -> bool:
        if record.levelno >= logging.WARNING:
            record.msg, record.args = f"seed {self._seed}: {record.getMessage()}", ()
        return record.levelno >= logging.WARNING
