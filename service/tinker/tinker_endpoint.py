"""What the endpoints of the Tinker protocol have in common: bodies, the key, errors in the protocol's form."""

import asyncio
import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from service.tinker.promises import HOLD
from service.tinker.tinker_fields import Json, read_json
from service.web.download_links import DownloadLinks
from service.web.http_call import ClientGone, HttpCall
from service.web.openai_error import RequestError
from service.web.tinker_error import TinkerError

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_LONG = 65536  # bytes of a request that is read beside the other clients
MOST_LISTED = 1000


@dataclass(frozen=True)
class TinkerLimits:
    """What the app takes.

    Attributes:
        body: bytes of a request, also after it was unpacked.
        hold: seconds that a question for an answer is held.
        samples: requests for samples that wait or are under way; further ones are told to come again.
        silent: seconds after which a sample is cancelled that somebody has asked for, and asks for no more.
        unasked: seconds after which one is cancelled that nobody has ever asked for.
    """

    body: int = 256 * 2**20
    hold: float = HOLD
    samples: int = 10_000
    silent: float = 60.0
    unasked: float = 300.0


class Handler:
    """An ASGI app that answers calls by a function, and errors in the protocol's form.

    Args:
        answer: answers a call.
        key: what clients must send as X-API-Key; None serves everybody.
        links: signatures that stand in for the key; None for none.
    """

    def __init__(
        self, answer: Callable[[HttpCall], Awaitable[None]], key: str | None, links: DownloadLinks | None = None
    ) -> None:
        self._answer, self._key, self._links = answer, key, links

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        """Answer one request."""
        call = HttpCall(scope, receive, send)
        try:
            self._require_key(call)
            await self._answer(call)
        except ClientGone:
            return
        except TinkerError as error:
            await call.reply(error.status, error.body(), more=error.headers)
        except RequestError as error:
            await call.reply(error.status, TinkerError(error.message).body())
        except asyncio.CancelledError:  # by the server's end, and nobody else
            await call.reply(503, TinkerError("the service has been closed", category="server").body())
        except Exception:
            _LOG.exception("a request failed")
            await call.reply(500, TinkerError("the service failed; its log says how", category="server").body())

    def _require_key(self, call: HttpCall) -> None:
        if self._key is None or hmac.compare_digest(call.header(b"x-api-key").encode(), self._key.encode()):
            return
        if self._links is not None and self._links.allow(call.path, call.query("until"), call.query("signature")):
            return
        raise TinkerError("the key is not this service's: send it as X-API-Key (api_key=, TINKER_API_KEY)", 401)


async def read_body(call: HttpCall, limits: TinkerLimits) -> bytes:
    """Return the body of a request as it was before it was packed.

    Raises:
        TinkerError: it is packed in another way, damaged or too long.
        RequestError: it is too long.
    """
    body = await call.body(limits.body)
    encoding = call.header(b"content-encoding")
    if encoding in ("", "identity"):
        return body
    return await beside(len(body), partial(_unpacked, body, encoding, limits.body))


async def read_object(call: HttpCall, limits: TinkerLimits) -> Json:
    """Return the JSON object that a request's body is.

    Raises:
        TinkerError: it is none.
    """
    body = await read_body(call, limits)
    return await beside(len(body), partial(read_json, body))


async def beside(size: int, work: Callable[[], T]) -> T:
    """Do work; where it is for a long request, in a thread beside the other clients.

    Args:
        size: bytes of the request.
        work: what is to be done.
    """
    return await asyncio.to_thread(work) if size > _LONG else work()


def page(call: HttpCall, total: int) -> tuple[Json, int, int]:
    """Return the cursor of a list, and which part of it is wanted.

    Args:
        call: the request.
        total: entries of the whole list.

    Raises:
        TinkerError: limit or offset can't be used.
    """
    asked = {}
    for name, default, most in (("limit", 20, MOST_LISTED), ("offset", 0, 2**31)):
        text = call.query(name)
        if text is not None and (not text.isdecimal() or not text.isascii() or int(text[:12]) > most):
            raise TinkerError(f"{name} is {text[:80]!r}; it must be an integer from 0 to {most}")
        asked[name] = default if text is None else int(text)
    begin = asked["offset"]
    return {**asked, "total_count": total}, begin, begin + asked["limit"]


def _unpacked(body: bytes, encoding: str, limit: int) -> bytes:
    """Return a body as it was before it was packed, never more of it than is taken."""
    if encoding != "zstd":
        raise TinkerError(f"Content-Encoding is {encoding[:80]!r}; allowed are identity and zstd", 415)
    import zstandard

    try:
        with zstandard.ZstdDecompressor().stream_reader(body, read_across_frames=True) as reader:
            unpacked = reader.read(limit + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise TinkerError(f"the body can't be unpacked: {error}") from error
    if len(unpacked) > limit:
        raise TinkerError(f"the request's body is longer than {limit} bytes when it is unpacked", 413)
    return unpacked
