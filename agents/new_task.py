"""`tune.py new`: makes the folder of a task."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import yaml

from agents.task.folder import TaskFolder
from agents.task.repository import Repository
from agents.task.rows import RowsFound, TaskRow, read_samples, split_rows, write_rows
from agents.task.settings import write_settings
from agents.task.task_file import TaskError, read_task
from agents.trainers.choice import trainer_of
from workflow.definition.nodes import yaml_text

_IGNORED = ".tune/\nmodel/\nmodel-*/\n"


@dataclass(frozen=True)
class NewTask:
    """A folder that was made.

    Attributes:
        folder: the folder.
        train: rows to train on.
        test: rows to measure with.
        found: what the files of rows are, and what was left out of them.
    """

    folder: TaskFolder
    train: list[TaskRow]
    test: list[TaskRow]
    found: list[RowsFound]


def make_folder(task_file: Path, path: Path | None) -> NewTask:
    """Make the folder of a task: rows split once and for all, settings, a repository with its first commit.

    Args:
        task_file: what is wanted.
        path: the folder, which is not there yet or empty; None takes the task's name, beside the file.

    Raises:
        TaskError: the folder is there, or the file says what makes no task.
        DataError: its rows can't be used.
        ConfigError: its settings can't be used; the text has the lines.
        RepositoryError: there is no git.
    """
    task = read_task(task_file)
    folder = TaskFolder((path or task_file.resolve().parent / task.name).resolve())
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise TaskError(f"{folder.path} is there already; name another folder: `tune.py new {task_file} DIR`")
    found = [read_samples(task.samples)]
    if task.test is not None:
        found.append(read_samples(task.test))
        train, test = found[0].rows, found[1].rows
    else:
        train, test = split_rows(found[0].rows, task.test_share)
    new = folder.path.with_name(f".{folder.path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    made = TaskFolder(new)
    try:
        (new / "data").mkdir(parents=True)
        shutil.copyfile(task_file, made.task_file)
        _point_at_rows(made)
        write_rows(made.train_rows, train)
        write_rows(made.test_rows, test)
        write_settings(made.settings, {"base_model": task.model, **task.training})
        trainer_of(task).settings(made.settings)  # refuses what can't be
        (new / ".gitignore").write_text(_IGNORED, encoding="utf-8")
        repository = Repository(new)
        repository.begin()
        repository.commit("new", f"{task.name}: {len(train)} rows to train on, {len(test)} to measure with",
                          task.description, {})  # fmt: skip
        if folder.path.is_dir():
            folder.path.rmdir()
        new.rename(folder.path)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return NewTask(folder, train, test, found)


def _point_at_rows(made: TaskFolder) -> None:
    """Write the copy of task.yaml so that it names the copies of the rows: the folder can be moved and given away."""
    text = yaml_text(made.task_file)
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    rows = {"samples": made.train_rows, "test": made.test_rows}
    names = {key: path.relative_to(made.path).as_posix() for key, path in rows.items()}
    spans = [(value.start_mark.index, value.end_mark.index, names[str(key.value)])
             for key, value in root.value if str(key.value) in names]  # fmt: skip
    for begin, end, name in sorted(spans, reverse=True):
        text = f"{text[:begin]}{name}{text[end:]}"
    made.task_file.write_text(text, encoding="utf-8")
