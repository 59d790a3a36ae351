"""What every request goes through before it reaches a protocol: who may call, how much may wait, what is counted.

    socket -> Front: is it ready? who asks? is there room? -> the app of both protocols
                 <- status, size and error of the answer: counts, access.log, the status page

It answers `/`, `/metrics` and `/healthz` itself, also while the model is loaded: requests that come meanwhile wait.

Web pages. A browser on this machine reaches a service on loopback too, so any page that its user opens could send
requests. None may: a request that names a page as its origin is refused unless `origins` has that page, and so is one
whose Host is not this machine's (a name of a stranger's that was made to point here, DNS rebinding) where no key guards
the service.
"""

import asyncio
import base64
import hmac
import logging
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from config.service_config import is_loopback
from service.web.openai_error import INVALID, SERVER, RequestError
from service.web.request_counts import RequestCounts, TokenRates
from service.web.request_log import LogFile, body_text, error_text
from service.web.tinker_error import TinkerError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LOG = logging.getLogger(__name__)
STARTING, READY, FAILED = "starting", "ready", "failed"
_OPENAI = re.compile(r"/(v1|oai|keys)(/|$)")
_SAMPLES = re.compile(r"/(asample|completions)$")  # what is refused while too much waits; training is in its queue
_KEY_IN_PATH = re.compile(r"^/keys/[^/]+")
OWN_PAGES = ("/", "/metrics", "/healthz")
_RETRY_AFTER = 2  # seconds after which a client that was refused comes again
_LONGEST_START = 30.0  # seconds that a request waits for the model at most
_LOOK = 0.05
_ERRORS_SHOWN = 4096  # bytes of an error that are looked at
_LOGGED = 65536  # bytes of a body that are kept for requests.log


@dataclass(frozen=True)
class FrontRules:
    """Who may call, and how much.

    Attributes:
        key: key of `/` and `/metrics`; the protocols check it themselves. None for none.
        local: whether only this machine reaches the service.
        origins: web pages that may call from a browser.
        waiting: requests that may wait for the model.
        client_seconds: how long a client may be silent inside of a request.
    """

    key: str | None = None
    local: bool = True
    origins: tuple[str, ...] = ()
    waiting: int = 4096
    client_seconds: float = 60.0


@dataclass(frozen=True)
class Behind:
    """What stands behind a front once the model is there.

    Attributes:
        app: both protocols.
        waiting: says how many requests wait for the model.
        tokens: says how many tokens were sampled, and how many trained on.
        failure: says why nothing works any more; empty where it does.
        page: writes the status page.
        metrics: writes the metrics.
    """

    app: "ASGIApp"
    waiting: Callable[[], int]
    tokens: Callable[[], tuple[int, int]]
    failure: Callable[[], str]
    page: Callable[[], str]
    metrics: Callable[[], str]


class Front:
    """An ASGI app before another one, which may come later.

    Args:
        rules: who may call, and how much.
        access: gets a line for each request.
        contents: gets what requests and answers say.
    """

    def __init__(
        self, rules: FrontRules | None = None, access: LogFile | None = None, contents: LogFile | None = None
    ) -> None:
        self.rules, self._access, self._contents = rules or FrontRules(), access, contents
        self.counts, self.rates = RequestCounts(), TokenRates()
        self._behind: Behind | None = None

    def open(self, behind: Behind) -> None:
        """Let requests through. Any thread may call this, once."""
        self._behind = behind

    @property
    def state(self) -> str:
        """starting, ready or failed."""
        if self._behind is None:
            return STARTING
        return FAILED if self._behind.failure() else READY

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        call = _Call(scope, receive, send, self.rules.client_seconds, self._contents is not None)
        self.counts.open += 1
        try:
            await self._answer(call)
        finally:
            self.counts.open -= 1
            self._note(call)

    # ------------------------------------------------------------------------------------------------------ the request

    async def _answer(self, call: "_Call") -> None:
        origin = call.header(b"origin")
        if refusal := self._stranger(call, origin):
            await call.refuse(403, refusal)
            return
        call.page = origin
        if origin and call.method == "OPTIONS":
            await call.reply(204, b"", "", _preflight(call))
            return
        if call.path in OWN_PAGES and call.method in ("GET", "HEAD"):
            await self._tell(call)
            return
        behind = self._behind or await self._started()
        if behind is None:
            await call.refuse(503, "the model is being loaded: send the request again in a while")
        elif call.method == "POST" and _SAMPLES.search(call.path) and behind.waiting() >= self.rules.waiting:
            await call.refuse(429, f"{self.rules.waiting:,} requests wait already: send this one again in a while")
        else:
            await behind.app(call.scope, call.receive, call.send)
            if call.timed_out and not call.status:
                seconds = f"{self.rules.client_seconds:g} s"
                await call.refuse(408, f"the rest of the request has not come within {seconds}", close=True)
            self.rates.note(*behind.tokens())

    def _stranger(self, call: "_Call", origin: str) -> str:
        """Say why a request is of a web page that may not call; empty where it isn't."""
        host = call.header(b"host")
        name = urlsplit(f"//{host}").hostname or ""
        if self.rules.local and self.rules.key is None and name and not is_loopback(name):
            return (f"the request is for {name!r}, which is not this machine's own address: call it by 127.0.0.1, or "
                    "start the service with a key")  # fmt: skip
        own = origin.partition("://")[2] == host
        if origin and not own and origin not in self.rules.origins:
            return f"web pages of {origin} may not call this service: its setting `origins` lists those that may"
        return ""

    async def _started(self) -> Behind | None:
        """Wait for the model; None where that takes too long."""
        until = time.monotonic() + _LONGEST_START
        while self._behind is None and time.monotonic() < until:
            await asyncio.sleep(_LOOK)
        return self._behind

    # -------------------------------------------------------------------------------------------------------- own pages

    async def _tell(self, call: "_Call") -> None:
        behind = self._behind
        if call.path == "/healthz":
            told = {STARTING: '{"status": "starting"}', READY: '{"status": "ok"}', FAILED: '{"status": "failed"}'}
            await call.reply(200 if self.state == READY else 503, told[self.state].encode(), "application/json")
        elif not self._may_look(call):
            asks = (b"www-authenticate", b'Basic realm="the key is the password; any name will do", charset="UTF-8"')
            await call.reply(401, b"the key is missing: it is the password, or a bearer token\n", "text/plain", (asks,))
        elif behind is None:
            await call.reply(503, b"starting: the model is being loaded\n", "text/plain", ((b"refresh", b"2"),))
        elif call.path == "/metrics":
            self.rates.note(*behind.tokens())
            await call.reply(200, behind.metrics().encode(), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self.rates.note(*behind.tokens())
            safe = (
                (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
                (b"cache-control", b"no-store"), (b"referrer-policy", b"no-referrer"),
            )  # fmt: skip
            await call.reply(200, behind.page().encode(), "text/html; charset=utf-8", safe)

    def _may_look(self, call: "_Call") -> bool:
        if self.rules.key is None:
            return True
        scheme, _, word = call.header(b"authorization").partition(" ")
        if scheme.lower() == "basic":
            try:
                word = base64.b64decode(word, validate=True).decode().partition(":")[2]
            except ValueError:
                return False
        given = word.strip() or call.header(b"x-api-key")
        return hmac.compare_digest(given.encode(), self.rules.key.encode())

    # ------------------------------------------------------------------------------------------------------- afterwards

    def _note(self, call: "_Call") -> None:
        """Count and log a request that has ended."""
        seconds = time.monotonic() - call.began
        status = call.status or 499  # as nginx has it: the client has gone
        path = _KEY_IN_PATH.sub("/keys/...", call.path)
        self.counts.end(call.route, call.method, status, seconds)
        if call.error and (text := error_text(bytes(call.error))):
            server = status >= 500 or b'"category": "server"' in call.error
            self.counts.fail(f"{call.method} {path[:200]}", status, text, server)
        if self._access is not None:
            size = f"{call.received} {call.sent}"
            self._access.write(f"{call.client} {call.method} {path!r} {status} {seconds:.4f} {size}")
        if self._contents is not None:
            asked = body_text(bytes(call.asked), call.header(b"content-type"), call.received)
            told = body_text(bytes(call.told), call.kind, call.sent)
            self._contents.write(f"{call.method} {path} {status} {seconds:.4f}\n  asked: {asked}\n  told: {told}")


class _Call:
    """A request on its way through, and what is seen of it.

    Args:
        scope: ASGI's description of it.
        receive: gives what the client sends.
        send: sends to the client.
        patience: seconds that the client may be silent before its body is complete.
        keeps: whether bodies are kept, for requests.log.
    """

    def __init__(self, scope: "Scope", receive: "Receive", send: "Send", patience: float, keeps: bool) -> None:
        self.scope, self._receive, self._send, self._patience, self._keeps = scope, receive, send, patience, keeps
        self.began = time.monotonic()
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.status, self.received, self.sent = 0, 0, 0
        self.kind = ""
        self.page = ""  # web page that asks, and may
        self.asked, self.told, self.error = bytearray(), bytearray(), bytearray()
        self.timed_out = False
        self._complete = False  # whether the body is

    def header(self, name: bytes) -> str:
        """Return a header; empty where there is none."""
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == name), "")

    @property
    def client(self) -> str:
        """Address of the client."""
        client = self.scope.get("client")
        return client[0] if client else "-"

    @property
    def route(self) -> str:
        """Its path without what is its own alone, so that there are few; `other` where nothing is served."""
        path = getattr(self.scope.get("route"), "path", "")
        return path or (self.path if self.path in OWN_PAGES else "other")

    async def receive(self) -> "Message":
        """Give the app what the client sends; a client that is silent for too long has gone."""
        if self._complete:
            return await self._receive()
        try:
            async with asyncio.timeout(self._patience):
                message = await self._receive()
        except TimeoutError:
            self.timed_out = True
            return {"type": "http.disconnect"}
        if message["type"] == "http.request":
            body = message.get("body", b"")
            self._complete = not message.get("more_body", False)
            self.received += len(body)
            if self._keeps and len(self.asked) < _LOGGED:
                self.asked += body[:_LOGGED]
        return message

    async def send(self, message: "Message") -> None:
        """Send to the client what the app says."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = [*message.get("headers", ())]
            if self._keeps:
                self.kind = next((value.decode("latin-1") for name, value in headers if name == b"content-type"), "")
            if self.status in (429, 503) and not any(name == b"retry-after" for name, _ in headers):
                headers.append((b"retry-after", str(_RETRY_AFTER).encode()))
            if self.page:
                headers += _for_page(self.page)
            message = {**message, "headers": headers}
        elif message["type"] == "http.response.body":
            body = message.get("body", b"")
            self.sent += len(body)
            if self._keeps and len(self.told) < _LOGGED:
                self.told += body[:_LOGGED]
            asks_again = self.status == 408 and b"try_again" in body
            if (self.status >= 400 and not asks_again) or body.startswith((b'{"error":', b'data: {"error":')):
                self.error += body[:_ERRORS_SHOWN]
        await self._send(message)

    async def refuse(self, status: int, text: str, close: bool = False) -> None:
        """Refuse the request, in the form of the protocol that it speaks."""
        whose = SERVER if status >= 500 else "rate_limit_error" if status == 429 else INVALID
        if _OPENAI.match(self.path):
            code = "rate_limit_exceeded" if status == 429 else None
            body = RequestError(text, status=status, kind=whose, code=code).body()
        else:
            body = TinkerError(text, category="server" if status in (429, 503) else "user").body()
        more = ((b"connection", b"close"),) if close else ()
        await self.reply(status, body, "application/json", more)

    async def reply(self, status: int, body: bytes, kind: str, more: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Answer, once."""
        headers = [*more]
        if status != 204:
            headers += [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": b"" if self.method == "HEAD" else body})


def _for_page(origin: str) -> list[tuple[bytes, bytes]]:
    """Return the headers by which a browser lets a page read an answer."""
    return [(b"access-control-allow-origin", origin.encode("latin-1")), (b"vary", b"origin")]


def _preflight(call: _Call) -> list[tuple[bytes, bytes]]:
    """Return what a browser wants to know before it lets a page send a request."""
    wanted: Any = call.header(b"access-control-request-headers") or "authorization, content-type, x-api-key"
    return [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
        (b"access-control-allow-headers", wanted.encode("latin-1")), (b"access-control-max-age", b"600"),
    ]  # fmt: skip
