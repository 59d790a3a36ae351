"""What the page shows: plain values, read from the task's folder each time that it is asked for."""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.answer_report import changed_in
from agents.dashboard.pictures import curves_picture, graph_picture
from agents.driver import Driver, Standing
from agents.events import ERROR, Events, Told
from agents.graph import EDGES
from agents.questions import Question
from agents.slices import SliceScore, slices_of
from agents.state import Difference, Measured, Round
from agents.story import difference_text
from agents.task.folder import TaskFolder
from agents.task.repository import Repository
from agents.task.rows import read_rows
from agents.task.task_file import Task
from data.data_error import DataError
from storage.file_lock import FolderLock

PAGE_ROWS = 25
LOG_LINES = 200
_EXAMPLES = 6
# What an effect's key ends with, and what it is called.
_COSTS = {
    "baseline": "measuring the base model", "train-first": "training", "train-rest": "training",
    "evaluate": "measuring", "export": "exporting", "brain": "choosing", "generate": "making rows",
    "generator": "making rows", "retrieve": "looking up", "retrieval": "looking up", "debug": "looking for faults",
    "change": "changes",
}  # fmt: skip


@dataclass(frozen=True)
class RoundView:
    """A round as the page shows it.

    Attributes:
        round: the round.
        curves: its curves as SVG, "" where it has none.
        gain: the difference to the base model, "" where it was not measured.
        best: the difference to the best round before it, "" where there is none.
        verdict: `better`, `worse`, `not clear`, or `failed`.
        examples: answers that changed most against the base model, the worst losses first; some where no score did.
        slices: scores by kinds of test rows, the worst first.
    """

    round: Round
    curves: str
    gain: str
    best: str
    verdict: str
    examples: list[dict[str, Any]]
    slices: list[SliceScore]


@dataclass(frozen=True)
class Commit:
    """A change of the task's folder: name, when, title, reason, and the lines that changed."""

    name: str
    when: str
    title: str
    text: str
    diff: list[tuple[str, str]]


@dataclass(frozen=True)
class Cost:
    """What one kind of work has taken: how often it was done, seconds, and tokens of language models elsewhere."""

    kind: str
    times: int
    seconds: float
    tokens: int


class View:
    """Reads what the page shows.

    Args:
        folder: the task's folder.
        started: names the thread of a worker that is there and may not have taken the task yet; "" for none.
    """

    def __init__(self, folder: TaskFolder, started: Callable[[], str] = lambda: "") -> None:
        self._folder, self._started = folder, started
        self._driver = Driver(folder, lambda node, text: None)
        self._events = Events(folder.events)
        self._seen: tuple[str, Standing] | None = None

    @property
    def task(self) -> Task:
        """What is wanted."""
        return self._folder.task()

    def marks(self) -> dict[str, str]:
        """Return for each part of the page a text that is another one when the part has changed."""
        answers = len(list(self._folder.answers.glob("*.json"))) if self._folder.answers.is_dir() else 0
        state, head = self._state_mark(), _stamp(self._folder.path / ".git" / "logs" / "HEAD")
        driven = self._driven()
        running = driven == self._folder.thread
        stopped = self._events.size if self.failure(running) else ""
        return {"now": f"{state}-{answers}-{driven}-{stopped}", "question": f"{state}-{answers}", "rounds": state,
                "costs": state, "changes": head, "log": str(self._events.size)}  # fmt: skip

    def _state_mark(self) -> str:
        names = (self._folder.state.name, f"{self._folder.state.name}-wal")
        return "-".join(_stamp(self._folder.state.with_name(name)) for name in names)

    def standing(self) -> Standing:
        """Return how far the run is; read anew only when it has changed."""
        mark = self._state_mark()
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, self._driver.standing())
        return self._seen[1]

    def is_running(self) -> bool:
        """Return whether a worker drives this thread now."""
        return self._driven() == self._folder.thread

    def elsewhere(self) -> str:
        """Return the name of another thread that a worker drives now; "" where none does."""
        driven = self._driven()
        return driven if driven != self._folder.thread else ""

    def _driven(self) -> str:
        """Return the name of the thread that a worker drives now; "" where none does."""
        if started := self._started():
            return started
        if not self._folder.kept.is_dir():
            return ""
        lock = FolderLock(self._folder.kept)
        free = lock.take()
        lock.release()
        return "" if free else self._last_driven()

    def _last_driven(self) -> str:
        """Return the thread that a worker drives, or has driven last."""
        try:
            return self._folder.at_work.read_text(encoding="utf-8") or self._folder.thread
        except OSError:
            return self._folder.thread  # which has just been taken

    def failure(self, running: bool | None = None) -> str:
        """Return what has ended the run before its end; "" where nothing has, or it goes on.

        Args:
            running: whether a worker has the task; None looks.
        """
        if (self.is_running() if running is None else running) or self._last_driven() != self._folder.thread:
            return ""
        now = self.standing()
        if now.state and not now.node:
            return ""  # it was over before
        last = self._events.last(1)[0]
        return last[0].text if last and last[0].node == ERROR else ""

    def question(self) -> Question | None:
        """Return what is asked and not answered yet."""
        question = self.standing().question
        if question is None or (self._folder.answers / f"{question.id}.json").exists():
            return None
        return question

    def graph(self) -> str:
        """Draw the graph with its live node."""
        now = self.standing()
        return graph_picture(EDGES, now.node, self.question() is not None)

    def told_now(self) -> str:
        """Say in a few words how far it is."""
        now = self.standing()
        if self.failure():
            return "stopped by an error"
        if not now.state:
            return "at work" if self.is_running() else "not begun yet"
        if self.question() is not None:
            return "waits for you"
        if not now.node:
            return "it is over"
        return "at work" if self.is_running() else "stopped; it can go on"

    def ending(self) -> list[str]:
        """Say how the run has ended, and where its model is; nothing before the end."""
        now = self.standing()
        if not now.state or now.node:
            return []
        told = [f"The end: {now.state['stop']}."]
        if now.state["model"]:
            told.append(
                f"The best is round {now.state['best']}. Its model is in {self._folder.path / now.state['model']}: "
                "README.md there says how to use it, and how it was made."
            )
        else:
            told.append("No round was better than the base model; nothing was exported.")
        return told

    def rounds(self) -> list[RoundView]:
        """Return the rounds that are over, the newest first."""
        state = self.standing().state
        if not state:
            return []
        return [self._round(each, state["baseline"]) for each in reversed(state["rounds"])]

    def explains(self) -> bool:
        """Return whether rows can be explained: there is a model, of a trainer that tells losses of words."""
        return self._driver.can_explain(self.standing().state)

    def under_way(self) -> str:
        """Draw the curves of the training under way; "" where there is none."""
        state = self.standing().state
        trained = state.get("trained") if state else None
        if trained is None or any(trained["run"] == each["trained"]["run"] for each in state["rounds"]):
            return ""  # that of a round that is over is shown with it
        return curves_picture(trained["history"], "losses of the training under way") if trained else ""

    def _round(self, each: Round, baseline: Measured | None) -> RoundView:
        gain: Difference | None = each["gain"]
        return RoundView(
            each, curves_picture(each["trained"]["history"], f"losses of round {each['number']}"),
            difference_text(gain) if gain else "",
            difference_text(each["against_best"]) if each["against_best"] else "",
            gain["verdict"] if gain else "failed",
            self._examples(each["measured"], baseline), self._slices(each["measured"]),
        )  # fmt: skip

    def _examples(self, measured: Measured | None, baseline: Measured | None) -> list[dict[str, Any]]:
        if measured is None or baseline is None:
            return []
        compared = [asdict(one) for one in changed_in(self._folder, self._driver, baseline, measured)]
        changed = [one for one in compared if one["change"]]
        if not changed:
            return compared[:_EXAMPLES]
        half = min(len(changed), _EXAMPLES // 2)
        return [*changed[:half], *changed[max(half, len(changed) - half) :][::-1]]

    def _slices(self, measured: Measured | None) -> list[SliceScore]:
        if measured is None:
            return []
        try:
            rows = read_rows(self._folder.test_rows)
        except DataError:
            return []
        return slices_of(rows, measured["scores"]) if len(rows) == len(measured["scores"]) else []

    def rows(self, part: str, page: int, find: str) -> tuple[list[dict[str, Any]], int, int]:
        """Return a page of rows.

        Args:
            part: `train` or `test`.
            page: number of the page, from 1.
            find: text that a row must have; "" for all.

        Returns:
            The rows, how many fit, and how many pages they make.
        """
        path = self._folder.test_rows if part == "test" else self._folder.train_rows
        found = []
        for row in read_rows(path):
            asked = "\n".join(str(one.get("content") or "") for one in row.asked)
            if not find or find.lower() in f"{asked}\n{row.answer}".lower():
                origin = " ".join(str(value) for value in row.origin.values())
                found.append({"id": row.id, "asked": asked, "answer": row.answer, "origin": origin})
        pages = max(1, -(-len(found) // PAGE_ROWS))
        begin = (min(max(page, 1), pages) - 1) * PAGE_ROWS
        return found[begin : begin + PAGE_ROWS], len(found), pages

    def commits(self) -> list[Commit]:
        """Return the changes of the task's folder, the newest first."""
        changed = [
            str(path.relative_to(self._folder.path)) for path in (self._folder.settings, self._folder.train_rows)
        ]
        branch = Repository(self._folder.path).branch_of(self._folder.thread)
        words = ["git", "log", "--format=%x00%h%x1f%cI%x1f%s%x1f%b%x1e", "--patch", "--unified=0", "--no-color",
                 "--max-count=50", branch, "--", *changed]  # fmt: skip
        done = subprocess.run(
            words, cwd=self._folder.path, capture_output=True, text=True, check=False, errors="replace"
        )
        return [_commit(part) for part in done.stdout.split("\0")[1:]] if not done.returncode else []

    def log(self, before: int | None) -> tuple[list[Told], int]:
        """Return the last lines of the log, and the byte at which they begin."""
        return self._events.last(LOG_LINES, before)

    def costs(self) -> list[Cost]:
        """Return what was spent on what, the most first."""
        times: Counter[str] = Counter()
        seconds: dict[str, float] = {}
        tokens: Counter[str] = Counter()
        for path in self._folder.effects.glob("*/result.json"):
            kind = _COSTS.get(path.parent.name.split("-", 2)[-1].lstrip("0123456789-"), "")
            try:
                found = json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError):
                continue  # it is being written
            if kind:
                times[kind] += 1
                seconds[kind] = seconds.get(kind, 0.0) + float(found.get("seconds") or 0)
                tokens[kind] += sum(map(int, found.get("tokens") or ()))
        return [
            Cost(kind, times[kind], seconds[kind], tokens[kind])
            for kind in sorted(seconds, key=lambda kind: -seconds[kind])
        ]

    def threads(self) -> list[str]:
        """Return the names of the threads, where there are several."""
        found = self._driver.threads()
        return found if len(found) > 1 else []

    def tiles(self) -> list[tuple[str, str]]:
        """Return the figures at the top: name and value."""
        state, task = self.standing().state, self.task
        if not state:
            return [("metric", task.metric), ("budget", f"{task.budget.rounds} rounds, {task.budget.minutes:g} min")]
        best = state["rounds"][state["best"] - 1]["measured"] if state["best"] else None
        found = [("rounds", f"{len(state['rounds'])} of {task.budget.rounds}"),
                 ("time used", f"{state['spent'] / 60:.1f} of {task.budget.minutes:g} min")]  # fmt: skip
        if state["baseline"]:
            found.append((f"{task.metric}, base model", f"{state['baseline']['value']:.4g}"))
        if best:
            found.append((f"{task.metric}, best", f"{best['value']:.4g}"))
        if task.goal is not None:
            found.append(("goal", f"{task.goal:g}"))
        return found


def _commit(text: str) -> Commit:
    head, _, patch = text.partition("\x1e")
    name, when, title, body = [*head.split("\x1f"), "", "", ""][:4]
    kinds = {"+": "added", "-": "removed"}
    lines = [(kinds[line[0]], line) for line in patch.splitlines()
             if line[:1] in kinds and not line.startswith(("+++", "---"))]  # fmt: skip
    shown = lines[:40]
    if len(lines) > len(shown):
        shown.append(("more", f"and {len(lines) - len(shown)} lines more"))
    return Commit(name, when[:16].replace("T", " "), title, body.strip(), shown)


def _stamp(path: Path) -> str:
    try:
        facts = path.stat()
    except OSError:
        return ""
    return f"{facts.st_size}.{facts.st_mtime_ns}"


def clock(seconds: float) -> str:
    """Return a time of day."""
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def span(seconds: float) -> str:
    """Return a time that was taken."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes else f"{seconds:.1f} s"


def fields_of(question: Question, values: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the values of a question's form out of what a page has sent."""
    return {field.name: values[field.name][0] for field in question.fields if values.get(field.name)}
