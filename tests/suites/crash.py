"""Kills runs by SIGKILL, at any instant and at single system calls, and counts what is lost: `make crash`.

A trial starts a run, kills it, goes on with `--resume auto`, perhaps kills that too, and lets the last start end. Then
everything must be as if nobody had killed anything. Exit code 1 where something is not; its folder is kept.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import platform
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from fork_server import Outcome, load_project, run

KINDS = {
    "unreadable": "checkpoints that a resume had to rely on and that are damaged",
    "lost": "committed epochs lost",
    "manual": "starts that needed a hand (exit code not 0, another run folder)",
    "temporary": "temporary files left after the next start",
    "different": "final weights or history differ",
}
EPOCHS = 8
_NAME = re.compile(r"epoch-(\d+)(?:-step-(\d+)|-(validation))?")
_RESUMED = re.compile(r"resumed run \S+ after epoch \d+.* from (\S+)")
_SIDE_BY_SIDE = 2


@dataclass
class Tally:
    """What some trials gave.

    Attributes:
        kills: processes killed, in both parts.
        with_checkpoint: of these, those that left a checkpoint.
        resumed: starts that went on from one.
        trials: runs.
        failures: kind, trial and text of each.
    """

    kills: int = 0
    with_checkpoint: int = 0
    resumed: int = 0
    trials: int = 0
    failures: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Take in another one."""
        for name in ("kills", "with_checkpoint", "resumed", "trials"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.failures += other.failures


# --------------------------------------------------------------------------------------------------------- settings


def draw_settings(random: Random, aimed: bool) -> tuple[list[str], list[str]]:
    """Draw the settings of a trial: those that decide about the run's bits, and those that must not."""
    loader = random.choice(["dataloader", "made", "tensors"])
    bits = [f"loader={loader}", f"ema_decay={random.choice([0, 0.9])}", f"accumulation_steps={random.choice([1, 3])}"]
    if not aimed and loader != "tensors" and random.random() < 0.08:
        bits = [f"loader={loader}", "num_workers=2"]
    saving = [
        f"saving_share={1 if aimed else random.choice([1, 0.05])}",
        f"checkpoint_every_n_steps={random.choice([0, 4])}",
        f"save_in_background={random.choice(['on', 'off'])}",
        f"keep_last_checkpoints={random.choice([1, 2, 3])}",
    ]
    return bits, saving


def as_long_as(bits: list[str]) -> list[str]:
    """Return settings of a run that takes about as long, so that fewer have to be measured."""
    return [word for word in bits if word.startswith(("loader", "num_workers"))]


class Undisturbed:
    """Runs that nobody kills, one for each kind of settings, made when they are first asked for.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[tuple[str, ...], tuple[Path, Outcome]] = {}

    def of(self, settings: list[str]) -> tuple[Path, Outcome]:
        """Return the run folder and how its process ended."""
        key = tuple(settings)
        if key not in self._runs:
            folder = self._folder / f"undisturbed-{len(self._runs)}"
            folder.mkdir(parents=True)
            outcome = run(command(settings, folder), folder, death=(0, ""))
            if outcome.code:
                raise RuntimeError(f"a run that nobody kills fails:\n{outcome.output}")
            self._runs[key] = (runs_in(folder)[0], outcome)
        return self._runs[key]


def command(settings: list[str], folder: Path) -> list[str]:
    """Return the arguments of a run whose artifacts go into a folder."""
    return ["Resumable", *settings, f"epochs={EPOCHS}", f"artifacts_dir={folder}"]


def runs_in(folder: Path) -> list[Path]:
    """Return the run folders below an artifacts folder."""
    return sorted(folder.glob("models/Resumable/runs/*"))


# ------------------------------------------------------------------------------------------------------------ checks


def age(name: str) -> tuple[int, bool, int]:
    """Return what orders the names of checkpoints by when they were made."""
    epoch, step, validation = _NAME.fullmatch(name).groups()
    return int(epoch), validation is not None, int(step or 0)


def damage(checkpoint: Path) -> str:
    """Say what is wrong with a checkpoint, by no code of the program; nothing where it is whole."""
    try:
        manifest = json.loads((checkpoint / "manifest.json").read_bytes())
        if hashlib.sha256(json.dumps(manifest["content"]).encode()).hexdigest() != manifest["sha256"]:
            return f"{checkpoint}: manifest.json has another digest"
        for name, digest in manifest["content"]["files"].items():
            if hashlib.sha256((checkpoint / name).read_bytes()).hexdigest() != digest:
                return f"{checkpoint}: {name} has another digest"
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"{checkpoint}: {error!r}"
    return ""


def temporaries(folder: Path) -> list[Path]:
    """Return what a killed process has left."""
    return [path for ending in ("tmp", "replaced") for path in folder.rglob(f".*.{ending}")]


def difference(one: Path, other: Path) -> str:
    """Say where two finished runs differ; nothing where they are equal."""
    import torch
    from safetensors.torch import load_file

    last = f"checkpoints/epoch-{EPOCHS:05d}"
    names = [f"{last}/weights.safetensors", f"{last}/state.safetensors", "model.safetensors"]
    for name in (*names, "../../model.safetensors"):
        left, right = load_file(one / name), load_file(other / name)
        unequal = sorted(left.keys() ^ right.keys())
        unequal += [key for key in left if key in right and not torch.equal(left[key], right[key])]
        if unequal:
            return f"{name}: {', '.join(unequal)}"
    left, right = (json.loads((folder / "metrics.json").read_text()) for folder in (one, other))
    unequal = [key for key in ("history", "best", "state") if left[key] != right[key]]
    return f"metrics.json: {', '.join(unequal)}" if unequal else ""


# ------------------------------------------------------------------------------------------------------------ trials


class Trial:
    """A run that is killed some times.

    Args:
        name: of its folder.
        folder: where that is.
        settings: of the run.
    """

    def __init__(self, name: str, folder: Path, settings: list[str]) -> None:
        self.name, self.folder, self.settings = name, folder / name, settings
        self.tally = Tally(trials=1)
        self._committed = ""  # the newest checkpoint that a process has reported
        self._starts = 0
        self.folder.mkdir()

    def start(self, **how: Any) -> bool:
        """Start the run, or go on with it; returns whether it was killed. `how` is what `fork_server.run` takes."""
        resume = ["--resume", "auto"] if self._starts else []
        outcome = run([*command(self.settings, self.folder), *resume], self.folder, **how)
        self._starts += 1
        self._check_resumed(outcome)
        self._committed = max([self._committed, *outcome.committed], key=lambda name: age(name) if name else (-1,))
        if outcome.code == -9 and how:
            found = list(self.folder.glob("models/*/runs/*/checkpoints/epoch-*"))
            self.tally.kills += 1
            self.tally.with_checkpoint += bool(found)
            for path in found:
                self._check("unreadable", damage(path))
            return True
        self._check("manual", outcome.code and f"exit code {outcome.code}:\n{outcome.output}")
        self._check("temporary", ", ".join(map(str, temporaries(self.folder))))
        return False

    def end(self, undisturbed: Path) -> None:
        """Compare the finished run with one that nobody has killed."""
        runs = runs_in(self.folder)
        self._check("manual", len(runs) != 1 and f"{len(runs)} run folders")
        if len(runs) == 1 and not self.tally.failures:
            self._check("different", difference(runs[0], undisturbed))
        if not self.tally.failures:
            shutil.rmtree(self.folder)

    def _check_resumed(self, outcome: Outcome) -> None:
        found = _RESUMED.search(outcome.output)
        if found:
            self.tally.resumed += 1
            name = Path(found[1]).name
            lost = self._committed and age(name) < age(self._committed)
            self._check("lost", lost and f"{self._committed} was saved, the run goes on from {name}")
        elif "begins anew" in outcome.output:
            self._check("lost", self._committed and f"{self._committed} was saved, the run begins anew")
        self._check("unreadable", "is damaged" in outcome.output and outcome.output)

    def _check(self, kind: str, text: Any) -> None:
        if text:
            self.tally.failures.append((kind, str(self.folder), str(text)))


def at_any_instant(name: str, random: Random, undisturbed: Undisturbed, folder: Path) -> Tally:
    """Kill a run up to three times, each at an instant that is uniform over the time of an undisturbed one."""
    bits, saving = draw_settings(random, aimed=False)
    seconds = undisturbed.of([*as_long_as(bits), *saving[:3]])[1].seconds
    trial = Trial(name, folder, bits + saving)
    killed = True
    for _ in range(random.randint(1, 3)):
        killed = killed and trial.start(kill_after=random.uniform(0, seconds))
    if killed:
        trial.start()
    trial.end(undisturbed.of(bits)[0])
    return trial.tally


def at_a_system_call(name: str, random: Random, undisturbed: Undisturbed, folder: Path) -> Tally:
    """Let a run kill itself up to three times, each before, after or inside a system call by which files change."""
    bits, saving = draw_settings(random, aimed=True)
    calls, writes = undisturbed.of([*as_long_as(bits), *saving])[1].counted
    trial = Trial(name, folder, bits + saving)
    killed = True
    for _ in range(random.randint(1, 3)):
        how = random.choice(["before", "after", "half"])
        at = random.randint(1, writes if how == "half" else calls)
        killed = killed and trial.start(death=(at, how))
    if killed:
        trial.start()
    trial.end(undisturbed.of(bits)[0])
    return trial.tally


PARTS = {"at any instant": at_any_instant, "at a system call": at_a_system_call}


def shard(part: str, number: int, kills: int, seed: int, folder: Path) -> Tally:
    """Do trials of a part until there are so many kills."""
    tally = Tally()
    mine = folder / f"{part.replace(' ', '-')}-{number}"
    mine.mkdir()
    undisturbed = Undisturbed(mine)
    while tally.kills < kills:
        name = f"trial-{tally.trials}"
        random = Random(f"{seed} {part} {number} {tally.trials}")
        tally.add(PARTS[part](name, random, undisturbed, mine))
    return tally


# ------------------------------------------------------------------------------------------------------------ report


def upper_bound(failures: int, kills: int) -> float:
    """Return the upper end of the 95 % confidence interval of a failure rate (one-sided, Clopper and Pearson)."""
    from scipy.stats import beta

    return 1.0 if failures >= kills else float(beta.ppf(0.95, failures + 1, kills - failures))


def table(tallies: dict[str, Tally], seconds: float, seed: int) -> Iterator[str]:
    """Yield the lines of the report."""
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    columns = {**tallies, "together": total}
    counts = {name: Counter(kind for kind, _, _ in tally.failures) for name, tally in columns.items()}
    rows = [("kills (SIGKILL)", [tally.kills for tally in columns.values()])]
    rows += [("runs", [tally.trials for tally in columns.values()])]
    rows += [("kills when there was a checkpoint", [tally.with_checkpoint for tally in columns.values()])]
    rows += [("starts that went on from one", [tally.resumed for tally in columns.values()])]
    rows += [(text, [counts[name][kind] for name in columns]) for kind, text in KINDS.items()]
    bounds = [f"{100 * upper_bound(len(tally.failures), tally.kills):.2f} %" for tally in columns.values()]
    rows += [("failures a kill, at most (95 % confidence)", bounds)]
    width = max(len(text) for text, _ in rows)
    yield " " * width + "".join(f"{name:>18}" for name in columns)
    for text, cells in rows:
        yield f"{text:<{width}}" + "".join(f"{cell:>18}" for cell in cells)
    machine = f"{platform.platform()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"
    yield f"{time.strftime('%Y-%m-%d')}, {seconds:.0f} s, seed {seed}, {machine}"


def main() -> int:
    """Run the suite; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--kills", type=int, default=500, help="at uniformly random instants")
    parser.add_argument("--aimed", type=int, default=200, help="at single system calls")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there too")
    options = parser.parse_args()
    start = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="menagerie-crash-"))
    (folder / "tmp").mkdir()
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder / "tmp")  # killed runs with workers leave something there
    print(f"{options.kills} + {options.aimed} kills, seed {options.seed}, in {folder}", flush=True)
    load_project(folder / "project", "resumable_trainer")
    tallies = {part: Tally() for part in PARTS}
    context = multiprocessing.get_context("fork")
    with ProcessPoolExecutor(_SIDE_BY_SIDE, mp_context=context) as pool:
        jobs = [
            (part, pool.submit(shard, part, number, (kills + number) // _SIDE_BY_SIDE, options.seed, folder))
            for part, kills in zip(PARTS, (options.kills, options.aimed), strict=True)
            for number in range(_SIDE_BY_SIDE)
        ]
        for part, job in jobs:
            tallies[part].add(job.result())
    seconds = time.monotonic() - start
    print("\n".join(table(tallies, seconds, options.seed)))
    failures = [failure for tally in tallies.values() for failure in tally.failures]
    for kind, trial, text in failures:
        print(f"{kind}: {trial}: {text}")
    if options.json:
        numbers = {part: {**vars(tally), "failures": len(tally.failures)} for part, tally in tallies.items()}
        report = {"seconds": round(seconds, 1), "seed": options.seed, "platform": platform.platform(), "parts": numbers}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
    if not failures:
        shutil.rmtree(folder, ignore_errors=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
