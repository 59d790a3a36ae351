"""`tune.py new`: makes the folder of a task."""

import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from agents.retrieval.knowledge import build_index, with_passages
from agents.scoring.judge import read_labels
from agents.task.folder import TaskFolder
from agents.task.repository import Repository
from agents.task.rows import RowsFound, TaskRow, read_pairs, read_samples, split_rows, write_rows
from agents.task.settings import write_settings
from agents.task.task_copy import copy_task
from agents.task.task_file import TaskError, read_task
from agents.trainers.choice import trainer_of
from config import ConfigError
from constants.counting import counted
from data.data_error import DataError
from evaluation.text_metrics import score_texts

_LEAST_TEST = 3  # rows that a difference can be told with
_IGNORED = ".tune/\nmodel/\nmodel-*/\n"


@dataclass(frozen=True)
class NewTask:
    """A folder that was made.

    Attributes:
        folder: the folder.
        train: rows to train on.
        test: rows to measure with.
        found: what the files of rows are, and what was left out of them.
        told: what the documents are, a sentence each.
    """

    folder: TaskFolder
    train: list[TaskRow]
    test: list[TaskRow]
    found: list[RowsFound]
    told: list[str]


def make_folder(task_file: Path, path: Path | None) -> NewTask:
    """Make the folder of a task: rows split once and for all, settings, a repository with its first commit.

    Args:
        task_file: what is wanted.
        path: the folder, which is not there yet or empty; None takes the task's name, beside the file.

    Raises:
        TaskError: the folder is there, or the file says what makes no task.
        DataError: its rows can't be used.
        ConfigError: its settings can't be used; the text has the lines.
        EndpointError: a model of embeddings can't be asked.
        RepositoryError: there is no git.
    """
    task = read_task(task_file)
    folder = TaskFolder((path or task_file.resolve().parent / task.name).resolve())
    if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
        raise TaskError(f"{folder.path} is there already; name another folder: `tune.py new {task_file} DIR`")
    found = [read_pairs(task.samples) if task.trainer.needs_pairs else read_samples(task.samples)]
    if task.test is not None:
        found.append(_test_rows(task.test, task.trainer.needs_pairs))
        train, test = found[0].rows, found[1].rows
    else:
        train, test = split_rows(found[0].rows, task.test_share)
    if len(test) < _LEAST_TEST:
        raise TaskError(
            f"{task_file}: {counted(len(test), 'row')} to measure with, and no difference can be told with fewer than "
            f"{_LEAST_TEST}; 100 and more tell small gains. Give more rows, or name others: `test: FILE`"
        )
    new = folder.path.with_name(f".{folder.path.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    made = TaskFolder(new)
    try:
        (new / "data").mkdir(parents=True)
        copy_task(task_file, task, made)
        told = []
        if task.documents is not None:
            with TemporaryDirectory() as temporary:
                index = Path(temporary) / "passages.sqlite"
                told = build_index(task.documents, index)
                if task.retrieve:
                    train, test = (with_passages(rows, task.documents, index, task.retrieve) for rows in (train, test))
        if task.judge is not None:
            read_labels(task.judge)  # refuses what can't be used
        elif task.metric_file is None:
            scale = score_texts([task.metric], [test[0].answer], [test[0].answer])[task.metric].scale  # the same
            if task.goal is not None and task.goal > scale:
                raise TaskError(f"{task_file}: goal is {task.goal:g}, and the best {task.metric} there is is {scale:g}")
        write_rows(made.train_rows, train)
        write_rows(made.test_rows, test)
        trainer = trainer_of(task)
        write_settings(made.settings, {"base_model": task.model, **task.training}, trainer.section)
        try:
            trainer.settings(made.settings)  # refuses what can't be
        except ConfigError as error:  # its lines are of a file that nobody will see
            inside = re.escape(f"{new.name}/{made.settings.name}")
            place = re.compile(rf"^.*?{inside}(:\d+)?( \[\w+\])?:?")
            raise ConfigError([place.sub(f"{task_file}: training:", one) for one in error.problems]) from None
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
    return NewTask(folder, train, test, found, told)


def _test_rows(path: Path, may_be_pairs: bool) -> RowsFound:
    """Read rows to measure with; of pairs the better answer is what is wanted."""
    try:
        return read_samples(path)
    except DataError:
        if not may_be_pairs:
            raise
        return read_pairs(path)
