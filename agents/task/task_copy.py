"""The copy of task.yaml in a task's folder, and small files that go with it: the folder can be moved and given away."""

import json
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from agents.task.folder import TaskFolder
from agents.task.task_file import Task
from workflow.definition.nodes import yaml_text

_COMMANDS = (("trainer",), ("trainer", "command"), ("generator", "command"), ("documents", "search"))


def copy_task(task_file: Path, task: Task, made: TaskFolder) -> None:
    """Copy a task, with the user's metric and a judge's labels; the copy names these, and documents where they are.

    Args:
        task_file: the task's file.
        task: what it says.
        made: the task's folder.
    """
    text = yaml_text(task_file)
    root = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(root, yaml.MappingNode)
    folder = task_file.resolve().parent
    spans = [(node.start_mark.index, node.end_mark.index, name) for node, name in _names(root, task, made, folder)]
    for begin, end, name in sorted(spans, reverse=True):
        text = f"{text[:begin]}{name}{text[end:]}"
    made.task_file.write_text(text, encoding="utf-8")


def _names(root: yaml.MappingNode, task: Task, made: TaskFolder, folder: Path) -> Iterator[tuple[yaml.Node, str]]:
    """Yield nodes whose text is another one in the copy, with it."""
    for key, path in (("samples", made.train_rows), ("test", made.test_rows)):
        if node := _at(root, key):
            yield node, path.relative_to(made.path).as_posix()
    if (node := _at(root, "model")) and isinstance(node, yaml.ScalarNode) and str(node.value).strip() != task.model:
        yield node, json.dumps(task.model)
    if task.metric_file is not None and (node := _at(root, "metric")):
        shutil.copyfile(task.metric_file, made.path / task.metric_file.name)
        yield node, json.dumps(f"{task.metric_file.name}:{task.metric_function}")
    if task.judge is not None and (node := _at(root, "judge", "labels")):
        kept = made.path / "data" / f"judge_labels{task.judge.labels.suffix}"
        shutil.copyfile(task.judge.labels, kept)
        yield node, json.dumps(kept.relative_to(made.path).as_posix())
    if task.trainer.reward and (node := _at(root, "trainer", "reward")):
        file, _, function = task.trainer.reward.rpartition(":")
        shutil.copyfile(file, made.path / Path(file).name)
        yield node, json.dumps(f"{Path(file).name}:{function}")
    for keys in (("documents",), ("documents", "folder"), ("documents", "database")):
        if (node := _at(root, *keys)) and isinstance(node, yaml.ScalarNode):
            yield node, json.dumps(str((folder / str(node.value)).resolve()))
    for keys in _COMMANDS:
        if (node := _at(root, *keys)) and isinstance(node, yaml.ScalarNode):
            words = shlex.split(str(node.value))
            whole = [str((folder / word).resolve()) if (folder / word).is_file() else word for word in words]
            if whole != words:
                yield node, json.dumps(shlex.join(whole))


def _at(root: yaml.Node, *keys: str) -> yaml.Node | None:
    """Return the node that some keys lead to; None where there is none."""
    for key in keys:
        if not isinstance(root, yaml.MappingNode):
            return None
        found = next((value for name, value in root.value if str(name.value) == key), None)
        if found is None:
            return None
        root = found
    return root
