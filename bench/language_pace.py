"""Lets bench/language.py run the training steps of several processes in turn: a step begins when it says so."""

import json
import os
import socket
import time

from train.callbacks import Callback

CHANNEL = "BENCH_CHANNEL"  # names the file descriptor of the socket to the bench


class Pace:
    """The process's side: it waits before each step, and tells what the last one took."""

    def __init__(self) -> None:
        self._stream = socket.socket(fileno=int(os.environ[CHANNEL])).makefile("rw")
        self._begun: tuple[float, float] | None = None

    def wait(self) -> None:
        """Tell what was done since the last call, and wait until the bench says go."""
        spent = [0.0, 0.0]
        if self._begun is not None:
            spent = [time.perf_counter() - self._begun[0], time.process_time() - self._begun[1]]
        self._stream.write(json.dumps({"wall": spent[0], "processor": spent[1], "peak": peak_bytes()}) + "\n")
        self._stream.flush()
        if not self._stream.readline():
            os._exit(1)  # the bench is gone
        self._begun = (time.perf_counter(), time.process_time())


def peak_bytes() -> int:
    """Return the most memory that this process has had."""
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


class Paced(Callback):
    """Paces a trainer of ours: `callbacks=language_pace:Paced`."""

    def __init__(self) -> None:
        self._pace = Pace()

    def on_train_begin(self, trainer) -> None:
        self._pace.wait()

    def on_step_end(self, trainer, steps: int) -> None:
        self._pace.wait()
