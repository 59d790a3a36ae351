"""Members at once: each trainer's own loop, in lockstep, with the steps of all done as one.

Each member is built, and goes through its epochs, as its own single run does: `BaseTrainer.training_loop` runs it up to
its next step and waits. When all wait, `SharedSteps` does the step of each. A member that stops early or fails is no
longer waited for.
"""

import time
from collections.abc import Iterable, Sequence

import torch
from beautilog import logger

from commands.seeds.group import Group
from commands.seeds.member import ForwardedStop, RunningMember
from commands.seeds.shared_steps import SharedSteps
from constants.time_spans import duration
from storage.seed_groups import Spread
from train.base_trainer import BaseTrainer
from train.compiled.program import ImpureLoss
from train.loop.progress import ProgressBar
from train.loop.stop_signals import StopRequest
from train.step_choice import build_step


def train_in_lockstep(group: Group, trainers: Iterable[BaseTrainer]) -> None:
    """Train members at once; one after the other from where that turns out to be impossible.

    Args:
        group: group none of whose runs has begun.
        trainers: trainers of the group's members; each is built when it is asked for, and leaves the random numbers as
            its run begins.

    Raises:
        KeyboardInterrupt: somebody wanted it to stop; each member is saved where it was.
    """
    asked, forwarded = StopRequest(), ForwardedStop()
    members: list[RunningMember] = []
    for member, trainer in zip(group.members, trainers, strict=True):
        members.append(RunningMember(member.seed, trainer, forwarded))
        run = trainer.run_context
        run.step = build_step(run, "eager")
        if run.config.saving_share < 1.0:  # their shares of the time add up
            run.saver.limit(run.config.saving_share / len(group.members))
    threads = torch.get_num_threads()
    try:
        with asked.listening():
            _Lockstep(group, members, asked).train()
    except BaseException as error:
        for running in members:
            if running.step_input is not None:
                running.drop(error)
        raise
    finally:
        torch.set_num_threads(threads)
    interrupted = [running.interrupted for running in members if running.interrupted is not None]
    if interrupted:
        raise interrupted[0]


class _Lockstep:
    def __init__(self, group: Group, members: Sequence[RunningMember], asked: StopRequest) -> None:
        self._group, self._members, self._asked = group, list(members), asked
        self._shared = SharedSteps(members)
        self._threads = 0
        trainer = members[0].trainer
        self._epochs, self._epoch = trainer.config.epochs, 0
        # The loss functions are recorded in the first epoch, whose time says nothing of the others'.
        self._first_epoch_ended: float | None = None
        self._bar = ProgressBar(len(trainer.train_loader) * self._epochs, f"{len(members)} seeds")

    def train(self) -> None:
        """Train all members to their ends."""
        try:
            self._bar.open()
            self._advance(self._members)
            self._threads = torch.get_num_threads()  # as each member's session has set it
            while self._members and self._step():
                pass
            for member in self._members:
                member.train_alone(self._asked)
        finally:
            self._bar.close()

    def _step(self) -> bool:
        """Do a step of each, and what follows; return whether all goes on at once."""
        members = self._members
        if self._asked.number is not None:
            self._shared.scatter_back()
            return False
        try:
            self._shared.step(members)
        except (ImpureLoss, ValueError) as reason:
            self._shared.scatter_back()
            self._group.how, self._group.why = "one after the other", str(reason)
            logger.warning(f"seeds at once are not possible, going on one after the other: {reason}")
            return False
        bad = [member for member in members if member.run.guard.blocked]
        inside = not bad and members[0].inside
        if not inside:
            self._shared.scatter_back()
        for member in bad:
            member.fail()
        self._advance([member for member in members if member not in bad], inside)
        self._bar.advance()
        self._show()
        return True

    def _advance(self, members: Sequence[RunningMember], inside: bool = False) -> None:
        for member in members:
            member.advance(inside)
        if inside:
            return
        self._members = [member for member in members if member.step_input is not None]
        if self._threads:  # a session that ends puts back what was before it began
            torch.set_num_threads(self._threads)

    def _show(self) -> None:
        """Log a line about an epoch that all have done, as the base class does about its own."""
        if not self._members or self._members[0].trainer.record.progress.epoch == self._epoch:
            return
        trainers = [member.trainer for member in self._members]
        self._epoch = trainers[0].record.progress.epoch
        if self._bar.line_is_due():
            logger.info(self._line(trainers))

    def _line(self, trainers: Sequence[BaseTrainer]) -> str:
        shown = []
        for name in dict.fromkeys(("train_loss", "val_loss", trainers[0].config.monitor)):
            values = [trainer.history[name][-1] for trainer in trainers if trainer.history[name]]
            if values:
                spread = Spread.of(values)
                shown.append(f"{name} {spread.mean:.4g}" + (f" ± {spread.std:.2g}" if spread.std is not None else ""))
        return f"epoch {self._epoch}/{self._epochs}, {len(trainers)} seeds: {', '.join(shown)}{self._left()}"

    def _left(self) -> str:
        if self._first_epoch_ended is None:
            self._first_epoch_ended = time.monotonic()
            return ""
        each = (time.monotonic() - self._first_epoch_ended) / (self._epoch - 1)
        return f"; up to {duration(each * (self._epochs - self._epoch))} left"
