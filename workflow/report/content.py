"""What a report says: steps with their times, checks and figures, curves, samples, sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workflow.checks.result import UnusableError
from workflow.checks.tables import numbers_of, read_rows
from workflow.definition.expression import filled
from workflow.definition.facts import Definition
from workflow.definition.numbers import number_of
from workflow.journal.journal import Event
from workflow.journal.state import StepState

_SAMPLES, _LETTERS = 20, 400
_COUNTS = ("tokens_in", "tokens_out", "tokens_trained", "dollars")


@dataclass(frozen=True)
class Curve:
    """A curve of a file of metrics: its values, in order."""

    file: str
    field: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class StepReport:
    """What a report says of a step.

    Attributes:
        number: its number.
        title: its title.
        category: its category.
        state: how far it is.
        seconds: how long its last run took; 0 where unknown.
        runs: how often it was begun.
        checks: what its checks said.
        figures: their figures by name.
        note: what a person said of it, or why it is as it is.
    """

    number: int
    title: str
    category: str
    state: str
    seconds: float
    runs: int
    checks: tuple[str, ...]
    figures: Mapping[str, object]
    note: str


@dataclass(frozen=True)
class Report:
    """A workflow's report.

    Attributes:
        title: the workflow.
        preset: the preset that held.
        settings: its settings.
        steps: its steps.
        curves: curves of the files that a loss was checked in.
        samples: rows of files called samples, their fields as texts.
        counts: tokens and dollars, over all runs of all steps.
    """

    title: str
    preset: str
    settings: Mapping[str, object]
    steps: tuple[StepReport, ...]
    curves: tuple[Curve, ...] = ()
    samples: tuple[Mapping[str, str], ...] = ()
    counts: Mapping[str, float] = field(default_factory=dict)


def report_of(
    definition: Definition, preset: str, states: Sequence[StepState], events: Sequence[Event], folder: Path
) -> Report:
    """Gather what there is to say.

    Args:
        definition: the workflow.
        preset: the preset that held.
        states: how far each step is.
        events: the journal.
        folder: the project's folder.
    """
    settings = definition.presets[preset]
    steps = tuple(_step(state, events) for state in states)
    counts = {
        name: total for name in _COUNTS if (total := sum(number_of(event.facts.get(name)) or 0.0 for event in events))
    }
    curves, samples = [], []
    for step in definition.steps:
        for check in step.checks:
            if check.kind == "loss_falls":
                arguments = filled(check.arguments, settings)
                assert isinstance(arguments, dict)
                curves += _curve(folder, str(arguments["file"]), str(arguments.get("field", "loss")))
        for path in step.produces:
            if Path(path).stem == "samples":
                samples += _samples(folder / path)
    return Report(definition.title, preset, settings, steps, tuple(curves), tuple(samples), counts)


def _step(state: StepState, events: Sequence[Event]) -> StepReport:
    own = [event for event in events if event.step == state.step.number]
    done = next((event for event in reversed(own) if event.kind == "done"), None)
    facts = done.facts if done is not None else {}
    checks, figures = facts.get("checks"), facts.get("figures")
    return StepReport(
        state.step.number, state.step.title, state.step.category, state.state, number_of(facts.get("seconds")) or 0.0,
        sum(event.kind == "started" for event in own),
        tuple(str(one) for one in checks) if isinstance(checks, list) else (),
        figures if isinstance(figures, Mapping) else {}, str(facts.get("note") or state.reason),
    )  # fmt: skip


def _curve(folder: Path, file: str, name: str) -> list[Curve]:
    try:
        values = numbers_of(folder / file, name)
    except UnusableError:
        return []
    return [Curve(file, name, tuple(values))] if len(values) > 1 else []


def _samples(path: Path) -> list[Mapping[str, str]]:
    found: list[Mapping[str, str]] = []
    try:
        for row in read_rows(path):
            if len(found) == _SAMPLES:
                break
            found.append({name: str(value)[:_LETTERS] for name, value in row.items()})
    except UnusableError:
        return []
    return found
