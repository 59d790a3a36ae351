"""What a trial shows, and what it leads to."""

import re
from collections.abc import Sequence
from dataclasses import replace

from packaging.utils import canonicalize_name

from doctor.child_process import Ran
from doctor.finding import Change
from doctor.proof.broken_set import BrokenSet
from doctor.proof.error_lines import any_same, without_path
from doctor.proof.outcome import Outcome, Trial
from doctor.remedy.requirements import named, parse_requirement

_MOST_ALONG = 3  # distributions that a change may move along for the needs that it breaks


def with_broken(trial: Trial) -> list[Change]:
    """Return a change that also moves those whose needs it breaks, so that the installer finds versions that fit."""
    moved = named(trial.change.requirements)
    broken = [found[1] for line in trial.breaks if (found := re.match(r"(?:The package )?`?([A-Za-z0-9._-]+)", line))]
    names = [name for name in dict.fromkeys(map(canonicalize_name, broken)) if name not in moved]
    if not moved or not names or len(names) > _MOST_ALONG:
        return []
    text = f"{trial.change.text} With it move {' and '.join(names)}, which declare otherwise."
    return [replace(trial.change, text=text, requirements=(*trial.change.requirements, *names))]


def made_exact(change: Change, installed: Sequence[str], resolved: Sequence[str]) -> Change:
    """Return a change that names the versions of what it only names, and what moved where what it names did not."""
    before, after = _by_name(installed), _by_name(resolved)
    bare = [
        text for text in change.requirements if (one := parse_requirement(text)) and not one.specifier and not one.url
    ]
    still = [text for text in bare if before.get(canonicalize_name(text)) == after.get(canonicalize_name(text))]
    asked = set(named(change.requirements))
    moved = [pin for name, pin in after.items() if before.get(name) != pin and name not in asked]
    kept = [after.get(canonicalize_name(text), text) if text in bare else text for text in change.requirements]
    if not still or not 0 < len(moved) <= _MOST_ALONG:
        return replace(change, requirements=tuple(kept))
    gone = {canonicalize_name(text) for text in still}
    exact = [text for text in kept if named((text,))[0] not in gone]
    return replace(change, requirements=(*exact, *moved), text=f"{change.text} That moves {' and '.join(moved)}.")


def _by_name(pins: Sequence[str]) -> dict[str, str]:
    return {str(canonicalize_name(pin.partition("==")[0])): pin for pin in pins}


def is_expected(before: Outcome, expected: tuple[str, ...], broken: BrokenSet) -> bool:
    """Return whether a run failed as it should, and not for want of what could not be built again."""
    if expected:
        return any_same(before.errors, expected)
    missing = {name.replace("_", "-") for name in modules_missing(before)}
    return not any(line.split(" ", 1)[0] in missing for line in broken.left_out)


def modules_missing(outcome: Outcome) -> tuple[str, ...]:
    """Return the modules that a run did not find."""
    found = []
    for line in outcome.errors:
        if line.startswith("ModuleNotFoundError: No module named"):
            found.append(line.split("'")[1].split(".")[0] if "'" in line else "")
    return tuple(filter(None, found))


def reason(ran: Ran) -> str:
    """Return why a command failed, in a line of its output."""
    if ran.timed_out:
        return "it took too long"
    lines = [line.strip() for line in ran.output.splitlines() if line.strip()]
    told = [line for line in lines if line.startswith(("cause:", "error:", "ERROR:"))]
    return (told or lines or ["no word"])[-1].removeprefix("cause: ").removeprefix("error: ").rstrip(".")


def shown_change(change: Change) -> str:
    """Return a change in a few words."""
    parts = [*change.requirements, *(f"without {name}" for name in change.remove)]
    parts += [f"{name}={value}" if value else f"{name} unset" for name, value in change.environment]
    return ", ".join(parts)


def told_without_success(before: Outcome, trials: Sequence[Trial]) -> str:
    """Return what was tried in vain."""
    told = []
    for one in trials:
        seen = without_path(one.after.last) if one.after else one.text
        told.append(f"with {shown_change(one.change)}: {seen}")
    return f"It failed with {without_path(before.last)!r}, and nothing of what was tried mends it: {'; '.join(told)}."
