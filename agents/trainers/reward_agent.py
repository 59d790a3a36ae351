"""The agent that reinforcement trains for a task: it answers a row, and the metric or a function rewards it."""

import importlib.util
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from evaluation.text_metrics import score_texts

Reward = Callable[[str, dict[str, Any]], float]


def answer(task: dict[str, Any], client: Any) -> float:  # an openai.OpenAI, whose package is not needed to read this
    """Answer a row, and return its reward.

    Args:
        task: a row: `messages` up to the answer, the `wanted` answer, `metric`, `max_tokens`, and `reward`, which is
            FILE.py:FUNCTION, or "" for the metric as a share of its best.
        client: client of the model under training.
    """
    found = client.chat.completions.create(model="policy", messages=task["messages"], max_tokens=task["max_tokens"])
    text = found.choices[0].message.content or ""
    if task["reward"]:
        return float(_function(task["reward"])(text, {name: task[name] for name in ("id", "messages", "wanted")}))
    score = score_texts([task["metric"]], [text], [task["wanted"]])[task["metric"]]
    return float(score.samples[0]) / score.scale


@cache
def _function(place: str) -> Reward:
    file, _, name = place.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Reward = getattr(module, name)
    return function
