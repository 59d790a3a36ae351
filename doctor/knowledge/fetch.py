"""HTTP requests, of which many go to one server: its connection is kept open."""

import http.client
import os
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

_AGENT = "menagerie-doctor"
_TIMEOUT = 60
_REDIRECTS = 5
# What a server that knows no parts of files may send instead of one.
_LARGEST_WHOLE = 64 << 20
_MOVED = (301, 302, 303, 307, 308)


@dataclass(frozen=True)
class Answer:
    """What a server said: its status, its headers by their name in lower case, and the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Fetcher:
    """Fetches over connections that stay open, one of each thread for each server; behind a proxy over new ones."""

    def __init__(self) -> None:
        certificates = os.environ.get("SSL_CERT_FILE") or os.environ.get("PIP_CERT")
        self._context = ssl.create_default_context(cafile=certificates if certificates else None)
        self._local = threading.local()
        self._proxies = bool({"http", "https", "all"} & urllib.request.getproxies().keys())

    def get(self, url: str, headers: Mapping[str, str]) -> Answer:
        """Return a server's answer, whatever its status.

        Args:
            url: the address, without credentials.
            headers: headers of the request. What authorises goes to that server alone.

        Raises:
            OSError: if there is no answer.
        """
        sent = {"User-Agent": _AGENT, "Accept-Encoding": "identity", **headers}
        if self._proxies or not url.startswith(("http://", "https://")):
            return self._once(url, sent)
        for _ in range(_REDIRECTS):
            answer = self._kept(url, sent)
            if answer.status not in _MOVED or "location" not in answer.headers:
                return answer
            target = urllib.parse.urljoin(url, answer.headers["location"])
            if urllib.parse.urlsplit(target).netloc != urllib.parse.urlsplit(url).netloc:
                sent.pop("Authorization", None)
            url = target
        raise OSError("the server sends from one address to the next")

    def _once(self, url: str, headers: Mapping[str, str]) -> Answer:
        request = urllib.request.Request(url, headers=dict(headers))
        try:
            with urllib.request.urlopen(request, timeout=_TIMEOUT, context=self._context) as answer:
                named = {name.lower(): value for name, value in answer.headers.items()}
                _check(headers, answer.status or 200, named)
                return Answer(answer.status or 200, named, answer.read())
        except urllib.error.HTTPError as problem:
            with problem:
                return Answer(problem.code, {}, b"")

    def _kept(self, url: str, headers: Mapping[str, str]) -> Answer:
        parts = urllib.parse.urlsplit(url)
        connections = self._local.__dict__.setdefault("connections", {})
        server = (parts.scheme, parts.netloc)
        target = urllib.parse.urlunsplit(("", "", parts.path or "/", parts.query, ""))
        for fresh in (False, True):
            known = None if fresh else connections.get(server)
            connection = known or self._connection(parts.scheme, parts.netloc)
            try:
                connection.request("GET", target, headers=dict(headers))
                answer = connection.getresponse()
                named = {name.lower(): value for name, value in answer.getheaders()}
                _check(headers, answer.status, named)
                body = answer.read()
            except (http.client.HTTPException, OSError) as problem:
                connection.close()
                connections.pop(server, None)
                # A server closes what was idle for long: that is no failure of this request.
                if known is None:
                    raise problem if isinstance(problem, OSError) else OSError(str(problem)) from None
                continue
            if answer.will_close:
                connections.pop(server, None)
            else:
                connections[server] = connection
            return Answer(answer.status, named, body)
        raise OSError("no answer")

    def _connection(self, scheme: str, server: str) -> http.client.HTTPConnection:
        if scheme == "https":
            return http.client.HTTPSConnection(server, timeout=_TIMEOUT, context=self._context)
        return http.client.HTTPConnection(server, timeout=_TIMEOUT)


def _check(asked: Mapping[str, str], status: int, headers: Mapping[str, str]) -> None:
    """Raise OSError where a part was asked for and a large whole comes."""
    if "Range" in asked and status == 200 and int(headers.get("content-length") or 0) > _LARGEST_WHOLE:
        raise OSError("the server sends no parts of files")
