"""A member while it is trained with others in one process: its trainer, and all that is global but its own."""

import contextlib
import logging
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import torch
from beautilog import logger

from storage.errors import OutputError
from train.base_trainer import BaseTrainer
from train.errors import TrainingError
from train.loop.stop_signals import Interrupted, StopRequest
from train.seeding import random_states, set_random_states
from train.steps.eager import StepInput


class ForwardedStop(StopRequest):
    """What members are asked to stop by. Nobody signals it: the loop that trains them forwards a request."""

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Leave the signals to that loop."""
        yield


class RunningMember:
    """A trainer whose steps somebody else does.

    Args:
        seed: seed of all random generators of the member's run.
        trainer: the member's trainer, just built, so that the random numbers are those that its run begins with.
        stop: request by which the member is asked to stop.

    Attributes:
        step_input: batches of the step to be done next; None once the run has ended.
        random: states of the global generators when the member was last at work.
        interrupted: interruption that stopped the member's run; None where there was none.
    """

    def __init__(self, seed: int, trainer: BaseTrainer, stop: ForwardedStop) -> None:
        self.seed, self.trainer, self.run = seed, trainer, trainer.run_context
        self.step_input: StepInput | None = None
        self.random = random_states()
        self.interrupted: Interrupted | None = None
        self.run.stop_request, trainer.progress_bar.silent = stop, True
        trainer.run_folder.close_log()
        self._steps = len(trainer.train_loader)
        self._work = self._loop()

    def _loop(self) -> Generator[StepInput, None, None]:
        with self.trainer.session():
            yield from self.trainer.training_loop()

    @property
    def next_input(self) -> StepInput:
        """The work to be done next, of a run that has not ended."""
        if self.step_input is None:
            raise RuntimeError(f"the run of seed {self.seed} has ended")
        return self.step_input

    @property
    def inside(self) -> bool:
        """Whether what comes before its next step input draws no random numbers, looks at no tensors, says nothing."""
        run, config = self.run, self.run.config
        saves = config.checkpoint_every_n_steps or config.checkpoint_every_n_minutes
        looks = (run.record.progress.step + 1) % config.log_every_n_steps == 0 and config.loss_spike_factor
        last = run.position.steps + 1 == self._steps
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
        """Let it do all that comes before its next step input, which may be a validation, a checkpoint, its end.

        Args:
            inside: value of the property `inside`, the same for all members that are trained at once: whether nothing
                that draws, looks or speaks comes before the next step input.
        """
        if inside:
            self.step_input = next(self._work)
        else:
            with self._ending(), self.at_work():
                self.step_input = next(self._work)

    def train_alone(self, stop: StopRequest) -> None:
        """Let it do its own steps from here to its end.

        Args:
            stop: request by which the member is asked to stop from here on.
        """
        self.run.stop_request = stop
        with self._ending(), self.at_work():
            while True:
                try:
                    self.run.step(self.next_input)
                except BaseException as error:
                    self._work.throw(error)  # which tells the session around the loop
                self.step_input = next(self._work)

    def fail(self) -> None:
        """Let it end by the bad step that its guard has noted."""
        with self._ending(), self.at_work():
            self.run.record.progress.step += 1
            self.run.position.advance(1)
            try:
                self.trainer.check_and_log()
            except TrainingError as error:
                self._work.throw(error)

    def drop(self, error: BaseException) -> None:
        """Let it end by an error that came from elsewhere, and is raised there."""
        self.step_input = None
        with contextlib.suppress(BaseException), self.at_work():
            self._work.throw(error)

    @contextmanager
    def _ending(self) -> Iterator[None]:
        """Note the end of its run, whichever it is; a full disk, or a second Ctrl-C, is the others' end too."""
        try:
            yield
        except StopIteration:
            self.step_input = None
        except OutputError:
            self.step_input = None
            raise
        except TrainingError as error:
            self.step_input = None
            logger.error(f"seed {self.seed} failed: {error}")
        except Interrupted as error:
            self.step_input, self.interrupted = None, error

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
