"""Measure what the examples learn: each from its beginning with several seeds, by the commands that users give.

    python bench/agent_examples.py                          # hello, 5 seeds
    python bench/agent_examples.py calculator_tool --seeds 3
    python bench/agent_examples.py --two-ways --seeds 3     # hello by train.py, and by the loop over Tinker's SDK
    python bench/agent_examples.py --write                  # put the table into docs/agents.md

Processor seconds are those of all commands of a seed, with the start of each; seconds are by the clock. Held-out tasks
are counted at the epoch that is kept, which is the best of those that were validated. An interval over seeds is
Student's, 95 %.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent_training import ROOT, half_interval, put_into, serving
from machine import processor

PAGE = ROOT / "docs" / "agents.md"
SAMPLES = 8  # rollouts of each held-out task, where two ways are compared: by one they differ by luck
MODELS = ROOT / "artifacts" / "models"
EXAMPLES = ("hello", "guess_number", "twenty_questions", "calculator_tool")
TELLS = {"guess_number": "guesses"}  # what an example is measured by, where it is not its success


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", nargs="?", default="hello", choices=EXAMPLES)
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed; the others follow it")
    parser.add_argument("--two-ways", action="store_true", help="an adapter for hello, trained in two ways")
    parser.add_argument("--epochs", type=int, default=8, help="of each of the two ways")
    parser.add_argument("--settings", nargs="*", default=[], metavar="name=value", help="further ones of the training")
    parser.add_argument("--write", action="store_true", help="put the table into docs/agents.md")
    words = parser.parse_args()
    name = "two_ways" if words.two_ways else words.example
    lines = [
        f"`python bench/agent_examples.py {' '.join(sys.argv[1:])}`, {time.strftime('%Y-%m-%d')}, {processor()}, load "
        f"of the machine {os.getloadavg()[0]:.1f} as it began.",
        "",
    ]
    seeds = range(words.first, words.first + words.seeds)
    lines += _two_ways(seeds, words.epochs) if words.two_ways else _example(words.example, seeds, words.settings)
    print("\n".join(lines))
    if words.write:
        put_into(PAGE, name, lines)
    return 0


def _example(name: str, seeds: Sequence[int], settings: Sequence[str]) -> list[str]:
    told = TELLS.get(name, "success")
    lines = [f"| seed | {told} before | after | change from task to task, 95 % interval | processor s | s |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    before, after, change = [], [], []
    for seed in seeds:
        used = _measured(lambda seed=seed: _run("examples/run.py", name, f"seed={seed}", "plot_at_end=off", *settings))
        found = _summary()
        before.append(found["before"][told])
        after.append(found["after"][told])
        change.append(found["change"][told]["difference"])
        lines.append(
            f"| {seed} | {found['before'][told]:.3g} | {found['after'][told]:.3g} | {_change(found, told)} | {used} |"
        )
        print(lines[-1], flush=True)
    means = f"before {_over(before)}, after {_over(after)}, change {_over(change, signed=True)}"
    return [*lines, "", f"Over seeds, 95 % interval of the mean: {means}."]


def _two_ways(seeds: Sequence[int], epochs: int) -> list[str]:
    """Train the same adapter from the same warm start by train.py, and by the loop over Tinker's SDK."""
    lines = [
        f"| seed | before | by `train.py`, {epochs} epochs | by the SDK's loop | processor s | by the loop |",
        "|---|---|---|---|---|---|",
    ]
    file = ROOT / "artifacts" / "hello.jsonl"
    file.parent.mkdir(exist_ok=True)
    _run("examples/warm_start.py", "hello", file, "3000")
    _run("train.py", "LanguageModel", "base_model=tiny", f"train_data={file}", "trained=all", "gradient_clip_value=0.5",
         "epochs=2", "batch_size=32", "learning_rate=2e-3", "plot_at_end=off")  # fmt: skip
    model = max((MODELS / "LanguageModel" / "runs").iterdir()) / "model"
    ours, theirs = [], []
    for seed in seeds:
        settings = (f"base_model={model}", "lora_rank=32", "lora_targets=attention, mlp, unembedding",
                    "learning_rate=1e-3", "gradient_clip_value=0.5", "tasks_per_epoch=64", "group_size=4",
                    "advantage=batch", "steps_per_epoch=2", f"epochs={epochs}", f"validate_every_n_epochs={epochs}",
                    f"seed={seed}", "plot_at_end=off", f"val_samples={SAMPLES}")  # fmt: skip
        first = _measured(
            lambda settings=settings: _run("train.py", "Agent", "agent=examples/hello.py:hello", *settings)
        )
        found = _summary()
        ours.append(found["after"]["reward"])
        said: list[str] = []
        second = _measured(lambda seed=seed, said=said: said.append(_by_the_sdk(model, epochs, seed)))
        theirs.append(float(re.findall(r"^after: reward ([-\d.]+)", said[0], re.MULTILINE)[0]))
        lines.append(
            f"| {seed} | {found['before']['reward']:.3g} | {ours[-1]:.3g} | {theirs[-1]:.3g} | {first.split()[0]} | "
            f"{second.split()[0]} |"
        )
        print(lines[-1], flush=True)
    differences = [one - other for one, other in zip(ours, theirs, strict=True)]
    means = f"`train.py` {_over(ours)}, the loop {_over(theirs)}, less {_over(differences, signed=True)}"
    what = f"Share of right answers to 100 held-out numbers, {SAMPLES} times each, over seeds, 95 % interval"
    return [*lines, "", f"{what}: {means}."]


def _by_the_sdk(model: Path, epochs: int, seed: int) -> str:
    """Return what the loop says, against a service of its own."""
    with (
        tempfile.TemporaryDirectory() as folder,
        serving(Path(folder), "--model", str(model), "--name", "hello") as (_, address),
    ):
        environment = {"TINKER_BASE_URL": address, "TINKER_API_KEY": "tml-local", "TINKER_TELEMETRY": "0"}
        return _run("examples/train_with_tinker.py", "--agent", "examples/hello.py:hello", "--model", "hello",
                    "--epochs", str(epochs), "--seed", str(seed), "--held-out-samples", str(SAMPLES),
                    **environment)  # fmt: skip


def _run(*words: object, **environment: str) -> str:
    done = subprocess.run([sys.executable, *map(str, words)], cwd=ROOT, text=True, capture_output=True, check=False,
                          env={**os.environ, **environment})  # fmt: skip
    if done.returncode:
        sys.exit(f"{' '.join(map(str, words))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def _measured(work: Callable[[], object]) -> str:
    """Return the processor seconds of the processes that a piece of work starts, and its seconds by the clock."""

    def used() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    before, begun = used(), time.monotonic()
    work()
    return f"{used() - before:.0f} | {time.monotonic() - begun:.0f}"


def _summary() -> dict:
    newest = max((MODELS / "Agent" / "runs").iterdir())
    return json.loads((newest / "metrics.json").read_text())["summary"]


def _change(found: dict, name: str) -> str:
    change = found["change"][name]
    return f"{change['difference']:+.2g} [{change['low']:+.2g}, {change['high']:+.2g}]"


def _over(values: Sequence[float], signed: bool = False) -> str:
    mean = f"{statistics.fmean(values):{'+' if signed else ''}.3g}"
    if len(values) < 2:
        return f"{mean} (one seed)"
    return f"{mean} ± {half_interval(values):.2g} ({len(values)} seeds)"


if __name__ == "__main__":
    sys.exit(main())
