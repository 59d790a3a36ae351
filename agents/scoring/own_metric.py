"""A metric of the user's own, as a process of its own: what it does to its process is nothing to the run.

`metric: my_metrics.py:score` names a function

    def score(answer: str, wanted: str, messages: list[dict]) -> float

which is given what the model said, what the test row says, and the conversation up to the answer, and returns a number:
the higher the better, 1 for the best one unless the file has another `BEST = 10`.
"""

import argparse
import importlib.util
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from storage.files import write_json


def main(words: Sequence[str]) -> int:
    """Score answers of a file by a function of another one.

    Args:
        words: the command line.

    Returns:
        0, or 1 where the function can't be used; the last line says why.
    """
    parser = argparse.ArgumentParser()
    for name in ("metric", "answers", "scores"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--function", required=True)
    options = parser.parse_args(words)
    try:
        scores, best = _scores(options.metric, options.function, options.answers)
    except _MetricError as error:
        sys.stdout.write(f"error: {error}\n")
        return 1
    write_json(options.scores, {"scores": scores, "best": best})
    return 0


class _MetricError(Exception):
    """A function that can't be used; the text says why."""


def _scores(metric: Path, function: str, answers: Path) -> tuple[list[float], float]:
    sys.path.insert(0, str(metric.parent))
    spec = importlib.util.spec_from_file_location(metric.stem, metric)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[metric.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:  # whatever a user's file does
        raise _MetricError(f"{metric.name} can't be imported: {_told(error, metric)}") from None
    score = getattr(module, function, None)
    if not callable(score):
        names = ", ".join(name for name, value in vars(module).items() if callable(value) and not name.startswith("_"))
        raise _MetricError(f"{metric.name} has no function {function}; it has {names or 'none'}")
    found = []
    for line in answers.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        try:
            value = float(score(row["answer"], row["wanted"], row["messages"]))
        except BaseException as error:
            raise _MetricError(f"{metric.name}:{function} of row {row['id']}: {_told(error, metric)}") from None
        if not math.isfinite(value):
            raise _MetricError(f"{metric.name}:{function} of row {row['id']} is {value}; needed is a finite number")
        found.append(value)
    return found, float(getattr(module, "BEST", 1.0))


def _told(error: BaseException, metric: Path) -> str:
    """Return an error in a line, with the line of the user's file that it comes from."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(metric):
            line = trace.tb_lineno
        trace = trace.tb_next
    place = f" ({metric.name}:{line})" if line else ""
    return f"{type(error).__name__}: {error}{place}"
