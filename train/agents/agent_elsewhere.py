"""An agent that another Python plays, one that has its packages: this process never imports it."""

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from train.agents.agent_function import AgentFunction, AgentFunctionError
from train.agents.worker_process import ALONE, DESCRIBE, worker_command, worker_environment

_SECONDS = 300  # that importing an agent may take
_NEWEST_NEEDED = "Python 3.10"


@dataclass(frozen=True)
class AgentElsewhere:
    """What another Python told of an agent.

    Attributes:
        target: how it was named, `file:function` or `module:function`.
        python: the interpreter that plays it.
        file: where it was found; empty where it is in none.
        own_tasks: of each split the tasks that its module gives; `all` where that makes no difference.
        takes_client: False: it is played by processes, which give it a client where it takes one.
    """

    target: str
    python: str
    file: str = ""
    own_tasks: Mapping[str, Sequence[object]] = field(default_factory=dict)
    takes_client: bool = field(default=False, init=False)

    @property
    def command(self) -> list[str]:
        """How a process is started that plays it."""
        return worker_command(self.python, self.target, ALONE)

    def source(self) -> bytes:
        """Return its file's content; nothing where there is none."""
        try:
            return Path(self.file).read_bytes()
        except OSError:
            return b""


Agent = AgentFunction | AgentElsewhere


def ask_agent(target: str, python: Path, with_tasks: bool) -> AgentElsewhere:
    """Let another Python import an agent, and tell what it is.

    Args:
        target: the agent, `file:function` or `module:function`.
        python: the interpreter, `bin/python` of an environment.
        with_tasks: whether the tasks of its module are wanted.

    Raises:
        AgentFunctionError: there is no such Python, or it has no such agent. The text says what to do.
    """
    inside = [found for found in (python / "bin" / "python", python / "Scripts" / "python.exe") if found.is_file()]
    if python.is_dir() or not python.is_file():
        there = "it is a folder without bin/python" if python.is_dir() else "there is no such file"
        there = f"it is a folder; its Python is {inside[0]}" if inside else there
        raise AgentFunctionError(f"agent_python = {python}: {there}. Give the path of an environment's bin/python.")
    words = (DESCRIBE, *(["tasks"] if with_tasks else []))
    command = worker_command(str(python.absolute()), target, ALONE, *words)
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=worker_environment(),
            timeout=_SECONDS,
        )  # fmt: skip
        told = json.loads(done.stdout.splitlines()[-1])
    except subprocess.TimeoutExpired as error:
        raise AgentFunctionError(f"agent = {target}: its import in {python} takes over {_SECONDS} seconds") from error
    except OSError as error:
        raise AgentFunctionError(f"agent_python = {python} can't be run: {error.strerror}") from error
    except (ValueError, IndexError) as error:
        last = (done.stderr.strip().splitlines() or [f"it ended with the code {done.returncode}"])[-1]
        raise AgentFunctionError(
            f"agent_python = {python} can't play agents: {last} ({_NEWEST_NEEDED} or newer is needed)"
        ) from error
    if "told" in told:
        raise AgentFunctionError(f"{told['told']} (by agent_python = {python})")
    return AgentElsewhere(target, str(python.absolute()), told["file"], told["tasks"])
