"""What of an environment must be built again so that its fault shows: what the finding names and what that needs."""

import ast
from collections.abc import Iterable
from dataclasses import dataclass

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from doctor.environment.facts import Environment, Installed
from doctor.finding import Finding
from doctor.remedy.requirements import holds, marker_values, named, parse_requirement, parse_version

_NEVER = ("pip", "uv", "wheel")
# Packages of conda that a finding may name, which no index of Python packages has.
_OF_CONDA = ("libstdcxx-ng", "libgcc-ng", "cudatoolkit", "cuda-toolkit", "nomkl")
# Parts of a CUDA build of torch, which a CPU build does without.
_OF_CUDA = ("nvidia-", "triton", "pytorch-triton", "cuda-", "cupy-cuda")


@dataclass(frozen=True)
class BrokenSet:
    """What is built again.

    Args:
        pins: "peft==0.14.0".
        roots: names of those without which there is nothing to try.
        exact: whether these are all, installed without looking at what they declare; False lets the installer add what
            they need, for environments of which only a text tells.
        left_out: what of the environment is not among them though it may matter, a sentence each.
    """

    pins: tuple[str, ...]
    roots: frozenset[str]
    exact: bool = True
    left_out: tuple[str, ...] = ()


def broken_set(
    finding: Finding, environment: Environment, optional: bool = False, modules: Iterable[str] = ()
) -> BrokenSet:
    """Return what is built again to show a finding.

    Args:
        finding: its culprits, what its changes and the code that fails name.
        environment: what is installed, or what a text tells of it.
        optional: whether to add what is only needed for extras, where it is installed.
        modules: further modules whose distributions belong to it.
    """
    code = finding.provable or ""
    culprits: tuple[str, ...] = tuple(map(canonicalize_name, finding.culprits))
    wanted: dict[str, None] = dict.fromkeys(culprits)
    for change in finding.changes:
        wanted |= dict.fromkeys((*named(change.requirements), *named(change.holds)))
        wanted |= dict.fromkeys(str(canonicalize_name(name)) for name in change.remove)
    for module in (*imported_modules(code), *modules):
        wanted |= dict.fromkeys(owners(module, environment))
    for name in _OF_CONDA:
        wanted.pop(name, None)
    if not environment.complete:
        return _as_told(tuple(wanted), environment)
    found = _closure(tuple(wanted), environment, optional)
    pins, left_out = [], []
    torch_moves = any("torch" in named(change.requirements) for change in finding.changes)
    for one in found:
        if one.name in _NEVER:
            continue
        if one.name.startswith(_OF_CUDA) and one.name not in culprits and not torch_moves:
            continue
        if one.editable or one.origin:
            left_out.append(f"{one.name} {one.version} is left out: it was installed from a folder or a URL.")
        elif parse_version(one.version) is None:
            left_out.append(f"{one.name} {one.version} is left out: that is no version of an index.")
        else:
            pins.append(f"{one.name}=={one.version}")
    roots = frozenset(name for name in wanted if environment.find(name))
    return BrokenSet(tuple(pins), roots, left_out=tuple(left_out))


def imported_modules(code: str) -> tuple[str, ...]:
    """Return the top-level modules that some code imports; none where it is no Python."""
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return ()
    found: dict[str, None] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= dict.fromkeys(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module.split(".")[0]] = None
    return tuple(found)


def owners(module: str, environment: Environment) -> tuple[str, ...]:
    """Return the distributions of an environment that install a top-level module."""
    found = tuple(dict.fromkeys(one.name for one in environment.installed if module in one.modules))
    name = canonicalize_name(module)
    told = environment.find(name) or any(one.name == name for one in environment.declared)
    return found or ((name,) if told else ())


def _closure(names: tuple[str, ...], environment: Environment, optional: bool) -> list[Installed]:
    values = marker_values(environment.interpreter)
    by_name: dict[str, Installed] = {}
    for one in environment.installed:
        by_name.setdefault(one.name, one)
    asked: list[tuple[str, frozenset[str]]] = [(name, frozenset()) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    found: dict[str, Installed] = {}
    while asked:
        name, extras = asked.pop()
        here = by_name.get(name)
        if (name, extras) in seen or here is None:
            continue
        seen.add((name, extras))
        found[name] = here
        for line in here.requires:
            requirement = parse_requirement(line)
            if requirement is None:
                continue
            if holds(requirement, values, extras) or (optional and _is_optional(requirement, name, names)):
                asked.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    return [found[name] for name in sorted(found)]


def _is_optional(requirement: Requirement, of: str, roots: tuple[str, ...]) -> bool:
    """Return whether a need is one of an extra of what the finding names; extras of all the others lead too far."""
    return of in roots and "extra" in str(requirement.marker or "")


def _as_told(names: tuple[str, ...], environment: Environment) -> BrokenSet:
    pins, left_out = [], []
    for name in names:
        version = environment.version(name)
        ranges = [one.specifier for one in environment.declared if one.name == name]
        if version is not None:
            pins.append(f"{name}=={version}")
        elif any(ranges):
            pins.append(f"{name}{','.join(filter(None, ranges))}")
        else:
            left_out.append(f"The version of {name} is not told: the installer chooses one.")
    return BrokenSet(tuple(pins), frozenset(named(pins)), exact=False, left_out=tuple(left_out))
