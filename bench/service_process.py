"""The process that bench/service.py measures: a service, whose engine it can also drive directly, by the same thread.

It writes its address, then reads a line of JSON for each measurement and answers by the seconds that it took.
"""

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # first: beside this file there is a service.py too

from language_models import base_model as of_smollm2_shape

from llm import base_model
from llm.adam import AdamSettings
from llm.engine import Engine
from llm.loss_pass import LossRequest, LossRow
from llm.sampling_settings import SampleRequest, SamplingSettings
from model.lora import LoraSettings
from service.local_service import LocalService, serve

ALL = ("attention", "mlp", "unembedding")  # as the Tinker protocol's clients ask for


def main() -> int:
    """Serve `tiny` or `smollm2` (its shape, with random weights) from a folder until the input ends."""
    model, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(threads)
    base = base_model.load("tiny") if model == "tiny" else of_smollm2_shape(quick=False)
    with serve(base, folder, name=model) as service:
        print(json.dumps({"url": service.url, "seconds": time.perf_counter()}), flush=True)
        for line in sys.stdin:
            print(json.dumps({"seconds": _measured(service, json.loads(line))}), flush=True)
    return 0


def _measured(service: LocalService, asked: dict) -> float:
    work: Callable[[Engine, dict], float] = {"sample": _sample, "train": _train, "first": _first}[asked["do"]]
    found: list[float] = []
    over = threading.Event()

    def run() -> None:
        try:
            found.append(work(service.models.engine, asked))
        finally:
            over.set()

    service.loop.between_steps(run)
    over.wait()
    return found[0]


def _sample(engine: Engine, asked: dict) -> float:
    """Sample from the base model; returns the seconds."""
    settings = SamplingSettings(temperature=1.0, max_tokens=asked["new"], end_ids=(), seed=1)
    requests = [SampleRequest(prompt, settings, samples=asked["samples"]) for prompt in asked["prompts"]]
    engine.sampler.clear_prefixes()
    begun = time.perf_counter()
    engine.sample(requests)
    return time.perf_counter() - begun


def _first(engine: Engine, asked: dict) -> float:
    """Return the seconds until the first token of a prompt."""
    engine.sampler.clear_prefixes()
    begun = time.perf_counter()
    handle = engine.sampler.submit(SampleRequest(asked["prompt"], SamplingSettings(max_tokens=4, end_ids=())))
    while not handle.samples[0].tokens:
        engine.sampler.step()
    seconds = time.perf_counter() - begun
    while engine.sampler.step():
        pass
    return seconds


def _train(engine: Engine, asked: dict) -> float:
    """Train an adapter; returns the seconds."""
    engine.create("direct", LoraSettings(asked["rank"], targets=ALL))
    rows = [LossRow(torch.tensor(row[:-1]), torch.tensor(row[1:]), {"weights": torch.ones(len(row) - 1)})
            for row in asked["rows"]]  # fmt: skip
    begun = time.perf_counter()
    for _ in range(asked["steps"]):
        engine.run([LossRequest("direct", rows, backward=True)])
        engine.optimizer_step("direct", AdamSettings(1e-4))
    seconds = time.perf_counter() - begun
    engine.delete("direct")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
