"""Starts Python for a test in a new process that has the heavy packages in memory: torch takes two seconds to import.

A server, one for all processes of pytest, imports packages of others only, never the project's code, and forks a child
for each start. The child runs the script as `python SCRIPT WORDS` does, in its own folder, with its own environment and
output, and ends as Python ends (see `_leave_as`); all that it changes is gone with it. `--cold` (as `make test-all` has
it) starts Python itself each time; so do starts that the server can't stand for: with other environment variables that
packages read when they are imported.
"""

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

_HEAVY = (
    "torch", "torch._dynamo", "torch.nn.utils.stateless", "torch.utils.data", "torch.utils.flop_counter", "numpy",
    "safetensors.torch", "pydantic", "pydantic.type_adapter", "yaml", "tqdm", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "scipy.stats", "scipy.optimize", "sklearn.linear_model",
    "sklearn.model_selection", "sklearn.ensemble", "PIL.PngImagePlugin",
)  # fmt: skip
_WHERE_INSTALLED = (
    "transformers", "transformers.tokenization_utils_base", "transformers.tokenization_utils_tokenizers", "tokenizers",
    "gguf", "jinja2", "jinja2.debug", "pyarrow.parquet", "sacrebleu", "openai", "openai.lib.streaming.chat",
    "openai.resources.chat.completions", "openai.resources.completions", "openai.types.chat", "jiter",
    "langgraph.graph", "langgraph.graph.state", "langgraph.checkpoint.sqlite", "langgraph.types",
    "starlette.applications", "uvicorn", "uvicorn.lifespan.on", "uvicorn.protocols.http.h11_impl",
)  # fmt: skip
_READ_AT_IMPORT = (
    "OMP_", "MKL_", "KMP_", "TORCH", "PYTORCH", "PYTHON", "MPL", "CUDA", "LD_", "GLIBC_", "MALLOC_", "HF_",
)  # fmt: skip

# Packages that tests import set these for their own process. No start inherits them: it isn't one of a process that has
# imported these packages, and the server, which had none of them when it was started, would stand for no start at all.
_SET_BY_PACKAGES = ("KMP_DUPLICATE_LIB_OK", "KMP_INIT_AT_FORK", "TORCHINDUCTOR_CACHE_DIR")
_AT_START = frozenset(os.environ)

cold = False  # whether every start is one of Python itself
_PLACE = "WARM_PYTHON_SERVER"  # variable with what others need to know of a server: its address, what it has of theirs
_started: "subprocess.Popen[bytes] | None" = None


def run_python(
    words: Sequence[object], cwd: Path, environment: Mapping[str, str] | None = None, timeout: float = 300,
    typed: bytes = b"",
) -> subprocess.CompletedProcess:  # fmt: skip
    """Run `python WORDS` in a new process.

    Args:
        words: a script, or `-m` and a module; and its arguments.
        cwd: where it runs.
        environment: variables beside this process's own; OMP_NUM_THREADS is 1 unless they say otherwise.
        timeout: seconds after which it is killed.
        typed: what is on its standard input.

    Returns:
        Its exit code, and what it wrote as text.

    Raises:
        subprocess.TimeoutExpired: it was killed.
    """
    words = [str(word) for word in words]
    variables = {**_inherited(), "OMP_NUM_THREADS": "1", **(environment or {})}
    if cold or not _server_stands_for(variables):
        done = subprocess.run(
            [sys.executable, *words],
            cwd=cwd,
            env=variables,
            capture_output=True,
            input=typed,
            timeout=timeout,
            # A shell starts background jobs with SIGINT ignored, and they hand that on; a test may be such a job.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
        return done
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "stdin").write_bytes(typed)
        order = {"words": words, "cwd": str(cwd), "environment": variables, "output": folder, "timeout": timeout}
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(json.loads(os.environ[_PLACE])["address"])
            line.sendall(json.dumps(order).encode() + b"\n")
            with line.makefile() as answer:
                code = int(answer.readline())
        output, errors = (Path(folder, name).read_text() for name in ("stdout", "stderr"))
    if code == -signal.SIGKILL and errors.endswith(_TOO_LONG):
        late = subprocess.TimeoutExpired(words, timeout, output, errors)
        late.add_note(f"where it was, at the end of what it wrote:\n{errors[-4000:]}")
        raise late
    return subprocess.CompletedProcess([sys.executable, *words], code, output, errors)


_TOO_LONG = "\nkilled: too long\n"
_TELL = signal.SIGRTMIN + 7  # lets a start write where it is
_TELLING = 2.0  # seconds that it has for that


def start_server() -> None:
    """Start the server for this process and all that it starts; it ends with this process."""
    global _started
    folder = tempfile.mkdtemp(prefix="warm-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Arrow's allocator would have a thread in the background, and what is forked beside a thread may wait for ever for
    # a lock that the thread held.
    variables = {**_inherited(), "OMP_NUM_THREADS": "1", "JE_ARROW_MALLOC_CONF": "background_thread:false"}
    with socket.socket(socket.AF_UNIX) as listener:  # it listens from now on; the server takes it over
        listener.bind(f"{folder}/socket")
        listener.listen(64)
        command, passed = [sys.executable, "-u", __file__, str(listener.fileno())], [listener.fileno()]
        _started = subprocess.Popen(
            command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=passed
        )
    read = {name: value for name, value in variables.items() if name.startswith(_READ_AT_IMPORT)}
    os.environ[_PLACE] = json.dumps({"address": f"{folder}/socket", "read": read})


def _inherited() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _SET_BY_PACKAGES or name in _AT_START}


def _server_stands_for(variables: Mapping[str, str]) -> bool:
    """Start the server where there is none, and say whether its packages are as this start would import them."""
    if _PLACE not in os.environ:
        start_server()
    read = {name: value for name, value in variables.items() if name.startswith(_READ_AT_IMPORT)}
    return read == json.loads(os.environ[_PLACE])["read"]


@dataclass
class _Child:
    """A start that goes on: its order, who waits for its exit code, and until when it may run."""

    process: int
    line: socket.socket
    order: dict
    ends_at: float
    told: bool = False  # whether it was asked where it is, since its time is over


def _serve(listener: socket.socket) -> None:
    """Fork a child for each order that is read; write its exit code. Ends with who started this process."""
    for name in _HEAVY:
        importlib.import_module(name)
    for name in _WHERE_INSTALLED:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    for what in list(weakref.finalize._registry):
        what.atexit = False  # of what is imported here, such as torch's operators: a child would take each apart
    gc.collect()
    gc.freeze()  # so that a child's collections don't copy pages that nobody changes
    children: dict[int, _Child] = {}  # by a descriptor that can be read when the child has ended
    while True:
        # A day at most, since one that was killed has no end.
        wait = min([86400.0, *(max(0.0, child.ends_at - time.monotonic()) for child in children.values())])
        ready = select.select([listener, sys.stdin, *children], [], [], wait)[0]
        if sys.stdin in ready:
            return
        for child in children.values():
            if child.ends_at <= time.monotonic() and not child.told:
                child.told, child.ends_at = True, time.monotonic() + _TELLING
                os.kill(child.process, _TELL)
            elif child.ends_at <= time.monotonic():
                with Path(child.order["output"], "stderr").open("a") as stream:
                    stream.write(_TOO_LONG)
                os.kill(child.process, signal.SIGKILL)
                child.ends_at = float("inf")
        for ended in [place for place in ready if place in children]:
            child = children.pop(ended)
            os.close(ended)
            code = os.waitstatus_to_exitcode(os.waitpid(child.process, 0)[1])
            with contextlib.suppress(OSError), child.line:  # who asked may be gone
                child.line.sendall(f"{code}\n".encode())
        if listener in ready:
            line, _ = listener.accept()
            with line.makefile() as asked:
                order = json.loads(asked.readline())
            process = os.fork()
            if process == 0:
                for other in (listener, line, *(child.line for child in children.values())):
                    other.close()
                for ended in children:
                    os.close(ended)
                _leave_as(lambda order=order: _become(order))
            children[os.pidfd_open(process)] = _Child(process, line, order, time.monotonic() + order["timeout"])


def _leave_as(action: Callable[[], None]) -> NoReturn:
    """Do something and end this process as Python ends, but for the taking apart of what the server has imported.

    That takes a third of a second each time, since it copies all pages. Threads are waited for, exit handlers run, what
    the project has made and nobody holds is freed.
    """
    code: object = 0
    try:
        action()
    except SystemExit as left:
        code = left.code
    except BaseException as error:
        sys.excepthook(type(error), error, error.__traceback__)
        code = -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1
    if code is not None and not isinstance(code, int):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    gc.collect()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except ValueError:  # it is closed
            pass
        except OSError:
            code = 120
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def _become(order: dict) -> None:
    """Run the script in this process, which is left as the script leaves it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(_TELL, file=2)
    os.environ.clear()
    os.environ.update(order["environment"])
    time.tzset()
    os.chdir(order["cwd"])
    for number, name in ((1, "stdout"), (2, "stderr")):
        file = os.open(os.path.join(order["output"], name), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, number)
        os.close(file)
    file = os.open(os.path.join(order["output"], "stdin"), os.O_RDONLY)
    os.dup2(file, 0)
    os.close(file)
    sys.stdin = open(0)  # noqa: SIM115
    # Written through as a pipe's would be: all at the end.
    sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    words = order["words"]
    if words[0] == "-m":
        sys.argv, sys.path[0] = words[1:], os.getcwd()
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path[0] = words, str(Path(words[0]).resolve().parent)
        runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
