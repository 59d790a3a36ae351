"""What every request goes through: strangers, the start, too much at once, silent clients, and what is noted of it."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

pytest.importorskip("uvicorn")
pytest.importorskip("starlette")

import httpx

from service.web.front import Behind, Front, FrontRules
from service.web.loopback_server import LoopbackServer
from service.web.request_log import LogFile


async def app(scope, receive, send):
    """Tells how long the body was; an error where the path says so."""
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message.get("body", b""), message.get("more_body", False)
    status = 400 if scope["path"].endswith("/bad") else 200
    told = b'{"error": "wrong secret", "category": "user"}' if status == 400 else b'{"read": %d}' % len(body)
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": told})


@dataclass
class State:
    """What a test says of the model."""

    waiting: int = 0
    failure: str = ""

    def behind(self) -> Behind:
        return Behind(
            app, lambda: self.waiting, lambda: (0, 0), lambda: self.failure, lambda: "<p>page", lambda: "m 1\n"
        )


@contextmanager
def fronted(state: State | None = None, access=None, contents=None, **rules) -> Iterator[tuple[Front, httpx.Client]]:
    front = Front(FrontRules(**rules), access, contents)
    if state is not None:
        front.open(state.behind())
    with LoopbackServer(front) as server, httpx.Client(base_url=server.url, timeout=30) as client:
        yield front, client


def test_requests_wait_for_the_model_and_health_tells_how_it_is():
    state = State()
    with fronted() as (front, client):
        early = client.get("/healthz")
        assert (early.status_code, early.json()) == (503, {"status": "starting"}) and "retry-after" in early.headers
        assert client.get("/").status_code == 503
        opened = threading.Thread(target=lambda: front.open(state.behind()))
        answers = []
        asks = threading.Thread(target=lambda: answers.append(client.post("/v1/models", content=b"abc").json()))
        asks.start()
        opened.start()
        asks.join(30)
        assert answers == [{"read": 3}]
        assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (200, {"status": "ok"})
        state.failure = "its thread has ended"
        assert (client.get("/healthz").status_code, client.get("/healthz").json()) == (503, {"status": "failed"})


def test_strangers_are_refused():
    with fronted(State(), origins=("http://localhost:3000",)) as (_, client):
        assert client.get("/v1/models", headers={"host": "localhost:1"}).status_code == 200
        assert client.get("/v1/models", headers={"host": "[::1]:1"}).status_code == 200
        rebound = client.get("/v1/models", headers={"host": "evil.example"})
        assert rebound.status_code == 403 and "evil.example" in rebound.json()["error"]["message"]
        page = client.post("/api/v1/asample", headers={"origin": "https://evil.example"})
        assert page.status_code == 403 and "https://evil.example" in page.json()["error"]
        assert "access-control-allow-origin" not in page.headers
        assert client.get("/", headers={"origin": "null"}).status_code == 403

        mine = {"origin": "http://localhost:3000"}
        asked = client.options("/v1/models", headers={**mine, "access-control-request-headers": "x-mine"})
        assert asked.status_code == 204 and asked.headers["access-control-allow-headers"] == "x-mine"
        assert client.get("/v1/models", headers=mine).headers["access-control-allow-origin"] == mine["origin"]
    with fronted(State(), key="tml-secret") as (_, client):  # a key tells friends from strangers, whatever the name
        assert client.get("/v1/models", headers={"host": "box.example"}).status_code == 200


def test_pages_need_the_key_where_there_is_one():
    with fronted(State(), key="tml-secret") as (_, client):
        for path in ("/", "/metrics"):
            refused = client.get(path)
            assert refused.status_code == 401 and refused.headers["www-authenticate"].startswith("Basic ")
            assert client.get(path, auth=("me", "tml-wrong")).status_code == 401
            assert client.get(path, auth=("me", "tml-secret")).status_code == 200
            assert client.get(path, headers={"authorization": "Bearer tml-secret"}).status_code == 200
            assert client.get(path, headers={"x-api-key": "tml-secret"}).status_code == 200
            assert client.get(path, headers={"authorization": "Basic %%%"}).status_code == 401
            assert client.get(path, headers={"authorization": "Bearer tml-sécret".encode("latin-1")}).status_code == 401
        assert client.get("/healthz").status_code == 200
        page = client.get("/", auth=("", "tml-secret"))
        assert "default-src 'none'" in page.headers["content-security-policy"]


def test_too_much_at_once_is_told_in_each_protocols_form():
    with fronted(State(waiting=3), waiting=3) as (_, client):
        told = client.post("/v1/chat/completions", content=b"{}")
        assert told.status_code == 429 and int(told.headers["retry-after"]) > 0
        assert told.json()["error"]["type"] == "rate_limit_error"
        assert told.json()["error"]["code"] == "rate_limit_exceeded"
        told = client.post("/api/v1/asample", content=b"{}")
        assert told.status_code == 429 and int(told.headers["retry-after"]) > 0
        assert told.json()["category"] == "server" and "3 requests wait" in told.json()["error"]
        assert client.post("/api/v1/retrieve_future", content=b"{}").status_code == 200
        assert client.get("/v1/models").status_code == 200


def test_a_client_that_falls_silent_is_hung_up_on():
    with fronted(State(), client_seconds=0.1) as (_, client), socket.create_connection(
        (client.base_url.host, client.base_url.port), 30
    ) as slow:  # fmt: skip
        slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\nabc")
        answer = b""
        while part := slow.recv(4096):  # until it is closed
            answer += part
    assert answer.startswith(b"HTTP/1.1 408 ") and b"has not come within 0.1 s" in answer


def test_what_is_noted_of_requests(tmp_path):
    access, contents = LogFile(tmp_path / "access.log"), LogFile(tmp_path / "requests.log")
    with fronted(State(), access, contents, key="tml-secret") as (front, client):
        client.post("/keys/tml-secret/v1/completions", content=b'{"prompt": "100 % private"}')
        client.post("/api/v1/bad", content=b"\0\1\2", headers={"content-type": "application/x-protobuf"})
        client.get("/metrics", auth=("", "tml-secret"))
    counts = front.counts
    assert counts.requests == {("other", "POST", 200): 1, ("other", "POST", 400): 1, ("/metrics", "GET", 200): 1}
    (error,) = counts.errors
    assert (error.request, error.status, error.text) == ("POST /api/v1/bad", 400, "wrong secret")
    assert counts.failures == {"user": 1} and counts.open == 0
    lines = [line.split(" ", 1)[1] for line in (tmp_path / "access.log").read_text().splitlines()]
    assert [line.split()[:4] for line in lines] == [
        ["127.0.0.1", "POST", "'/keys/.../v1/completions'", "200"],
        ["127.0.0.1", "POST", "'/api/v1/bad'", "400"],
        ["127.0.0.1", "GET", "'/metrics'", "200"],
    ]
    assert [line.split()[5] for line in lines] == ["27", "3", "0"]
    said = (tmp_path / "requests.log").read_text()
    assert 'asked: {"prompt": "100 % private"}' in said and "asked: (3 bytes of application/x-protobuf)" in said
    assert "private" not in "".join(lines) and "secret" not in "".join(lines) and "tml-secret" not in said
    assert json.loads(said.split("told: ")[1].splitlines()[0]) == {"read": 27}
    access.close()
    contents.close()
