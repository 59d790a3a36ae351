"""The evaluator: test rows are answered by a process, scored, and compared row by row before "better" is said."""

import json
from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.effects import EffectError
from agents.scoring.scores import ScoreError, measured_by, scored
from agents.state import Difference, Measured, Round, TuneState
from agents.task.rows import TaskRow, read_rows
from agents.task.settings import read_settings
from agents.trainers.trainer import ASKED, SAID
from evaluation.text_metrics import paired_bootstrap
from storage.files import file_digest, write_atomically


class EvaluationError(Exception):
    """Answers that can't be had or compared; the text says why."""


def measure_baseline(context: TuneContext, state: TuneState) -> TuneState:
    """Measure the base model, before anything is trained."""
    settings = read_settings(context.folder.settings)
    measured, seconds = _measure(context, state, "baseline", settings.get("adapter") or settings["base_model"])
    return TuneState(baseline=measured, step=state["step"] + 1, spent=state["spent"] + seconds, seconds=[seconds])


def measure_trained(context: TuneContext, state: TuneState) -> TuneState:
    """Measure what was trained; nothing is done where the training has failed."""
    trained = state["trained"]
    if trained is None or trained["error"]:
        return TuneState(measured=None)
    measured, seconds = _measure(context, state, "evaluate", str(context.folder.path / trained["run"]))
    return TuneState(measured=measured, step=state["step"] + 1, spent=state["spent"] + seconds)


def _measure(context: TuneContext, state: TuneState, node: str, model: str) -> tuple[Measured, float]:
    folder, task, key = context.folder, context.task, key_of(state, node)
    require_same_measure(context, state)
    rows, by = read_rows(folder.test_rows), measured_by(task)
    request = {"model": model, "test": state["test_digest"], "metric": task.metric, "max_tokens": task.max_tokens,
               **({"by": by} if by else {})}  # fmt: skip

    def do(place: Path) -> dict[str, Any]:
        asked = "".join(json.dumps({"id": row.id, "messages": row.asked}) + "\n" for row in rows)
        write_atomically(place / ASKED, asked.encode())
        context.trainer.answer(place, model, task.max_tokens, context.process)
        return {"measured": _scored(context, place, key, rows)}

    done = context.effects.once(key, request, do)
    return done["measured"], done["seconds"]


def require_same_measure(context: TuneContext, state: TuneState) -> None:
    """Refuse test rows or a measure that are others than when the run began.

    Args:
        context: what nodes share.
        state: what is known.

    Raises:
        EvaluationError: figures before and after could not be compared.
    """
    task, folder, before = context.task, context.folder, state.get("baseline")
    if file_digest(folder.test_rows) != state["test_digest"]:
        raise EvaluationError(
            f"{folder.test_rows} has changed since the run began: figures before and after can't be compared. "
            f"`git checkout {folder.test_rows.relative_to(folder.path)}` brings it back; other rows are a new task."
        )
    if before is None:
        return
    metric, length = before.get("metric", task.metric), before.get("max_tokens", task.max_tokens)
    if metric != task.metric:
        changed = f"metric of task.yaml has changed from {metric} to {task.metric}"
    elif length != task.max_tokens:
        changed = f"max_tokens of task.yaml has changed from {length} to {task.max_tokens}"
    elif before.get("by", "") != measured_by(task):
        changed = f"what {task.metric} says has changed"
    else:
        return
    raise EvaluationError(
        f"{changed} since the base model was measured: figures before and after can't be compared. `git diff` in "
        f"{folder.path} shows it, and `git checkout` of the file brings it back; another measure is a new task."
    )


def _scored(context: TuneContext, place: Path, key: str, rows: list[TaskRow]) -> Measured:
    said = [json.loads(line) for line in (place / SAID).read_text(encoding="utf-8").splitlines()]
    if [one.get("id") for one in said] != [row.id for row in rows]:
        raise EvaluationError(f"{place / SAID} does not answer the test rows in their order")
    answers = [str(one["messages"][-1]["content"] or "") for one in said]
    try:
        score = scored(context.task, place, rows, answers, context.process)
    except ScoreError as error:
        raise EvaluationError(str(error)) from None
    cut_off = sum(one.get("finish") == "length" for one in said) / len(said)
    measured = Measured(key=key, value=score.value, scores=score.samples, scale=score.scale, cut_off=cut_off,
                        metric=context.task.metric, max_tokens=context.task.max_tokens)  # fmt: skip
    if by := measured_by(context.task):
        measured["by"] = by
    if score.told:
        measured["told"] = score.told
    return measured


def compare(before: Measured, after: Measured) -> Difference:
    """Compare two evaluations row by row: paired bootstrap of the mean difference of the scores.

    Args:
        before: one.
        after: the other, of the same test rows.
    """
    found = paired_bootstrap(before["scores"], after["scores"])
    return Difference(mean=found.difference, low=found.low, high=found.high, verdict=found.verdict)


def answers_of(context: TuneContext, measured: Measured) -> list[str]:
    """Return the answers of an evaluation, in the order of the test rows."""
    path = context.effects.place(measured["key"]) / SAID
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise EffectError(f"{path} can't be read: {error.strerror}") from None
    return [str(json.loads(line)["messages"][-1]["content"] or "") for line in lines]


def close_round(context: TuneContext, state: TuneState, keep: bool) -> TuneState:
    """End the round that is under way.

    Args:
        context: what nodes share.
        state: what is known.
        keep: whether its model is the best from now on.
    """
    trained, measured, baseline = state["trained"], state["measured"], state["baseline"]
    assert trained is not None and baseline is not None
    best = state["rounds"][state["best"] - 1]["measured"] if state["best"] else None
    number = len(state["rounds"]) + 1
    over = Round(
        number=number, settings=read_settings(context.folder.settings), commit=context.repository.head(),
        trained=trained, measured=measured, gain=compare(baseline, measured) if measured else None,
        against_best=compare(best, measured) if measured and best else None, kept=keep and measured is not None,
    )  # fmt: skip
    earlier = state.get("seconds", [])
    seconds = [*earlier, round(state["spent"] - sum(earlier), 3)]
    return TuneState(rounds=[*state["rounds"], over], best=number if over["kept"] else state["best"], seconds=seconds)
