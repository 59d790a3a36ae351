"""Runs a command with its output passed through as it comes, and keeps the end of it."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import BinaryIO

from constants.environment_faults import UNDER_DOCTOR
from doctor.errors import InputError

_KEPT = 8 * 2**20  # bytes of output: tracebacks of many processes take some hundred thousand
_PASSED_ON = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCONT")
# What a shell says of a process that a signal ended: all that is known of it, where it wrote nothing.
_SAID = {"SIGKILL": "Killed", "SIGSEGV": "Segmentation fault (core dumped)", "SIGABRT": "Aborted (core dumped)",
         "SIGBUS": "Bus error (core dumped)", "SIGILL": "Illegal instruction (core dumped)"}  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Args:
        code: its exit code as a shell has it: 128 and the signal's number where one ended it.
        output: the end of what it wrote, both streams in the order they came.
        stopped: whether a person or a scheduler stopped it, which is no failure of its own.
    """

    code: int
    output: str
    stopped: bool


class _Tail:
    """The end of what two streams write."""

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._lock = threading.Lock()

    def add(self, block: bytes) -> None:
        with self._lock:
            self._bytes += block
            if len(self._bytes) > 2 * _KEPT:
                del self._bytes[:-_KEPT]

    def text(self) -> str:
        with self._lock:
            return self._bytes[-_KEPT:].decode("utf-8", errors="replace")


def run_live(words: Sequence[str], out: BinaryIO, err: BinaryIO) -> Ended:
    """Run a command until it ends. Ctrl-C reaches it as without us, other signals are passed on.

    Args:
        words: the command.
        out: where its output goes.
        err: where its errors go.

    Raises:
        InputError: there is no such command, or it can't be run.
    """
    # A pipe is written in blocks; a person wants to see lines as they come.
    variables = {"PYTHONUNBUFFERED": "1", **os.environ, UNDER_DOCTOR: "1"}
    got: list[int] = []
    with _signals(got) as child_of:
        try:
            child = subprocess.Popen(list(words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=variables)
        except FileNotFoundError:
            raise InputError(f"there is no command {words[0]}") from None
        except OSError as error:
            raise InputError(f"{words[0]} can't be run: {error.strerror or error}") from None
        child_of.append(child)
        tail = _Tail()
        readers = [threading.Thread(target=_pass_on, args=pair, daemon=True) for pair in
                   ((child.stdout, out, tail), (child.stderr, err, tail))]  # fmt: skip
        for reader in readers:
            reader.start()
        code = child.wait()
        for reader in readers:  # a process that it has left behind may keep the pipes open
            reader.join(timeout=2)
    text = tail.text()
    if code < 0:
        name = signal.Signals(-code).name if -code in {one.value for one in signal.Signals} else ""
        if name in _SAID:
            text += f"\n{_SAID[name]}\n"
    stopped = bool(got) or code in (-signal.SIGINT, 128 + signal.SIGINT, -signal.SIGTERM)
    return Ended(128 - code if code < 0 else code, text, stopped)


def _pass_on(stream: BinaryIO, to: BinaryIO, tail: _Tail) -> None:
    with contextlib.suppress(OSError, ValueError):
        while block := os.read(stream.fileno(), 65536):
            tail.add(block)
            with contextlib.suppress(OSError, ValueError):  # nobody reads any more: the command goes on
                to.write(block)
                to.flush()


@contextlib.contextmanager
def _signals(got: list[int]) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Pass signals on to the child, which is put into the list that is yielded."""
    children: list[subprocess.Popen[bytes]] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        got.append(number)
        if children:
            with contextlib.suppress(OSError):
                children[0].send_signal(number)

    def note(number: int, _: FrameType | None) -> None:
        got.append(number)  # the terminal has sent it to the child too

    wanted = {number: pass_on for name in _PASSED_ON if (number := getattr(signal, name, None)) is not None}
    before = {number: signal.signal(number, handler) for number, handler in {**wanted, signal.SIGINT: note}.items()}
    try:
        yield children
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
