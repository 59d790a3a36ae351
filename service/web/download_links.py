"""Addresses of files that can be fetched without a key for a while: who has one got it from somebody with the key."""

import hashlib
import hmac
import secrets
import time
from urllib.parse import quote

_SECONDS = 3600


class DownloadLinks:
    """Signs addresses, and knows its signatures again. They end with the process.

    Args:
        seconds: how long an address is good for.
    """

    def __init__(self, seconds: int = _SECONDS) -> None:
        self._secret, self._seconds = secrets.token_bytes(32), seconds

    def sign(self, url: str) -> tuple[str, int]:
        """Return an address by which the file can be fetched, and until when, in seconds since 1970.

        Args:
            url: address of the file, without a query.
        """
        scheme, _, rest = url.partition("://")
        host, _, path = rest.partition("/")
        end = int(time.time()) + self._seconds
        return f"{scheme}://{host}{quote(f'/{path}')}?until={end}&signature={self._signature(f'/{path}', end)}", end

    def allow(self, path: str, until: str | None, signature: str | None) -> bool:
        """Say whether a request has a signature of its path that still counts.

        Args:
            path: path of the request.
            until: what its query says of its end.
            signature: what its query has as signature.
        """
        if until is None or signature is None or not (until.isascii() and until.isdecimal()) or len(until) > 12:
            return False
        sound = hmac.compare_digest(signature.encode(), self._signature(path, int(until)).encode())
        return sound and int(until) >= time.time()

    def _signature(self, path: str, until: int) -> str:
        return hmac.new(self._secret, f"{until} {path}".encode(), hashlib.sha256).hexdigest()
