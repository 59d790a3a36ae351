"""Measure rollouts of agents: many at once in one batch, beside the same agents where requests are answered one by one.

    python bench/agents.py                        # the table of docs/agents.md, in some minutes
    python bench/agents.py --quick                # little of it, to see that it works
    python bench/agents.py --write                # put it into docs/agents.md

The same rollouts by the same weights each time, with the same random numbers; contestants take turns, figures are
medians, ratios those of the same round. Processor seconds are those of all threads and of the processes that agents
play in.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "agents.md"
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 - beside the path above
from agent_training import put_into  # noqa: E402 - beside this file
from machine import processor  # noqa: E402 - beside this file

from data.chat_renderer import Renderer  # noqa: E402
from llm.base_model import load  # noqa: E402
from llm.sampling import Sampler, SamplerLimits  # noqa: E402
from train.agents.agent_function import AgentFunction, find_agent  # noqa: E402
from train.agents.rollout import Rollout, RolloutPlan  # noqa: E402
from train.agents.rollout_runner import RolloutRunner, RunnerSettings  # noqa: E402
from train.agents.sampled_policy import SampledPolicy  # noqa: E402

AGENTS = """
def one_turn(task, client):
    return turns(task, client, 1)

def five_turns(task, client):
    return turns(task, client, 5)

def turns(task, client, count):
    messages, said = [{"role": "user", "content": task["ask"]}], 0
    for turn in range(count):
        answer = client.chat.completions.create(model="m", messages=messages, max_tokens=32,
                                                extra_body={"ignore_eos": True})
        said += answer.usage.completion_tokens
        messages += [{"role": "assistant", "content": answer.choices[0].message.content},
                     {"role": "user", "content": f"turn {turn}: go on"}]
    return float(said)

async def asynchronous(task, client):
    answer = await client.chat.completions.create(model="m", messages=[{"role": "user", "content": task["ask"]}],
                                                  max_tokens=32, extra_body={"ignore_eos": True})
    return float(answer.usage.completion_tokens)
"""


@dataclass(frozen=True)
class OneByOne(SampledPolicy):
    """Weights whose requests are answered one after another, without a batch."""

    def sampler(self) -> Sampler:
        """Return a sampler of one row."""
        return Sampler(self.base, None, SamplerLimits(rows=1), pack=True)


@dataclass(frozen=True)
class Measured:
    """What some rollouts took.

    Attributes:
        wall: seconds.
        processor: seconds of all threads and processes.
        tokens: sampled ids.
        threads: most threads of this process at a time.
    """

    wall: float
    processor: float
    tokens: int
    threads: int


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    parser.add_argument("--rollouts", type=int, default=64, help="rollouts of each measurement")
    parser.add_argument("--model", default="tiny", help="tiny or smollm2")
    parser.add_argument("--only", choices=("one_turn", "five_turns", "asynchronous"), help="one of the agents")
    parser.add_argument("--threads", type=int, default=1, help="threads of PyTorch")
    parser.add_argument("--write", action="store_true", help="put the table into docs/agents.md")
    parser.add_argument("--quick", action="store_true", help="one round of few rollouts")
    words = parser.parse_args()
    torch.set_num_threads(words.threads)
    rounds, count = (1, 8) if words.quick else (words.rounds, words.rollouts)
    base = load(words.model)
    policy = SampledPolicy(base, Renderer(base.tokenizer, base.template, base.end_ids), None, "bench")
    lines = [
        f"`python bench/agents.py --model {words.model}`, {time.strftime('%Y-%m-%d')}, {processor()}, "
        f"{words.threads} threads of PyTorch, {rounds} rounds, medians; load of the machine {os.getloadavg()[0]:.1f}.",
        "",
        "| agent | how | rollouts/s | tokens/s | processor s | times as fast | times less processor | threads |",
        "|---|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "bench_agents_played.py"
        file.write_text(AGENTS)
        for name in ("one_turn", "five_turns"):
            if words.only in (None, name):
                lines += _compare(find_agent(f"{file}:{name}"), policy, count, rounds)
        if words.only in (None, "asynchronous"):
            lines += _hundreds(find_agent(f"{file}:asynchronous"), policy, 24 if words.quick else 300)
    print("\n".join(lines))
    if words.write:
        put_into(PAGE, "rollouts", lines)
    return 0


def _compare(agent: AgentFunction, policy: SampledPolicy, count: int, rounds: int) -> list[str]:
    """Measure an agent batched, in processes and in threads, and without a batch."""
    alone = OneByOne(policy.base, policy.renderer, None, "bench")
    contestants = {
        "in one batch, agents in processes": (policy, RunnerSettings(at_once=count, processes=True)),
        "in one batch, agents in threads": (policy, RunnerSettings(at_once=count)),
        "one by one (as many agents, no batch)": (alone, RunnerSettings(at_once=count, lockstep=False)),
    }
    runners = {name: RolloutRunner(agent, settings) for name, (_, settings) in contestants.items()}
    found: dict[str, list[Measured]] = {name: [] for name in contestants}
    for name, (weights, _) in contestants.items():  # what is done once is none of it
        _measure(runners[name], weights, min(count, 8))
    for _ in range(rounds):
        for name, (weights, _) in contestants.items():
            found[name].append(_measure(runners[name], weights, count))
    slowest = found["one by one (as many agents, no batch)"]
    lines = []
    for name, measured in found.items():
        wall = statistics.median(other.wall / own.wall for own, other in zip(measured, slowest, strict=True))
        spent = statistics.median(other.processor / own.processor for own, other in zip(measured, slowest, strict=True))
        typical = sorted(measured, key=lambda each: each.wall)[len(measured) // 2]
        used = statistics.median(each.processor for each in measured)
        cells = [
            agent.function.__name__, name, f"{count / typical.wall:.1f}", f"{typical.tokens / typical.wall:.0f}",
            f"{used:.2f}", f"{wall:.1f}", f"{spent:.1f}", str(typical.threads),
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    return lines


def _hundreds(agent: AgentFunction, policy: SampledPolicy, count: int) -> list[str]:
    runner = RolloutRunner(agent, replace(RunnerSettings(), at_once=count))
    _measure(runner, policy, 8)
    own = _measure(runner, policy, count)
    return [
        f"| asynchronous | {count} at once, in the event loop of one thread | {count / own.wall:.1f} | "
        f"{own.tokens / own.wall:.0f} | {own.processor:.2f} | | | {own.threads} |"
    ]


def _measure(runner: RolloutRunner, policy: SampledPolicy, count: int) -> Measured:
    plans, tasks = [RolloutPlan(number, 0, number) for number in range(count)], _tasks(count)
    most = threading.active_count()

    def look(done: Sequence[Rollout]) -> None:
        nonlocal most
        most = max(most, threading.active_count())

    before, begun = _spent(), time.perf_counter()
    rollouts = runner.run(plans, tasks, policy, look)
    wall, spent = time.perf_counter() - begun, _spent() - before
    wrong = [each.told for each in rollouts if each.reward is None]
    if wrong:
        raise SystemExit(f"{len(wrong)} rollouts failed: {wrong[0]}")
    return Measured(wall, spent, sum(each.tokens for each in rollouts), most)


def _tasks(count: int) -> list[object]:
    return [{"ask": f"question {number}: what comes next?"} for number in range(count)]


def _spent() -> float:
    """Return the processor seconds of this process and of all that it has started, so far."""
    total, parents = time.process_time(), [os.getpid()]
    tick = os.sysconf("SC_CLK_TCK")
    while parents:
        parent = parents.pop()
        try:
            for thread in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{thread}/children").read_text().split()
                for child in map(int, children):
                    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
                    total += (int(fields[11]) + int(fields[12])) / tick
                    parents.append(child)
        except OSError:
            continue
    return total


if __name__ == "__main__":
    raise SystemExit(main())
