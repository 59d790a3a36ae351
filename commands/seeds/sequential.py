"""Members one after the other: each is an ordinary run, in this process."""

from beautilog import logger

from commands.seeds.group import Group, Member
from config import ConfigParser
from storage.errors import OutputError
from storage.segments import GROUP
from train import TRAINER_REGISTRY
from train.base_trainer import BaseTrainer
from train.context import RunOptions
from train.errors import TrainingError
from train.machine import release_memory


def build(trainer_class: type[BaseTrainer], member: Member, group: Group) -> BaseTrainer:
    """Build a member's trainer as its own single run would.

    Args:
        trainer_class: class of the trainer.
        member: member whose seed the trainer gets, and whose run it goes on with, where it has one.
        group: group that the member's run is noted in.
    """
    BaseTrainer.options = RunOptions(resume=member.run, part_of=GROUP)
    with ConfigParser.overridden({"seed": str(member.seed)}, TRAINER_REGISTRY.section_of(trainer_class)):
        trainer = trainer_class()
    trainer.config.plot_at_end = False  # which takes a second each; the group's picture shows them all
    group.enter(member, trainer)
    return trainer


def train_sequentially(trainer_class: type[BaseTrainer], group: Group, first: BaseTrainer | None = None) -> None:
    """Train the members that have not ended, one after the other. One whose numbers go wrong doesn't stop the rest.

    Args:
        trainer_class: class of the trainer.
        group: group whose members are trained.
        first: trainer of the first member, where it is built already.
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
