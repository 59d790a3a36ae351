"""The folder that a task lives in."""

from dataclasses import dataclass
from pathlib import Path

from agents.task.task_file import Task, TaskError, read_task


@dataclass(frozen=True)
class TaskFolder:
    """Where everything of a task is.

    Attributes:
        path: the folder.
        thread: name of the thread of its run that is meant, `main` or a fork's.
    """

    path: Path
    thread: str = "main"

    @property
    def task_file(self) -> Path:
        """What is wanted."""
        return self.path / "task.yaml"

    @property
    def settings(self) -> Path:
        """Settings of the next training."""
        return self.path / "training.ini"

    @property
    def train_rows(self) -> Path:
        """Rows to train on."""
        return self.path / "data" / "train.jsonl"

    @property
    def test_rows(self) -> Path:
        """Rows to measure with; they stay as they are."""
        return self.path / "data" / "test.jsonl"

    @property
    def kept(self) -> Path:
        """What the program keeps of the run."""
        return self.path / ".tune"

    @property
    def state(self) -> Path:
        """LangGraph's checkpoints."""
        return self.kept / "state.sqlite"

    @property
    def effects(self) -> Path:
        """What was done, a folder each."""
        return self.kept / "effects"

    @property
    def answers(self) -> Path:
        """Answers to questions, a file each."""
        return self.kept / "answers"

    @property
    def events(self) -> Path:
        """What was told while it ran."""
        return self.kept / "events.jsonl"

    @property
    def at_work(self) -> Path:
        """Name of the thread that the process which has the task drives, or has driven last."""
        return self.kept / "at_work"

    @property
    def model(self) -> Path:
        """The best model of the thread, exported."""
        return self.path / ("model" if self.thread == "main" else f"model-{self.thread}")

    def task(self) -> Task:
        """Read what is wanted.

        Raises:
            TaskError: it is no task's folder, or task.yaml says what makes no task.
        """
        if not self.task_file.is_file():
            raise TaskError(f"{self.path} has no task.yaml: `tune.py new TASK.yaml` makes the folder of a task")
        made = (self.settings, self.train_rows, self.test_rows)
        gone = [path for path in made if not path.exists()]
        if gone and len(gone) < len(made):
            name = gone[0].relative_to(self.path)
            raise TaskError(f"{gone[0]} is gone: `git checkout {name}` in {self.path} brings it back")
        task = read_task(self.task_file, made=True)
        if gone:
            raise TaskError(
                f"{self.path} has a task.yaml, but is no task's folder: `tune.py new {self.task_file}` makes it, as "
                f"{self.path / task.name}"
            )
        return task
