"""The interface of what trains: three things, each done by processes that may be killed and begun again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from agents.state import Trained

ASKED, SAID = "asked.jsonl", "answers.jsonl"
Process = Callable[[Path, str, Sequence[str]], tuple[int, str]]
"""Runs a command to its end: given the folder for its log, the name of its files there, and the command, it returns the
exit code and what was printed."""


_LINES = 4  # of an error: what is allowed may follow what is wrong


class TrainerError(Exception):
    """Answers or an export that can't be had; the text has what was printed."""


@dataclass(frozen=True)
class Training:
    """A training that is wanted.

    Attributes:
        place: folder for logs and settings of this attempt.
        work: folder that the run lives in; what a killed attempt has left there is gone on with.
        settings: settings by name.
        rows: file of rows to train on.
        until: epochs after which to stop and save; 0 trains to the end.
    """

    place: Path
    work: Path
    settings: Mapping[str, str]
    rows: Path
    until: int


class Trainer(Protocol):
    """What trains, answers and exports."""

    @property
    def section(self) -> str:
        """Name of the section of training.ini."""
        ...

    def settings(self, path: Path) -> Mapping[str, object]:
        """Return the settings that a file gives a training; `epochs`, `learning_rate` and `batch_size` at least.

        Args:
            path: training.ini.

        Raises:
            ConfigError: a setting is unknown or has a value that it can't have.
        """
        ...

    def train(self, training: Training, process: Process) -> Trained:
        """Train, or go on; nothing is done where it is done already.

        Args:
            training: what is wanted.
            process: runs a command to its end.
        """
        ...

    def answer(self, place: Path, model: str, max_tokens: int, process: Process) -> None:
        """Answer the conversations of `ASKED` in a folder by their likeliest tokens, into `SAID`.

        Args:
            place: the folder. A line of `SAID` is the line of `ASKED` with the answer as a last message, and `finish`,
                which is `length` where the answer was cut off.
            model: folder of a run, or the base model.
            max_tokens: most tokens of an answer.
            process: runs a command to its end.

        Raises:
            TrainerError: the model can't be asked.
        """
        ...

    def export(self, place: Path, run: Path, out: Path, process: Process) -> None:
        """Write the model of a run.

        Args:
            place: folder for the log.
            run: folder of the run.
            out: folder to write, which is not there.
            process: runs a command to its end.

        Raises:
            TrainerError: it can't be written.
        """
        ...


def failure_text(text: str, code: int) -> str:
    """Return what a failed process says of its failure: the last line that names an error, with what follows it.

    Where none does, it is the last line.

    Args:
        text: what it printed.
        code: its exit code.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    named = [number for number, line in enumerate(lines) if line.lower().startswith("error:")]
    if named:
        return "\n".join(lines[named[-1] : named[-1] + _LINES]).partition(": ")[2][:2000]
    return (lines or [f"it ended with the exit code {code} and said nothing"])[-1][:2000]
