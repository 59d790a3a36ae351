"""The training half of bench/language.py: LanguageModelTrainer against trl's SFTTrainer with peft.

Both are processes of their own, run as their users run them: ours by `train.py LanguageModel`, theirs by a script of
the usual lines (bench/language_trl.py). They have the same random weights of SmolLM2-135M's shape, the same adapter
of rank 16 on all seven kinds of linear layers, AdamW with the same settings, and the same rows of tokens in the same
batches and order (left to itself, trl draws an order of its own, and its first loss is that of other rows). So they
must have the same losses, or the bench fails. They take turns step by step; the first step of each warms up.
"""

import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path

import torch
from language_models import base_model
from language_pace import CHANNEL

from data.chat_renderer import Renderer
from data.conversations import open_source
from data.token_batches import TokenBatches
from data.token_row import TokenRow
from data.token_rows import token_rows
from llm.base_model import load
from llm.model_export import export_adapter, export_model
from model.causal_lm import CausalLM
from model.lora import LoraBank, LoraSettings

ROOT = Path(__file__).resolve().parent.parent
LEARNING_RATE = 2e-4
SAME = 1e-4  # losses may differ by so much


@dataclass(frozen=True)
class Contestant:
    """A way to train.

    Attributes:
        name: what the table says.
        ours: whether it is our trainer.
        settings: what differs from the defaults.
    """

    name: str
    ours: bool
    settings: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Pairing:
    """Ours and theirs, taking turns.

    Attributes:
        ours: our trainer.
        theirs: trl's.
        same: whether the losses must be the same.
        steps: how many are measured.
        floor: whether the time of the matrix products alone, in fp32, is measured too.
    """

    ours: Contestant
    theirs: Contestant
    same: bool
    steps: int
    floor: bool = False


OURS = Contestant("ours, fp32", True)
PAIRINGS = (
    Pairing(OURS, Contestant("trl, fp32", False, {"bf16": False}), True, 3, floor=True),
    Pairing(OURS, Contestant("trl, fp32, no checkpointing", False, {"bf16": False, "gradient_checkpointing": False}),
            True, 2),
    Pairing(Contestant("ours, bf16", True, {"precision": "bf16"}),
            Contestant("trl, all defaults (bf16)", False), False, 2),
)  # fmt: skip


def training_table(
    threads: int, steps: int, batch_size: int = 8, quick: bool = False, processor_time: bool = False
) -> list[str]:
    """Measure, and return the lines of a table.

    Args:
        threads: threads of PyTorch.
        steps: steps that are measured at most, after one that warms up.
        batch_size: rows a step.
        quick: whether to take a tiny model, to see that it works.
        processor_time: whether rates are by the processor's time, not the clock's.
    """
    lines = [
        "| ours | against | ours, tokens/s | theirs | ratio | lowest..highest | wanted | peak memory, GB: ours | "
        "theirs | share | wanted | first loss | largest difference of a loss | of the floor's rate |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches, model = _prepare(folder, quick, batch_size, steps + 1)
        clock = "processor" if processor_time else "wall"
        for pairing in PAIRINGS:
            lines.append(_measure(folder, pairing, batches, model, threads, min(steps, pairing.steps), clock))
            print(lines[-1], flush=True)
    return lines


@dataclass
class _Steps:
    """What the measured steps of a process took, and the most memory that it had."""

    seconds: list[float] = field(default_factory=list)
    peak: int = 0


def _measure(
    folder: Path, pairing: Pairing, batches: Sequence[Sequence[TokenRow]], model: CausalLM, threads: int, steps: int,
    clock: str,
) -> str:  # fmt: skip
    kept = [row for batch in batches[: steps + 1] for row in batch]
    rows = [{"input_ids": row.ids.tolist(),
             "labels": torch.where(row.weights != 0, row.ids, -100).tolist()} for row in kept]  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(rows))
    with _Runner(folder, pairing.ours, threads) as ours, _Runner(folder, pairing.theirs, threads) as theirs:
        found = {runner: _Steps() for runner in (ours, theirs)}
        floors = []
        order = random.Random(0)
        for runner in found:
            runner.ready()
        for number in range(steps + 1):
            for runner in order.sample(list(found), 2):
                said = runner.step()
                if number:  # the first warms up
                    found[runner].seconds.append(said[clock])
                found[runner].peak = int(said["peak"])
            if number and pairing.floor:
                floors.append(_floor(model, batches[number])[clock])
        weights = [sum(row.trained for row in batch) for batch in batches[: steps + 1]]
        losses = _of_steps(ours.losses(), weights), theirs.losses()[: steps + 1]
    difference = max(abs(a - b) for a, b in zip(*losses, strict=True))
    if pairing.same and difference > SAME:
        raise SystemExit(f"{pairing.ours.name} and {pairing.theirs.name} have other losses: {losses}")
    tokens = [sum(len(row.ids) for row in batch) for batch in batches[1 : steps + 1]]
    mine, other = found[ours], found[theirs]
    ratios = [b / a for a, b in zip(mine.seconds, other.seconds, strict=True)]
    share = [a / b for a, b in zip(floors, mine.seconds, strict=False)]

    def rate(each: _Steps) -> float:
        return statistics.median(count / seconds for count, seconds in zip(tokens, each.seconds, strict=True))

    return (
        f"| {pairing.ours.name} | {pairing.theirs.name} | {rate(mine):.0f} | {rate(other):.0f} | "
        f"{statistics.median(ratios):.2f} | {min(ratios):.2f}..{max(ratios):.2f} | 2 | "
        f"{mine.peak / 1e9:.2f} | {other.peak / 1e9:.2f} | {mine.peak / other.peak:.2f} | 0.6 | "
        f"{losses[0][0]:.5f} | {difference:.1e} | {f'{statistics.median(share):.0%}' if share else '-'} |"
    )


class _Runner:
    """A process that trains, a step at a time."""

    def __init__(self, folder: Path, contestant: Contestant, threads: int) -> None:
        self._folder, self._ours = folder, contestant.ours
        work = json.loads((folder / "work.json").read_text())
        if contestant.ours:
            settings = {
                "base_model": folder / "model", "adapter": folder / "adapter", "train_data": folder / "rows.jsonl",
                "val_data": folder / "val.jsonl", "epochs": 1, "batch_size": work["batch_size"],
                "learning_rate": LEARNING_RATE, "warmup_share": 0, "final_rate_share": 1, "sample_count": 0,
                "adam_betas": "0.9,0.95", "log_every_n_steps": 1, "plot_at_end": "off", "threads": threads,
                "device": "cpu", "callbacks": "language_pace:Paced", "artifacts_dir": folder / "artifacts",
                **contestant.settings,
            }  # fmt: skip
            command = ["train.py", "LanguageModel", *(f"{key}={value}" for key, value in settings.items())]
        else:
            command = ["bench/language_trl.py", str(folder), json.dumps({"threads": threads, **contestant.settings})]
        self._socket, theirs = socket.socketpair()
        path = os.pathsep.join([str(ROOT / "bench"), str(ROOT)])
        environment = {"PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(threads),
                       CHANNEL: str(theirs.fileno())}  # fmt: skip
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - __exit__ closes it
        self._process = subprocess.Popen(
            [sys.executable, *command], cwd=ROOT, env=os.environ | environment, pass_fds=[theirs.fileno()],
            stdout=self._log, stderr=subprocess.STDOUT,
        )  # fmt: skip
        theirs.close()
        self._stream = self._socket.makefile("rw")

    def __enter__(self) -> "_Runner":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._stream.close()
        self._socket.close()
        self._log.close()

    def ready(self) -> None:
        """Wait until it has come to the first step."""
        self._read()

    def step(self) -> dict[str, float]:
        """Let it make a step; returns what that took."""
        self._stream.write("go\n")
        self._stream.flush()
        return self._read()

    def losses(self) -> list[float]:
        """Let it come to its end; returns the losses of its steps."""
        self._stream.write("go\n")
        self._stream.flush()
        if self._process.wait():
            self._fail()
        if not self._ours:
            return json.loads((self._folder / "trl.json").read_text())
        newest = max((self._folder / "artifacts").rglob("metrics.json"), key=lambda path: path.stat().st_mtime)
        return json.loads(newest.read_text())["readings"]["train_loss"]

    def _read(self) -> dict[str, float]:
        line = self._stream.readline()
        if not line:
            self._fail()
        return json.loads(line)

    def _fail(self) -> None:
        self._log.seek(0)
        raise SystemExit(f"{self._process.args} failed:\n{self._log.read()[-4000:]}")


def _prepare(folder: Path, quick: bool, batch_size: int, steps: int) -> tuple[list[list[TokenRow]], CausalLM]:
    """Write model, adapter and rows; returns the rows of each step, as our trainer will draw them."""
    base = base_model(quick)
    export_model(folder / "model", base)
    adapter = LoraBank(base.model).create("adapter", LoraSettings(rank=16, alpha=32))
    export_adapter(folder / "adapter", base, adapter)
    draw = random.Random(0)
    with (folder / "rows.jsonl").open("w") as stream:
        for _ in range(steps * batch_size):
            # The template adds 34 tokens to a prompt and one to an answer.
            row = {"prompt": _text(draw, draw.randint(150, 450) - 34), "completion": _text(draw, draw.randint(19, 99))}
            stream.write(json.dumps(row) + "\n")
    (folder / "val.jsonl").write_text(json.dumps({"prompt": "a", "completion": "b"}) + "\n")
    work = {"batch_size": batch_size, "learning_rate": LEARNING_RATE}
    (folder / "work.json").write_text(json.dumps(work))
    loaded = load(str(folder / "model"))
    renderer = Renderer(loaded.tokenizer, loaded.template, loaded.end_ids)
    rows, _ = token_rows(open_source(folder / "rows.jsonl", "auto", {}), renderer, loaded.context, "stop")
    batches = TokenBatches(rows, batch_size, shuffle=True, seed=0).epoch_batches()
    return [[rows[number] for number in batch] for batch in batches], base.model


def _text(draw: random.Random, length: int) -> str:
    return "".join(draw.choices("abcdefghijklmnopqrstuvwxyz ", k=length - 1)) + "."


def _of_steps(means: Sequence[float], weights: Sequence[int]) -> list[float]:
    """Return the loss of each step from the mean of all tokens up to it."""
    sums = [mean * weight for mean, weight in zip(means, accumulate(weights), strict=False)]
    return [(after - before) / weight for before, after, weight in zip([0.0, *sums], sums, weights, strict=False)]


@torch.inference_mode()
def _floor(model: CausalLM, rows: Sequence[TokenRow]) -> dict[str, float]:
    """Return the time of a step's products with frozen weights: forward, and backward into what comes in."""
    tokens, trained = sum(len(row.ids) - 1 for row in rows), sum(row.trained for row in rows)
    weights = [parameter for parameter in model.model.layers.parameters() if parameter.dim() == 2]
    sizes = {size for weight in weights for size in weight.shape}
    inputs = {size: torch.ones(tokens, size) for size in sizes}
    few, head = torch.ones(trained, model.shape.width), model.unembedding()
    begun = time.perf_counter(), time.process_time()
    for weight in weights:
        torch.mm(inputs[weight.shape[1]], weight.t())
        torch.mm(inputs[weight.shape[0]], weight)
    for begin in range(0, trained, 170):
        torch.mm(torch.mm(few[begin : begin + 170], head.t()), head)
    return {"wall": time.perf_counter() - begun[0], "processor": time.process_time() - begun[1]}
