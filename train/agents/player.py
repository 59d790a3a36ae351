"""Who plays an agent: this process's threads, or processes of their own. One interface for both."""

import json
import logging
import subprocess
from collections.abc import Callable
from typing import Protocol, TextIO

from train.agents.agent_elsewhere import Agent
from train.agents.agent_function import AgentFunction, AgentFunctionError
from train.agents.played import DONE, FAILED, NO_REWARD, Played
from train.agents.told import told_error
from train.agents.worker_process import worker_environment


class Player(Protocol):
    """Plays an agent."""

    def play(self, task: object, address: str, key: str) -> Played:
        """Play it once; the caller's thread waits.

        Args:
            task: the task.
            address: base URL of the OpenAI endpoint.
            key: key of its requests.
        """

    def stop(self) -> None:
        """Break off what is played, as far as that is possible."""


class ThreadPlayer:
    """Plays an agent in the thread that asks for it, with a client that it is given.

    Args:
        agent: the agent.
        divert: called in the thread before the agent, so that what it prints goes elsewhere.
    """

    def __init__(self, agent: AgentFunction, divert: Callable[[], None]) -> None:
        import openai

        self._agent, self._divert = agent, divert
        for name in ("httpx", "httpx2"):  # whichever openai is made with: it tells each request
            logging.getLogger(name).setLevel(logging.WARNING)
        # One for each lane: many threads would spend their time in the locks of a common one. No proxy of the
        # environment's stands between this process and itself, and nothing is encrypted, so no certificates are read.
        self._http: openai.DefaultHttpxClient | None = None

    def play(self, task: object, address: str, key: str) -> Played:
        """Play it once."""
        self._divert()
        try:
            reward, numbers = self._agent.call(task, self._client(address, key))
        except AgentFunctionError as error:
            return Played(NO_REWARD, told=f"{self._agent.target}: {error}")
        except BaseException as error:  # whatever an agent raises, sys.exit() too, costs its rollout only
            return Played(FAILED, told=told_error(error))
        return Played(DONE, reward, numbers)

    def _client(self, address: str, key: str) -> object:
        import openai

        # A retry would be another request with other random numbers; time is limited for the rollout as a whole.
        if self._agent.is_async:
            http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False, timeout=None)
            return openai.AsyncOpenAI(base_url=address, api_key=key, max_retries=0, timeout=None, http_client=http)
        if self._http is None:
            self._http = openai.DefaultHttpxClient(trust_env=False, verify=False, timeout=None)
        return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=None, http_client=self._http)

    def stop(self) -> None:
        """Threads can't be broken off: their requests fail, and what they return is not looked at."""


class ProcessPlayer:
    """Plays an agent in a process of its own, which is started at the first task and lives on.

    Args:
        agent: the agent.
        output: where goes what it prints.
    """

    def __init__(self, agent: Agent, output: TextIO | None) -> None:
        self._agent, self._output = agent, output
        self._process: subprocess.Popen[str] | None = None

    def play(self, task: object, address: str, key: str) -> Played:
        """Play it once."""
        try:
            line = json.dumps({"task": task})
        except (TypeError, ValueError) as error:
            return Played(FAILED, told=f"a task of an agent that makes its own client must be plain data: {error}")
        if self._process is None or self._process.poll() is not None:
            self._process = self._start(address, key)
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(line + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (OSError, ValueError):
            answer = ""
        if not answer:
            code = process.wait()
            return Played(FAILED, told=f"the agent's process ended with the code {code}")
        return Played(**json.loads(answer))

    def _start(self, address: str, key: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            self._agent.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._output, text=True,
            encoding="utf-8", env=worker_environment(OPENAI_BASE_URL=address, OPENAI_API_KEY=key),
            start_new_session=True,
        )  # fmt: skip

    def stop(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
