"""A user's checker of answers, run in a process of its own with a time limit: pass@k of what a model writes."""

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data.data_error import DataError
from evaluation.text_metrics import pass_at_k

# Reads an answer and its row a line, writes what the function says of it a line. What the function prints goes to the
# standard error, so that it isn't taken for a result.
_WORKER = """
import importlib.util, json, os, sys
results = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
path, name = sys.argv[1:3]
sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
spec = importlib.util.spec_from_file_location("user_checker", path)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
function = getattr(module, name)
results.write("ready\\n"); results.flush()
for line in sys.stdin:
    answer, row = json.loads(line)
    try:
        value = function(answer, row)
        said = {"passed": bool(value)}
    except Exception as error:
        said = {"passed": False, "error": f"{type(error).__name__}: {error}"}
    results.write(json.dumps(said) + "\\n"); results.flush()
"""
_STARTING_SECONDS = 60.0  # a checker may import much


@dataclass(frozen=True)
class CheckedAnswer:
    """What a checker said of an answer.

    Attributes:
        passed: whether it passed.
        reason: why not, where the checker raised, took too long or died; else empty.
    """

    passed: bool
    reason: str = ""


class AnswerChecker:
    """Asks a function of a user's whether answers are right.

    The function is called as `function(answer, row)` and returns whether the answer is right; row is the mapping of the
    sample. It runs in a process that is killed, with all that it started, when an answer takes too long: code that a
    model wrote may never end. That is no sandbox: it can do what the user can.

    Args:
        spec: file and function, such as `check.py:is_right`.
        seconds: time limit of one answer.

    Raises:
        DataError: the file or the function can't be found or loaded.
    """

    def __init__(self, spec: str, seconds: float = 10.0) -> None:
        path, colon, name = spec.rpartition(":")
        if not colon or not name.isidentifier() or not path.endswith(".py"):
            raise DataError(f"checker is {spec}; it must be a file and a function, such as check.py:is_right.")
        if not Path(path).is_file():
            raise DataError(f"checker is {spec}; there is no file {path}.")
        if not seconds > 0:
            raise DataError(f"the checker's time limit is {seconds:g} seconds; it must be above 0.")
        self.spec, self.seconds = spec, seconds
        self._command = [sys.executable, "-c", _WORKER, path, name]
        self._process: subprocess.Popen[bytes] | None = None
        self._left = b""
        self._start()

    def __enter__(self) -> "AnswerChecker":
        return self

    def __exit__(self, *what: object) -> None:
        self.close()

    def __call__(self, answer: str, row: Mapping[str, Any] | None = None) -> CheckedAnswer:
        """Check one answer.

        Args:
            answer: what the model wrote.
            row: the sample that it answers.
        """
        if self._process is None:
            self._start()
        process = self._process
        assert process is not None and process.stdin is not None
        try:
            process.stdin.write(json.dumps([answer, dict(row or {})]).encode() + b"\n")
            process.stdin.flush()
            line = self._line(self.seconds)
        except BrokenPipeError:
            line = b""
        if line is None:
            self.close()
            return CheckedAnswer(False, f"took longer than {self.seconds:g} seconds")
        if not line:
            process.wait()
            ended = process.returncode
            self.close()
            how = signal.Signals(-ended).name if ended < 0 else f"exit code {ended}"
            return CheckedAnswer(False, f"the checker's process died ({how})")
        said = json.loads(line)
        return CheckedAnswer(said["passed"], said.get("error", ""))

    def close(self) -> None:
        """End the process, with all that it started."""
        process, self._process, self._left = self._process, None, b""
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # what was not read yet
                    stream.close()

    def _start(self) -> None:
        with tempfile.TemporaryFile() as errors:  # a pipe that nobody reads would hold up a checker that prints
            process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
            )
            self._process = process
            line = self._line(_STARTING_SECONDS)
            if line == b"ready\n":
                return
            self.close()
            errors.seek(0)
            said = errors.read().decode(errors="replace").strip().splitlines()
        why = said[-1] if said and line is not None else "it takes too long to load"
        raise DataError(f"checker {self.spec} can't be loaded: {why}.")

    def _line(self, seconds: float) -> bytes | None:
        """Return the next line; empty where the process has ended, None where it takes too long."""
        process = self._process
        assert process is not None and process.stdout is not None
        until = time.monotonic() + seconds
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._left:
                if not selector.select(max(0.0, until - time.monotonic())):
                    return None
                part = os.read(process.stdout.fileno(), 65536)
                if not part:
                    return b""
                self._left += part
        line, _, self._left = self._left.partition(b"\n")
        return line + b"\n"


def pass_rate(
    checker: AnswerChecker,
    answers: Sequence[Sequence[str]],
    rows: Sequence[Mapping[str, Any]],
    ks: Sequence[int] = (1,),
) -> dict[str, float]:
    """Return pass@k over tasks, each with several answers.

    Args:
        checker: says of an answer whether it passes.
        answers: of each task its answers, each task at least as many as the largest k.
        rows: of each task its sample.
        ks: numbers of answers that one may give.

    Returns:
        `pass@1` and so on: means over tasks.

    Raises:
        DataError: there is no task, or a task with fewer answers than k.
    """
    if not answers or len(answers) != len(rows):
        raise DataError(f"pass@k: {len(answers)} tasks with answers and {len(rows)} rows; each task needs its own.")
    counts = [(len(each), sum(checker(answer, row).passed for answer in each))
              for each, row in zip(answers, rows, strict=True)]  # fmt: skip
    return {f"pass@{k}": sum(pass_at_k(n, c, k) for n, c in counts) / len(counts) for k in ks}
