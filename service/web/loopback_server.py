"""An app served on a port by a thread of this process; only this machine reaches it, unless another host is named."""

import logging
import socket
import threading
from types import TracebackType
from typing import TYPE_CHECKING

from service.web.patient_protocol import patient_protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from service.web.prompt_server import PromptServer

HOST = "127.0.0.1"
_LOG = logging.getLogger("uvicorn.error")
_LONGEST_END = 1  # seconds that requests have to end in, when the server does
_CONNECTIONS = 1024  # that wait to be taken
_SILENCE = 60  # seconds after which a connection is given up whose other end doesn't take what is sent, or isn't there


def _is_news(record: logging.LogRecord) -> bool:
    """Say whether a line of asyncio's is to be told: that a client has gone in the middle of a stream is not."""
    return record.getMessage() != "socket.send() raised exception."


class LoopbackServer:
    """Serves an app from `__enter__` to `__exit__`; without `host` nobody outside of this machine can reach it.

        with LoopbackServer(app) as server, loop:  # the loop ends first, and answers whoever still waits
            client = OpenAI(base_url=f"{server.url}/v1", api_key="...")

    Args:
        app: the app.
        port: port to listen on; 0 for one that is free.
        host: address to listen on.
        head_seconds: how long a client may take for the head of a request.

    Attributes:
        port: port that it listens on.
    """

    def __init__(self, app: "ASGIApp", port: int = 0, host: str = HOST, head_seconds: float = 60.0) -> None:
        self._app, self.port, self._host, self._head_seconds = _Served(app), port, host, head_seconds
        self._socket: socket.socket | None = None
        self._server: PromptServer | None = None
        self._thread: threading.Thread | None = None
        self._level = logging.NOTSET

    @property
    def url(self) -> str:
        """Where it is, such as http://127.0.0.1:8000."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self.port}"

    def __enter__(self) -> "LoopbackServer":
        import uvicorn  # here, so that packages which are not needed elsewhere may be missing

        from service.web.prompt_server import PromptServer

        # With the protocol named: asyncio sends at once on sockets that it knows to be TCP, and on others small answers
        # wait 40 ms for an acknowledgement.
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._socket = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            _give_up_the_silent(self._socket)
            self._socket.bind((self._host, self.port))
            self._socket.listen(_CONNECTIONS)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        config = uvicorn.Config(
            self._app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=_LONGEST_END,
            timeout_keep_alive=75, server_header=False, ws="none", http=patient_protocol(self._head_seconds),
        )  # fmt: skip
        # What the app does wrong it says itself; starts, stops and what clients send that is no HTTP are nobody's news.
        self._level = _LOG.level
        _LOG.setLevel(logging.CRITICAL)
        logging.getLogger("asyncio").addFilter(_is_news)  # once, however often it is added
        self._server = PromptServer(config)
        # The socket listens already: whoever connects before the thread has begun waits for it.
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), name="http", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.leave()
        if self._thread is not None:
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._app.app = None
        _LOG.setLevel(self._level)


class _Served:
    """An app as long as it is served: the server's objects refer to one another, and would keep it and its memory."""

    def __init__(self, app: "ASGIApp") -> None:
        self.app: ASGIApp | None = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        if self.app is not None:
            await self.app(scope, receive, send)


def _give_up_the_silent(listening: socket.socket) -> None:
    """Let the system end connections whose client has vanished, or doesn't read; they inherit this where it can."""
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    wanted = {"TCP_KEEPIDLE": _SILENCE, "TCP_KEEPINTVL": 10, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": _SILENCE * 1000}
    for name, value in wanted.items():
        if hasattr(socket, name):
            listening.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
