"""Members one after the other: each is an ordinary run, in this process."""

from typing import Any

from beautilog import logger

from commands.seeds.group import Group, Member
from config import ConfigParser
from storage.errors import OutputError
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer, RunOptions
from train.errors import TrainingError
from train.machine import release_memory


def build(trainer_class: type, member: Member, group: Group) -> Any:
    """Build a member's trainer as its own single run would.

    Args:
        trainer_class: a BaseTrainer.
        member: whose seed it gets, and whose run it goes on with, where it has one.
        group: that it is entered in.
    """
    BaseTrainer.options = RunOptions(resume=member.run)
    with ConfigParser.overridden({"seed": str(member.seed)}, TRAINER_REGISTRY.section_of(trainer_class)):
        trainer = trainer_class()
    trainer.config.plot_at_end = False  # which takes a second each; the group's picture shows them all
    group.enter(member, trainer)
    return trainer


def train_in_turn(trainer_class: type, group: Group, first: Any = None) -> None:
    """Train the members that have not ended, one after the other. One whose numbers go wrong doesn't stop the rest.

    Args:
        trainer_class: a BaseTrainer.
        group: its members.
        first: the first member's trainer, where it is built already.
    """
    for number, member in enumerate(group.members):
        if member.ended:
            continue
        logger.info(f"seed {member.seed}: run {number + 1} of {len(group.members)}")
        trainer = None
        try:
            trainer, first = build(trainer_class, member, group) if first is None else first, None
            with trainer.session():
                trainer.train()
        except OutputError:  # the disk's, which the next one would meet too
            raise
        except TrainingError as error:
            logger.error(f"seed {member.seed} failed: {error}")
        member.ended = True
        group.write("running")
        trainer = None
        release_memory()
