"""Names, modules and parameters of releases, and who uses them, read from the text of wheels.

What is said of a release between two that were read is what both say; what is newer than the newest that was read is
taken to be like it.
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import Version

from constants import ARTIFACTS_DIR
from doctor.knowledge.packed import INDEX, Packed

SHIPPED = Path(__file__).resolve().parent / "symbols.zip"
BUILT = ARTIFACTS_DIR / "doctor" / "symbols.zip"
# Stands for all parameters, where a function takes **kwargs.
ANY_PARAMETER = "**"


@dataclass(frozen=True)
class Span:
    """Releases that follow one another.

    Args:
        first: the first release of the span, of those that were read.
        end: the first release after the span; None where it lasts to the newest that was read.
        from_start: whether `first` is the oldest release that was read, so that older ones may be like it.
    """

    first: Version
    end: Version | None = None
    from_start: bool = False

    @property
    def specifier(self) -> str:
        """The span as a range, ">=4.43.0,<4.48.0"; without a lower limit where the oldest release read is in it."""
        parts = [] if self.from_start else [f">={self.first}"]
        return ",".join([*parts, *([f"<{self.end}"] if self.end else [])])

    def covers(self, version: Version) -> bool:
        """Return whether a release is in the span; what is older than all that was read counts as like the oldest."""
        return (self.from_start or self.first <= version) and (self.end is None or version < self.end)


@dataclass(frozen=True)
class Use:
    """A project whose releases use a name or a parameter of another.

    Args:
        project: normalised name of the project that uses it.
        spans: releases of that project that do.
        at_import: whether `import project` alone reaches it, outside try and if.
        in_file: whether importing `file` alone reaches it, outside functions, try and if; also where `at_import`.
        file: a file that uses it, "peft/mapping.py", of the newest release that does.
    """

    project: str
    spans: tuple[Span, ...]
    at_import: bool
    file: str
    in_file: bool = False


def covers(spans: Iterable[Span], version: Version) -> bool:
    """Return whether a release is in one of the spans."""
    return any(span.covers(version) for span in spans)


class Symbols:
    """A table of symbols; of several, the one of the newest date is used.

    Args:
        *paths: packed tables; without any, the shipped one and the one that was built since.
    """

    def __init__(self, *paths: Path) -> None:
        found = [Packed(path) for path in paths or (SHIPPED, BUILT)]
        dated = [(packed.read(INDEX), packed) for packed in found]
        self._index, self._packed = max(dated, key=lambda one: one[0].get("date", ""))
        self._members: dict[str, dict[str, Any]] = {}

    @property
    def date(self) -> str:
        """Day on which the table was made, "2026-11-28"; empty where there is none."""
        return str(self._index.get("date", ""))

    @cached_property
    def projects(self) -> frozenset[str]:
        """Normalised names of the projects that were read."""
        return frozenset(self._index.get("projects", {}))

    def project_of(self, module: str) -> str | None:
        """Return the project that was read for a module, by its first word; None where there is none."""
        found: str | None = self._index.get("top", {}).get(module.split(".")[0])
        return found

    def versions(self, project: str) -> tuple[Version, ...]:
        """Return the releases of a project that were read, the oldest first."""
        return tuple(map(Version, self._index.get("projects", {}).get(canonicalize_name(project), ())))

    def names(self, project: str, module: str, name: str) -> tuple[Span, ...] | None:
        """Return the releases in which `from module import name` works.

        Args:
            project: the distribution, "transformers".
            module: the module, "transformers.utils".
            name: the name, which may be a submodule.

        Returns:
            Spans, the oldest first; () where no release that was read has it; None where the project or the module was
            not read, or where names of the module are made when it runs, so that not being found says nothing.
        """
        member = self._member(project, "names")
        whole = member.get("modules", {}).get(module)
        if whole is None:
            return None
        mask = _grouped(member["names"].get(module, {}), name, whole) | member["modules"].get(f"{module}.{name}", 0)
        unlisted = member["unlisted"].get(module, 0)
        if not mask and (unlisted or name.startswith("_") or f" {name} " in f" {member['stdlib']} "):
            return None
        return self._spans(member, mask | unlisted)

    def modules(self, project: str, module: str) -> tuple[Span, ...] | None:
        """Return the releases that have a module; () where none that was read has; None where nothing was read."""
        member = self._member(project, "names")
        if not member:
            return None
        return self._spans(member, member["modules"].get(module, 0))

    def parameters(self, project: str, function: str, parameter: str, named: bool = False) -> tuple[Span, ...] | None:
        """Return the releases in which a function takes a keyword.

        Args:
            project: the distribution.
            function: its qualified name, of which the last two words count: "SFTTrainer.__init__", "load_dataset".
                The fields of a dataclass are parameters of its __init__.
            parameter: the keyword.
            named: whether releases that take it by **kwargs alone are left out.

        Returns:
            Spans; releases where it takes **kwargs count. () where none takes it; None where the function was not read
            or takes what a class of another project takes: see `bases`.
        """
        wanted = ".".join(function.split(".")[-2:])
        member = self._with_function(project, wanted)
        if not member and not wanted.endswith(".__init__"):
            wanted = wanted.rpartition(".")[2]  # "hub.hf_hub_download": a module's function
            member = self._with_function(project, wanted)
        if not member:
            return None
        functions = member["functions"]
        groups = member["parameters"][functions[wanted][1]]
        whole = functions[wanted][0]
        mask = _grouped(groups, parameter, whole)
        if not mask and member.get("inherited", {}).get(wanted):
            return None
        return self._spans(member, mask if named else mask | _grouped(groups, ANY_PARAMETER, whole))

    def bases(self, project: str, name: str) -> tuple[str, ...]:
        """Return the classes of other projects whose constructor a class of this one has: ("transformers.Trainer",)."""
        found = self._with_function(project, f"{name}.__init__").get("inherited", {}).get(f"{name}.__init__", "")
        return tuple(str(found).split())

    def importers(self, module: str, name: str = "") -> tuple[Use, ...]:
        """Return the releases of scanned projects that import a name, or read it as an attribute of the module.

        Only names that some release of their project lacks are known.

        Args:
            module: the module as it is written there, "transformers", "torch.distributed.elastic.agent.server.api".
            name: the name; empty for the module itself.
        """
        owner = self.project_of(module)
        entries = self._member(owner, "importers").get(module, {}).get(name, ()) if owner else ()
        return tuple(_use(entry) for entry in entries)

    def callers(self, function_name: str, keyword: str) -> tuple[Use, ...]:
        """Return the releases of scanned projects that call a function with a keyword, by the files that do.

        Only keywords that some release of a function of that name lacks are known.

        Args:
            function_name: the function's last word, "unwrap_model"; of a class its name, "Client", also with
                ".__init__" behind it.
            keyword: the keyword.
        """
        words = function_name.split(".")
        wanted = words[-2] if words[-1] == "__init__" and len(words) > 1 else words[-1]
        entries = self._table("callers.json").get(wanted, {}).get(keyword, ())
        return tuple(_use(entry) for entry in entries)

    def model_types(self, project: str, model_type: str) -> tuple[Span, ...] | None:
        """Return the releases that know a model type, "llama4"; () where none does; None where none are known."""
        member = self._member(project, "names")
        if not member.get("model_types"):
            return None
        return self._spans(member, member["model_types"].get(model_type, 0))

    def _with_function(self, project: str, function: str) -> dict[str, Any]:
        """Return the member that holds a function, {} where there is none; one without it isn't parsed."""
        name = canonicalize_name(project)
        kind = parameters_member(part_of(function, self._index.get("shards", {}).get(name, 1)))
        known = f"{name}/{kind}.json" in self._members
        if not known and f'"{function}":'.encode() not in self._packed.text(f"{name}/{kind}.json"):
            return {}
        member = self._member(name, kind)
        return member if function in member.get("functions", {}) else {}

    def _member(self, project: str, kind: str) -> dict[str, Any]:
        return self._table(f"{canonicalize_name(project)}/{kind}.json")

    def _table(self, member: str) -> dict[str, Any]:
        if member not in self._members:
            self._members[member] = self._packed.read(member)
        return self._members[member]

    @staticmethod
    def _spans(member: Mapping[str, Any], mask: int | None) -> tuple[Span, ...] | None:
        """Return the spans of a mask, of which bit i stands for the member's i-th release."""
        return None if mask is None else spans_of(mask, member.get("versions", ()))


def part_of(function: str, parts: int) -> int:
    """Return the part of a project's functions that holds one."""
    return zlib.crc32(function.encode()) % parts


def parameters_member(part: int) -> str:
    """Return the name of the member that holds a part of a project's functions."""
    return f"parameters-{part}"


def spans_of(mask: int, versions: Iterable[str]) -> tuple[Span, ...]:
    """Return the spans of a mask.

    Args:
        mask: bit i is set where the i-th release has it.
        versions: the releases, the oldest first.
    """
    spans: list[Span] = []
    listed = list(versions)
    begin: int | None = None
    for number in range(len(listed) + 1):
        inside = number < len(listed) and mask >> number & 1
        if inside and begin is None:
            begin = number
        elif not inside and begin is not None:
            end = Version(listed[number]) if number < len(listed) else None
            spans.append(Span(Version(listed[begin]), end, begin == 0))
            begin = None
    return tuple(spans)


def _grouped(groups: Mapping[str, str], name: str, whole: int) -> int:
    """Return a name's mask of groups {mask in hexadecimal: "name name"}, where "" stands for the whole; 0 if absent."""
    found = 0
    for mask, names in groups.items():
        if f" {name} " in f" {names} ":
            found |= int(mask, 16) if mask else whole
    return found


def _use(entry: list[Any]) -> Use:
    """Return a use: [project, [[first, end or "", 0 or 1], ...], how surely, file]; how surely: see assemble."""
    project, spans, reach, file = entry
    made = tuple(Span(Version(first), Version(end) if end else None, bool(start)) for first, end, start in spans)
    return Use(project, made, reach == 0, file, reach <= 1)
