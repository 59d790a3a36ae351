"""Clients that take too long for the head of a request are hung up on, and nobody else is."""

import socket
from http.client import HTTPConnection

import pytest

pytest.importorskip("uvicorn")

from service.web.loopback_server import LoopbackServer


async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"here"})


def asked(client):
    client.request("GET", "/")
    return client.getresponse().read()


def heard(port, said):
    """Say something, and return all that is heard until the other end hangs up."""
    with socket.create_connection(("127.0.0.1", port), 30) as slow:
        slow.sendall(said)
        return b"".join(iter(lambda: slow.recv(4096), b""))


@pytest.mark.parametrize("parser", ["httptools", "h11"])
def test_a_head_that_does_not_come_is_not_waited_for(parser, monkeypatch):
    from uvicorn.protocols.http import auto, h11_impl, httptools_impl

    made = {"httptools": httptools_impl.HttpToolsProtocol, "h11": h11_impl.H11Protocol}[parser]
    monkeypatch.setattr(auto, "AutoHTTPProtocol", made)
    with LoopbackServer(app, head_seconds=0.2) as server:
        rests = HTTPConnection("127.0.0.1", server.port, timeout=30)
        assert asked(rests) == b"here"
        begun = heard(server.port, b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
        assert begun.startswith(b"HTTP/1.1 408 ") and b"not come within 0.2 s" in begun
        assert heard(server.port, b"") == b""
        with socket.create_connection(("127.0.0.1", server.port), 30) as slow:  # and a second one
            slow.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            told = b""
            while not told.endswith(b"here"):
                told += slow.recv(4096)
            slow.sendall(b"GET / HT")
            assert b"".join(iter(lambda: slow.recv(4096), b"")).startswith(b"HTTP/1.1 408 ")
        connection = rests.sock
        assert asked(rests) == b"here" and rests.sock is connection  # it has rested for longer, which it may
        rests.close()
