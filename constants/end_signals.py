"""SIGTERM and SIGUSR1 end a command as Ctrl-C does, wherever it is. A run that trains takes them itself, meanwhile."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))


class Terminated(KeyboardInterrupt):
    """A command that a signal has ended.

    Attributes:
        number: number of the signal; the exit code is 128 more, as a shell has it.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@contextmanager
def hearing_signals() -> Iterator[None]:
    """Raise Terminated at the first SIGTERM or SIGUSR1 that comes in a block; what comes after it changes nothing.

    Only a process's main thread can; elsewhere signals do what they did.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    process, heard = os.getpid(), []

    def take(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # forked with this handler
            os._exit(128 + number)
        heard.append(number)
        if len(heard) == 1:
            raise Terminated(number)

    before = {number: signal.signal(number, take) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            if signal.getsignal(number) is take:  # else somebody has other plans for the process's end
                signal.signal(number, handler)
