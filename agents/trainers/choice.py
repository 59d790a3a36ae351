"""Which trainer a task has."""

from agents.task.task_file import Task
from agents.trainers.command_trainer import CommandTrainer
from agents.trainers.own_trainer import OwnTrainer
from agents.trainers.trainer import Trainer


def trainer_of(task: Task) -> Trainer:
    """Return what trains for a task."""
    return CommandTrainer(task.trainer) if task.trainer else OwnTrainer()
