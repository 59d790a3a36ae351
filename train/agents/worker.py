"""A process that plays one agent again and again: `python -m train.agents.worker file:function`.

Agents that make their `OpenAI()` themselves read address and key from the environment, of which each process has its
own. A line of JSON comes in for each task, and one goes out with what came of it. What the agent prints goes to
standard error.

With `--fork` it plays nothing itself: it imports what agents need once, and forks a process for each lane of rollouts
(`train.agents.agent_processes` asks it to). So a process is there in milliseconds, and one that crashes takes nobody
with it.

This file, and all that it imports, needs the standard library alone: with `--alone` the interpreter is that of the
agent's own environment (`agent_python`), in which names such as `config` and `data` are the agent's.
"""

import asyncio
import ctypes
import importlib.util
import json
import os
import random
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TextIO

from constants import PACKAGE_ROOT
from train.agents.agent_function import AgentFunction, AgentFunctionError, find_agent
from train.agents.played import DONE, FAILED, NO_REWARD
from train.agents.told import told_error
from train.agents.worker_process import ALONE, DESCRIBE, FORK, PRELOAD

_PR_SET_PDEATHSIG = 1  # of prctl: the signal that a process gets when its parent ends
_ADDRESS = ("OPENAI_BASE_URL", "OPENAI_API_KEY")
_FIRST_KILLED = 1000  # of oom_score_adj: where memory is short, the system ends this process and not the trainer


class EventLoop:
    """The one event loop of a process: clients that agents keep from task to task have their connections in it."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, coroutine: Coroutine[object, object, object]) -> object:
        """Run a coroutine to its end. What it has begun and not awaited ends with it."""
        asyncio.set_event_loop(self._loop)
        try:
            return self._loop.run_until_complete(coroutine)
        finally:
            left = asyncio.all_tasks(self._loop)
            for task in left:
                task.cancel()
            if left:
                self._loop.run_until_complete(asyncio.wait(left))


def play(agent: AgentFunction, task: object, loop: EventLoop) -> dict[str, object]:
    """Play the agent once.

    Args:
        agent: the agent.
        task: the task.
        loop: where it runs, if it is a coroutine.

    Returns:
        Its `outcome`, with `reward` and `numbers`, or with what is `told` of the error.
    """
    try:
        reward, numbers = agent.call(task, _client(agent) if agent.takes_client else None, loop.run)
    except AgentFunctionError as error:
        return {"outcome": NO_REWARD, "told": f"{agent.target}: {error}"}
    except BaseException as error:  # whatever an agent raises, sys.exit() too, costs its rollout only
        return {"outcome": FAILED, "told": told_error(error)}
    return {"outcome": DONE, "reward": reward, "numbers": numbers}


_kept: list[Any] = []  # the connections of this process


def _connections() -> Any:
    import openai

    if not _kept or _kept[0].is_closed:  # by the agent, `with client:`
        _kept[:] = [openai.DefaultHttpxClient(trust_env=False, verify=False, timeout=None)]
    return _kept[0]


def _client(agent: AgentFunction) -> object:
    """Return a client of the environment's address and key, for an agent that takes one."""
    import openai

    # A retry would be another request with other random numbers; time is limited for the rollout as a whole. No proxy
    # of the environment's stands between processes of a machine, and nothing is encrypted: no certificates are read.
    if agent.is_async:
        asynchronous = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False, timeout=None)
        return openai.AsyncOpenAI(max_retries=0, timeout=None, http_client=asynchronous)
    return openai.OpenAI(max_retries=0, timeout=None, http_client=_connections())


def describe(target: str, with_tasks: bool) -> dict[str, object]:
    """Return what an agent is: its `file` and the `tasks` of its module, or what is `told` of why it can't be had."""
    try:
        agent = find_agent(target)
        if agent.takes_client and importlib.util.find_spec("openai") is None:
            how = "install openai there, or let the agent take the task alone and ask by what there is"
            return {"told": f"agent = {target} is given an OpenAI client, and there is no package openai: {how}"}
        tasks = agent.module_tasks() if with_tasks else {}
        json.dumps(tasks)
    except AgentFunctionError as error:
        return {"told": str(error)}
    except (TypeError, ValueError) as error:
        return {"told": f"tasks() of agent = {target} must give plain data: {error}"}
    except (Exception, SystemExit) as error:  # whatever a user's function raises, sys.exit() too
        return {"told": f"tasks() of agent = {target} fails: {told_error(error)}"}
    return {"file": str(getattr(agent.module, "__file__", None) or ""), "tasks": tasks}


def leave_names() -> None:
    """Forget this program's packages, once all is imported: their names are then the agent's to use."""
    sys.path[:] = [place for place in sys.path if place != str(PACKAGE_ROOT)]
    root = f"{PACKAGE_ROOT}{os.sep}"
    for name, module in list(sys.modules.items()):
        if name != "__main__" and str(getattr(module, "__file__", None) or "").startswith(root):
            del sys.modules[name]
    kept = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place != str(PACKAGE_ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)  # of processes that the agent starts


def main(target: str, lines: TextIO, answers: TextIO, known: AgentFunction | None = None) -> None:
    """Play an agent for each line, until there are no more.

    Args:
        target: the agent, `file:function` or `module:function`.
        lines: JSON of each task: `{"task": ...}`.
        answers: where what came of them is written to.
        known: the agent, where it has been imported already.
    """
    try:
        agent = known or find_agent(target)
    except AgentFunctionError as error:
        answers.write(json.dumps({"outcome": FAILED, "told": str(error)}) + "\n")
        answers.flush()
        return
    loop = EventLoop()
    folder, address = os.getcwd(), {name: os.environ[name] for name in _ADDRESS if name in os.environ}
    for line in lines:
        os.chdir(folder)  # whatever the agent did in its last task
        os.environ.update(address)
        answers.write(json.dumps(play(agent, json.loads(line)["task"], loop)) + "\n")
        answers.flush()


class Nursery:
    """Forks processes that play an agent, and tells how they end.

    Lines of JSON come in: `{"start": number, "environment": {...}}` with an open socket, over which the new process is
    then given its tasks, and `{"end": number}`. `{"ready": threads}` goes out once all is imported, and
    `{"started": number, "pid": ...}` and `{"ended": number, "code": ...}` of each process.

    Args:
        target: the agent.
        control: a socket to whoever asks; when it is closed, all processes end.
    """

    def __init__(self, target: str, control: socket.socket) -> None:
        self._target, self._control = target, control
        self._numbers: dict[int, int] = {}  # of each process, by its id
        self._agent: AgentFunction | None = None

    def run(self, preload: bool) -> None:
        """Fork processes until nobody asks any more.

        Args:
            preload: whether the agent is imported here, once, and not by each process.
        """
        with suppress(ImportError):
            import openai

            sample = openai.OpenAI(base_url="http://127.0.0.1", api_key="none")
            _ = sample.chat.completions  # much is imported when it is first asked for
        if preload:
            with suppress(AgentFunctionError):  # which each process will tell
                self._agent = find_agent(self._target)
        self._tell({"ready": threading.active_count()})
        read, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        with selectors.DefaultSelector() as chosen:
            chosen.register(self._control, selectors.EVENT_READ)
            chosen.register(read, selectors.EVENT_READ)
            while self._once(chosen, read):
                pass
        for pid in list(self._numbers):
            _end(pid)

    def _once(self, chosen: selectors.BaseSelector, children: int) -> bool:
        for key, _ in chosen.select():
            if key.fd == children:
                os.read(children, 4096)
                self._bury()
                continue
            content, files, _, _ = socket.recv_fds(self._control, 65536, 64)
            while content and not content.endswith(b"\n"):
                more, others, _, _ = socket.recv_fds(self._control, 65536, 64)
                if not more:
                    return False
                content, files = content + more, [*files, *others]
            if not content:
                return False
            for line in content.splitlines():
                asked = json.loads(line)
                if "start" in asked:
                    self._fork(asked["start"], asked["environment"], files.pop(0))
                else:
                    for pid in [pid for pid, number in self._numbers.items() if number == asked["end"]]:
                        _end(pid)
        return True

    def _fork(self, number: int, environment: Mapping[str, str], channel: int) -> None:
        parent = os.getpid()
        pid = os.fork()
        if pid:
            os.close(channel)
            self._numbers[pid] = number
            self._tell({"started": number, "pid": pid})
            return
        try:  # in the new process, which must never come back
            self._be_child(parent, environment, channel)
        finally:
            os._exit(0)

    def _be_child(self, parent: int, environment: Mapping[str, str], channel: int) -> None:
        os.setsid()  # so that whatever the agent starts ends with it
        _end_with_parent(parent)
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._control.close()
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as stream:
            stream.write(str(_FIRST_KILLED))
        os.environ.update(environment)
        _draw_apart()
        lines, answers = os.fdopen(os.dup(channel), encoding="utf-8"), os.fdopen(channel, "w", encoding="utf-8")
        main(self._target, lines, answers, self._agent)

    def _bury(self) -> None:
        """Tell of processes that have ended, and end what they started."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if not pid:
                    return
                number = self._numbers.pop(pid, None)
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                if number is not None:
                    self._tell({"ended": number, "code": os.waitstatus_to_exitcode(status)})

    def _tell(self, what: Mapping[str, object]) -> None:
        with suppress(OSError):  # nobody hears it: the end is near
            self._control.sendall(json.dumps(what).encode() + b"\n")


def _draw_apart() -> None:
    """Seed the random numbers of this process, or all that were forked would draw the same."""
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    if "torch" in sys.modules:
        sys.modules["torch"].seed()


def _end_with_parent(parent: int) -> None:
    """Let the system end this process when the one that forked it is gone, whatever the agent does meanwhile.

    Whoever reads its next task hears that nobody asks any more; an agent that loops without end never would. Only Linux
    can; elsewhere such a process stays.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it was gone before
        os._exit(0)


def _end(pid: int) -> None:
    """End a process and its group."""
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError, PermissionError):
            end(pid, signal.SIGKILL)


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # what is printed before a crash is seen
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed, by whomever, must not get between the answers
    _, named, *asked = sys.argv
    if ALONE in asked:
        leave_names()
    if FORK in asked:
        Nursery(named, socket.socket(fileno=int(asked[-1]))).run(PRELOAD in asked)
    elif DESCRIBE in asked:
        protocol.write(json.dumps(describe(named, "tasks" in asked)) + "\n")
        protocol.flush()
    else:
        main(named, sys.stdin, protocol)
