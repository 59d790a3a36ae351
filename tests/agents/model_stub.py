"""A model that is a function, behind OpenAI's protocol on this machine."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Stub(ThreadingHTTPServer):
    """The server. `said` makes an answer of a conversation; `failures` are statuses and texts that come first."""

    def __init__(self, said: Callable[[list[dict]], str]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.said, self.asked, self.failures, self.keys = said, [], [], []
        self.most: int | None = None  # answers after which it refuses
        self.lock = threading.Lock()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.keys.append(self.headers.get("Authorization"))
            if server.failures:
                status, text = server.failures.pop(0)
                return self._send(status, {"error": {"message": text}})
            if server.most is not None and len(server.asked) >= server.most:
                return self._send(400, {"error": {"message": "enough"}})
            server.asked.append(body)
        if self.path.endswith("/embeddings"):
            data = [{"index": at, "embedding": json.loads(server.said([{"content": text}]))}
                    for at, text in enumerate(body["input"])]  # fmt: skip
            return self._send(200, {"data": data})
        message = {"role": "assistant", "content": server.said(body["messages"])}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(200, {"choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}})

    def _send(self, status: int, value: dict) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        pass


@contextmanager
def model_stub(said: Callable[[list[dict]], str]) -> Iterator[Stub]:
    """Serve a function as a model."""
    server = Stub(said)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
