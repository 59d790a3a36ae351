"""Measure Agent-lightning's loops beside this program's own: the same agent, tasks, groups and model, turn about.

    python bench/agent_loops.py --agentlightning-1 AGL/bin/python --agentlightning-0-3 AGL03/bin/python
    python bench/agent_loops.py ... --seeds 3 --write     # put the tables into docs/agent_frameworks.md
    python bench/agent_loops.py --quick                   # only what needs no agentlightning, a minute

Each seed is a round in which the contestants train one after another, examples/letters.py on `tiny`, each of the loops
against a service of its own. The clock and the processor seconds of all its processes are read whenever a contestant
says that an iteration is over. Left out are the first iteration, since it starts things, the last, in which train.py
also validates, and those whose rollouts all had the full reward, from which there is no step.
"""

import argparse
import itertools
import json
import math
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent_training import ROOT, half_interval, put_into, serving
from machine import processor

PAGE = ROOT / "docs" / "agent_frameworks.md"
RUNS = ROOT / "artifacts" / "models" / "Agent" / "runs"
ITERATION = re.compile(r"epoch \d+: reward ([\d.]+)")
HELD_OUT = re.compile(r"(before|after): reward ([-\d.]+)")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Contestant:
    """A way to train the agent.

    Attributes:
        name: in the tables.
        words: command line after the Python.
        python: what runs it.
        served: whether it needs a service.
    """

    name: str
    words: tuple[str, ...]
    python: str = sys.executable
    served: bool = True


@dataclass
class Measured:
    """What one training took.

    Attributes:
        wall: seconds of each iteration that counts.
        used: processor seconds of these, of all processes.
        service: those of the service among them.
        whole: processor seconds from start to end.
        before: reward of held-out tasks.
        after: the same, trained.
    """

    wall: list[float] = field(default_factory=list)
    used: list[float] = field(default_factory=list)
    service: list[float] = field(default_factory=list)
    whole: float = 0.0
    before: float = math.nan
    after: float = math.nan


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--agentlightning-1", metavar="PYTHON", help="Python that has agentlightning 1.0 and openai")
    parser.add_argument("--agentlightning-0-3", metavar="PYTHON", help="Python that has agentlightning 0.3 and tinker")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--epochs", type=int, default=6, help="iterations of a training")
    parser.add_argument("--quick", action="store_true", help="one seed of three iterations")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/agent_frameworks.md")
    words = parser.parse_args()
    seeds, epochs = (1, 3) if words.quick else (words.seeds, words.epochs)
    if seeds < 1 or epochs < 3:
        parser.error(f"--seeds {seeds} --epochs {epochs}: take at least 1 seed and 3 epochs, of which the first "
                     "and the last don't count")  # fmt: skip
    given = " ".join(word if "/" not in word else "PYTHON" for word in sys.argv[1:])
    begun = f"{time.strftime('%Y-%m-%d')}, {processor()}, load of the machine {os.getloadavg()[0]:.1f} as it began"
    found: dict[str, list[Measured]] = {}
    for seed in range(seeds):
        for contestant in _contestants(words.agentlightning_1, words.agentlightning_0_3, epochs, seed):
            measured = _measure(contestant)
            found.setdefault(contestant.name, []).append(measured)
            print(f"seed {seed}, {contestant.name}: {measured.before:.3f} -> {measured.after:.3f}, an iteration "
                  f"{_median(measured.used)} processor s, {_median(measured.wall)} s; {measured.whole:.0f} processor "
                  "s in all", flush=True)  # fmt: skip
        lines = [f"`python bench/agent_loops.py {given}`, {begun}, {os.getloadavg()[0]:.1f} after {seed + 1} of "
                 f"{seeds} rounds.", "", *_times(found), "", *_learned(found)]  # fmt: skip
        print("\n".join(lines), flush=True)
        if words.write:
            put_into(PAGE, "agent_loops", lines)
    return 0


def _contestants(one: str | None, third: str | None, epochs: int, seed: int) -> list[Contestant]:
    common = ("--model", "tiny", "--epochs", f"{epochs}", "--tasks", "4", "--group", "4", "--seed", f"{seed}",
              "--learning-rate", "1e-2")  # fmt: skip
    contestants = [
        Contestant("`train.py Agent`", (
            "train.py", "Agent", "agent=examples/letters.py:letters", "base_model=tiny", "lora_rank=32",
            "lora_targets=attention, mlp, unembedding", "tasks_per_epoch=4", "group_size=4", "advantage=batch",
            "steps_per_epoch=1", "learning_rate=1e-2", "gradient_clip_value=0.5", f"epochs={epochs}", "val_samples=4",
            f"validate_every_n_epochs={epochs}", f"seed={seed}", "plot_at_end=off",
            "callbacks=bench.epoch_marks:EpochMarks",
        ), served=False),
        Contestant("`train_with_tinker.py`", (
            "examples/train_with_tinker.py", "--agent", "examples/letters.py:letters", "--steps", "1",
            "--held-out-samples", "4", *common,
        )),
    ]  # fmt: skip
    if third:
        contestants.append(
            Contestant("agentlightning 0.3.0", ("examples/agentlightning_0_3/train_agent.py", *common), third)
        )
    if one:
        words = ("examples/agentlightning_1/train_agent.py", "--agentlightning", one, *common)
        contestants.append(Contestant("agentlightning 1.0.2", words))
    return contestants


def _measure(contestant: Contestant) -> Measured:
    """Let a contestant train, and read the clocks at each of its iterations."""
    found = Measured()
    marks: list[tuple[float, tuple[float, float, float]]] = []  # reward, clock, all processes, the service
    with tempfile.TemporaryDirectory() as folder, _service(contestant, Path(folder)) as (service, address):
        environment = {**os.environ, "PYTHONUNBUFFERED": "1", "TINKER_TELEMETRY": "0", "TINKER_API_KEY": "tml-local",
                       "TINKER_BASE_URL": address}  # fmt: skip
        process = subprocess.Popen([contestant.python, *contestant.words], cwd=ROOT, env=environment, text=True,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT)  # fmt: skip
        assert process.stdout is not None
        own, said = 0.0, []
        for line in process.stdout:
            said.append(line)
            own, of_service = _used(process.pid), _used(service.pid) if service else 0.0
            if over := ITERATION.match(line):
                marks.append((float(over[1]), (time.monotonic(), own + of_service, of_service)))
            if told := HELD_OUT.match(line):
                setattr(found, told[1], float(told[2]))
        if process.wait():
            sys.exit(f"{contestant.name} failed:\n{''.join(said)}")
        if len(marks) < 3:
            sys.exit(f"{contestant.name} said of {len(marks)} iterations that they were over:\n{''.join(said)}")
        found.whole = own + (_used(service.pid) if service else 0.0)
    if not contestant.served:
        summary = json.loads((max(RUNS.iterdir()) / "metrics.json").read_text())["summary"]
        found.before, found.after = (summary[when]["reward"] for when in ("before", "after"))
    for (_, earlier), (reward, later) in itertools.pairwise(marks[:-1]):
        if reward < 1:
            found.wall.append(later[0] - earlier[0])
            found.used.append(later[1] - earlier[1])
            found.service.append(later[2] - earlier[2])
    return found


@contextmanager
def _service(contestant: Contestant, folder: Path) -> Iterator[tuple[subprocess.Popen | None, str]]:
    """Yield a service of its own for a contestant that needs one, and its address."""
    if not contestant.served:
        yield None, ""
        return
    with serving(folder, "--model", "tiny") as served:
        yield served


def _used(root: int) -> float:
    """Return the processor seconds of a process and of all that it started, also of those that ended."""
    parents, used = {}, {}
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            values = file.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        parents[int(file.parent.name)] = int(values[1])
        used[int(file.parent.name)] = sum(map(int, values[11:15])) / TICKS  # with children it has waited for
    family, before = {root}, 0
    while len(family) > before:
        before = len(family)
        family |= {process for process, parent in parents.items() if parent in family}
    return sum(used.get(process, 0.0) for process in family)


def _times(found: dict[str, list[Measured]]) -> list[str]:
    first = statistics.median(_joined(next(iter(found.values())), "used") or [math.nan])
    lines = [
        "| 16 rollouts and a step | processor s of an iteration, median (least to most) | of these the service's | "
        "times `train.py` | s by the clock, median | iterations |",
        "|---|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        used, wall, service = (_joined(measured, kind) for kind in ("used", "wall", "service"))
        if not used:
            continue  # it had the full reward from the second iteration on
        own = _median(service) if any(service) else ""
        lines.append(f"| {name} | {_median(used)} ({min(used):.2f} to {max(used):.2f}) | {own} | "
                     f"{statistics.median(used) / first:.1f} | {_median(wall)} | {len(used)} |")  # fmt: skip
    return lines


def _learned(found: dict[str, list[Measured]]) -> list[str]:
    lines = [
        "| share of small letters, 16 held-out rollouts | before, by seed | after | change, 95 % interval over seeds | "
        "processor s of a training |",
        "|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        before, after = ([f"{getattr(each, when):.2f}" for each in measured] for when in ("before", "after"))
        change = [each.after - each.before for each in measured]
        whole = [each.whole for each in measured]
        lines.append(f"| {name} | {', '.join(before)} | {', '.join(after)} | {_over(change)} | {_median(whole)} |")
    return lines


def _joined(measured: Sequence[Measured], kind: str) -> list[float]:
    return [value for each in measured for value in getattr(each, kind)]


def _median(values: Sequence[float]) -> str:
    return f"{statistics.median(values):.3g}" if values else "-"


def _over(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):+.2f}"
    return mean if len(values) < 2 else f"{mean} ± {half_interval(values):.2f}"


if __name__ == "__main__":
    sys.exit(main())
