"""Processes in which agents play, one for each lane of rollouts: a crash costs the rollout under way, and nothing else.

They are forked by a process that has imported what agents need (`train.agents.worker`), so that hundreds of them cost
little, and one that has ended is replaced in milliseconds. One thread of this process hears of all of them.
"""

import json
import os
import selectors
import signal
import socket
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from train.agents.agent_elsewhere import Agent
from train.agents.played import FAILED, Played
from train.agents.player import Done, Usage
from train.agents.worker_process import FORK, PRELOAD, worker_environment

_PATIENCE = 60  # seconds that a process may take to read its task
MOST_TASKS = 1000  # threads and processes of one rollout
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
FORKS = hasattr(os, "fork") and hasattr(socket, "send_fds")


@dataclass(eq=False)
class _Process:
    """A process that plays.

    Attributes:
        number: by which the nursery knows it.
        channel: over which it is given tasks.
        pid: None until it has been forked.
        received: what has come of the next answer.
        done: who waits for an answer.
    """

    number: int
    channel: socket.socket
    pid: int | None = None
    received: bytearray = field(default_factory=bytearray)
    done: Done | None = None


class AgentProcesses:
    """Forks processes that play an agent. Any thread may ask.

    Args:
        agent: the agent.
        command: how a worker is started that plays it.
        preload: whether it is imported once, before processes are forked; else by each of them.
        output: file that is added to by what it prints; None drops that.
    """

    def __init__(self, agent: Agent, command: list[str], preload: bool, output: Path | None) -> None:
        self._target, self._command, self._preload, self._output = agent.target, command, preload, output
        self._queue: deque[Callable[[], None]] = deque()  # to be done by the thread
        self._processes: dict[int, _Process] = {}
        self._next = 0
        self._nursery: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._told = bytearray()
        self._chosen = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._chosen.register(self._woken, selectors.EVENT_READ, self._hear_call)
        self._thread = threading.Thread(target=self._run, name="agents", daemon=True)
        self._thread.start()

    def player(self) -> "ProcessPlayer":
        """Return who plays in a process of its own, which is forked at its first task."""
        return ProcessPlayer(self)

    def close(self) -> None:
        """End all processes."""
        self.post(self._end_nursery)

    def post(self, work: Callable[[], None]) -> None:
        """Let the thread that hears of all processes do something."""
        self._queue.append(work)
        with suppress(OSError):
            self._wake.send(b"x")

    # ------------------------------------------------------------------------------------------------------- the thread

    def _run(self) -> None:
        while True:
            for key, _ in self._chosen.select():
                key.data()

    def _hear_call(self) -> None:
        self._woken.recv(4096)
        while self._queue:
            self._queue.popleft()()

    def start(self, environment: Mapping[str, str]) -> _Process:
        """Fork a process. Only the thread calls this.

        Raises:
            OSError: it can't be had.
        """
        if self._nursery is None or self._nursery.poll() is not None:
            self._start_nursery(self._preload)
        assert self._control is not None
        mine, its = socket.socketpair()
        self._next += 1
        process = _Process(self._next, mine)
        asked = json.dumps({"start": process.number, "environment": dict(environment)}).encode() + b"\n"
        try:
            socket.send_fds(self._control, [asked], [its.fileno()])
        finally:
            its.close()
        mine.settimeout(_PATIENCE)
        self._processes[process.number] = process
        self._chosen.register(mine, selectors.EVENT_READ, lambda: self._hear(process))
        return process

    def end(self, process: _Process) -> None:
        """End a process, whatever it does. Only the thread calls this."""
        process.done = None
        if self._control is not None:
            with suppress(OSError):
                self._control.sendall(json.dumps({"end": process.number}).encode() + b"\n")

    def _start_nursery(self, preload: bool) -> None:
        self._end_nursery()
        mine, its = socket.socketpair()
        words = [FORK, *([PRELOAD] if preload else []), str(its.fileno())]
        with open(self._output or os.devnull, "ab") as stream:
            self._nursery = subprocess.Popen(
                [*self._command, *words], stdin=subprocess.DEVNULL, stdout=stream, stderr=stream,
                env=worker_environment(), start_new_session=True, pass_fds=[its.fileno()],
            )  # fmt: skip
        its.close()
        self._control = mine
        first = b""
        while not first.endswith(b"\n"):  # nothing else comes before somebody has asked
            more = mine.recv(4096)
            if not more:
                code = self._nursery.wait()
                raise OSError(f"the agent's process {ended(code)} while it was started")
            first += more
        if preload and json.loads(first)["ready"] > 1:  # a fork would have none of the threads that importing it began
            self._preload = False
            self._start_nursery(False)
            return
        self._chosen.register(mine, selectors.EVENT_READ, self._hear_nursery)

    def _end_nursery(self) -> None:
        if self._control is not None:
            self._leave(self._control)
            self._control.close()  # it ends its processes then, and itself
            self._control = None
        for process in list(self._processes.values()):
            self._lose(process, "ended with whoever forked it")
        if self._nursery is not None:
            try:
                self._nursery.wait(5)
            except subprocess.TimeoutExpired:
                self._nursery.kill()
                self._nursery.wait()
            self._nursery = None
        self._told.clear()

    def _hear_nursery(self) -> None:
        if self._control is None:
            return
        content = self._control.recv(65536)
        if not content:
            self._end_nursery()
            return
        self._told += content
        *lines, rest = bytes(self._told).split(b"\n")
        self._told[:] = rest
        for line in lines:
            told = json.loads(line)
            process = self._processes.get(told.get("started", told.get("ended", 0)))
            if process is not None and "started" in told:
                process.pid = told["pid"]
            elif process is not None:
                self._lose(process, ended(told["code"]))

    def _hear(self, process: _Process) -> None:
        if not self.alive(process):  # it has ended in the same moment
            return
        try:
            content = process.channel.recv(65536)
        except OSError:
            content = b""
        if not content:  # it has ended, which is heard of next, or can't be asked any more
            self._leave(process.channel)
            done = process.done
            self.end(process)
            process.done = done
            return
        process.received += content
        if process.received.endswith(b"\n"):
            answer, process.received = bytes(process.received), bytearray()
            done, process.done = process.done, None
            if done is not None:
                done(Played(**json.loads(answer)))

    def _leave(self, channel: socket.socket) -> None:
        with suppress(KeyError, ValueError):  # nothing more is heard of it already
            self._chosen.unregister(channel)

    def _lose(self, process: _Process, how: str) -> None:
        del self._processes[process.number]
        self._leave(process.channel)
        process.channel.close()
        done, process.done, process.pid = process.done, None, None
        if done is not None:
            done(Played(FAILED, told=f"the agent's process {how}"))

    def alive(self, process: _Process) -> bool:
        """Say whether a process can be given tasks. Only the thread calls this."""
        return process.number in self._processes


class ProcessPlayer:
    """Plays an agent in a process of its own, which lives on from task to task.

    Args:
        processes: what forks it.
    """

    def __init__(self, processes: AgentProcesses) -> None:
        self._processes = processes
        self._process: _Process | None = None

    def begin(self, task: object, address: str, key: str, done: Done) -> None:
        """Play it once."""
        try:
            line = json.dumps({"task": task}).encode() + b"\n"
        except (TypeError, ValueError) as error:
            done(Played(FAILED, told=f"a task of an agent that plays in a process must be plain data: {error}"))
            return
        self._processes.post(lambda: self._begin(line, address, key, done))

    def _begin(self, line: bytes, address: str, key: str, done: Done) -> None:
        try:
            if self._process is None or not self._processes.alive(self._process):
                self._process = self._processes.start({"OPENAI_BASE_URL": address, "OPENAI_API_KEY": key})
            self._process.done = done
            self._process.channel.sendall(line)
        except OSError as error:
            if self._process is None or self._process.done is done:
                if self._process is not None:
                    self._processes.end(self._process)
                    self._process = None
                done(Played(FAILED, told=f"the agent's process can't be had: {error}"))

    def stop(self) -> None:
        """End the process."""

        def end() -> None:
            if self._process is not None and self._processes.alive(self._process):
                self._processes.end(self._process)
            self._process = None

        self._processes.post(end)

    def held_up(self) -> bool:
        """Say that no other lane ever holds this one up."""
        return False

    def usage(self) -> Usage | None:
        """Return what the process takes now; None where that is not known."""
        process = self._process
        return None if process is None or process.pid is None else usage_of(process.pid)


def usage_of(pid: int) -> Usage | None:
    """Return what a process and its group take; None where that is not known. It is told by Linux only.

    Args:
        pid: id of the process, and of its group.
    """
    memory = tasks = 0
    for each in [pid, *_others(pid)]:
        with suppress(OSError, ValueError, IndexError), open(f"/proc/{each}/stat", "rb") as stream:
            fields = stream.read().rpartition(b")")[2].split()
            tasks, memory = tasks + int(fields[17]), memory + int(fields[21]) * _PAGE
    return Usage(memory, tasks) if tasks else None


def _others(pid: int) -> list[int]:
    """Return the other processes that a process has started, and those that they have."""
    found: list[int] = []
    waiting = [pid]
    while waiting and len(found) < 2 * MOST_TASKS:
        each = waiting.pop()
        with suppress(OSError, ValueError):
            for thread in os.listdir(f"/proc/{each}/task")[: 2 * MOST_TASKS] if each else ():
                with open(f"/proc/{each}/task/{thread}/children", "rb") as stream:
                    children = [int(child) for child in stream.read().split()]
                found += children
                waiting += children
    return found


def memory_of_machine() -> int:
    """Return the bytes of memory that the machine has, or that this program may have of it; 0 where nobody knows."""
    found = []
    with suppress(OSError, ValueError, AttributeError):
        found.append(os.sysconf("SC_PHYS_PAGES") * _PAGE)
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # `max`, where there is none
            found.append(int(Path(limit).read_text()))
    return min(found, default=0)


def ended(code: int) -> str:
    """Say how a process has ended, by its exit code."""
    if code >= 0:
        return f"ended with the exit code {code}"
    with suppress(ValueError):
        name = signal.Signals(-code).name
        hint = {"SIGKILL": ": killed, perhaps since memory was short", "SIGSEGV": ": it crashed"}.get(name, "")
        return f"was ended by {name}{hint}"
    return f"was ended by the signal {-code}"
