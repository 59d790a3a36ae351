"""A service of this machine for the steps that run now, one for all of them; it ends by itself when none uses it."""

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

_FOLDER = Path(".workflow/service")
_USERS, _KEEPER = _FOLDER / "users.lock", _FOLDER / "keeper.lock"
_ADDRESS, _LOG, _COMMAND = _FOLDER / "address.json", _FOLDER / "service.log", _FOLDER / "command"
_STARTS, _LINGERS = 180.0, 30.0  # seconds: until it answers; without a user until it ends
_LOOK = 0.2
_RESTARTS = 3


@contextlib.contextmanager
def local_service(model):
    """Yield the address of a service that has the model. While the block lasts, this process is one of its users."""
    import fcntl  # Windows has none; with a key none is needed

    _FOLDER.mkdir(parents=True, exist_ok=True)
    with _USERS.open("a") as users:
        # Locks go with the process that holds them, however it ends: a user that is killed is none any more.
        fcntl.flock(users, fcntl.LOCK_SH)
        yield _address(model)


def _address(model):
    start = _LOG.stat().st_size if _LOG.exists() else 0
    until, keeper = time.monotonic() + _STARTS, None
    while time.monotonic() < until:
        if found := _answers(model):
            if keeper is None and _is_free(_KEEPER):
                _begin_keeper(model)  # the last one was killed, and left its service behind
            return found
        if keeper is None and _is_free(_KEEPER):
            keeper = _begin_keeper(model)
        if keeper is not None and keeper.poll() not in (None, 0):
            raise SystemExit(f"the service did not start:\n{_said(start)}")
        time.sleep(_LOOK)
    raise SystemExit(f"the service did not answer in {_STARTS:.0f} s; its output:\n{_said(start)}")


def _said(start):
    if not _LOG.exists():
        return ""
    with _LOG.open(errors="replace") as stream:
        stream.seek(start)
        return stream.read()[-2000:]


def _answers(model):
    try:
        known = json.loads(_ADDRESS.read_text())
        if known["model"] != model:
            return None  # of another preset; it ends when its users have
        with urllib.request.urlopen(f"{known['address']}/healthz", timeout=5) as answer:
            return known["address"] if answer.status == 200 else None
    except (OSError, ValueError, KeyError):
        return None


def _begin_keeper(model):
    environment = {key: value for key, value in os.environ.items() if key != "WORKFLOW_EVENTS"}
    with _LOG.open("a") as log:
        return subprocess.Popen([sys.executable, __file__, model], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                start_new_session=True, env=environment)  # fmt: skip


def _is_free(path):
    import fcntl

    with path.open("a") as stream, contextlib.suppress(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


def _keep(model):
    """Begin a service, or take over one that a killed keeper has left; end it when nobody has used it for a while."""
    import fcntl

    with _KEEPER.open("a") as own, _USERS.open("a") as users:
        try:
            fcntl.flock(own, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # another one was quicker
        number, process = _left_behind(model), None
        if number is None:
            process = _begin_service(model)
            number = process.pid
        unused, restarts = time.monotonic(), 0
        while True:
            time.sleep(_LOOK)
            if not _is_alive(number, process):
                if restarts == _RESTARTS:
                    break
                # At the same address it goes on with all that it was told: its users notice a pause.
                restarts += 1
                process = _begin_service(model, json.loads(_ADDRESS.read_text())["address"].rpartition(":")[2])
                number = process.pid
            try:
                # Whoever comes while this is held waits, and then finds no address: so it begins another one.
                fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                unused = time.monotonic()
                continue
            if time.monotonic() - unused > _LINGERS:
                break
            fcntl.flock(users, fcntl.LOCK_UN)
        _ADDRESS.unlink(missing_ok=True)
        _end(number, process)


def _serve_command():
    """Return the command that serves: the runner names it, and for a script that is run by hand it is kept here."""
    if command := os.environ.get("WORKFLOW_SERVE"):
        _COMMAND.write_text(command)
        return command
    return _COMMAND.read_text() if _COMMAND.exists() else "menagerie serve"


def _begin_service(model, port="0"):
    command = shlex.split(_serve_command())
    words = [*command, "--model", model, "--port", port, "--folder", str(_FOLDER.resolve())]
    start = _LOG.stat().st_size
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL)
    until = time.monotonic() + _STARTS
    while time.monotonic() < until and process.poll() is None:
        if found := re.search(r"http://127\.0\.0\.1:\d+", _said(start)):
            new = _ADDRESS.with_suffix(".new")
            new.write_text(json.dumps({"address": found[0], "pid": process.pid, "model": model}))
            new.replace(_ADDRESS)
            return process
        time.sleep(_LOOK)
    process.kill()
    raise SystemExit("no address was said")


def _left_behind(model):
    try:
        known = json.loads(_ADDRESS.read_text())
    except (OSError, ValueError):
        return None
    if _answers(known.get("model")) is None:
        return None
    if known["model"] != model:
        _end(known["pid"], None)
        return None
    return known["pid"]


def _is_alive(number, process):
    if process is not None:
        return process.poll() is None
    try:
        os.kill(number, 0)
    except OSError:
        return False
    return True


def _end(number, process):
    with contextlib.suppress(OSError):
        os.kill(number, signal.SIGTERM)
    until = time.monotonic() + 20
    while _is_alive(number, process) and time.monotonic() < until:
        time.sleep(_LOOK)
    with contextlib.suppress(OSError):
        os.kill(number, signal.SIGKILL)
    if process is not None:
        process.wait()


if __name__ == "__main__":
    _keep(sys.argv[1])
