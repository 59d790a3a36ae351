"""Tasks for an agent: rows of a file, or what its module gives."""

import json
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path

import torch
from beautilog import logger

from constants.counting import counted
from data.chat_messages import RowError
from data.data_error import DataError
from data.held_out import set_apart
from data.text_files import find_files
from train.agents.agent_elsewhere import Agent, AgentElsewhere
from train.agents.agent_function import ALL, GIVE_TASKS, SPLITS, AgentFunctionError
from train.error_advice import explained


def split_tasks(
    agent: Agent, tasks: Path | None, val_tasks: Path | None, val_share: float, seed: int
) -> tuple[list[object], list[object]]:
    """Return the tasks to train with, and those to validate with.

    Args:
        agent: the agent, in whose module a function `tasks(split)` may be, or `tasks()`.
        tasks: file of tasks; None asks the module.
        val_tasks: file of tasks to validate with; None takes a share of the others, unless the module has its own.
        val_share: that share.
        seed: seed of which tasks these are.

    Raises:
        DataError: there are none, or too few.
    """
    if tasks is not None:
        found, held_out = _of_file(tasks), None
    else:
        found, held_out = _of_module(agent)
    if val_tasks is not None:
        held_out = _of_file(val_tasks)
    if held_out is None:
        if len(found) == 1:
            raise DataError("there is 1 task: none is left to validate with. Give val_tasks too.")
        found, held_out = _set_apart(found, val_share, seed) if found else ([], [])
    for name, each in (("train", found), ("validate", held_out)):
        if not each:
            raise DataError(f"there are no tasks to {name} with: {GIVE_TASKS}.")
    trained = set(map(_key, found))
    if all(_key(task) in trained for task in held_out):
        logger.warning(
            f"no task to validate with is new ({counted(len(held_out), 'task')}, all trained on too): val_reward says "
            "nothing of other tasks. Give val_tasks, or let tasks(split) return others for val."
        )
    return found, held_out


def _set_apart(tasks: Sequence[object], share: float, seed: int) -> tuple[list[object], list[object]]:
    """Set a share apart; a task that is there twice is on one side only, unless there is no other."""
    keys = list(map(_key, tasks))
    generator = torch.Generator().manual_seed(seed)
    return set_apart(tasks, keys if len(set(keys)) > 1 else range(len(tasks)), share, generator)


def _key(task: object) -> Hashable:
    """Return what is the same for the same tasks; of what is no plain data, itself."""
    return text_of_tasks([task]) if plain_tasks([task]) else id(task)


def _of_file(path: Path) -> list[object]:
    found: list[object] = []
    for row in find_files(path).rows():
        if isinstance(row.value, RowError):
            raise DataError(f"{path}, {row.place}: {row.value}")
        found.append(dict(row.value))
    return found


def _of_module(agent: Agent) -> tuple[list[object], list[object] | None]:
    found: Mapping[str, Sequence[object]]
    if isinstance(agent, AgentElsewhere):
        found = agent.own_tasks
    else:
        try:
            found = agent.module_tasks()
        except AgentFunctionError as error:
            raise DataError(str(error)) from error
        except (Exception, SystemExit) as error:  # whatever a user's function raises, sys.exit() too
            raise DataError(f"tasks() of agent = {agent.target} fails: {explained(error)}") from error
    if ALL in found:
        return list(found[ALL]), None
    train, val = (list(found[split]) for split in SPLITS)
    return train, val


def plain_tasks(tasks: Sequence[object]) -> bool:
    """Say whether tasks are the same after they have been handed to another process as JSON."""
    try:
        return _alike(json.loads(json.dumps(tasks)), tasks)
    except (TypeError, ValueError):
        return False


def _alike(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, dict) and type(other) is dict:
        return one.keys() == other.keys() and all(_alike(value, other[key]) for key, value in one.items())
    return type(one) is type(other) and (one == other or one != one)


def text_of_tasks(tasks: Sequence[object]) -> str:
    """Return tasks as a text, the same for the same tasks; of objects without a form of their own it has the class."""

    def written(value: object) -> str:
        return json.dumps(value, default=lambda each: type(each).__name__, sort_keys=True)

    def text_keys(value: object) -> object:
        """Replace keys that are no texts, which JSON can't sort beside texts, or can't write."""
        if isinstance(value, Mapping):
            return {key if isinstance(key, str) else f"{type(key).__name__} {written(text_keys(key))}": text_keys(each)
                    for key, each in value.items()}  # fmt: skip
        return [text_keys(each) for each in value] if isinstance(value, (list, tuple)) else value

    try:
        return written(tasks)
    except TypeError:
        return written(text_keys(tasks))
