"""`tune.py serve`: the page, and a worker that goes on with the run for as long as there is something to do."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import uvicorn

from agents.dashboard.app import build_app
from agents.dashboard.page_error import PageError
from agents.dashboard.view import View
from agents.task.folder import TaskFolder
from config.service_config import is_loopback
from constants.paths import IS_CHECKOUT, PACKAGE_ROOT

_SHORT = 16  # characters of a key at least
_LAST_PORT = 65_535


def serve_page(folder: TaskFolder, host: str, port: int, key: str | None) -> None:
    """Serve the page of a task until Ctrl-C or SIGTERM. The worker ends with it, and goes on when it is served again.

    Args:
        folder: the task's folder.
        host: address to listen at.
        port: port; 0 takes a free one.
        key: key that visitors need; None where only this machine can visit.

    Raises:
        PageError: others could visit without a key, or the port is taken.
    """
    if not is_loopback(host) and key is None:
        raise PageError(f"--host {host} lets others in: give --key too, of {_SHORT} characters and more")
    if key is not None and len(key) < _SHORT:
        raise PageError(f"--key has {len(key)} characters; {_SHORT} are the least")
    listening = _listening(host, port)
    address = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    worker = Worker(folder.path)
    app = build_app(folder, host, key, worker)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    sys.stdout.write(f"{address}{f'?key={key}' if key else ''}\n")
    sys.stdout.flush()
    if View(folder).standing().state:
        worker.start(folder.thread)
    with contextlib.closing(listening):
        try:
            server.run(sockets=[listening])
        finally:
            worker.stop()


class Worker:
    """The process that drives the run; one at a time, whoever has started it.

    Args:
        path: the task's folder.
    """

    def __init__(self, path: Path) -> None:
        self._folder = TaskFolder(path)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = ""
        self._lock = threading.Lock()

    def start(self, thread: str, move: bool = False) -> None:
        """Start it, where none runs.

        Args:
            thread: thread of the run that it drives.
            move: whether one that drives another thread is to save, and leave this one the task.
        """
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                if self._thread == thread or not move:
                    return
                self._process.terminate()
                self._process.wait()
            self._thread = thread
            script = [str(PACKAGE_ROOT / "tune.py")] if IS_CHECKOUT else ["-m", "menagerie", "tune"]
            words = [sys.executable, *script, "run", str(self._folder.path), "--wait", "--thread", thread]
            self._folder.kept.mkdir(exist_ok=True)
            log = Path(self._folder.kept / "worker.log")
            with log.open("ab") as output:
                # A run that another process drives is left to it: this one then ends by itself.
                self._process = subprocess.Popen(
                    words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env={**os.environ},
                )  # fmt: skip

    def started(self) -> str:
        """Return the thread of the process that was started and has not ended; "" for none."""
        return self._thread if self._process is not None and self._process.poll() is None else ""

    def stop(self) -> None:
        """Let it save and leave."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                self._process.terminate()
                self._process.wait()


def _listening(host: str, port: int) -> socket.socket:
    if not 0 <= port <= _LAST_PORT:
        raise PageError(f"--port {port} is no port; they are 1 to {_LAST_PORT}, and 0 takes a free one.")
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listening = socket.socket(family, kind)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        reason = error.strerror or str(error)
        raise PageError(f"{host}:{port} can't be listened at: {reason}. `--port 0` takes a free one.") from None
    return listening
