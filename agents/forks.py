"""Threads of a task: a fork begins where another thread was at a step, and shares what was done before it."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agents.task.repository import MAIN
from constants.counting import counted
from constants.nearest import meant

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*")
_ROUND = "round-"
_ASKS = "ask_training"  # the node that begins a round


class ForkError(Exception):
    """A thread that can't be begun, or that there is none of; the text says what there is."""


@dataclass(frozen=True)
class Point:
    """A place of a thread from which a fork can begin.

    Attributes:
        step: number of the step that is next there.
        node: node that is next there.
        rounds: rounds that are over there.
        checkpoint: name of LangGraph's checkpoint.
    """

    step: int
    node: str
    rounds: int
    checkpoint: str

    @property
    def told(self) -> str:
        """What it is, in a line."""
        after = f"after {counted(self.rounds, 'round')}" if self.rounds else "before the first round is over"
        return f"{self.step}: {self.node.replace('_', ' ')}, {after}"


def one_of_each_step(points: Iterable[Point]) -> list[Point]:
    """Return of each step the last place: the question or the work that has the step's number.

    Args:
        points: places of a thread, the newest first.
    """
    found: dict[int, Point] = {}
    for point in points:
        found.setdefault(point.step, point)
    return sorted(found.values(), key=lambda point: point.step)


def point_at(points: Sequence[Point], at: str, thread: str) -> Point:
    """Return the place that is meant.

    Args:
        points: places of the thread, by step.
        at: a step's number, `round-N` for where round N is asked about, or the id of a question.
        thread: name of the thread.

    Raises:
        ForkError: there is no such place.
    """
    if at.startswith(_ROUND) and at.removeprefix(_ROUND).isdecimal():
        number = int(at.removeprefix(_ROUND))
        for point in points:
            if point.node == _ASKS and point.rounds == number - 1:
                return point
        begun = [point.rounds + 1 for point in points if point.node == _ASKS]
        raise ForkError(f"{thread} has not begun round {number}; {_told_list('it has begun round', begun)}")
    step = at
    if not at.isdecimal():
        name, _, rest = at.removeprefix(f"{thread}-").partition("-")
        step = name if at.startswith(f"{thread}-") and rest else ""
    if not step.isdecimal():
        raise ForkError(
            f"{at!r} is no place to begin at: a step's number, `{_ROUND}2`, or the id of a question of {thread}. "
            f"{_steps(points)}"
        )
    for point in points:
        if point.step == int(step):
            return point
    raise ForkError(f"{thread} has no step {int(step)}. {_steps(points)}")


def _steps(points: Sequence[Point]) -> str:
    return "There are\n" + "\n".join(f"  {point.told}" for point in points)


def _told_list(text: str, numbers: Sequence[int]) -> str:
    return f"{text} {', '.join(map(str, numbers))}" if numbers else "nor any other"


def free_name(given: str | None, taken: Sequence[str]) -> str:
    """Return the name of a new thread.

    Args:
        given: the name that is wanted; None takes the next of fork-1, fork-2, ...
        taken: names of the threads that there are.

    Raises:
        ForkError: it is no name, or taken.
    """
    if given is None:
        return next(name for number in range(1, len(taken) + 2) if (name := f"fork-{number}") not in taken)
    if not _NAME.fullmatch(given):
        raise ForkError(f"{given!r} is no name of a thread: small letters, digits, - and _, such as lower-rate")
    if given in taken:
        raise ForkError(f"there is a thread {given} already; name another than {', '.join(taken)}")
    return given


def require_thread(thread: str, threads: Sequence[str]) -> None:
    """Refuse a thread that there is none of; `main` is there before anything has run.

    Raises:
        ForkError: there is none; the text says which there are.
    """
    known = list(dict.fromkeys((MAIN, *threads)))
    if thread not in known:
        raise ForkError(f"there is no thread {thread}{meant(thread, known)}; there are {', '.join(known)}")
