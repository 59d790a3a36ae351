"""16,000 requests to a service by 50 clients at once, some of which vanish: `make soak-service`.

Memory, file descriptors and threads of the service are looked at from outside (/proc). Exit code 1 where something
grows, or an answer is not the one that belongs to its request.
"""

import argparse
import contextlib
import http.client
import json
import os
import platform
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

from process_samples import ProcessSamples

ROOT = Path(__file__).resolve().parents[2]
ALLOWED_GROWTH = 2**20  # bytes in 10,000 requests: an allocator's own pages come and go
ANSWERS = 10  # seconds that answers are kept once they were read: so that the service is soon as full as it gets
# oneDNN keeps a kernel for each shape of a batch, up to 1024 of two kinds, which takes far more requests to fill.
KERNELS = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "32", "LRU_CACHE_CAPACITY": "32", "MALLOC_ARENA_MAX": "1"}
PROMPT = list(b"colour of apple? colour of pear? ")


class Fault(Exception):
    """An answer that does not belong to its request."""


class Samples(ProcessSamples):
    """What /proc says of a service, and what of it grows."""

    def grows(self, clients: int) -> list[str]:
        """Say what grows."""
        half = len(self.at) // 2
        found = []
        slope, interval = self.slope()
        if (slope - interval) * 10_000 > ALLOWED_GROWTH:
            found.append("memory")
        if max(self.files[half:]) > max(self.files[:half]) + clients:  # each connection is one
            found.append("files")
        if max(self.threads[half:]) > max(self.threads[:half]) + 1:
            found.append("threads")
        return found


class Counted:
    """Requests of all clients, by what they were."""

    def __init__(self, most: int) -> None:
        self.most, self.total, self.kinds = most, 0, Counter[str]()
        self.faults: list[str] = []
        self._lock = threading.Lock()

    def add(self, kind: str) -> None:
        """Count a request."""
        with self._lock:
            self.total += 1
            self.kinds[kind] += 1

    @property
    def enough(self) -> bool:
        """Whether no more are to be sent."""
        return self.total >= self.most or bool(self.faults)


class Client:
    """A user of both protocols, whose doings follow from its number.

    Args:
        number: its number.
        port: port of the service.
        counted: counts its requests.
        only: name of the one thing it does; empty for all.
    """

    def __init__(self, number: int, port: int, counted: Counted, only: str = "") -> None:
        self.number, self._port, self._counted = number, port, counted
        self._random = random.Random(number)
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
        self._next = 1
        self._doings = [
            (20, self.chat), (12, self.stream), (8, self.hang_up), (20, self.sample), (12, self.train), (4, self.save),
            (10, self.err), (10, self.beat), (4, self.look),
        ]  # fmt: skip
        self._doings = [each for each in self._doings if only in ("", each[1].__name__)]

    def live(self) -> None:
        """Do one thing after the other, until there were enough."""
        try:
            self.session = self._post("create_session", tags=["soak"], sdk_version="0")["session_id"]
            made = self._post("create_model", session_id=self.session, model_seq_id=0, base_model="tiny",
                              lora_config={"rank": 2, "seed": self.number})  # fmt: skip
            self.model = self._result(made)["model_id"]
            weights, doings = zip(*self._doings, strict=True)
            while not self._counted.enough:
                self._random.choices(doings, weights)[0]()
        except Exception as error:  # whatever goes wrong is a fault of the service
            self._counted.faults.append(f"client {self.number}: {type(error).__name__}: {error}")

    # ----------------------------------------------------------------------------------------------------------- doings

    def chat(self) -> None:
        """Ask, and wait for the whole answer."""
        told = self._ask("POST", "/v1/chat/completions", self._chat(), 200)
        self._require(told["usage"]["completion_tokens"] <= 8 and len(told["choices"]) == 1, told)

    def stream(self) -> None:
        """Read an answer as it grows."""
        body = json.dumps({**self._chat(), "stream": True})
        self._connection.request("POST", "/v1/chat/completions", body)
        self._counted.add("POST /v1/chat/completions, streamed")
        read = self._connection.getresponse().read()
        self._require(read.endswith(b"data: [DONE]\n\n"), read)

    def hang_up(self) -> None:
        """Begin to read a long answer, and vanish."""
        body = json.dumps({**self._chat(), "stream": True, "max_tokens": 200}).encode()
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._port), 300) as other:
            other.sendall(head.encode() + body[: -1 if self.number % 5 == 0 else None])
            self._counted.add("POST /v1/chat/completions, hung up")
            if self.number % 5:
                self._require(other.recv(100).startswith(b"HTTP/1.1 200"), "no answer begins")

    def sample(self) -> None:
        """Sample by the Tinker protocol."""
        count = self._random.randint(1, 3)
        asked = self._post(
            "asample", base_model="tiny", num_samples=count, prompt={"chunks": [{"tokens": self._prompt()}]},
            sampling_params={"max_tokens": 6, "temperature": 1.0, "seed": self.number},
        )  # fmt: skip
        told = self._result(asked)
        self._require(len(told["sequences"]) == count, told)

    def train(self) -> None:
        """Do a step of an adapter of its own."""
        tokens = self._prompt()
        target = {"data": tokens[1:], "dtype": "int64"}
        weights = {"data": [1.0] * (len(tokens) - 1), "dtype": "float32"}
        datum = {"model_input": {"chunks": [{"tokens": tokens[:-1]}]},
                 "loss_fn_inputs": {"target_tokens": target, "weights": weights}}  # fmt: skip
        asked = [
            self._in_order("forward_backward", forward_backward_input={"data": [datum], "loss_fn": "cross_entropy"}),
            self._in_order("optim_step", adam_params={"learning_rate": 1e-3}),
        ]
        loss, step = map(self._result, asked)
        self._require(len(loss["loss_fn_outputs"][0]["logprobs"]["data"]) == len(tokens) - 1, loss)
        self._require("step:max" in step["metrics"], step)

    def save(self) -> None:
        """Keep weights under one name again and again, and sample from them."""
        saved = self._result(self._in_order("save_weights_for_sampler", path="newest", overwrite=True))
        chat = {**self._chat(), "model": saved["path"]}
        self._require(self._ask("POST", "/v1/chat/completions", chat, 200)["model"] == saved["path"], saved)

    def err(self) -> None:
        """Send what can't be done."""
        unknown = json.dumps({**self._chat(), "model": "none"}).encode()
        path, body, status = self._random.choice([
            ("/v1/chat/completions", b"{", 400), ("/v1/chat/completions", unknown, 404),
            ("/api/v1/asample", b'{"base_model": "none"}', 400),
            ("/api/v1/retrieve_future", b'{"request_id": "x"}', 410),
            ("/api/v1/forward", b'{"model_id": "none", "seq_id": 1}', 404), ("/nowhere", b"{}", 404),
        ])  # fmt: skip
        self._connection.request("POST", path, body)
        self._counted.add(f"POST {path}, wrong")
        answer = self._connection.getresponse()
        read = answer.read()
        self._require(answer.status == status and b"error" in read, (path, answer.status, read))

    def beat(self) -> None:
        """Say that it lives."""
        self._post("session_heartbeat", session_id=self.session)

    def look(self) -> None:
        """Look at lists and pages."""
        path = self._random.choice(["/", "/metrics", "/healthz", "/v1/models", "/api/v1/training_runs"])
        self._connection.request("GET", path)
        self._counted.add(f"GET {path}")
        answer = self._connection.getresponse()
        self._require(answer.status == 200 and answer.read(), path)

    # ------------------------------------------------------------------------------------------------------------ steps

    def _prompt(self) -> list[int]:
        return PROMPT[: self._random.randint(4, len(PROMPT))]

    def _chat(self) -> dict[str, Any]:
        question = "why is the sky blue? "[: self._random.randint(2, 20)]
        return {"model": "tiny", "messages": [{"role": "user", "content": question}], "max_tokens": 8}

    def _in_order(self, route: str, **fields: Any) -> dict[str, Any]:
        number, self._next = self._next, self._next + 1
        return self._post(route, model_id=self.model, seq_id=number, **fields)

    def _post(self, route: str, **fields: Any) -> dict[str, Any]:
        return self._ask("POST", f"/api/v1/{route}", fields, 200)

    def _result(self, asked: dict[str, Any]) -> dict[str, Any]:
        while True:
            body = json.dumps({"request_id": asked["request_id"]})
            self._connection.request("POST", "/api/v1/retrieve_future", body)
            self._counted.add("POST /api/v1/retrieve_future")
            answer = self._connection.getresponse()
            told = json.loads(answer.read())
            if answer.status != 408:
                self._require(answer.status == 200 and "error" not in told, told)
                return told

    def _ask(self, method: str, path: str, fields: dict[str, Any], status: int) -> dict[str, Any]:
        for _ in range(100):
            self._connection.request(method, path, json.dumps(fields))
            self._counted.add(f"{method} {path}")
            answer = self._connection.getresponse()
            read = answer.read()
            if answer.status != 429:
                break
            time.sleep(float(answer.getheader("retry-after", "1")))
        self._require(answer.status == status, (path, answer.status, read))
        return json.loads(read)

    @staticmethod
    def _require(fine: object, told: object) -> None:
        if not fine:
            raise Fault(str(told)[:500])


@contextlib.contextmanager
def service(folder: Path) -> Any:
    """Serve `tiny` in a process of its own; yields the process and the port."""
    command = [sys.executable, "serve.py", "--model", "tiny", "--port", "0", "--folder", str(folder)]
    command += ["--prefix-mb", "4", "--answer-seconds", str(ANSWERS)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **KERNELS}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            first = process.stdout.readline() if process.stdout else ""
            found = re.search(r"http://127\.0\.0\.1:(\d+)", first)
            if found is None:
                raise RuntimeError(f"the service doesn't begin: {first}")
            yield process, int(found[1])
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def soak(requests: int, warm_up: int, clients: int, folder: Path, only: str) -> tuple[Counted, Samples, int]:
    """Let clients send requests until there were enough.

    Args:
        requests: requests that are looked at.
        warm_up: requests before them, which fill whatever there is to fill.
        clients: clients at a time.
        folder: folder of the service.
        only: the one thing that clients do; empty for all.

    Returns:
        The counts, what was seen after the warm-up, and the exit code.
    """
    counted = Counted(warm_up + requests)
    with service(folder) as (process, port):
        threads = [threading.Thread(target=Client(number, port, counted, only).live) for number in range(clients)]
        for thread in threads:
            thread.start()
        samples, every = Samples(process.pid), max(1, requests // 200)
        while any(thread.is_alive() for thread in threads):
            if counted.total >= (samples.at[-1] + every if samples.at else warm_up):
                samples.take(counted.total)
            time.sleep(0.05)
    return counted, samples, process.returncode


def main() -> int:
    """Soak, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--warm-up", type=int, default=6000, help="requests before those that are looked at")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--only", default="", help="the one thing that clients do, such as chat, train or save")
    given = parser.parse_args()
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp())
    try:
        counted, seen, code = soak(given.requests, given.warm_up, given.clients, folder, given.only)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - start
    today = time.strftime("%Y-%m-%d")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {today}")
    for kind, count in counted.kinds.most_common():
        print(f"  {count:6,}  {kind}")
    for part in range(10):
        place = len(seen.at) * part // 10
        print(f"  after {seen.at[place]:6,}: {seen.memory[place] / 1e6:.1f} MB")
    half = len(seen.at) // 2
    memory = " / ".join(f"{seen.memory[place] / 1e6:.1f}" for place in (0, half, -1))
    slope, interval = seen.slope()
    grows = seen.grows(given.clients)
    print("| requests | memory, first / middle / last | growth a request (95 %) | descriptors | threads | grows |")
    print("|---|---|---|---|---|---|")
    files, threads = (f"{min(each)} to {max(each)}" for each in (seen.files[half:], seen.threads[half:]))
    growth = f"{slope:+.1f} ± {interval:.1f} B"
    named = ", ".join(grows) or "nothing"
    total = counted.total - given.warm_up
    print(f"| {total:,} by {given.clients} clients | {memory} MB | {growth} | {files} | {threads} | {named} |")
    for fault in counted.faults:
        print(f"fault: {fault}")
    bad = bool(grows or counted.faults or code)
    print(f"done in {seconds:.0f} s, exit code {code}: {'it failed' if bad else 'nothing grows, no answer was wrong'}")
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
