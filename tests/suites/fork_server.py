"""Runs the command line in forked children: Python with torch takes seconds to start, a fork some milliseconds.

The process that forks has imported everything and has done nothing with it: no thread, no tensor operation, no log. All
that a run changes in its process ends with that process.
"""

import contextlib
import gc
import importlib
import os
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(TESTS))

from conftest import copy_project  # noqa: E402
from system_calls import Death, between_calls  # noqa: E402

_LONGEST = 120.0  # seconds; a run takes less than one


@dataclass(frozen=True)
class Outcome:
    """How a run in a child ended.

    Attributes:
        code: its exit code; -9 after a SIGKILL.
        committed: names of the checkpoints that it reported as saved, in order.
        output: what it wrote on the screen.
        seconds: from the fork to the end.
        counted: system calls by which files change, and how many of these wrote; where the child was asked to count.
    """

    code: int
    committed: list[str]
    output: str
    seconds: float
    counted: tuple[int, int] | None


def load_project(folder: Path, *trainers: str) -> None:
    """Copy the project and import what a run of some trainers needs.

    Args:
        folder: of the copy; it is made.
        trainers: module names, such as `resumable_trainer`.
    """
    project = copy_project(folder)
    sys.path.insert(0, str(project.path))
    for name in ("commands.command_line", *(f"train.{trainer}" for trainer in trainers), "torch._dynamo"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # so that a child's collections don't copy pages that nobody changes


def run(
    words: list[str], folder: Path, kill_after: float | None = None, death: tuple[int, str] | None = None
) -> Outcome:
    """Run `python train.py WORDS` in a child.

    Args:
        words: the arguments.
        folder: where the child runs; its output goes to output.txt there.
        kill_after: seconds after the fork at which a SIGKILL is sent.
        death: what `Death` takes: the child kills itself at a system call; (0, "") counts them.

    Returns:
        How it ended.
    """
    reading, writing = os.pipe()
    sys.stdout.flush()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        code = 70
        try:
            os.close(reading)
            code = _be_child(words, folder, writing, death)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    os.close(writing)
    code = _wait(child, kill_after)
    seconds = time.monotonic() - start
    lines = _read_all(reading).decode().split("\n")[:-1]
    counted = [line.split()[1:] for line in lines if line.startswith("counted ")]
    return Outcome(
        code=code,
        committed=[line.split(" ", 1)[1] for line in lines if line.startswith("saved ")],
        output=(folder / "output.txt").read_text() if (folder / "output.txt").exists() else "",
        seconds=seconds,
        counted=(int(counted[0][0]), int(counted[0][1])) if counted else None,
    )


def _wait(child: int, kill_after: float | None) -> int:
    """Wait for a child's own end, which a loader's workers, who have its pipe too, may outlive."""
    ended = os.pidfd_open(child)
    try:
        if not select.select([ended], [], [], _LONGEST if kill_after is None else kill_after)[0]:
            os.kill(child, signal.SIGKILL)
    finally:
        os.close(ended)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _read_all(reading: int) -> bytes:
    os.set_blocking(reading, False)
    parts = []
    with contextlib.suppress(BlockingIOError):  # workers that are still there may hold the other end
        while part := os.read(reading, 2**16):
            parts.append(part)
    os.close(reading)
    return b"".join(parts)


def _be_child(words: list[str], folder: Path, pipe: int, death: tuple[int, str] | None) -> int:
    from commands import command_line
    from storage.checkpoint_store import CheckpointStore

    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(folder)
    sys.argv = ["train.py", *words]
    tell, save = os.write, CheckpointStore.save

    def save_and_report(*args: Any, **kwargs: Any) -> Path:
        path = save(*args, **kwargs)
        tell(pipe, f"saved {path.name}\n".encode())
        return path

    CheckpointStore.save = save_and_report
    dying = Death(*(death or (0, "")))
    try:
        with between_calls(dying) if death else contextlib.nullcontext():
            code = command_line.main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    tell(pipe, f"counted {dying.calls} {dying.writes}\n".encode())
    return code
