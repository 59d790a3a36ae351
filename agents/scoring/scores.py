"""Answers are scored by whatever the task measures with."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from agents.endpoint.asking import Process, ask_all, own_command
from agents.scoring.judge import Judged, judge_request, verdict_in
from agents.task.rows import TaskRow
from agents.task.task_file import Task
from evaluation.text_metrics import score_texts
from storage.files import file_digest, write_atomically


class ScoreError(Exception):
    """Answers that can't be scored; the text says why."""


@dataclass(frozen=True)
class Scores:
    """Scores of answers.

    Attributes:
        value: of all answers.
        samples: of each.
        scale: the best possible one.
        told: what must be known of them, a sentence each.
    """

    value: float
    samples: list[float]
    scale: float
    told: list[str] = field(default_factory=list)


def measured_by(task: Task) -> str:
    """Return a digest of what the user measures with; "" for a metric of ours, which doesn't change."""
    if task.metric_file is not None:
        return file_digest(task.metric_file)
    if task.judge is not None:
        plan = {"description": task.description, **asdict(task.judge), "labels": ""}
        return hashlib.sha256(json.dumps(plan, sort_keys=True, default=str).encode()).hexdigest()
    return ""


def scored(task: Task, place: Path, rows: Sequence[TaskRow], answers: Sequence[str], process: Process) -> Scores:
    """Score answers.

    Args:
        task: what it measures with.
        place: folder of the effect; verdicts that a killed attempt has kept there are not asked for again.
        rows: the test rows.
        answers: the answer to each.
        process: runs a command to its end.

    Raises:
        ScoreError: the user's function can't be used.
        EndpointError: the judge can't be asked.
        DataError: the metric can't be had.
    """
    if task.metric_file is not None:
        return _by_function(task, task.metric_file, place, rows, answers, process)
    if task.judge is not None:
        return _by_judge(task, place, rows, answers, process)
    score = score_texts([task.metric], answers, [row.answer for row in rows])[task.metric]
    return Scores(score.value, [round(float(one), 9) for one in score.samples], score.scale)


def _by_function(
    task: Task, metric: Path, place: Path, rows: Sequence[TaskRow], answers: Sequence[str], process: Process
) -> Scores:
    given, out = place / "metric-answers.jsonl", place / "metric-scores.json"
    lines = [{"id": row.id, "answer": answer, "wanted": row.answer, "messages": row.asked}
             for row, answer in zip(rows, answers, strict=True)]  # fmt: skip
    write_atomically(given, "".join(f"{json.dumps(one)}\n" for one in lines).encode())
    code, text = process(place, "metric", own_command(
        "agents.scoring.own_metric", "--metric", str(metric), "--function", task.metric_function,
        "--answers", str(given), "--scores", str(out),
    ))  # fmt: skip
    if code:
        said = text.strip().splitlines() or [f"it ended with the exit code {code}"]
        raise ScoreError(said[-1].removeprefix("error: "))
    found = json.loads(out.read_text(encoding="utf-8"))
    samples = [float(one) for one in found["scores"]]
    return Scores(sum(samples) / len(samples), samples, float(found["best"]))


def _by_judge(
    task: Task, place: Path, rows: Sequence[TaskRow], answers: Sequence[str], process: Process
) -> Scores:  # fmt: skip
    assert task.judge is not None
    judged = [Judged(_said(row), answer, row.answer, "") for row, answer in zip(rows, answers, strict=True)]
    verdicts = verdicts_of(task, place, judged, process)
    best = len(task.judge.choices) - 1
    samples = [round(task.judge.choices.index(one or task.judge.choices[0]) / best, 9) for one in verdicts]
    unread = sum(one is None for one in verdicts)
    told = [f"{unread} of {len(verdicts)} answers got no verdict that can be read: they count as "
            f"{task.judge.choices[0]}"] if unread else []  # fmt: skip
    return Scores(sum(samples) / len(samples), samples, 1.0, told)


def verdicts_of(task: Task, place: Path, judged: Sequence[Judged], process: Process) -> list[str | None]:
    """Ask the judge.

    Args:
        task: the task, with a judge.
        place: folder of the effect.
        judged: answers to be judged.
        process: runs a command to its end.

    Returns:
        The verdict on each; None where what the judge said is none.

    Raises:
        EndpointError: the judge can't be asked.
    """
    assert task.judge is not None
    requests = [judge_request(f"{at:05d}", task.judge, task.description, one) for at, one in enumerate(judged)]
    replies = ask_all(place, "judge", task.judge.endpoint, requests, process)
    return [verdict_in(replies[one["id"]].text, task.judge.choices) for one in requests]


def _said(row: TaskRow) -> str:
    """Return a conversation as a judge reads it: the question alone, or each message with its role."""
    asked = [one for one in row.asked if one["role"] != "system"]
    if len(asked) == 1:
        return str(asked[0].get("content") or "")
    return "\n".join(f"{one['role']}: {one.get('content') or ''}" for one in asked)
