"""How far each step is: what follows from the definition, the journal and the files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from workflow.definition.expression import filled
from workflow.definition.facts import Definition, Step
from workflow.journal.digests import Digests
from workflow.journal.journal import Event

STATES = ("done", "stale", "failed", "stopped", "running", "waiting", "ready", "blocked")


@dataclass(frozen=True)
class StepState:
    """How far a step is.

    Attributes:
        step: the step.
        state: `done`; `stale`: done, but what it was made from has changed; `failed`; `stopped`: begun and not ended,
            by a kill or a person, and goes on from where it was; `running`; `waiting`: a person has to do it, and may;
            `ready`; `blocked`: steps or files that it needs are not there.
        reason: why it is so, as a sentence; "" where nothing is to be said.
        last: the last event of it; None where there is none.
        place: place of that event in the journal; -1 where there is none.
    """

    step: Step
    state: str
    reason: str = ""
    last: Event | None = None
    place: int = -1


def states_of(
    definition: Definition, preset: str, events: Sequence[Event], digests: Digests, running: bool
) -> tuple[StepState, ...]:
    """Say how far each step is.

    Args:
        definition: the workflow.
        preset: the preset that holds.
        events: the journal.
        digests: digests of the project's files as they are now.
        running: whether a process holds the journal, so that what was begun may be running.
    """
    settings = definition.presets[preset]
    places = {event.step: place for place, event in enumerate(events)}  # clocks may go back, the journal doesn't
    found: dict[int, StepState] = {}
    for step in definition.steps:
        place = places.get(step.number, -1)
        last = events[place] if place >= 0 else None
        state = _state(step, settings, last, place, found, digests, running)
        found[step.number] = replace(state, last=last, place=place)
    return tuple(found.values())


def inputs_of(step: Step, settings: Mapping[str, object], digests: Digests) -> dict[str, str | None]:
    """Return the files that a step is made from, with their digests; None where one isn't there.

    They are those that it names, the script of Python in its command, and what that imports from its folder.
    """
    named = {path: digests.of(path) for path in (str(filled(one, settings)) for one in step.needs.files)}
    scripts = [word for word in command_of(step, settings)[1:2] if word.endswith(".py")]
    code = {path: digests.of(path) for script in scripts for path in digests.code_of(script)}
    return {**code, **named}


def outputs_of(step: Step, settings: Mapping[str, object], digests: Digests) -> dict[str, str | None]:
    """Return the files that a step makes, with their digests; None where one isn't there."""
    return {path: digests.of(path) for path in (str(filled(one, settings)) for one in step.produces)}


def command_of(step: Step, settings: Mapping[str, object]) -> tuple[str, ...]:
    """Return the words of a step's command, with the preset's settings."""
    return tuple(str(filled(word, settings)) for word in step.command)


def request_digest(step: Step, settings: Mapping[str, object]) -> str:
    """Return a digest of what a step is asked to do: its command and checks, with the preset's settings."""
    checks = [[check.kind, filled(check.arguments, settings)] for check in step.checks]
    asked = [command_of(step, settings), checks]
    return hashlib.sha256(json.dumps(asked, sort_keys=True, default=str).encode()).hexdigest()


def _state(
    step: Step, settings: Mapping[str, object], last: Event | None, place: int, before: Mapping[int, StepState],
    digests: Digests, running: bool,
) -> StepState:  # fmt: skip
    needed = [before[number] for number in step.needs.steps]
    kind = last.kind if last is not None else ""
    if kind == "started":
        return StepState(step, "running" if running else "stopped", "" if running else "it was killed")
    if kind == "done" and last is not None:
        reason = _stale(step, settings, last, place, needed, digests)
        return StepState(step, "stale" if reason else "done", reason)
    lacking = [str(each.step.number) for each in needed if each.state != "done"]
    if lacking:
        return StepState(step, "blocked", f"needs step{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}")
    absent = [path for path, digest in inputs_of(step, settings, digests).items() if digest is None]
    if absent:
        return StepState(step, "blocked", f"{', '.join(absent)} {'is' if len(absent) == 1 else 'are'} not there")
    if kind in ("failed", "stopped") and last is not None:
        return StepState(step, kind, str(last.facts.get("text") or ""))
    return StepState(step, "waiting" if step.person else "ready")


def _stale(
    step: Step, settings: Mapping[str, object], done: Event, place: int, needed: Sequence[StepState], digests: Digests
) -> str:
    """Say why what a step has made holds no longer; "" where it holds."""
    if done.facts.get("request") != request_digest(step, settings):
        return "its command, checks or settings have changed"
    made = done.facts.get("inputs")
    known = made if isinstance(made, Mapping) else {}
    named = {str(filled(one, settings)) for one in step.needs.files}
    for path, digest in inputs_of(step, settings, digests).items():
        # Of a step that was done before code was looked at the journal has no digest of it.
        if known.get(path) != digest and (path in named or path in known):
            return f"{path} {'is gone' if digest is None else 'has changed'}"
    for path, digest in outputs_of(step, settings, digests).items():
        if digest is None:
            return f"{path}, which it made, is gone"
    for each in needed:
        if each.state != "done":
            return f"step {each.step.number} is {each.state}"
        if each.place > place:
            return f"step {each.step.number} was done again after it"
    return ""
