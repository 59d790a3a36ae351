"""What a language model is told to make rows of, and the rows out of what it says."""

import json
import re
from collections.abc import Iterator
from typing import Any

from agents.generation.row_request import RowRequest, shown

_WAYS = {
    "paraphrase": "Say the examples' questions in other words, so that each means the same; the answer stays right.",
    "vary": "Keep the kind of each example, but change its names, numbers and things; give the answer that fits then.",
    "new_cases": "Write questions of the same task about things that no example is about, answered in the same form.",
    "hard_negatives": "Write questions that look much like the examples but have another right answer, such that who "
                      "reads carelessly answers wrongly; give the right answer.",
    "documents": "Write questions of the same task that the passages answer, each with the answer that they give.",
}  # fmt: skip
_FORM = (
    'Answer with a JSON list and nothing else: [{"question": "...", "answer": "..."}, ...]. Question and answer are '
    "texts; where the examples' answers are JSON, they are JSON inside of the text."
)


def messages_of(request: RowRequest, description: str) -> list[dict[str, str]]:
    """Return the conversation that asks for rows.

    Args:
        request: what is wanted.
        description: what the task is.
    """
    examples = [dict(zip(("question", "answer"), shown(row), strict=True)) for row in request.examples]
    lines = "\n".join(json.dumps(one, ensure_ascii=False) for one in examples)
    parts = [f"The task: {description}", f"Examples:\n{lines}"]
    if request.passages:
        parts.append("Passages:\n" + "\n\n".join(one.text for one in request.passages))
    parts.append(f"{_WAYS[request.way]} Write {request.count} of them. {_FORM}")
    return [{"role": "system", "content": "You write examples from which a language model learns a task."},
            {"role": "user", "content": "\n\n".join(parts)}]  # fmt: skip


def pairs_in(text: str) -> Iterator[tuple[str, str]]:
    """Yield questions and answers that a model has written, wherever they stand in what it says.

    Args:
        text: what it says: a JSON list, objects one a line, or either of them within other text.
    """
    decoder, at = json.JSONDecoder(), 0
    while found := re.compile(r"[\[{]").search(text, at):
        try:
            value, at = decoder.raw_decode(text, found.start())
        except (ValueError, RecursionError):
            at = found.start() + 1
            continue
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, dict) and (pair := _pair(one)) is not None:
                yield pair


def _pair(one: dict[str, Any]) -> tuple[str, str] | None:
    question, answer = one.get("question", one.get("prompt")), one.get("answer", one.get("completion"))
    if isinstance(answer, dict | list | int | float) and not isinstance(answer, bool):
        answer = json.dumps(answer, ensure_ascii=False)  # JSON that was not put into a text
    return (question.strip(), answer.strip()) if isinstance(question, str) and isinstance(answer, str) else None
