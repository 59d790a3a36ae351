"""The process of one step: begun, followed, stopped; found again after the runner was killed."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from doctor.environment.read import EnvironmentUnreadable
from storage.file_lock import handed_lock, is_free

EVENTS = "WORKFLOW_EVENTS"
"""Environment variable that names the file which a step may tell its progress in."""
_GRACE = 20.0  # seconds that a step has to save and leave
_LOOK = 0.05


class StepProcess:
    """A step's command, in a group of its own, whose output goes to a log.

    Args:
        words: the command.
        folder: the project's folder, in which it runs.
        place: folder of logs.
        name: name of its files there, "08_generate".
        environment: environment variables.

    Raises:
        OSError: there is no such program, or a file can't be written.
    """

    def __init__(
        self, words: tuple[str, ...], folder: Path, place: Path, name: str, environment: Mapping[str, str]
    ) -> None:
        self.log, self.events = place / f"{name}.log", place / events_name(name)
        self.events.write_text("", encoding="utf-8")
        self.log_start = self.log.stat().st_size if self.log.exists() else 0
        # The step holds this lock for as long as it lives: a runner that is killed leaves it to be found.
        lock = handed_lock(place / f"{name}.lock")
        try:
            with self.log.open("ab") as output:
                output.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')}  {' '.join(words)}\n".encode())
                output.flush()
                self._process = subprocess.Popen(
                    words, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                    env={**environment, EVENTS: str(self.events.resolve()), "PYTHONUNBUFFERED": "1"},
                    start_new_session=True, pass_fds=() if lock is None else (lock,),
                )  # fmt: skip
        finally:
            if lock is not None:
                os.close(lock)

    @property
    def pid(self) -> int:
        """Number of the process, and of its group."""
        return self._process.pid

    def code(self) -> int | None:
        """Return the exit code, 128 more than the signal that ended it; None while it runs."""
        code = self._process.poll()
        return code if code is None or code >= 0 else 128 - code

    def stop(self) -> int:
        """Let it save and leave; end it where it doesn't. Returns its exit code."""
        _signal_group(self.pid, signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(_GRACE)
        _signal_group(self.pid, signal.SIGKILL)
        self._process.wait()
        return self.code() or 0


def events_name(name: str) -> str:
    """Return the name of the file that a step tells its progress in.

    Args:
        name: name of the step's files, "08_generate".
    """
    return f"{name}.events.jsonl"


def end_left_behind(place: Path, name: str, pid: object) -> bool:
    """End a step whose runner was killed, so that it is not run twice at a time.

    Args:
        place: folder of logs.
        name: name of the step's files there.
        pid: number of its process, as the journal has it; None where it has none.

    Returns:
        Whether it was still there.
    """
    path = place / f"{name}.lock"
    if is_free(path):
        return False
    groups = _groups_with(f"{EVENTS}={(place / events_name(name)).resolve()}")
    if not groups and isinstance(pid, int) and pid > 1:
        groups = {pid}
    for group in groups:
        _signal_group(group, signal.SIGTERM)
    until = time.monotonic() + _GRACE
    while not is_free(path):
        if time.monotonic() > until:
            for group in groups:
                _signal_group(group, signal.SIGKILL)
            until = float("inf")
        time.sleep(_LOOK)
    return True


def _groups_with(variable: str) -> set[int]:
    """Return the process groups that have an environment variable of a value, where the system tells."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if variable.encode() in path.read_bytes().split(b"\0"):
                found.add(os.getpgid(int(path.parent.name)))
        except OSError:
            continue  # of others, or gone meanwhile
    return found - {os.getpgrp()}


def python_of(folder: Path) -> str:
    """Return the interpreter of a project: that of its .venv, else the one that runs this.

    Raises:
        EnvironmentUnreadable: there is a .venv, and its Python is gone.
    """
    venv = folder / ".venv"
    for path in (venv / "bin" / "python", venv / "Scripts" / "python.exe"):
        if path.exists():
            return str(path)
    if venv.is_dir():
        raise EnvironmentUnreadable(
            f"{venv} has no Python, or one that is gone. Make it anew: python3 -m venv --clear {venv}, and install "
            "requirements.txt into it; or take the folder away, so that the Python that runs this is used"
        )
    return sys.executable


def _signal_group(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)
