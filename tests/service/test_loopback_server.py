"""The server in a thread: starts at once, ends cleanly, and leaves nothing behind."""

import asyncio
import gc
import logging
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("uvicorn")

import httpx

from service.web import loopback_server
from service.web.loopback_server import LoopbackServer


async def app(scope, receive, send):
    if scope["path"] == "/forever":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode()})


def test_serves_and_ends(caplog):
    before, level = threading.active_count(), logging.getLogger("uvicorn.error").level
    with caplog.at_level(logging.DEBUG), LoopbackServer(app) as server:
        assert httpx.get(f"{server.url}/a").text == "/a"
        assert server.url == f"http://127.0.0.1:{server.port}"
        with pytest.raises(OSError):
            LoopbackServer(app, server.port).__enter__()
        port = server.port
    assert threading.active_count() == before and logging.getLogger("uvicorn.error").level == level
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/a")
    with LoopbackServer(app, port) as again:  # the port is free at once
        assert httpx.get(f"{again.url}/b").text == "/b"
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_client_that_has_gone_is_nobodys_news(caplog):
    """asyncio says so for each piece that is sent on; what else it says is told."""
    with LoopbackServer(app):
        logging.getLogger("asyncio").warning("socket.send() raised exception.")
        logging.getLogger("asyncio").warning("something else")
    assert caplog.messages == ["something else"]


def test_answers_are_sent_at_once():
    """Without TCP_NODELAY each answer would wait 40 ms for an acknowledgement."""
    seen = []

    async def looks(scope, receive, send):
        transport = receive.__self__.transport
        seen.append(transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        await app(scope, receive, send)

    with LoopbackServer(looks) as server:
        httpx.get(server.url)
    assert seen == [1]


def test_ends_though_a_client_stays():
    with LoopbackServer(app) as server, httpx.Client(timeout=60) as client:
        with client.stream("GET", f"{server.url}/forever") as response:
            assert next(response.iter_raw()) == b"begun"
            server.__exit__(None, None, None)
        assert threading.current_thread() is threading.main_thread()


def test_what_is_under_way_is_answered_before_it_ends(monkeypatch):
    monkeypatch.setattr(loopback_server, "_LONGEST_END", 60)
    begun, leave = threading.Event(), threading.Event()

    async def slow(scope, receive, send):
        begun.set()
        await asyncio.to_thread(leave.wait, 60)
        await app(scope, receive, send)

    with ThreadPoolExecutor(1) as pool:
        with LoopbackServer(slow) as server:
            asked = pool.submit(httpx.get, f"{server.url}/late", timeout=60)
            assert begun.wait(60)
            threading.Timer(0.2, leave.set).start()
        assert asked.result().text == "/late"


def test_the_app_is_let_go_with_the_server():
    """uvicorn's objects refer to one another, and stay until Python looks for such."""

    class App:
        async def __call__(self, scope, receive, send):
            await app(scope, receive, send)

    gc.disable()
    try:
        served = App()
        known = weakref.ref(served)
        with LoopbackServer(served) as server:
            assert httpx.get(f"{server.url}/a").text == "/a"
        del served
        assert known() is None
    finally:
        gc.enable()
