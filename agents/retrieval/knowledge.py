"""What a task's documents say to a question."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from agents.endpoint.endpoint import Endpoint, EndpointError, call
from agents.retrieval.documents import passages_in, passages_of
from agents.retrieval.index import PassageIndex
from agents.retrieval.passage import Passage
from agents.task.rows import PASSAGES_END, TaskRow, bare_question, row_id
from agents.task.task_parts import DocumentsPlan
from data.data_error import DataError

_AT_ONCE = 64  # texts whose vectors are asked for together


def build_index(plan: DocumentsPlan, path: Path) -> list[str]:
    """Read a task's documents and make their index.

    Args:
        plan: where they are; a task that looks things up by a command has an empty one.
        path: file of the index; what a killed attempt has left there is replaced.

    Returns:
        What was read and how it is found, and what was left out, a sentence each.

    Raises:
        DataError: nothing can be read.
        EndpointError: the model of embeddings can't be asked.
    """
    if plan.gone is not None:
        raise DataError(f"{plan.gone}, where the documents were, is not there: put it back, or name another place in "
                        "task.yaml")  # fmt: skip
    passages, left_out = list[Passage](), list[str]()
    if plan.folder is not None:
        passages, left_out = passages_of(plan.folder)
    elif plan.database is not None:
        passages = passages_in(plan.database, plan.query)
    vectors = _vectors(plan.embedding, [one.text for one in passages]) if plan.embedding is not None else []
    path.unlink(missing_ok=True)
    with closing(PassageIndex(path)) as index:
        index.add(passages, vectors)
    how = "words (BM25)" + (f" and by vectors of {plan.embedding.model}" if plan.embedding is not None else "")
    where = plan.folder or plan.database
    return [*([f"{len(passages):,} passages of {where}, found by {how}"] if where else []), *left_out]


def found_for(plan: DocumentsPlan, path: Path, questions: Sequence[str], count: int) -> list[list[Passage]]:
    """Look up passages for questions.

    Args:
        plan: where knowledge is.
        path: file of the index, made by `build_index`.
        questions: the questions.
        count: passages of each at most.

    Returns:
        For each question its passages, the best first.

    Raises:
        DataError: the command fails.
        EndpointError: the model of embeddings can't be asked.
    """
    if plan.search:
        return _searched(plan.search, questions, count)
    with closing(PassageIndex(path)) as index:
        vectors: Sequence[Sequence[float] | None] = [None] * len(questions)
        if plan.embedding is not None and index.has_vectors:
            vectors = _vectors(plan.embedding, questions)
        return [index.nearest(question, count, vector) for question, vector in zip(questions, vectors, strict=True)]


def with_passages(rows: Sequence[TaskRow], plan: DocumentsPlan, path: Path, count: int) -> list[TaskRow]:
    """Return rows whose last question has passages in front of it; their sources stand in the origin.

    Args:
        rows: rows; passages that they have already are replaced.
        plan: where knowledge is.
        path: file of the index.
        count: passages of each row at most.

    Raises:
        DataError, EndpointError: as `found_for`.
    """
    found = found_for(plan, path, [bare_question(row) for row in rows], count)
    return [_with(row, passages) for row, passages in zip(rows, found, strict=True)]


def _with(row: TaskRow, passages: Sequence[Passage]) -> TaskRow:
    question = bare_question(row)
    head = "".join(f"[{number}] {one.text}\n\n" for number, one in enumerate(passages, 1))
    asked = {**row.messages[-2], "content": f"{head}{question}"}
    messages = (*row.messages[:-2], asked, row.messages[-1])
    origin = {**row.origin, PASSAGES_END: len(head), "passages": [one.source for one in passages]}
    return replace(row, id=row_id(messages), messages=messages, origin=origin)


def _searched(words: Sequence[str], questions: Sequence[str], count: int) -> list[list[Passage]]:
    """Look up by a command: it is given a JSON line for each question and answers with one."""
    lines = "".join(f"{json.dumps({'id': number, 'question': question, 'count': count}, ensure_ascii=False)}\n"
                    for number, question in enumerate(questions))  # fmt: skip
    try:
        done = subprocess.run(words, input=lines, capture_output=True, text=True, check=False)
    except OSError as error:
        raise DataError(f"{words[0]} can't be run: {error.strerror}") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise DataError(f"{words[0]} ended with the exit code {done.returncode}: {last}")
    found: dict[int, list[Passage]] = {}
    for line in done.stdout.splitlines():
        try:
            value = json.loads(line)
            found[int(value["id"])] = [
                Passage(str(one["text"]), str(one["source"]), str(one.get("title") or "")) for one in value["passages"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise DataError(
                f"{words[0]} printed {line[:120]!r}; needed is a line for each question, such as "
                '{"id": 0, "passages": [{"text": "...", "source": "..."}]}'
            ) from None
    return [found.get(number, [])[:count] for number in range(len(questions))]


def _vectors(endpoint: Endpoint, texts: Sequence[str]) -> list[list[float]]:
    found = list[list[float]]()
    for begin in range(0, len(texts), _AT_ONCE):
        part = list(texts[begin : begin + _AT_ONCE])
        answer = call(endpoint, "embeddings", {"model": endpoint.model, "input": part})
        try:
            data = sorted(answer["data"], key=lambda one: one["index"])
            vectors = [[float(number) for number in one["embedding"]] for one in data]
        except (KeyError, TypeError, ValueError):
            raise EndpointError(f"{endpoint.address} answers what are no embeddings") from None
        if len(vectors) != len(part):
            raise EndpointError(f"{endpoint.address} gives {len(vectors)} embeddings of {len(part)} texts")
        found += vectors
    return found
