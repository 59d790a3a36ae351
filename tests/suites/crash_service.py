"""Kills services by SIGKILL while the official client works with them, and counts what is lost: `make crash-service`.

A trial starts a service and a client that trains, samples or does both; the service dies before, after or inside a call
by which its journal, its states or its checkpoints change, or at any instant; it is started again on its port; the
client, which is told nothing, goes on to its end. Then all must be as if nobody had killed anything: what the client
heard, all promises asked once more, the adapters to the bit. Exit code 1 where something is not; its folder is kept.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

SUITES = Path(__file__).resolve().parent
ROOT = SUITES.parent.parent
KINDS = {
    "lost": "requests that failed, or a client that did not come to its end",
    "different": "answers or adapters that differ",
    "manual": "starts that needed a hand",
    "temporary": "temporary files left at the end",
}
_LONGEST = 300.0  # seconds; a trial takes some
_HOW = ("before", "after", "half")


@dataclass
class Tally:
    """What some trials gave.

    Attributes:
        kills: services killed.
        trials: clients that worked with a service which was killed.
        replayed: starts that did turns again.
        failures: kind, trial and text of each.
        boundaries: calls of the undisturbed runs at which a service was killed, by job.
    """

    kills: int = 0
    trials: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)
    boundaries: dict[str, int] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------------- services


class Forks:
    """Starts services in forks of one process."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SUITES / "service_forks.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            text=True, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self._lock = threading.Lock()
        self._line()

    def start(self, told: dict[str, Any]) -> int:
        """Start a service; return the id of its process."""
        with self._lock:
            self._process.stdin.write(json.dumps(told) + "\n")
            self._process.stdin.flush()
            return int(self._line())

    def close(self) -> None:
        """End."""
        self._process.stdin.close()
        self._process.wait()

    def _line(self) -> str:
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that starts services has ended")
        return line


class Service:
    """A service that is killed and started again on one port.

    Args:
        forks: what starts it.
        folder: where it keeps all.
        states: whether it writes states all the time; else never but at its end.
    """

    def __init__(self, forks: Forks, folder: Path, states: bool) -> None:
        self._forks, self.folder, self._states = forks, folder, states
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._ended = -1
        self.pid = 0

    def start(self, death: tuple[int, str] | None = None) -> None:
        """Start it."""
        words = ["--model", "tiny", "--port", str(self.port), "--folder", str(self.folder / "store")]
        told = {"words": words, "output": str(self.folder / "output.txt"), "death": death, "states": self._states}
        self.pid = self._forks.start(told)
        self.forget()
        self._ended = os.pidfd_open(self.pid)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until its process has ended, and say whether it has."""
        poll = select.poll()  # select takes no numbers of 1024 and more
        poll.register(self._ended, select.POLLIN)
        return bool(poll.poll(1000 * seconds))

    def forget(self) -> None:
        """Give the handle of its process back."""
        if self._ended >= 0:
            os.close(self._ended)
            self._ended = -1

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Send it a signal, where it is still there."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._ended, number)

    def ready(self) -> bool:
        """Return whether it answers."""
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/healthz", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_until_ready(self) -> bool:
        """Wait until it answers; return whether it does before its end."""
        while not self.ready():
            if self.wait_for_end(0.02):
                return False
        return True

    @property
    def output(self) -> str:
        """What it has said."""
        return (self.folder / "output.txt").read_text()

    @property
    def calls(self) -> int:
        """Calls that it has counted."""
        return int((self.folder / "output.count").read_text())


# ----------------------------------------------------------------------------------------------------------------- jobs


def tokens(number: int) -> list[int]:
    """Return a row of text."""
    return [(number * 37 + place * 11 + number * place) % 256 for place in range(12)]


def supervised(url: str, closing: ExitStack, seed: int = 1) -> list[Any]:
    """Train on rows; return what was heard."""
    import tinker
    from tinker import types

    def datum(number: int) -> types.Datum:
        whole = tokens(number * seed)
        inputs = {"target_tokens": whole[1:], "weights": [1.0] * (len(whole) - 1)}
        return types.Datum(model_input=types.ModelInput.from_ints(whole[:-1]), loss_fn_inputs=inputs)

    client = closing.enter_context(tinker.ServiceClient(base_url=url, api_key="tml-x"))
    trainer = client.create_lora_training_client(base_model="tiny", rank=4, seed=seed).result()
    heard: list[Any] = []
    for step in range(4):
        waited = [trainer.forward_backward([datum(step), datum(step + 50)], "cross_entropy"),
                  trainer.forward_backward([datum(step + 100)], "cross_entropy"),
                  trainer.optim_step(types.AdamParams(learning_rate=1e-2))]  # fmt: skip
        heard += [each.result().metrics for each in waited]
        if step == 1:
            trainer.save_state("half").result()
    path = f"tinker://{trainer.model_id}/weights/half"
    trainer = client.create_training_client_from_state_with_optimizer(path).result()
    heard.append(trainer.forward_backward([datum(7)], "cross_entropy").result().metrics)
    heard.append(trainer.optim_step(types.AdamParams(learning_rate=1e-2)).result().metrics)
    heard.append(trainer.forward([datum(1)], "cross_entropy").result().loss_fn_outputs[0]["logprobs"].data)
    trainer.save_state("end").result()
    return heard


def reinforced(url: str, closing: ExitStack) -> list[Any]:
    """Sample and train on the samples; return what was heard."""
    import tinker
    from tinker import types

    client = closing.enter_context(tinker.ServiceClient(base_url=url, api_key="tml-x"))
    trainer = client.create_lora_training_client(base_model="tiny", rank=4, seed=1).result()
    heard: list[Any] = []
    settings = types.SamplingParams(max_tokens=6, seed=5, temperature=1.0, stop=[])
    for step in range(3):
        sampler = trainer.save_weights_and_get_sampling_client()
        prompt = types.ModelInput.from_ints(tokens(step))
        found = sampler.sample(prompt, num_samples=3, sampling_params=settings).result().sequences
        rows = []
        for place, each in enumerate(found):
            heard.append((list(each.tokens), list(each.logprobs)))
            whole, before = [*tokens(step), *each.tokens], len(tokens(step)) - 1
            inputs = {"target_tokens": whole[1:], "logprobs": [0.0] * before + list(each.logprobs),
                      "advantages": [0.0] * before + [place - 1.0] * len(each.tokens)}  # fmt: skip
            rows.append(types.Datum(model_input=types.ModelInput.from_ints(whole[:-1]), loss_fn_inputs=inputs))
        loss, step_done = (trainer.forward_backward(rows, "importance_sampling"),
                           trainer.optim_step(types.AdamParams(learning_rate=1e-2)))  # fmt: skip
        heard += [loss.result().metrics, step_done.result().metrics]
    trainer.save_weights_for_sampler("end").result()
    trainer.save_state("end").result()
    return heard


def sampled(url: str, closing: ExitStack) -> list[Any]:
    """Sample from the base model; return what was heard."""
    import tinker
    from tinker import types

    client = closing.enter_context(tinker.ServiceClient(base_url=url, api_key="tml-x"))
    sampler = client.create_sampling_client(base_model="tiny")
    heard: list[Any] = []
    for number in range(6):
        settings = types.SamplingParams(max_tokens=8, seed=number, temperature=1.0, stop=[])
        prompt = types.ModelInput.from_ints(tokens(number))
        answer = sampler.sample(prompt, num_samples=2, sampling_params=settings, include_prompt_logprobs=True).result()
        heard.append([(list(each.tokens), list(each.logprobs)) for each in answer.sequences])
        heard.append(list(answer.prompt_logprobs or ()))
    return heard


def together(url: str, closing: ExitStack) -> list[Any]:
    """Train two adapters at a time, by two clients; return what they heard."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda seed: supervised(url, closing, seed), (1, 2)))


JOBS: dict[str, Callable[[str, ExitStack], list[Any]]] = {
    "SFT": supervised, "RL": reinforced, "sampling": sampled, "two clients": together,
}  # fmt: skip


@dataclass
class End:
    """What there is after a client has come to its end.

    Attributes:
        heard: what it heard.
        promises: answers of all promises, asked once more, as JSON.
        tensors: of each checkpoint's files of tensors the name and the digest.
        seconds: how long the client took.
        calls: of the service by which its files changed; None where they weren't counted.
    """

    heard: list[Any]
    promises: list[str]
    tensors: list[tuple[str, str]]
    seconds: float
    calls: int | None = None

    def difference(self, other: "End") -> str:
        """Say what differs; nothing where all is the same."""
        if self.heard != other.heard:
            return "the client heard something else"
        if self.promises != other.promises:
            wrong = [f"{a}\n{b}" for a, b in zip(self.promises, other.promises, strict=False) if a != b]
            return f"a promise asked once more: {wrong[0] if wrong else 'another number of them'}"
        unequal = {name for name, _ in set(self.tensors) ^ set(other.tensors)}
        return f"tensors: {', '.join(sorted(unequal))}" if unequal or self.tensors != other.tensors else ""


def ended(service: Service, heard: list[Any], seconds: float) -> End:
    """Look at what a client has left; then end the service in order."""
    store = service.folder / "store" / "tiny"
    sessions = ask(service.url, "GET", "sessions")["sessions"]
    promises = []
    for session in sessions:
        of_session = ask(service.url, "GET", f"sessions/{session}")
        for run in of_session["training_run_ids"]:
            promises += answers(service.url, run, 0, session)
        for sampler in of_session["sampler_ids"]:
            promises += answers(service.url, sampler, 0, session)
    service.kill(signal.SIGTERM)
    if not service.wait_for_end(60):
        raise RuntimeError("the service doesn't end")
    tensors = [
        (str(path.relative_to(store)).split("/", 2)[2], hashlib.sha256(path.read_bytes()).hexdigest())
        for path in (store / "checkpoints").rglob("*.safetensors")
    ]
    return End(heard, sorted(promises), sorted(tensors), seconds)


def answers(url: str, of: str, first: int, session: str) -> list[str]:
    """Return the answers of all promises of a model or a sampler, without what differs from run to run: ids."""
    found = []
    while True:
        try:
            answer = ask(url, "POST", "retrieve_future", request_id=f"{of}:{first + len(found)}")
        except urllib.error.HTTPError as error:
            if error.code == 410:
                return found
            raise
        # A client whose save got no answer sends it again with another number for the sampler to be.
        found.append(re.sub(r"SESSION:sample:\d+", "SAMPLER", json.dumps(answer).replace(session, "SESSION")))


def ask(url: str, method: str, path: str, **fields: Any) -> Any:
    """Send a request, and return what is answered."""
    body = json.dumps(fields).encode() if method == "POST" else None
    request = urllib.request.Request(f"{url}/api/v1/{path}", body, {"content-type": "application/json"}, method=method)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.loads(answer.read())


# --------------------------------------------------------------------------------------------------------------- trials


class Trial:
    """A client whose service is killed some times.

    Args:
        name: of its folder.
        forks: what starts services.
        folder: where that is.
        job: what the client does.
        states: whether the service writes states all the time.
    """

    def __init__(self, name: str, forks: Forks, folder: Path, job: str, states: bool) -> None:
        self.folder, self._job, self._name = folder / name, job, name
        self.folder.mkdir(parents=True)
        self.service = Service(forks, self.folder, states)
        self.tally = Tally(trials=1)

    def run(self, deaths: list[tuple[int, str] | float | None]) -> End | None:
        """Let the client work.

        Args:
            deaths: of each start but the last where the service dies: at a call, or after so many seconds; None counts
                calls and doesn't.

        Returns:
            What there is at the end; None where there is none.
        """
        outcome: list[Any] = []
        client = threading.Thread(target=self._work, args=(outcome,), daemon=True)
        begin = time.monotonic()
        for place, death in enumerate([*deaths, None]):
            at_call = death if isinstance(death, tuple) else (0, "") if not deaths else None
            self.service.start(at_call)
            if place == 0:
                client.start()
            if place < len(deaths):
                if isinstance(death, float):
                    self.service.wait_for_end(death)
                    self.service.kill()
                while not self.service.wait_for_end(0.05):
                    if not client.is_alive():  # it came to its end before that call: this may be one of the end
                        self.service.kill(signal.SIGTERM)
                self.tally.kills += 1
        while client.is_alive() and time.monotonic() - begin < _LONGEST:
            client.join(0.05)
            if self.service.wait_for_end(0):
                self._fail("manual", f"the service has ended:\n{self.service.output}")
                return None
        if not outcome or isinstance(outcome[0], BaseException):
            self._fail("lost", f"{outcome or 'the client does not end'}\n{self.service.output}")
            self.service.kill()
            return None
        seconds = time.monotonic() - begin
        if not self.service.wait_until_ready():
            self._fail("manual", f"the service has ended:\n{self.service.output}")
            return None
        try:
            end = ended(self.service, outcome[0], seconds)
        except (OSError, RuntimeError) as error:
            self._fail("lost", f"{error!r}\n{self.service.output}")
            self.service.kill()
            return None
        end.calls = self.service.calls if not deaths else None
        left = [str(path) for path in (self.folder / "store").rglob(".*.tmp")]
        if left:
            self._fail("temporary", ", ".join(left))
        if "Traceback" in self.service.output:
            self._fail("manual", self.service.output)
        return end

    def compare(self, end: End | None, undisturbed: End) -> None:
        """Compare with a run that nobody has killed, and remove what is no longer of use."""
        difference = end.difference(undisturbed) if end is not None else ""
        if difference:
            self._fail("different", difference)
        if not self.tally.failures:
            shutil.rmtree(self.folder)

    def _work(self, outcome: list[Any]) -> None:
        try:
            if not self.service.wait_until_ready():
                while not self.service.ready():  # it was killed before; a later one comes
                    time.sleep(0.02)
            with ExitStack() as closing:  # the session ends too
                heard = JOBS[self._job](self.service.url, closing)
            outcome.append(heard)
        except BaseException as error:
            outcome.append(error)

    def _fail(self, kind: str, text: str) -> None:
        self.tally.failures.append((kind, str(self.folder), text))


def undisturbed(forks: Forks, folder: Path, job: str, states: bool) -> End:
    """Return how a run ends that nobody kills."""
    trial = Trial(f"undisturbed-{job}-{states}", forks, folder, job, states)
    end = trial.run([])
    if end is None:
        raise RuntimeError(f"a run that nobody kills fails: {trial.tally.failures}")
    return end


# --------------------------------------------------------------------------------------------------------------- report


def add(whole: Tally, part: Tally) -> None:
    """Put a tally's numbers to another's."""
    whole.kills += part.kills
    whole.trials += part.trials
    whole.failures += part.failures


def table(tallies: dict[str, Tally], seconds: float, seed: int) -> Iterator[str]:
    """Yield the lines of the report."""
    counts = {name: Counter(kind for kind, _, _ in tally.failures) for name, tally in tallies.items()}
    rows: list[tuple[str, list[Any]]] = [("kills (SIGKILL)", [tally.kills for tally in tallies.values()])]
    rows += [("clients", [tally.trials for tally in tallies.values()])]
    rows += [(text, [counts[name][kind] for name in tallies]) for kind, text in KINDS.items()]
    width = max(len(text) for text, _ in rows)
    yield " " * width + "".join(f"{name:>26}" for name in tallies)
    for text, cells in rows:
        yield f"{text:<{width}}" + "".join(f"{cell:>26}" for cell in cells)
    for tally in tallies.values():
        for job, calls in tally.boundaries.items():
            yield f"calls by which the store of {job} changes: {calls}"
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    yield f"{time.strftime('%Y-%m-%d')}, {seconds:.0f} s, seed {seed}, {machine}"


def main() -> int:
    """Run the suite; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--random", type=int, default=100, help="clients whose service is killed at random instants")
    parser.add_argument("--every", type=int, default=1, help="kill at every so many calls; 0 at none")
    parser.add_argument("--every-state", type=int, default=2, help="the same where states are written all the time")
    parser.add_argument("--minutes", type=float, default=1e9, help="begin with no further client after so long")
    parser.add_argument("--jobs", default=",".join(JOBS), help="what clients do, of " + ", ".join(JOBS))
    parser.add_argument("--side-by-side", type=int, default=6, help="trials at a time: clients wait most of the time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    os.environ["TINKER_TELEMETRY"] = "0"
    warnings.filterwarnings("ignore")
    import tinker  # noqa: F401 - here, so that no thread waits for it

    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # the client gives some of its handles back late
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="menagerie-crash-service-"))
    forks = Forks()
    jobs = options.jobs.split(",")
    whole = {(job, states): undisturbed(forks, folder, job, states) for job in jobs for states in (False, True)}
    for (job, _), end in whole.items():
        if difference := end.difference(whole[job, False]):
            print(f"two runs that nobody kills differ: {difference}")
            return 1
    tallies = {"at every call": Tally(), "every call, states": Tally(), "at any instant": Tally()}
    work: list[tuple[str, str, bool, list[Any]]] = []
    for (job, states), end in whole.items():
        part = "every call, states" if states else "at every call"
        calls = end.calls or 0
        tallies[part].boundaries[f"{job}{' with states' if states else ''}"] = calls
        every = options.every_state if states else options.every
        if every:
            work += [(part, job, states, [(at, _HOW[at % 3])]) for at in range(1, calls + 1, every)]
    random = Random(options.seed)
    for _ in range(options.random):
        job, states = random.choice(jobs), random.random() < 0.5
        times = [random.uniform(0, whole[job, states].seconds) for _ in range(random.randint(1, 2))]
        work.append(("at any instant", job, states, times))
    random.shuffle(work)
    print(f"{len(work)} clients, seed {options.seed}, in {folder}", flush=True)

    def one(number: int) -> None:
        if time.monotonic() - start > 60 * options.minutes:
            return
        part, job, states, deaths = work[number]
        trial = Trial(f"trial-{number}", forks, folder, job, states)
        try:
            trial.compare(trial.run(deaths), whole[job, states])
        except Exception as error:
            trial.tally.failures.append(("manual", str(trial.folder), repr(error)))
        finally:
            trial.service.kill()
            trial.service.forget()
        add(tallies[part], trial.tally)
        for kind, where, text in trial.tally.failures:
            print(f"{kind}: {job}, states {states}, {deaths}: {where}: {text}", flush=True)

    with ThreadPoolExecutor(options.side_by_side) as pool:
        list(pool.map(one, range(len(work))))
    forks.close()
    print("\n".join(table(tallies, time.monotonic() - start, options.seed)))
    failed = any(tally.failures for tally in tallies.values())
    if not failed:
        shutil.rmtree(folder)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
