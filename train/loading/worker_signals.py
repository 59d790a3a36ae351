"""A loader's workers under signals: those that are meant for the run don't end them while the run needs a batch."""

import contextlib
import math
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch.utils.data import DataLoader

from data.loaders import Loader

GRACE = 20.0  # seconds that a worker goes on after a SIGTERM; SLURM sends SIGKILL after 30
PATIENCE = 5.0  # seconds that a forked worker may take to its first line, before another one is forked; then doubled
LOOK = 1.0  # seconds between two looks whether the main process is still there
_HELD = {getattr(signal, name) for name in ("SIGINT", "SIGUSR1", "SIGTERM") if hasattr(signal, name)}
_CAN_TELL_SENDER = hasattr(signal, "sigtimedwait")  # not on macOS and Windows


def tend_workers(loader: Loader) -> None:
    """Let a DataLoader's workers stay until the run shuts them down.

    A terminal's Ctrl-C, SLURM and `kill -- -<group>` signal each process of a job. The main process then finishes its
    step, for which it may need another batch.

    Args:
        loader: any; only a DataLoader with workers is changed, and only once. Its own `worker_init_fn` is called too.
    """
    if not isinstance(loader, DataLoader) or not loader.num_workers or isinstance(loader.worker_init_fn, TendedWorker):
        return
    loader.worker_init_fn = TendedWorker(loader.worker_init_fn)
    if _CAN_TELL_SENDER and loader.multiprocessing_context is None and multiprocessing.get_start_method() == "fork":
        loader.multiprocessing_context = HoldingContext()


if _CAN_TELL_SENDER:
    from multiprocessing.context import ForkContext, ForkProcess
    from multiprocessing.popen_fork import Popen

    class HoldingProcess(ForkProcess):
        """A process that is forked with the signals blocked, so that none finds it before it is prepared.

        Python 3.11 may hang in a fork for ever, before a line of the child is run: where a thread of torch's, as gloo
        has them, just then holds the lock of the interpreter's list of threads. So a child says that it is there, and
        waits for the answer, which one that is given up for hanging never gets. Another one is forked in its place.
        """

        _here: socket.socket  # the main process's end of the line over which a child says that it is there
        _there: socket.socket  # the child's end

        def start(self) -> None:
            """Fork."""
            before = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
            try:
                super().start()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

        @staticmethod
        def _Popen(process: "HoldingProcess") -> Popen:  # type: ignore[override]  # multiprocessing's name; always ours
            patience = PATIENCE
            while True:
                process._here, process._there = socket.socketpair()
                with process._here as here, process._there:
                    child = Popen(process)
                    here.settimeout(patience)
                    with contextlib.suppress(TimeoutError):
                        here.recv(1)
                        here.sendall(b"1")
                        return child
                os.kill(child.pid, signal.SIGKILL)
                child.wait()
                child.close()
                patience *= 2

        def _bootstrap(self, *arguments: Any, **named: Any) -> int:  # the first that a child does
            self._here.close()
            with self._there as there:
                there.sendall(b"1")
                if not there.recv(1):
                    os._exit(1)
            return super()._bootstrap(*arguments, **named)  # type: ignore[misc]  # multiprocessing's, without a stub

    class HoldingContext(ForkContext):
        """What a DataLoader starts its workers by."""

        Process = HoldingProcess


class TendedWorker:
    """A `worker_init_fn` that makes a worker leave SIGINT, SIGUSR1 and SIGTERM to the main process.

    Args:
        own: the `worker_init_fn` of the loader's author.
    """

    def __init__(self, own: Callable[[int], None] | None) -> None:
        self.own = own

    def __call__(self, worker: int) -> None:
        """Prepare a worker; called in it.

        Args:
            worker: number of the worker, from 0.
        """
        for number in _HELD - {signal.SIGTERM}:
            signal.signal(number, signal.SIG_IGN)
        sys.excepthook = tell_unless_broken_off
        if _CAN_TELL_SENDER:
            # A handler in Python is not told who sent a signal, so SIGTERM is blocked and taken by a thread that waits
            # for it. It stays blocked in the threads and programs that samples start, and such a program must be ended
            # by SIGKILL (`Popen.kill`).
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _HELD - {signal.SIGTERM})
            threading.Thread(target=_take_sigterm, name="SIGTERM", daemon=True).start()
        if self.own is not None:
            self.own(worker)


def tell_unless_broken_off(kind: type[BaseException], error: BaseException, frames: TracebackType | None) -> None:
    """Print an error of a worker's thread, unless the main process has broken off while it fetched a batch.

    An error that ends the run, such as the death of another worker, may come just then. The run tells that one.
    """
    if not isinstance(error, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, frames)


def _take_sigterm() -> None:
    """End the worker when the main process asks, or a while after anybody else has, or when there is no main process.

    The main process asks by SIGTERM only where a worker has not ended by itself. A worker of torch's looks for its main
    process too, but takes whoever is its parent when it begins to work for that one: where the main process is killed
    before, it would wait for it for ever.
    """
    main, deadline = multiprocessing.parent_process(), math.inf
    if main is None:
        raise RuntimeError("this is no worker of a DataLoader")
    # A fork server, where that starts the workers, is the parent.
    forked = isinstance(multiprocessing.current_process(), ForkProcess)
    parent = main.pid if forked else os.getppid()
    while os.getppid() == parent and main.is_alive() and time.monotonic() < deadline:
        info = signal.sigtimedwait({signal.SIGTERM}, min(LOOK, max(0.0, deadline - time.monotonic())))
        if info is not None and info.si_pid == main.pid:
            os._exit(0)
        if info is not None:
            deadline = min(deadline, time.monotonic() + GRACE)
    os._exit(128 + signal.SIGTERM)
