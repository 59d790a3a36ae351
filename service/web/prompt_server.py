"""uvicorn's server, but one that ends as soon as it is told to: uvicorn looks ten times a second, and waits as long."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

_LOOK = 0.1  # seconds between uvicorn's own looks, which write the date of answers
_END_LOOK = 0.005  # seconds between looks whether the last requests have been answered


class PromptServer(uvicorn.Server):
    """A server of whose end nobody has to wait for more than what is under way."""

    _wake: Callable[[], object] | None = None

    def leave(self) -> None:
        """End; any thread may call this."""
        self.should_exit = True
        if self._wake is not None:
            self._wake()

    async def main_loop(self) -> None:
        """Wait until it is told to end."""
        told, loop = asyncio.Event(), asyncio.get_running_loop()

        def wake() -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(told.set)

        self._wake = wake
        counter = 0
        while not await self.on_tick(counter):
            counter = (counter + 1) % 864000
            try:
                await asyncio.wait_for(told.wait(), _LOOK)
            except TimeoutError:
                continue

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, let requests under way end in the time that they have, and end."""
        for server in self.servers:
            server.close()
        for each in sockets or []:
            each.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        patience = self.config.timeout_graceful_shutdown
        loop = asyncio.get_running_loop()
        late = None if patience is None else loop.time() + patience
        while self.server_state.connections or self.server_state.tasks:
            if self.force_exit:
                break
            if late is not None and loop.time() >= late:
                for task in self.server_state.tasks:
                    task.cancel()
                break
            await asyncio.sleep(_END_LOOK)
