"""Measure the service: what stands between clients and the engine, and what clients gain by being many.

    python bench/service.py                       # the table of docs/speed.md, in a few minutes
    python bench/service.py --quick               # `tiny` alone and little of it, to see that it works
    python bench/service.py --write               # put it into docs/speed.md

Clients are the official Tinker client, in threads of this process; the service is a process of its own on the same
machine. All in one run, interleaved; figures are medians, ratios of the same round.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "speed.md"
BEGIN, END = "<!-- service: begin -->", "<!-- service: end -->"
sys.path.insert(0, str(ROOT))

from machine import installed, processor  # noqa: E402 - beside this file

KEY = "tml-bench"


@dataclass(frozen=True)
class Size:
    """How much is done with a model.

    Attributes:
        model: tiny or smollm2.
        vocabulary: token ids go up to it.
        new: tokens of each sample.
        rows: rows of a training step.
        length: tokens of each row.
        steps: training steps of each client.
        clients: clients that train together.
    """

    model: str
    vocabulary: int
    new: int
    rows: int
    length: int
    steps: int
    clients: int


TINY = Size("tiny", 256, 64, 4, 32, 8, 8)
SMOLLM2 = Size("smollm2", 49152, 16, 4, 32, 1, 8)


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured with tiny")
    parser.add_argument("--threads", type=int, default=2, help="threads of PyTorch")
    parser.add_argument("--only", choices=("tiny", "smollm2"), help="one of the models")
    parser.add_argument("--write", action="store_true", help="put the table into docs/speed.md")
    parser.add_argument("--quick", action="store_true", help="tiny, 1 round")
    words = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no service is left behind
    rounds = 1 if words.quick else words.rounds
    lines = [*_facts(words.threads), "", *_HEAD]
    print("\n".join(lines), flush=True)
    if words.only != "smollm2":
        lines += _told(_start(words.threads, rounds))
        lines += _measure(TINY, rounds, words.threads, calls=200 if words.quick else 2000)
    if words.only != "tiny" and not words.quick:
        lines += _measure(SMOLLM2, min(3, rounds), words.threads, calls=0)
    if words.write:
        before, _, rest = PAGE.read_text().partition(BEGIN)
        after = rest.partition(END)[2]
        PAGE.write_text(before + BEGIN + "\n" + "\n".join(lines) + "\n" + END + after)
    return 0


_HEAD = [
    "| what | model | measured | beside it | ratio or figure | wanted |",
    "|---|---|---|---|---|---|",
]


def _told(line: str) -> list[str]:
    print(line, flush=True)
    return [line]


# -------------------------------------------------------------------------------------------------------- the process


class Served:
    """A service in a process of its own.

    Args:
        process: the process, whose address has been read.
        url: the address.
    """

    def __init__(self, process: "subprocess.Popen[str]", url: str) -> None:
        self._process, self.url = process, url

    def direct(self, **asked: Any) -> float:
        """Let the engine do something without clients; returns the seconds."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())["seconds"]


@contextmanager
def served(model: str, threads: int) -> Iterator[Served]:
    """Serve a model for as long as the block lasts."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [sys.executable, str(ROOT / "bench" / "service_process.py"), model, folder, str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_environment(),
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield Served(process, json.loads(process.stdout.readline())["url"])
        finally:
            process.kill()
            process.wait()


def _environment() -> dict[str, str]:
    return {**os.environ, "TINKER_TELEMETRY": "0", "TOKENIZERS_PARALLELISM": "false"}


def _start(threads: int, rounds: int) -> str:
    """Measure from the start of `serve.py` to the first sampled answer."""
    times = []
    for _ in range(min(rounds, 3)):
        with tempfile.TemporaryDirectory() as folder:
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "serve.py", "--model", "tiny", "--port", "0", "--folder", folder],
                cwd=ROOT, stdout=subprocess.PIPE, text=True,
                env={**_environment(), "OMP_NUM_THREADS": str(threads)},
            )  # fmt: skip
            try:
                assert process.stdout is not None
                url = next(line for line in process.stdout if " at http://" in line).split(" at ")[1].split()[0]
                calls = Calls(url)
                body = {"base_model": "tiny", "num_samples": 1, "prompt": {"chunks": [{"tokens": [65, 66]}]},
                        "sampling_params": {"max_tokens": 4}}  # fmt: skip
                asked = calls.post("/api/v1/asample", body)
                while "sequences" not in calls.post("/api/v1/retrieve_future", {"request_id": asked["request_id"]}):
                    pass
                times.append(time.perf_counter() - begun)
            finally:
                process.kill()
                process.wait()
    return f"| start of `serve.py` to the first answer | tiny | | | {statistics.median(times):.1f} s | <= 4 s |"


class Calls:
    """One connection over which small calls go."""

    def __init__(self, url: str) -> None:
        self._connection = HTTPConnection(url.removeprefix("http://"))
        self._headers = {"X-API-Key": KEY, "Content-Type": "application/json"}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Call; returns the answer."""
        self._connection.request("POST", path, json.dumps(body), self._headers)
        return json.loads(self._connection.getresponse().read())

    def first_event(self, body: dict[str, Any]) -> float:
        """Return the seconds until the first text of a streamed completion; reads it to its end."""
        begun = time.perf_counter()
        headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        self._connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}), headers)
        answer = self._connection.getresponse()
        answer.readline()
        seconds = time.perf_counter() - begun
        answer.read()
        return seconds


# ------------------------------------------------------------------------------------------------------- measurements


def _measure(size: Size, rounds: int, threads: int, calls: int) -> list[str]:
    os.environ |= {"TINKER_TELEMETRY": "0"}
    with served(size.model, threads) as service:
        lines = _told_each(_calls(service, calls, rounds)) if calls else []
        bench = Clients(service, size)
        lines += _told_each(bench.sampling(rounds))
        lines += _told_each(bench.training(rounds))
        lines += _told_each(bench.first_token(max(rounds, 3)))
    return lines


def _told_each(lines: Sequence[str]) -> list[str]:
    return [each for line in lines for each in _told(line)]


def _calls(service: Served, number: int, rounds: int) -> list[str]:
    """Measure small calls on one connection."""
    calls = Calls(service.url)
    session = calls.post("/api/v1/create_session", {"tags": [], "sdk_version": "0"})["session_id"]
    made = calls.post("/api/v1/create_model", {"session_id": session, "model_seq_id": 0, "base_model": "tiny"})
    while "model_id" not in calls.post("/api/v1/retrieve_future", {"request_id": made["request_id"]}):
        pass
    cases = {
        "heartbeats": lambda: calls.post("/api/v1/session_heartbeat", {"session_id": session}),
        "polls of a future that is there": lambda: calls.post(
            "/api/v1/retrieve_future", {"request_id": made["request_id"]}
        ),
    }

    def many(call: Callable[[], object]) -> None:
        for _ in range(number):
            call()

    times = interleaved({name: lambda call=call: many(call) for name, call in cases.items()}, rounds)
    return [f"| {name}, one connection | tiny | | | {number / statistics.median(times[name]):,.0f} calls/s | "
            ">= 1,500 calls/s |" for name in cases]  # fmt: skip


class Clients:
    """Clients of a service, each with a session of its own.

    Args:
        service: the service.
        size: what they do.
    """

    def __init__(self, service: Served, size: Size) -> None:
        import tinker

        self._service, self._size = service, size
        self._clients = [tinker.ServiceClient(base_url=service.url, api_key=KEY) for _ in range(16)]
        self._draw = random.Random(0)
        self._pool = ThreadPoolExecutor(16)

    def sampling(self, rounds: int) -> list[str]:
        """Compare many clients with one, and one with the engine."""
        from tinker import types

        size, length = self._size, 24
        samplers = list(self._pool.map(lambda each: each.create_sampling_client(base_model=size.model), self._clients))
        samplers = [_ready(each) for each in samplers]
        tuned = [_ready(each.save_weights_and_get_sampling_client()) for each in self._trainers(self._clients[:4])]
        settings = types.SamplingParams(max_tokens=size.new, temperature=1.0, stop=[], seed=1)

        def sample(sampler: Any, samples: int) -> None:
            prompt = types.ModelInput.from_ints(self._tokens(length))
            found = sampler.sample(prompt=prompt, num_samples=samples, sampling_params=settings).result()
            assert sum(len(each.tokens) for each in found.sequences) == samples * size.new

        def together(clients: Sequence[Any]) -> None:
            list(self._pool.map(lambda each: sample(each, 4), clients))

        mixed = [*samplers[:8], *(tuned * 2)]
        times = interleaved(
            {
                "one": lambda: sample(samplers[0], 64),
                "many": lambda: together(samplers),
                "mixed": lambda: together(mixed),
                "engine": lambda: self._service.direct(
                    do="sample", prompts=[self._tokens(length)], samples=64, new=size.new
                ),
            },
            rounds,
        )
        tokens = 64 * size.new
        return [
            self._compared("16 clients with 4 samples each, against one with 64", times["many"], times["one"], tokens,
                           ">= 0.85"),
            self._compared("the same, half of them from 4 adapters", times["mixed"], times["one"], tokens, ""),
            self._compared("one client's 64 samples, against the engine", times["one"], times["engine"], tokens,
                           ">= 0.9"),
        ]  # fmt: skip

    def training(self, rounds: int) -> list[str]:
        """Compare clients that train together with the same one after the other, and one with the engine."""
        import tinker
        from tinker import types

        size = self._size
        clients = self._clients[: size.clients]
        trainers = self._trainers(clients)
        rows = [[self._tokens(size.length + 1) for _ in range(size.rows)] for _ in clients]
        data = [
            [types.Datum(model_input=types.ModelInput.from_ints(row[:-1]),
                         loss_fn_inputs={"target_tokens": row[1:], "weights": [1.0] * size.length}) for row in each]
            for each in rows
        ]  # fmt: skip
        adam = tinker.AdamParams(learning_rate=1e-4)

        def train(number: int) -> None:
            for _ in range(size.steps):
                loss = trainers[number].forward_backward(data[number], "cross_entropy")
                step = trainers[number].optim_step(adam)
                loss.result(), step.result()

        def one_by_one() -> None:
            for number in range(len(clients)):
                train(number)

        times = interleaved(
            {
                "together": lambda: list(self._pool.map(train, range(len(clients)))),
                "one by one": one_by_one,
                "one": lambda: train(0),
                "engine": lambda: self._service.direct(do="train", rows=rows[0], steps=size.steps, rank=16),
            },
            rounds,
        )
        tokens = size.rows * size.length * size.steps
        kind = f"{size.rows} rows of {size.length} tokens a step"
        wanted = ">= 2" if size.model == "tiny" else ""
        return [
            self._compared(f"{size.clients} clients training {size.clients} adapters together, against one after the "
                           f"other; {kind}", times["together"], times["one by one"], tokens * size.clients, wanted),
            self._compared(f"one client's training, against the engine; {kind}", times["one"], times["engine"], tokens,
                           ">= 0.9"),
        ]  # fmt: skip

    def first_token(self, rounds: int) -> list[str]:
        """Compare the first streamed token with the engine's."""
        calls = Calls(self._service.url)

        def ours() -> float:
            body = {"model": self._size.model, "prompt": self._tokens(48), "max_tokens": 4, "return_token_ids": True}
            return calls.first_event(body)

        times = interleaved(
            {"stream": ours, "engine": lambda: self._service.direct(do="first", prompt=self._tokens(48))}, rounds
        )
        stream, engine = (statistics.median(times[name]) * 1e3 for name in ("stream", "engine"))
        ratio = statistics.median(a / b for a, b in zip(times["stream"], times["engine"], strict=True))
        what = f"first streamed token, against the engine; a prompt of 48 tokens | {self._size.model}"
        return [f"| {what} | {stream:.0f} ms | {engine:.0f} ms | {ratio:.2f} | <= 1.5 |"]

    def _trainers(self, clients: Sequence[Any]) -> list[Any]:
        return [_ready(each.create_lora_training_client(base_model=self._size.model, rank=16)) for each in clients]

    def _tokens(self, number: int) -> list[int]:
        return [self._draw.randrange(self._size.vocabulary) for _ in range(number)]

    def _compared(self, what: str, mine: Sequence[float], other: Sequence[float], tokens: int, wanted: str) -> str:
        rates = [tokens / statistics.median(each) for each in (mine, other)]
        ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
        return (
            f"| {what} | {self._size.model} | {rates[0]:,.0f} tokens/s | {rates[1]:,.0f} tokens/s | {ratio:.2f} | "
            f"{wanted} |"
        )


def _ready(client: Any) -> Any:
    """Return a client; since version 0.36 or so a future of one is given first."""
    return client.result() if hasattr(client, "result") else client


def interleaved(contestants: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Run each once a round, in a new order; what returns a number has measured itself. The first round warms up."""
    order = random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name in order.sample(list(contestants), len(contestants)):
            begun = time.perf_counter()
            found = contestants[name]()
            if number:
                times[name].append(found if isinstance(found, float) else time.perf_counter() - begun)
    return times


def _facts(threads: int) -> list[str]:
    """Say what was measured where."""
    versions = installed(("torch", "uvicorn", "httptools", "tinker"))
    return [
        f"Machine: {processor()}; {threads} threads; load average at the start {os.getloadavg()[0]:.1f}.",
        f"Versions: {', '.join(versions)}. Measured {datetime.now(UTC):%Y-%m-%d %H:%M} UTC by `python bench/service.py"
        f"{''.join(f' {word}' for word in sys.argv[1:])}`.",
    ]


if __name__ == "__main__":
    sys.exit(main())
