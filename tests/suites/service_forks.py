"""A process that forks services: Python with torch and transformers takes seconds to start, a fork some milliseconds.

It reads a line of JSON for each service that it is to start, and answers with the id of its process:

    {"words": [...], "output": "output.txt", "death": [17, "before"] or null, "states": true}

It has imported everything, read the settings once, as the checks of their types take longest, and made the model that
all of them serve. All that a service changes in its process ends with that.
"""

import gc
import importlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parent.parent
ROOT = TESTS.parent
sys.path[:0] = [str(ROOT), str(TESTS)]

from system_calls import between_calls  # noqa: E402

_STORE = ("/journal", "/checkpoints", "/holder.json")


class DeathAtTheStore:
    """Counts the calls that change a service's journal, states and checkpoints, and dies at one of them.

    Args:
        folder: the service's folder.
        at: which, from 1; 0 only counts.
        how: `before`, `after` or `half`, as `Death` has it; a call that is no write dies before it for `half`.
        tell: file that the number of calls is written to, whenever it grows.
    """

    def __init__(self, folder: str, at: int, how: str, tell: Path) -> None:
        self._folder, self._at, self._how, self._tell = folder, at, how, tell
        self._handles: set[int] = set()
        self._count = 0

    def __call__(self, name: str, real: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Stand between, for `between_calls`."""
        mine = args[0] in self._handles if isinstance(args[0], int) else self._is_of_store(str(args[0]))
        if not mine or name == "close":
            if name == "close":
                self._handles.discard(args[0])
            return real(*args, **kwargs)
        self._count += 1
        here = self._count == self._at
        if here and self._how == "half" and name == "write":
            real(args[0], memoryview(args[1])[: len(args[1]) // 2])
        if here and self._how != "after":
            os.kill(os.getpid(), signal.SIGKILL)
        found = real(*args, **kwargs)
        if name == "open":
            self._handles.add(found)
        if here:
            os.kill(os.getpid(), signal.SIGKILL)
        if not self._at:
            self._tell.write_text(str(self._count))
        return found

    def _is_of_store(self, path: str) -> bool:
        return path.startswith(self._folder) and any(part in path for part in _STORE)


def main() -> None:
    """Fork services until the input ends."""
    for name in ("llm.base_model", "service.command_line", "service.local_service", "service.web.loopback_server",
                 "service.web.request_log", "service.tinker.tinker_protobuf", "starlette.applications", "uvicorn",
                 "uvicorn.protocols.http.httptools_impl", "uvicorn.lifespan.off", "transformers", "zstandard",
                 "google.protobuf.message_factory", "torch._dynamo"):  # fmt: skip
        try:
            importlib.import_module(name)
        except ImportError:
            continue  # what a service can do without
    made = _model()
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 70
            try:
                code = _serve(told, made)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()


def _model() -> Any:
    """Read settings, for what stays in memory of that, and return the model."""
    from config import ConfigParser
    from config.service_config import ServiceConfig
    from llm import base_model

    ConfigParser.get(ServiceConfig)
    ConfigParser.reset()
    return base_model.load("tiny")


def _serve(told: dict[str, Any], made: Any) -> int:
    from llm import base_model
    from service import command_line, local_service
    from service.tinker import state_keeper

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    output = os.open(told["output"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for handle, stream in ((nothing, 0), (output, 1), (output, 2)):
        os.dup2(handle, stream)
    cadence = state_keeper.Cadence(seconds=0.05, times=0, rest=0.05, rest_times=0) if told["states"] else (
        state_keeper.Cadence(seconds=1e9, rest=1e9))  # fmt: skip
    base_model.load = lambda *args, **more: made
    running = local_service.running
    local_service.running = lambda *args, **more: running(*args, cadence=cadence, **more)
    words = told["words"]
    folder = words[words.index("--folder") + 1]
    at, how = told["death"] or (0, "")
    dying = DeathAtTheStore(folder, at, how, Path(told["output"]).with_suffix(".count"))
    sys.argv = ["serve.py", *words]
    with between_calls(dying) if told["death"] else nullcontext():
        return command_line.main(words)


if __name__ == "__main__":
    main()
