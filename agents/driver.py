"""The worker: drives the graph from question to question. Of a task's folder there is one at a time."""

import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, cast

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.graph.state import CompiledStateGraph
from langgraph.types import Command

from agents.brain.choice import Brain
from agents.brain.language_model import LanguageModelBrain
from agents.brain.rules import Rules
from agents.context import TuneContext
from agents.effects import Effects
from agents.explanation import Explanation, can_explain, explain
from agents.forks import ForkError, Point, free_name, one_of_each_step, point_at, require_thread
from agents.graph import before, build_graph
from agents.nodes.evaluator import answers_of, require_same_measure
from agents.questions import Answers, Question
from agents.state import Measured, TuneState, beginning
from agents.task.folder import TaskFolder
from agents.task.repository import Repository
from agents.trainers.choice import trainer_of
from constants.program import command
from storage.file_lock import FolderLock
from storage.files import file_digest

_PATIENCE, _LOOK = 2.0, 0.05  # seconds that a lock may be held by what doesn't run the task, and between two looks
Ask = Callable[[Question], Mapping[str, str] | None]
"""Asks a person: returns the values of the form, or None where nobody answers now."""


class BusyError(Exception):
    """Another process runs this task."""


@dataclass(frozen=True)
class Standing:
    """How far a run is.

    Attributes:
        state: what is known; empty before the first step.
        node: node that is next; "" at the end and before the beginning.
        question: what a person is asked; None where nothing is.
    """

    state: TuneState
    node: str
    question: Question | None


class Driver:
    """A task's run.

    Args:
        folder: the task's folder.
        tell: called with what is to be told: the node, or "" for a line of a process, and the text.

    Raises:
        ForkError: the folder names a thread that there is none of.
    """

    def __init__(self, folder: TaskFolder, tell: Callable[[str, str], None]) -> None:
        self._folder, self._tell = folder, tell
        task = folder.task()
        require_thread(folder.thread, self.threads())
        effects = Effects(folder.effects, lambda line: tell("", line))
        brain: Brain = Rules(task)
        if task.brain is not None:
            brain = LanguageModelBrain(task, task.brain, Rules(task), effects, lambda text: tell("brain", text))
        self._context = TuneContext(folder, task, effects, Repository(folder.path), brain, trainer_of(task))
        self._answers = Answers(folder.answers)

    def standing(self) -> Standing:
        """Return how far the run is, without doing anything."""
        if not self._folder.state.exists():
            return Standing(TuneState(), "", None)
        with self._graph() as graph:
            return self._standing(graph)

    def answers_of(self, measured: Measured) -> list[str]:
        """Return the answers of an evaluation, in the order of the test rows.

        Raises:
            EffectError: they can't be read.
        """
        return answers_of(self._context, measured)

    def explain(self, row: str) -> Explanation:
        """Explain how the best model answers a row, as `agents.explanation.explain`."""
        return explain(self._context, self.standing().state, row)

    def can_explain(self, state: TuneState) -> bool:
        """Return whether rows can be explained, as `agents.explanation.can_explain`."""
        return can_explain(self._context, state)

    def run(self, ask: Ask, by_rule: bool) -> Standing:
        """Go on until the run is over, or nobody answers. The files of the folder become those of the thread.

        Args:
            ask: asks a person.
            by_rule: whether the written rules answer questions.

        Returns:
            How far it is now.

        Raises:
            BusyError: another process runs it.
            RepositoryError: files of another thread were changed by hand.
            EvaluationError: the task measures otherwise than when the run began.
        """
        with self._alone(), self._graph() as graph:
            self._folder.at_work.write_text(self._folder.thread, encoding="utf-8")
            self._context.repository.switch(self._folder.thread)
            now = self._standing(graph)
            if now.state and now.node:  # before a training is paid for whose figures could not be compared
                require_same_measure(self._context, now.state)
            return self._drive(graph, ask, by_rule)

    def threads(self) -> list[str]:
        """Return the names of the threads that have begun."""
        if not self._folder.state.exists():
            return []
        with closing(sqlite3.connect(self._folder.state, timeout=30)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'checkpoints'").fetchone():
                return []  # killed before the first step, or looked at
            found = connection.execute("SELECT thread_id FROM checkpoints GROUP BY thread_id ORDER BY MIN(rowid)")
            return [str(name) for (name,) in found]

    def points(self) -> list[Point]:
        """Return the places of the thread from which a fork can begin, by step."""
        if not self._folder.state.exists():
            return []
        with self._graph() as graph:
            return self._points(graph)

    def fork(self, at: str, name: str | None) -> tuple[str, Point]:
        """Begin another thread where this one was; this one stays as it is.

        Args:
            at: where, as `agents.forks.point_at` takes it.
            name: name of the new thread; None makes one.

        Returns:
            Its name, and where it begins.

        Raises:
            ForkError: there is no such place, or the name can't be had.
            BusyError: another process runs the task.
        """
        with self._alone(), self._graph() as graph:
            new = free_name(name, self.threads())
            points = self._points(graph)
            if not points:
                raise ForkError(
                    f"{self._folder.thread} has not begun, so there is nothing to fork: {command('tune')} run"
                )
            point = point_at(points, at, self._folder.thread)
            self._context.repository.fork(new, self._folder.thread, point.step)
            config = self._config
            config["configurable"]["checkpoint_id"] = point.checkpoint
            values = cast(TuneState, graph.get_state(config).values)
            # Written by the node that leads there: what is next follows from the state alone.
            graph.update_state({"configurable": {"thread_id": new}}, {**values, "thread": new}, before(point.node))
        return new, point

    def _points(self, graph: "CompiledStateGraph[TuneState]") -> list[Point]:
        return one_of_each_step(
            Point(found.values["step"], found.next[0], len(found.values["rounds"]),
                  found.config["configurable"]["checkpoint_id"])
            for found in graph.get_state_history(self._config) if found.next and "step" in found.values
        )  # fmt: skip

    @contextmanager
    def _alone(self) -> Iterator[None]:
        self._folder.kept.mkdir(exist_ok=True)
        lock = FolderLock(self._folder.kept)
        # Where a process was killed as it began another one, that one holds its lock until it is begun; and the page
        # takes it for a moment, to see whether it is free.
        until = time.monotonic() + _PATIENCE
        while not (taken := lock.take()) and time.monotonic() < until:
            time.sleep(_LOOK)
        if not taken:
            raise BusyError(
                f"{self._folder.path} is being run by another process, `tune.py run` or `serve`: `tune.py status` "
                "shows how far it is, and Ctrl-C there ends it without a loss"
            )
        try:
            yield
        finally:
            lock.release()

    def _drive(self, graph: "CompiledStateGraph[TuneState]", ask: Ask, by_rule: bool) -> Standing:
        while True:
            now = self._standing(graph)
            given: TuneState | Command[Any] | None = None
            if not now.state:
                given = beginning(self._folder.thread, file_digest(self._folder.test_rows))
            elif now.question is not None:
                answer = self._answer(now.question, ask, by_rule)
                if answer is None:
                    return now
                given = Command(resume=answer)
            elif not now.node:
                return now
            for part in graph.stream(given, self._config, stream_mode="tasks", durability="sync"):
                if isinstance(part, dict) and "input" in part:
                    self._tell(str(part["name"]), "")

    def _answer(self, question: Question, ask: Ask, by_rule: bool) -> dict[str, Any] | None:
        found = self._answers.of(question)
        if found is None and by_rule:
            found = self._answers.give(question, {}, "rule")
        elif found is None:
            values = ask(question)
            # Somebody may have answered elsewhere meanwhile: who came first counts.
            found = self._answers.of(question)
            if found is None and values is not None:
                found = self._answers.give(question, values, "person")
        if found is not None:
            told = ", ".join(str(value) for value in found["values"].values())
            self._tell("answer", f"{question.title} {told} (by {found['by']})")
        return found

    @contextmanager
    def _graph(self) -> Iterator["CompiledStateGraph[TuneState]"]:
        with closing(sqlite3.connect(self._folder.state, check_same_thread=False, timeout=30)) as connection:
            yield build_graph(self._context, SqliteSaver(connection))

    @property
    def _config(self) -> Any:  # langchain's RunnableConfig, whose package is not named here
        return {"configurable": {"thread_id": self._folder.thread}, "recursion_limit": 1_000_000}

    def _standing(self, graph: "CompiledStateGraph[TuneState]") -> Standing:
        found = graph.get_state(self._config)
        waiting = [one.value for task in found.tasks for one in task.interrupts]
        question = Question.of(waiting[0]) if waiting else None
        # A process that was killed between the end of a node and the checkpoint after it has left a node without work:
        # nothing is next then, and yet the run is not over.
        nodes = [*found.next, *(task.name for task in found.tasks)] if found.values else []
        return Standing(cast(TuneState, found.values), nodes[0] if nodes else "", question)
