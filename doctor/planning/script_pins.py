"""Which versions a script's imports are pinned to: those of an environment, or the newest that go together."""

import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from doctor.environment.facts import Environment
from doctor.knowledge.metadata import Metadata
from doctor.planning.imports import Imported
from doctor.remedy.script_pins import edit_script
from doctor.sources.script_file import find_block
from doctor.uv import find_uv, uv_environment

_TIMEOUT = 120


@dataclass(frozen=True)
class Pin:
    """A distribution that a script imports.

    Args:
        name: normalised name.
        version: version to pin; None where none is known.
        reason: why this one, for the comment beside it.
    """

    name: str
    version: str | None
    reason: str

    @property
    def requirement(self) -> str:
        """The requirement as it is written."""
        return f"{self.name}=={self.version}" if self.version else self.name


@dataclass(frozen=True)
class Pins:
    """Pins of a script, and what could not be told: a sentence each."""

    pins: tuple[Pin, ...]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def choose_pins(
    imported: tuple[Imported, ...], environment: Environment, metadata: Metadata, python: str, offline: bool
) -> Pins:
    """Choose a version for each import.

    Args:
        imported: imports of the script.
        environment: whose versions are taken, where it has the distribution.
        metadata: which distribution a module is of, and newest releases.
        python: version of Python that the script will run with.
        offline: whether no index is asked.
    """
    found: dict[str, str] = {}
    unknown, notes = [], []
    for one in imported:
        owners = _installed_owners(one, environment) or metadata.owners(one.module) or metadata.owners(one.top)
        if not owners and one.optional:
            notes.append(
                f"line {one.line}: {one.top} is optional and was left out: which project it is of is not known"
            )
        elif not owners:
            unknown.append(
                f"line {one.line}: which project {one.top} is of is not known: write it into the block yourself"
            )
        elif one.optional and environment.find(owners[0]) is None:
            notes.append(f"line {one.line}: {owners[0]} is optional, and not installed: left out")
        else:
            found.setdefault(owners[0], f"line {one.line}")
            if len(owners) > 1 and environment.find(owners[0]) is None:
                notes.append(f"{one.top} is of {owners[0]}, but may also be of {', '.join(owners[1:4])}")
    here = {name: version for name in found if (version := _public(environment, name))}
    missing = [name for name in found if name not in here]
    newest, how = _newest(missing, here, metadata, python, offline) if missing else ({}, "")
    pins = []
    for name, where in found.items():
        if name in here:
            pins.append(Pin(name, here[name], f"{where}; of {environment.source}"))
        else:
            pins.append(
                Pin(name, newest.get(name), f"{where}; {how}" if name in newest else f"{where}; no version is known")
            )
    return Pins(tuple(pins), tuple(unknown), tuple(notes))


def _installed_owners(one: Imported, environment: Environment) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.name for each in environment.installed if one.top in each.modules))[:1]


def _public(environment: Environment, name: str) -> str | None:
    found = environment.find(name)
    try:
        return Version(found.version).public if found else None
    except InvalidVersion:
        return None


def _newest(
    names: list[str], held: dict[str, str], metadata: Metadata, python: str, offline: bool
) -> tuple[dict[str, str], str]:
    """Return the newest versions that go with what is held: by uv where it is there, else by the snapshot."""
    uv = () if offline else find_uv()
    if uv:
        wanted = "\n".join([*names, *(f"{name}=={version}" for name, version in held.items())])
        words = [*uv, "pip", "compile", "-q", "--no-header", "--no-annotate", "--python-version", python, "-"]
        try:
            done = subprocess.run(
                words, input=wanted, capture_output=True, text=True, timeout=_TIMEOUT, env=dict(uv_environment())
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            pinned = (line.split(";")[0].strip().partition("==") for line in done.stdout.splitlines())
            locked: dict[str, str] = {
                canonicalize_name(name.partition("[")[0]): version for name, _, version in pinned if version
            }
            return {name: locked[name] for name in names if name in locked}, "newest that go together, by uv"
    known = {name: str(release.version) for name in names if (release := metadata.newest(name, python=python))}
    return known, f"newest known on {metadata.date}"


def pinned_text(text: str, path: Path, pins: tuple[Pin, ...], python: str) -> str:
    """Return a script whose PEP 723 block has the pins; entries of the user's own with a range stay as they are.

    Raises:
        InputError: its block can't be read.
        CannotEdit: its block can't be edited safely.
    """
    block = find_block(text, str(path))
    ranges = _ranges(block.toml) if block else {}
    for pin in pins:
        if not ranges.get(pin.name):
            text = edit_script(text, (pin.requirement,), pin.reason)
    if block is None and pins:
        major, minor = python.split(".")[:2]
        text = text.replace("# /// script\n", f'# /// script\n# requires-python = ">={major}.{minor}"\n', 1)
    return text


def _ranges(toml: str) -> dict[str, str]:
    """Return the ranges that a block has already, by name."""
    try:
        listed = tomllib.loads(toml).get("dependencies", [])
    except tomllib.TOMLDecodeError:
        return {}
    ranges: dict[str, str] = {}
    for entry in listed if isinstance(listed, list) else []:
        try:
            requirement = Requirement(str(entry))
        except InvalidRequirement:
            continue
        ranges[canonicalize_name(requirement.name)] = str(requirement.specifier) or requirement.url or ""
    return ranges
