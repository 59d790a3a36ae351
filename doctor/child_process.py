"""Running a command with a deadline, and ending all that it started."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_KEPT = 200_000  # characters of an output that are kept: its beginning and its end


@dataclass(frozen=True)
class Ran:
    """How a command went.

    Args:
        command: its words.
        code: exit code; negative where a signal ended it, None where it could not be started or was stopped for time.
        output: what it wrote, standard output and errors in the order of writing.
        seconds: how long it took.
        timed_out: whether it was stopped for time.
    """

    command: tuple[str, ...]
    code: int | None
    output: str
    seconds: float
    timed_out: bool = False

    @property
    def passed(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.code == 0


def run_command(
    command: Sequence[str], timeout: float, cwd: str | None = None, environment: Mapping[str, str] | None = None
) -> Ran:
    """Run a command without a terminal, and end it with all its children at a deadline or when this is interrupted.

    Args:
        command: its words.
        timeout: seconds until it is ended.
        cwd: folder that it runs in; None is this process's.
        environment: all of its environment variables; None are this process's.

    Returns:
        How it went; a command that isn't there has no exit code, and the reason as its output.
    """
    began = time.monotonic()
    windows = sys.platform == "win32"
    try:
        process = subprocess.Popen(
            list(command), cwd=cwd, env=None if environment is None else dict(environment), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=not windows,
            creationflags=0x200 if windows else 0,
        )  # fmt: skip
    except OSError as error:
        return Ran(tuple(command), None, f"{command[0]} could not be started: {error.strerror or error}", 0.0)
    timed_out = False
    try:
        output, _ = process.communicate(timeout=max(timeout, 0.01))
    except subprocess.TimeoutExpired:
        timed_out = True
        _end(process)
        output, _ = process.communicate()
    except BaseException:
        _end(process)
        process.communicate()
        raise
    finally:
        _end(process)  # what it left running
    text = output.decode("utf-8", "replace").replace("\r\n", "\n")
    if len(text) > _KEPT:
        text = f"{text[: _KEPT // 2]}\n... {len(text) - _KEPT} characters are left out ...\n{text[-_KEPT // 2 :]}"
    return Ran(tuple(command), None if timed_out else process.returncode, text, time.monotonic() - began, timed_out)


def _end(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(OSError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
