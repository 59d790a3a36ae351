"""What differs between saved runs: settings, environment, and from which epoch on their histories do."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constants.counting import counted
from storage.run_names import run_names
from storage.saved_run import Run, RunDamagedError, read_environment, read_settings
from storage.verdict import verdict_lines

_SAME = "the same to all digits"
_ABSENT = "nothing"
_SHORT = 12  # characters of a commit or digest that are shown


@dataclass(frozen=True)
class Difference:
    """A setting or a fact of the environment that two runs don't share.

    Attributes:
        name: name of the setting or fact.
        first: value in the first run, None where that has none.
        second: value in the second run, None where that has none.
    """

    name: str
    first: str | None
    second: str | None


@dataclass(frozen=True)
class Divergence:
    """Where the lists of one name in two histories part.

    Attributes:
        name: name of the series in the history, such as `val_loss`.
        epoch: the first epoch at which both runs have values and these differ; None where there is none.
        first: the first run's value at `epoch`; NaN where that is None.
        second: the second run's value at `epoch`; NaN where that is None.
        shared: the last epoch at which both runs have values, None where there is none.
        ends: the last epoch of each run in this series.
    """

    name: str
    epoch: float | None
    first: float
    second: float
    shared: float | None
    ends: tuple[float, float]


@dataclass(frozen=True)
class HistoryComparison:
    """How two histories relate.

    Attributes:
        parted: series whose values differ somewhere, by epoch.
        longer: series that are the same at all epochs that both runs have, and have values at further epochs in one
            run.
        same: names of series that are the same, in length too.
        only: names of the series that the other run lacks, by run id.
    """

    parted: list[Divergence] = field(default_factory=list)
    longer: list[Divergence] = field(default_factory=list)
    same: list[str] = field(default_factory=list)
    only: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class StepDivergence:
    """Where the training losses by step of two runs part, at the steps at which both were read.

    Attributes:
        step: the first shared step at which the losses differ; None where there is none.
        first: the first run's mean loss of the epoch up to `step`; NaN where that is None.
        second: the second run's mean loss of the epoch up to `step`; NaN where that is None.
        agreed: the last shared step before `step`, at which the losses were the same; 0 where there is none, or `step`
            is None.
        shared: number of steps at which the loss was read in both runs.
        last: the last of the shared steps, 0 where there is none.
    """

    step: int | None
    first: float
    second: float
    agreed: int
    shared: int
    last: int


def comparison_lines(runs: Sequence[Run]) -> list[str]:
    """Say which of several runs is best and by how much, then in what each differs from the first and where they part.

    Args:
        runs: two runs or more; the first is the one that the others are compared with.

    Returns:
        Lines of text.
    """
    names = run_names(runs)
    lines = verdict_lines(runs, names)
    for run, name in zip(runs[1:], names[1:], strict=True):
        lines += ["", *_pair_lines(runs[0], run, names[0], name)]
    return lines


def _pair_lines(first: Run, second: Run, name: str, other: str) -> list[str]:
    called = [
        called if run.id in called else f"{called} ({run.id})"
        for called, run in zip((name, other), (first, second), strict=True)
    ]
    return [
        " against ".join(called),
        *_section("settings", "config.ini", first.path, second.path, settings_of),
        *history_lines(first, second, (name, other)),
        *_section("environment", "environment.json", first.path, second.path, read_facts),
    ]


def history_lines(first: Run, second: Run, names: tuple[str, str] | None = None) -> list[str]:
    """Say where the numbers of two runs part: by step, and by epoch.

    Args:
        first: the run that is compared with.
        second: the other run.
        names: what the two are called; None takes their ids.
    """
    names = names or (first.id, second.id)
    by_epoch = _history_lines(compare_histories(first, second), {first.id: names[0], second.id: names[1]})
    return _reading_lines(first, second, names) + by_epoch


def differences(first: dict[str, str], second: dict[str, str]) -> list[Difference]:
    """List what two tables of text don't share, in the order of the first."""
    names = list(first) + [name for name in second if name not in first]
    return [Difference(name, a, b) for name in names if (a := first.get(name)) != (b := second.get(name))]


def facts_of(environment: dict[str, Any]) -> dict[str, str]:
    """Write an environment.json as facts that can be compared, each by a name that a person knows.

    Args:
        environment: content of the run's environment.json; facts that it lacks are left out.

    Returns:
        Text by name: python, platform, packages, device, menagerie, commit, uncommitted changes, data.
    """
    if not environment:
        return {}
    device, git = environment.get("device") or {}, environment.get("git") or {}
    facts = {name: environment.get(name) for name in ("python", "platform")} | dict(environment.get("packages") or {})
    facts |= {"device": device.get("type"), "device name": device.get("name"), "threads": device.get("threads")}
    diff, program = git.get("diff"), environment.get("menagerie") or {}
    facts |= {
        "menagerie": program.get("version"),
        "menagerie commit": _short_commit(program.get("commit")),
        "commit": git["commit"][:_SHORT] if git.get("commit") else None,
        "uncommitted changes": f"{counted(len(diff.splitlines()), 'line')} of diff ({_digest(diff)})" if diff else None,
    }
    for name, data in (environment.get("data") or {}).items():
        if data:
            facts |= {
                f"{name} samples": data.get("length"), f"{name} sample": data.get("sample"),
                f"{name} fingerprint": str(data.get("sha256"))[:_SHORT],
            }  # fmt: skip
    return {name: str(value) for name, value in facts.items() if value is not None}


def _short_commit(commit: str | None) -> str | None:
    """A commit's first characters, with `+changes` where files are not as it has them."""
    return None if commit is None else commit[:_SHORT] + "+changes" * commit.endswith("+changes")


def compare_histories(first: Run, second: Run) -> HistoryComparison:
    """Compare two histories, number by number and exactly; what was not finite equals itself.

    Values are paired by their epoch, so that runs which were validated at different epochs can be compared too.
    """
    only = {
        run.id: [name for name in run.series if name not in other.series]
        for run, other in ((first, second), (second, first))
    }
    result = HistoryComparison(only={run: names for run, names in only.items() if names})
    for name in first.series:
        if name not in second.series:
            continue
        a, b = by_epoch(*first.series[name]), by_epoch(*second.series[name])
        shared = [place for place in a if place in b]
        place = next((place for place in shared if not _equal(a[place], b[place])), None)
        parting = Divergence(
            name, place[0] if place else None, a[place] if place else math.nan, b[place] if place else math.nan,
            shared=shared[-1][0] if shared else None, ends=(list(a)[-1][0], list(b)[-1][0]),
        )  # fmt: skip
        if place:
            result.parted.append(parting)
        elif a.keys() == b.keys():
            result.same.append(name)
        else:
            result.longer.append(parting)
    result.parted.sort(key=lambda parting: (parting.epoch, not parting.name.endswith("_loss")))
    return result


def compare_readings(first: Run, second: Run) -> StepDivergence:
    """Compare the training losses by step of two runs, exactly, at the steps at which both were read.

    A reading is a mean from the epoch's start, so what lies between two readings is in the second one.
    """
    other = dict(zip(second.readings.steps, second.readings.losses, strict=True))
    pairs = zip(first.readings.steps, first.readings.losses, strict=True)
    shared = [(step, loss, other[step]) for step, loss in pairs if step in other]
    parted = next((place for place, (_, a, b) in enumerate(shared) if not _equal(a, b)), None)
    step, a, b = (None, math.nan, math.nan) if parted is None else shared[parted]
    agreed = shared[parted - 1][0] if parted else 0
    return StepDivergence(step, a, b, agreed, len(shared), shared[-1][0] if shared else 0)


def by_epoch(epochs: Sequence[float], values: Sequence[float]) -> dict[tuple[float, int], float]:
    """Find values by epoch; where a trainer measured several times in one, by their number in it too."""
    met: Counter[float] = Counter()
    places = {}
    for epoch, value in zip(epochs, values, strict=True):
        places[epoch, met[epoch]] = value
        met[epoch] += 1
    return places


def _equal(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_SHORT]


def settings_of(path: Path) -> dict[str, str]:
    """Read a run's settings by key."""
    return {name: value for name, value in read_settings(path).items() if name}


def read_facts(path: Path) -> dict[str, str]:
    """Read a run's environment.json as `facts_of` writes it."""
    try:
        return facts_of(read_environment(path))
    except (ValueError, TypeError, AttributeError) as error:
        raise RunDamagedError.of(path / "environment.json", error) from error


def _section(title: str, file: str, first: Path, second: Path, read: Callable[[Path], dict[str, str]]) -> list[str]:
    """Compare one file of two runs; a damaged one is no reason not to compare the rest."""
    try:
        old, new = read(first), read(second)
    except RunDamagedError as error:
        return [f"{title}: {error}"]
    missing = [path.name for path, content in ((first, old), (second, new)) if not content]
    if missing:
        return [f"{title}: can't be compared, there is no {file} in {' and '.join(missing)}"]
    found = differences(old, new)
    if not found:
        return [f"{title}: the same"]
    width = max(len(item.name) for item in found)
    rows = [f"  {item.name:{width}}  {_shown(item.first)} against {_shown(item.second)}" for item in found]
    return [f"{title}: {len(found)} of {len(old.keys() | new.keys())} differ", *rows]


def _shown(value: str | None) -> str:
    return _ABSENT if value is None else value or "empty"


def _history_lines(result: HistoryComparison, names: dict[str, str]) -> list[str]:
    if not (result.parted or result.longer or result.only):
        return [f"history: {_SAME}" if result.same else "history: there is none in either"]
    lines = [
        f"  {item.name} differs from epoch {item.epoch:g} on: {item.first!r} against {item.second!r}"
        for item in result.parted
    ]
    lines += [_longer_line(item, list(names.values())) for item in result.longer]
    if result.same:
        lines.append(f"  {_SAME}: {', '.join(result.same)}")
    lines += [f"  only in {names[run]}: {', '.join(series)}" for run, series in result.only.items()]
    return ["history:", *lines]


def _longer_line(item: Divergence, names: Sequence[str]) -> str:
    if item.shared is None:
        return f"  {item.name} was never measured at the same epoch"
    if item.ends[0] == item.ends[1]:
        return f"  {item.name} is {_SAME} where both measured it, which was not at the same epochs"
    further, end = max(zip(names, item.ends, strict=False), key=lambda pair: pair[1])
    return f"  {item.name} is {_SAME} to epoch {item.shared:g}; {further} goes on to epoch {end:g}"


def _reading_lines(first: Run, second: Run, names: tuple[str, str]) -> list[str]:
    missing = [name for name, run in zip(names, (first, second), strict=True) if not run.readings.steps]
    if missing:
        one_sided = [f"training loss by step: can't be compared, there is none in {missing[0]}"]
        return one_sided if len(missing) == 1 else []
    found = compare_readings(first, second)
    if not found.shared:
        return ["training loss by step: never read at the same step"]
    if found.step is None:
        steps = "one step" if found.shared == 1 else f"{found.shared} steps"
        return [f"training loss by step: {_SAME} at the {steps} at which both were read, to {found.last}"]
    values = f"{found.first!r} against {found.second!r}"
    if found.step == found.agreed + 1:
        return [f"training loss by step: differs from step {found.step} on: {values}"]
    return [
        f"training loss by step: first differs in steps {found.agreed + 1} to {found.step}: {values} "
        f"(mean of the epoch to step {found.step})",
        "  log_every_n_steps = 1 with step = eager reads it at every step",
    ]
