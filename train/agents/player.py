"""Who plays an agent: threads of this process, its event loop, or processes of their own. One interface for all."""

import asyncio
import ctypes
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from train.agents.agent_function import AgentFunction, AgentFunctionError
from train.agents.played import DONE, FAILED, LOST, NO_REWARD, Played
from train.agents.told import told_error

Done = Callable[[Played], None]


@dataclass(frozen=True)
class Usage:
    """What one rollout takes of the machine.

    Attributes:
        bytes: memory.
        tasks: threads and processes.
    """

    bytes: int = 0
    tasks: int = 0


class Player(Protocol):
    """Plays an agent, once at a time."""

    def begin(self, task: object, address: str, key: str, done: Done) -> None:
        """Begin to play it.

        Args:
            task: the task.
            address: base URL of the OpenAI endpoint.
            key: key of its requests.
            done: called by any thread with what came of it, once at most; it may begin the next.
        """

    def stop(self) -> None:
        """Break off what is played, as far as that is possible: nobody waits for it any more."""

    def held_up(self) -> bool:
        """Say whether it is another lane's agent that this one waits for."""

    def usage(self) -> Usage | None:
        """Return what the agent takes of the machine; None where that is not known of each."""


class BrokenOff(BaseException):
    """Raised in the thread of an agent that nobody waits for."""


class ThreadPlayer:
    """Plays an agent in a thread, with a client that it is given.

    Args:
        agent: the agent.
        divert: called in the thread before the agent, so that what it prints goes elsewhere.
    """

    def __init__(self, agent: AgentFunction, divert: Callable[[], None]) -> None:
        import openai

        self._agent, self._divert = agent, divert
        _be_quiet()
        # One for each lane: many threads would spend their time in the locks of a common one. No proxy of the
        # environment's stands between this process and itself, and nothing is encrypted, so no certificates are read.
        self._http: openai.DefaultHttpxClient | None = None
        self._thread: threading.Thread | None = None

    def begin(self, task: object, address: str, key: str, done: Done) -> None:
        """Begin to play it."""
        self._thread = threading.Thread(
            target=lambda: done(self._play(task, address, key)), name=f"agent-{key}", daemon=True
        )
        self._thread.start()

    def _play(self, task: object, address: str, key: str) -> Played:
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

        if self._http is None or self._http.is_closed:  # by the agent, `with client:`
            self._http = openai.DefaultHttpxClient(trust_env=False, verify=False, timeout=None)
        # A retry would be another request with other random numbers; time is limited for the rollout as a whole.
        return openai.OpenAI(base_url=address, api_key=key, max_retries=0, timeout=None, http_client=self._http)

    def stop(self) -> None:
        """Let its requests fail, and raise in it as soon as it is in Python again: a loop without end ends."""
        if self._thread is not None and self._thread.ident is not None and self._thread.is_alive():
            raised = ctypes.py_object(BrokenOff)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident), raised)

    def held_up(self) -> bool:
        """Say that no other lane ever holds this one up for long."""
        return False

    def usage(self) -> Usage | None:
        """Return None: it is this process that takes it."""
        return None


class AgentLoops:
    """An event loop in a thread of its own, in which all lanes of an asynchronous agent play.

    An agent that never gives way, by `time.sleep` or without end, holds up all others. When it is broken off the others
    are begun again in a new loop.

    Args:
        agent: the agent, a coroutine function.
        divert: called in the thread, so that what agents print goes elsewhere.
    """

    def __init__(self, agent: AgentFunction, divert: Callable[[], None]) -> None:
        self._agent, self._divert = agent, divert
        _be_quiet()
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._players: dict[LoopPlayer, Done] = {}  # that play in the loop at hand

    def player(self) -> "LoopPlayer":
        """Return who plays on one lane."""
        return LoopPlayer(self)

    def begin(self, player: "LoopPlayer", task: object, address: str, key: str, done: Done) -> None:
        """Begin to play."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="agents", daemon=True).start()
            self._players[player] = done
            loop = self._loop
        asyncio.run_coroutine_threadsafe(self._play(player, loop, task, address, key, done), loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._divert()
        asyncio.set_event_loop(loop)
        loop.run_forever()

    async def _play(
        self, player: "LoopPlayer", loop: asyncio.AbstractEventLoop, task: object, address: str, key: str, done: Done
    ) -> None:
        import openai

        player.task = asyncio.current_task()
        try:
            if player.http is None or player.http.is_closed or player.loop is not loop:
                player.http = openai.DefaultAsyncHttpxClient(trust_env=False, verify=False, timeout=None)
                player.loop = loop
            client = openai.AsyncOpenAI(
                base_url=address, api_key=key, max_retries=0, timeout=None, http_client=player.http
            )
            reward, numbers = await self._agent.call_async(task, client)
            played = Played(DONE, reward, numbers)
        except AgentFunctionError as error:
            played = Played(NO_REWARD, told=f"{self._agent.target}: {error}")
        except BaseException as error:  # whatever an agent raises, sys.exit() too, costs its rollout only
            played = Played(FAILED, told=told_error(error))
        with self._lock:
            wanted = self._players.get(player) is done
            if wanted:
                del self._players[player]
        if wanted:
            done(played)

    def stop(self, player: "LoopPlayer") -> None:
        """Break off who plays; where the loop can't go on because of him, the others begin again in a new one."""
        lost: list[Done] = []
        with self._lock:
            self._players.pop(player, None)
            loop, task = self._loop, player.task
            stuck = loop is not None and task is not None and asyncio.current_task(loop) is task
            if stuck:
                self._loop = None
                lost = list(self._players.values())
                self._players.clear()
        if loop is None or task is None or task.done():
            return
        with suppress(RuntimeError):
            loop.call_soon_threadsafe(loop.stop if stuck else partial(task.cancel))
        for done in lost:
            done(Played(LOST))

    def busy_with(self) -> "asyncio.Task[object] | None":
        """Return whose turn it is in the loop."""
        with self._lock:
            return None if self._loop is None else asyncio.current_task(self._loop)


class LoopPlayer:
    """Plays an asynchronous agent in the loop that all lanes share.

    Args:
        loops: what has the loop.
    """

    def __init__(self, loops: AgentLoops) -> None:
        import openai

        self._loops = loops
        self.task: asyncio.Task[object] | None = None
        self.loop: asyncio.AbstractEventLoop | None = None
        self.http: openai.DefaultAsyncHttpxClient | None = None

    def begin(self, task: object, address: str, key: str, done: Done) -> None:
        """Begin to play it."""
        self._loops.begin(self, task, address, key, done)

    def stop(self) -> None:
        """Cancel its task."""
        self._loops.stop(self)

    def held_up(self) -> bool:
        """Say whether another lane's agent has the loop."""
        busy = self._loops.busy_with()
        return busy is not None and busy is not self.task

    def usage(self) -> Usage | None:
        """Return None: it is this process that takes it."""
        return None


def _be_quiet() -> None:
    for name in ("httpx", "httpx2"):  # whichever openai is made with: it tells each request
        logging.getLogger(name).setLevel(logging.WARNING)
