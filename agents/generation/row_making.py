"""New rows are made: by templates, a model, or a command of the user's; what a kill interrupts is gone on with."""

import json
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agents.endpoint.ask_many import kept_lines, mend_end
from agents.endpoint.asking import Process, ask_all
from agents.generation.prompts import messages_of, pairs_in
from agents.generation.row_request import RowRequest, requests_for
from agents.generation.templates import made_by_templates
from agents.retrieval.passage import Passage
from agents.task.rows import TaskRow
from agents.task.task_parts import GeneratorPlan
from data.chat_messages import RowError
from storage.files import write_atomically

_TRIES = 4  # rows that templates try for each that is wanted
_TOKENS = 1500  # of an answer with a few rows
_TEMPERATURE = 0.8


class GeneratorError(Exception):
    """Rows that can't be made; the text says why."""


@dataclass(frozen=True)
class Made:
    """Rows that were made, before they are checked.

    Attributes:
        rows: the rows.
        unread: pieces of what came back that are no row.
        tokens: tokens that an endpoint has read and written.
    """

    rows: list[TaskRow]
    unread: int = 0
    tokens: int = 0


def make_rows(
    place: Path, plan: GeneratorPlan, description: str, rows: Sequence[TaskRow], passages: Sequence[Passage],
    process: Process,
) -> Made:  # fmt: skip
    """Make rows.

    Args:
        place: folder of the effect: what it holds of a killed attempt is not made again.
        plan: who makes them, and which.
        description: what the task is.
        rows: samples.
        passages: pieces of documents; none where the task has none.
        process: runs a command to its end.

    Raises:
        EndpointError: the model can't be asked.
        GeneratorError: the command has failed.
    """
    if plan.source == "templates":
        ways = [way for way in plan.ways if way != "documents" or passages]
        return Made(list(made_by_templates(rows, ways, _TRIES * plan.rows, plan.seed, passages)) if ways else [])
    requests = {one.id: one for one in requests_for(rows, plan.ways, plan.rows, plan.seed, passages)}
    if plan.endpoint is not None:
        return _by_endpoint(place, plan, description, requests, process)
    return _by_command(place, plan, description, requests, process)


def _by_endpoint(
    place: Path, plan: GeneratorPlan, description: str, requests: dict[str, RowRequest], process: Process
) -> Made:
    assert plan.endpoint is not None
    asked = [{"id": one.id, "messages": messages_of(one, description), "max_tokens": _TOKENS,
              "temperature": _TEMPERATURE, "seed": plan.seed + number}
             for number, one in enumerate(requests.values())]  # fmt: skip
    replies = ask_all(place, "generator", plan.endpoint, asked, process)
    rows: list[TaskRow] = []
    unread = 0
    for key, request in requests.items():
        before = len(rows)
        for question, answer in pairs_in(replies[key].text):
            try:
                rows.append(request.row(question, answer, plan.endpoint.model))
            except RowError:
                unread += 1
        unread += len(rows) == before
    return Made(rows, unread, sum(sum(reply.tokens) for reply in replies.values()))


def _by_command(
    place: Path, plan: GeneratorPlan, description: str, requests: dict[str, RowRequest], process: Process
) -> Made:
    asked, said = place / "generator-asked.jsonl", place / "generator-said.jsonl"
    done = {str(one.get("id")) for one in kept_lines(said)}
    lines = [_plain(one, description) for key, one in requests.items() if key not in done]
    if lines:
        write_atomically(asked, "".join(f"{json.dumps(one, ensure_ascii=False)}\n" for one in lines).encode())
        mend_end(said)
        shell = f"exec {shlex.join(plan.command)} < {shlex.quote(str(asked))} >> {shlex.quote(str(said))}"
        code, text = process(place, "generator", ("sh", "-c", shell))
        if code:
            last = (text.strip().splitlines() or ["it said nothing"])[-1]
            raise GeneratorError(f"{shlex.join(plan.command)} ended with the exit code {code}: {last}")
    rows: list[TaskRow] = []
    unread = 0
    for one in kept_lines(said):
        request = requests.get(str(one.get("id")))
        if request is None:
            unread += 1
            continue
        for row in _rows_in(one, request, plan.command[0]):
            if row is None:
                unread += 1
            else:
                rows.append(row)
    if not rows:
        raise GeneratorError(
            f"{shlex.join(plan.command)} has made no row: for each line of its input it is to print one such as "
            '{"id": "...", "rows": [{"question": "...", "answer": "..."}]}'
        )
    return Made(rows, unread)


def _plain(request: RowRequest, description: str) -> dict[str, Any]:
    examples = [{"id": row.id, "messages": row.messages} for row in request.examples]
    return {"id": request.id, "way": request.way, "count": request.count, "description": description,
            "examples": examples, "passages": [asdict(one) for one in request.passages],
            "messages": messages_of(request, description)}  # fmt: skip


def _rows_in(line: dict[str, Any], request: RowRequest, maker: str) -> Iterator[TaskRow | None]:
    if isinstance(line.get("text"), str):  # what a model has said, as it is
        pairs = list(pairs_in(line["text"]))
        yield from _rows_in({"rows": [{"question": one, "answer": other} for one, other in pairs]}, request, maker)
        return
    rows = line.get("rows", [line] if "messages" in line or "question" in line else None)
    if not isinstance(rows, list):
        yield None
        return
    for one in rows:
        try:
            if isinstance(one, dict) and "messages" in one:
                yield request.row_of(one["messages"], maker)
            elif isinstance(one, dict) and isinstance(one.get("question"), str) and isinstance(one.get("answer"), str):
                yield request.row(one["question"], one["answer"], maker)
            else:
                yield None
        except RowError:
            yield None
