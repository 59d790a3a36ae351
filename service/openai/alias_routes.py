"""Aliases over HTTP, beside OpenAI's protocol: PUT, GET and DELETE /v1/aliases/NAME, and GET /v1/aliases."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from service.openai.aliases import Aliases
from service.openai.openai_answers import to_json
from service.openai.openai_requests import read_body
from service.web.http_call import HttpCall
from service.web.openai_error import SERVER, RequestError
from storage.errors import OutputError

_BODY = 65536  # bytes of a request

Route = tuple[str, str, Callable[[HttpCall], Awaitable[None]]]


class AliasRoutes:
    """What is done with requests that look at aliases or change them.

    Args:
        aliases: the aliases.
        require_key: refuses a call whose key is none.
    """

    def __init__(self, aliases: Aliases, require_key: Callable[[HttpCall], None]) -> None:
        self._aliases, self._require_key = aliases, require_key

    def table(self) -> list[Route]:
        """Return of each route its path, its method, and what answers it."""
        return [
            ("aliases", "GET", self.list), ("aliases/{alias:path}", "GET", self.show),
            ("aliases/{alias:path}", "PUT", self.point), ("aliases/{alias:path}", "DELETE", self.remove),
        ]  # fmt: skip

    async def list(self, call: HttpCall) -> None:
        """Tell all aliases."""
        self._require_key(call)
        told = [_told(name, target) for name, target in self._aliases.all().items()]
        await call.reply(200, to_json({"object": "list", "data": told}))

    async def show(self, call: HttpCall) -> None:
        """Tell one alias."""
        self._require_key(call)
        name = call.parameter("alias") or ""
        await call.reply(200, to_json(_told(name, self._aliases.target(name))))

    async def point(self, call: HttpCall) -> None:
        """Let a name stand for a model."""
        body = await call.body(_BODY)
        self._require_key(call)
        name, target = call.parameter("alias") or "", read_body(body).get("model")
        await _written(lambda: self._aliases.point(name, target))
        await call.reply(200, to_json(_told(name, str(target))))

    async def remove(self, call: HttpCall) -> None:
        """Forget an alias."""
        self._require_key(call)
        name = call.parameter("alias") or ""
        await _written(lambda: self._aliases.remove(name))
        await call.reply(200, to_json({"id": name, "object": "alias", "deleted": True}))


async def _written(change: Callable[[], None]) -> None:
    """Make a change, which waits for the disk, beside the other clients."""
    try:
        await asyncio.to_thread(change)
    except OutputError as error:
        raise RequestError(str(error), None, 507, SERVER) from error


def _told(name: str, target: str) -> Mapping[str, Any]:
    return {"id": name, "object": "alias", "model": target}
