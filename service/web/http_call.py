"""One request over HTTP and its answer: the body with a limit, events of a stream, and whether the client is there."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import parse_qs

from service.web.openai_error import SERVER, RequestError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_LOG = logging.getLogger(__name__)
_PART = 2**20  # bytes of a file that are sent at a time
_EVENTS = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]


class ClientGone(Exception):
    """The client has closed its connection: nobody hears an answer."""


class HttpCall:
    """A request and its answer.

    Args:
        scope: ASGI's description of the request.
        receive: gives what the client sends.
        send: sends to the client.
    """

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self.streams = False  # whether the beginning of a stream has been sent

    def parameter(self, name: str) -> str | None:
        """Return a part of the path; None where the path has none of this name."""
        return self._scope["path_params"].get(name)

    @property
    def method(self) -> str:
        """Its method, such as GET."""
        return self._scope["method"]

    @property
    def path(self) -> str:
        """Its path, as the client means it."""
        return self._scope["path"]

    @property
    def url(self) -> str:
        """Its address without a query, as the client knows it."""
        return f"{self._scope['scheme']}://{self.header(b'host')}{self._scope['path']}"

    def query(self, name: str) -> str | None:
        """Return a value of the query; None where there is none of this name."""
        found = parse_qs(self._scope["query_string"].decode("latin-1")).get(name)
        return found[-1] if found else None

    def header(self, name: bytes) -> str:
        """Return a header; empty where there is none."""
        return next((value.decode("latin-1") for key, value in self._scope["headers"] if key == name), "")

    @property
    def key(self) -> str:
        """Whose request it is: what the path says, else the bearer token; empty where there is none."""
        found = self.parameter("key")
        if found is None:
            scheme, _, found = self.header(b"authorization").partition(" ")
            found = found.strip() if scheme.lower() == "bearer" else ""
        return found

    async def body(self, limit: int) -> bytes:
        """Return the body.

        Args:
            limit: bytes that it may have.

        Raises:
            RequestError: it is longer.
            ClientGone: it did not come to its end.
        """
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part, more = message.get("body", b""), message.get("more_body", False)
            parts.append(part)
            size += len(part)
            if size > limit:
                raise RequestError(f"the request's body is longer than {limit} bytes", status=413)
        return b"".join(parts)

    async def gone(self) -> None:
        """Wait until the client has closed its connection. The body must have been read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def reply(
        self, status: int, body: bytes, kind: bytes = b"application/json", more: Iterable[tuple[bytes, bytes]] = ()
    ) -> None:
        """Answer, once.

        Args:
            status: HTTP status.
            body: the answer; of status 204 there is none.
            kind: its media type.
            more: further headers.
        """
        headers = [*more]
        if status != 204:
            headers += [(b"content-type", kind), (b"content-length", str(len(body)).encode())]
        if status == 413:
            headers.append((b"connection", b"close"))  # the rest of its body is not read
        await self._send({"type": "http.response.start", "status": status, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})

    async def reply_file(self, file: BinaryIO, kind: bytes = b"application/octet-stream") -> None:
        """Answer by a file, of which a part is in memory at a time.

        Args:
            file: the file, open at its beginning.
            kind: its media type.
        """
        size = await asyncio.to_thread(file.seek, 0, os.SEEK_END)
        await asyncio.to_thread(file.seek, 0)
        headers = [(b"content-type", kind), (b"content-length", str(size).encode())]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        while part := await asyncio.to_thread(file.read, _PART):
            await self._send({"type": "http.response.body", "body": part, "more_body": True})
        await self._send({"type": "http.response.body", "body": b""})

    async def send_events(self, events: Iterable[bytes], more: bool = True) -> None:
        """Send events of a stream, which begins with the first of them.

        Args:
            events: the events.
            more: whether others follow.
        """
        if not self.streams:
            self.streams = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _EVENTS})
        await self._send({"type": "http.response.body", "body": b"".join(events), "more_body": more})


class HttpHandler:
    """An ASGI app that answers calls by a function, and errors in OpenAI's form.

    Args:
        answer: answers a call.
    """

    def __init__(self, answer: Callable[[HttpCall], Awaitable[None]]) -> None:
        self._answer = answer

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        call = HttpCall(scope, receive, send)
        try:
            await self._answer(call)
        except ClientGone:
            return
        except RequestError as error:
            await _tell(call, error)
        except asyncio.CancelledError:  # by the server's end, and nobody else
            await _tell(call, RequestError("the service has been closed", status=503, kind=SERVER))
        except Exception:
            _LOG.exception("a request failed")
            await _tell(call, RequestError("the service failed; its log says how", status=500, kind=SERVER))


async def _tell(call: HttpCall, error: RequestError) -> None:
    if call.streams:
        await call.send_events([b"data: ", error.body(), b"\n\n"], more=False)
    else:
        await call.reply(error.status, error.body(), more=error.headers)
