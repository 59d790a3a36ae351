"""Losses of single rows, of trainers that can tell them."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from agents.trainers.trainer import Process

ROWS, LOSSES = "rows.jsonl", "losses.jsonl"


@runtime_checkable
class TellsLosses(Protocol):
    """A trainer that can tell losses of rows; others need not."""

    def losses(self, place: Path, run: Path, words: bool, process: Process) -> str:
        """Measure the rows of `ROWS` in a folder under the best weights of a run and under its base model.

        Args:
            place: the folder. A line of `LOSSES` is of a line of `ROWS`: `loss` and `base_loss`, means over the tokens
                of its last answer, or `error`; with `words`, also its words, each with what it does to the loss.
            run: folder of the run.
            words: whether words are wanted.
            process: runs a command to its end.

        Returns:
            Whose template made the prompts: `the model's own`, `another`, `a plain one`.

        Raises:
            TrainerError: it can't be told.
        """
        ...
