"""Which trainer a task has."""

import sys
from pathlib import Path

from agents.task.task_file import Task
from agents.trainers.command_trainer import CommandTrainer
from agents.trainers.own_trainer import OwnTrainer
from agents.trainers.trainer import Trainer

_SCRIPTS = Path(__file__).resolve().parent / "scripts"


def trainer_of(task: Task) -> Trainer:
    """Return what trains for a task."""
    choice = task.trainer
    if choice.kind == "command":
        return CommandTrainer(choice.command)
    own = OwnTrainer(choice.kind, task.metric, task.max_tokens, choice.reward)
    if choice.kind == "trl":
        words = (choice.python or sys.executable, str(_SCRIPTS / "trl_trainer.py"), "--method", choice.method)
        reward = ("--reward", choice.reward) if choice.reward else ()
        return CommandTrainer((*words, *reward), own)
    if choice.kind == "tinker":
        address = ("--address", choice.address) if choice.address else ()
        return CommandTrainer((sys.executable, str(_SCRIPTS / "tinker_trainer.py"), *address))
    return own
