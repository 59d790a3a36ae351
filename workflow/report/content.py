"""What a report says: steps with their times, checks and figures, curves, samples, sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workflow.definition.expression import filled
from workflow.definition.facts import Definition
from workflow.definition.numbers import number_of
from workflow.definition.report_facts import Section
from workflow.journal.journal import Event
from workflow.journal.state import StepState
from workflow.report.sections import SectionContent, content_of_section

_COUNTS = ("tokens_in", "tokens_out", "tokens_trained", "dollars")


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
        sections: what the workflow's own report shows.
        files: name of the file that each setting stands in.
        counts: tokens and dollars, over all runs of all steps.
    """

    title: str
    preset: str
    settings: Mapping[str, object]
    steps: tuple[StepReport, ...]
    sections: tuple[SectionContent, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    counts: Mapping[str, float] = field(default_factory=dict)

    @property
    def how_far(self) -> str:
        """How many steps are done, and which ran as this was written: the one that writes a report is among these."""
        done = sum(step.state == "done" for step in self.steps)
        running = [str(step.number) for step in self.steps if step.state == "running"]
        beside = f", and as this was written step {' and '.join(running)} ran" if running else ""
        return f"{done} of {len(self.steps)} steps done{beside}"


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
    declared = definition.sections or _usual(definition, settings)
    shown = (one for one in declared if not one.optional or (folder / str(filled(one.file, settings))).is_file())
    sections = tuple(content_of_section(one, settings, folder) for one in shown)
    return Report(definition.title, preset, settings, steps, sections, definition.files, counts)


def _usual(definition: Definition, settings: Mapping[str, object]) -> tuple[Section, ...]:
    """Return what is shown where a workflow declares nothing: losses that were checked, and files called samples."""
    found = []
    for step in definition.steps:
        for check in step.checks:
            if check.kind == "loss_falls":
                arguments = filled(check.arguments, settings)
                assert isinstance(arguments, dict)
                name = str(arguments.get("field", "loss"))
                found.append(Section("Loss", "curves", str(arguments["file"]), fields={name: name}))
        found += [Section("Samples", "rows", path) for path in step.produces if Path(path).stem == "samples"]
    return tuple(found)


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
