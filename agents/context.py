"""What the nodes of a run share."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agents.brain.choice import Brain
from agents.effects import Effects
from agents.state import TuneState
from agents.task.folder import TaskFolder
from agents.task.repository import Repository
from agents.task.task_file import Task
from agents.trainers.trainer import Trainer

KILLED = 137
"""Exit code of a process that was killed by signal 9."""
KILLED_TEXT = "was killed (signal 9)"
"""What is said of such a process."""
_BY_THEIR_NODES = ("train", "export")  # begun again by their nodes: from a checkpoint, and into an empty folder
KILLS = 3
"""How often a process that is killed is begun again, where it gets no further."""


@dataclass(frozen=True)
class TuneContext:
    """What the nodes of a run share.

    Attributes:
        folder: the task's folder.
        task: what is wanted.
        effects: does what is outside of the state, once.
        repository: the folder's history.
        brain: chooses among the actions that are possible.
        trainer: trains, answers and exports.
    """

    folder: TaskFolder
    task: Task
    effects: Effects
    repository: Repository
    brain: Brain
    trainer: Trainer

    def process(self, place: Path, name: str, words: Sequence[str]) -> tuple[int, str]:
        """Run a command in the task's folder to its end; one that a killed attempt has left behind is ended first.

        Where somebody kills it, it is begun again, a few times.

        Args:
            place: folder of the effect, for its log.
            name: name of its files there.
            words: the command.

        Returns:
            Its exit code, and what it has printed in this attempt.
        """
        environment = {**os.environ, "NO_COLOR": "1"}
        code, text = self.effects.process(place, name, words, environment, self.folder.path)
        for _ in range(KILLS if name not in _BY_THEIR_NODES else 0):
            if code != KILLED:
                break
            code, text = self.effects.process(place, name, words, environment, self.folder.path)
        if code == KILLED:
            text += f"\nerror: it {KILLED_TEXT}, as a process is for which there is no memory left\n"
        return code, text


def key_of(state: TuneState, node: str) -> str:
    """Return the key of a node's effect: another one each time that the graph comes by, the same in a repeat."""
    return f"{state['thread']}-{state['step']:04d}-{node}"
