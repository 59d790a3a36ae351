"""Settings of AgentTrainer on bandits whose best arm is known, with five seeds: `python bench/agent_algorithms.py`.

First bandits of a few logits, in this process, under the trainer's own loader, credit and loss (tests/train/
policy_bandit.py). Then, with `--tiny`, a model of a million parameters through `train.py Agent`: answers of one token,
of which a small letter is right, so that the optimum of each penalty follows from how likely that was at the start.
"""

import argparse
import json
import logging
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "train")]

from agent_training import half_interval  # noqa: E402 - beside this file
from policy_bandit import Bandit  # noqa: E402 - the path is set above

SEEDS = range(5)
GRADED = [(1.0, 0.6, 0.0), (0.0, 1.0, 0.6), (0.6, 0.0, 1.0)]
MIXED = [(0.0, 0.0)] * 18 + [(1.0, 1.0)] * 18 + [(0.0, 1.0)] * 4
LONG = [(1.0, 1.0, 1.0, 0.0)]
AGENT = """
def tasks(split):
    return [{"ask": f"{split} {number}"} for number in range(4)]

def letter(task, client):
    messages = [{"role": "user", "content": task["ask"]}]
    answer = client.chat.completions.create(model="m", messages=messages, max_tokens=1)
    return float((answer.choices[0].message.content or "")[:1].islower())
"""


def interval(values: Sequence[float]) -> str:
    """Return a mean with its 95 % interval over seeds."""
    half = half_interval(values)
    return f"{statistics.mean(values):.3f} [{statistics.mean(values) - half:.3f}, {statistics.mean(values) + half:.3f}]"


def on_graded(credit: Mapping[str, Any], loss: str, **settings: Any) -> Callable[[int], float]:
    """Return what trains on three tasks of different best arms, and gives the probability of the best."""

    def run(seed: int) -> float:
        bandit = Bandit(GRADED)
        loader = bandit.loader(dict(credit), group_size=8, steps=2, seed=seed, **settings)
        bandit.train(loader, 30, rate=4.0, loss=loss)
        return float(bandit.probabilities().diagonal().mean())

    return run


def on_mixed(**settings: Any) -> Callable[[int], float]:
    """Return what trains on 40 tasks of which 4 can be learned, and gives the probability of their best arms."""

    def run(seed: int) -> float:
        bandit = Bandit(MIXED)
        bandit.train(bandit.loader(group_size=8, tasks_per_epoch=4, seed=seed, **settings), 20, rate=2.0)
        return float(bandit.probabilities()[36:, 1].mean())

    return run


def on_lengths(credit: Mapping[str, Any]) -> Callable[[int], float]:
    """Return what trains on right answers of 8, 6 and 4 tokens, and gives the probability of the shortest."""

    def run(seed: int) -> float:
        bandit = Bandit(LONG, lengths=(8, 6, 4, 4))
        bandit.train(bandit.loader(dict(credit), group_size=8, seed=seed), 40, rate=8.0)
        return float(bandit.probabilities()[0, 2])

    return run


def on_penalty(weight: float, **settings: Any) -> Callable[[int], float]:
    """Return what trains with a penalty on the divergence, and gives the largest error of a probability."""

    def run(seed: int) -> float:
        start = (0.5, 0.0, -1.0)
        bandit = Bandit([(0.0, 0.2, 1.0)], start=start)
        optimum = (torch.tensor(start, dtype=torch.float64) + bandit.rewards / weight).softmax(1)
        mean = torch.zeros_like(optimum)
        credit = {"advantage": "leave_one_out", "kl_weight": weight}
        loader = bandit.loader(credit, group_size=16, seed=seed, **settings)
        bandit.train(loader, 25, rate=2.0)
        for epoch in range(25, 65):
            bandit.train(loader, epoch + 1, rate=0.5, first=epoch)
            mean += bandit.probabilities() / 40
        return float((mean - optimum).abs().max())

    return run


BEST = "probability of the best arm"
BANDITS: list[tuple[str, str, Callable[[int], float]]] = [
    *[(f"advantage = {name}, loss = {loss}", BEST, on_graded({"advantage": name}, loss))
      for name, loss in (("centred", "importance_sampling"), ("std", "importance_sampling"),
                         ("leave_one_out", "importance_sampling"), ("batch", "importance_sampling"),
                         ("centred", "ppo"), ("centred", "cispo"))],
    ("advantage = std, loss = ppo, average = rollouts (GRPO)", BEST,
     on_graded({"advantage": "std", "average": "rollouts"}, "ppo")),
    ("average = constant (Dr. GRPO)", BEST, on_graded({"average": "constant", "average_length": 1}, "ppo")),
    ("max_steps_off_policy = 6, loss = ppo", BEST, on_graded({}, "ppo", max_steps_off_policy=6)),
    ("4 of 40 tasks can be learned, plain", BEST, on_mixed()),
    ("the same, curriculum = success", BEST, on_mixed(curriculum="success")),
    ("the same, dynamic_sampling = on", BEST, on_mixed(sampling_rounds=4)),
    ("right answers of 8, 6, 4 tokens, plain", "probability of the shortest", on_lengths({})),
    ("the same, overlong_length = 8, overlong_buffer = 4", "probability of the shortest",
     on_lengths({"overlong_length": 8, "overlong_buffer": 4})),
    ("kl_weight = 0.5", "error of a probability", on_penalty(0.5)),
    ("kl_weight = 0.5, max_steps_off_policy = 3", "error of a probability", on_penalty(0.5, max_steps_off_policy=3)),
]  # fmt: skip
TINY: list[tuple[str, ...]] = [
    (),
    ("advantage=std", "loss=ppo", "average=rollouts"),
    ("advantage=leave_one_out", "max_steps_off_policy=2", "loss=cispo"),
    ("advantage=leave_one_out", "kl_weight=0.4", "group_size=32", "epochs=40"),
]


def on_tiny(words: Sequence[str], seed: int, folder: Path) -> tuple[float, float]:
    """Train the tiny model by the command line; return its success before and after."""
    settings = {
        "agent": "letters.py:letter", "base_model": "tiny", "trained": "all", "epochs": "20", "tasks_per_epoch": "4",
        "group_size": "16", "learning_rate": "1e-3", "val_samples": "64", "validate_every_n_epochs": "100",
        "plot_at_end": "off", "sample_count": "0", "seed": str(seed), "artifacts_dir": str(folder / "artifacts"),
    }  # fmt: skip
    settings |= dict(word.split("=", 1) for word in words)
    done = subprocess.run([sys.executable, ROOT / "train.py", "Agent", *map("=".join, settings.items())], cwd=folder,
                          text=True, capture_output=True)  # fmt: skip
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    newest = sorted((folder / "artifacts").rglob("metrics.json"), key=lambda path: path.stat().st_mtime)[-1]
    summary = json.loads(newest.read_text())["summary"]
    return summary["before"]["success"], summary["after"]["success"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiny", action="store_true", help="train the tiny model by train.py instead")
    options = parser.parse_args()
    logging.disable(logging.CRITICAL)  # epochs without a step
    print("| settings | what | mean of 5 seeds, 95 % interval |\n|---|---|---|")
    if not options.tiny:
        for name, what, run in BANDITS:
            print(f"| {name} | {what} | {interval([run(seed) for seed in SEEDS])} |", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "letters.py").write_text(AGENT)
        for words in TINY:
            pairs = [on_tiny(words, seed, Path(folder)) for seed in SEEDS]
            name = f"`{' '.join(words)}`" if words else "the defaults"
            print(f"| {name} | success before | {interval([before for before, _ in pairs])} |")
            print(f"| | after | {interval([after for _, after in pairs])} |", flush=True)
            weight = next((float(word[10:]) for word in words if word.startswith("kl_weight=")), 0.0)
            if weight:
                odds = [before / (1 - before) * math.exp(1 / weight) for before, _ in pairs]
                print(f"| | optimum, of the success before | {interval([each / (1 + each) for each in odds])} |")


if __name__ == "__main__":
    main()
