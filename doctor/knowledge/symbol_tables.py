"""Tables of symbols: what each release of a project offers and uses, gathered over its releases and packed."""

import functools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from operator import or_
from typing import Any

from doctor.knowledge.assemble import ELSEWHERE, Offered
from doctor.knowledge.symbols import ANY_PARAMETER, parameters_member, part_of, spans_of

# What was gathered by other rules is no longer right: raise this when they change.
FORMAT = 3
# Of a call that more files make, one stands for all.
_MANY_FILES = 3
# What others hardly import from, and would take much room: of these it is kept what they import of others.
_USES_ALONE = {"unsloth"}
# A part of a project's functions holds about so many.
_FUNCTIONS = 8000
# Words of the standard library and of typing that modules import everywhere: nobody asks a project for them.
_EVERYWHERE = """
Any Callable Dict List Optional Tuple Union Set Type Iterable Iterator Sequence Mapping Literal TYPE_CHECKING os sys re
json math time logging warnings functools itertools collections copy dataclass field Path partial np torch nn
annotations ClassVar cast overload Generator NamedTuple Protocol TypeVar Generic abc ABC abstractmethod Enum enum
inspect random shutil tempfile threading contextlib contextmanager defaultdict OrderedDict deque lru_cache wraps
importlib traceback types typing uuid subprocess io string struct textwrap hashlib glob pickle datetime
"""
_LEFT_OUT = frozenset(_EVERYWHERE.split())


@dataclass
class Gathered:
    """A project over its releases; bit i of each mask stands for release i.

    Args:
        versions: its releases, the oldest first.
        tops: its top-level modules.
        modules: mask by module.
        names: mask by name by module.
        unlisted: mask by module of where it may offer more.
        functions: mask by qualified name.
        parameters: mask by keyword by qualified name.
        inherited: classes of others whose constructor a class has.
        model_types: mask by model type.
        uses: [masks of how surely it is reached: AT_IMPORT, IN_FILE, ELSEWHERE, and a file] by "module:name".
        attributes: the same by dotted name.
        calls: [mask, first words of what the file imports] by file by "called:keyword".
    """

    versions: list[str] = field(default_factory=list)
    tops: list[str] = field(default_factory=list)
    modules: dict[str, int] = field(default_factory=dict)
    names: dict[str, dict[str, int]] = field(default_factory=dict)
    unlisted: dict[str, int] = field(default_factory=dict)
    functions: dict[str, int] = field(default_factory=dict)
    parameters: dict[str, dict[str, int]] = field(default_factory=dict)
    inherited: dict[str, str] = field(default_factory=dict)
    model_types: dict[str, int] = field(default_factory=dict)
    uses: dict[str, list[Any]] = field(default_factory=dict)
    attributes: dict[str, list[Any]] = field(default_factory=dict)
    calls: dict[str, dict[str, list[Any]]] = field(default_factory=dict)

    def add(self, version: str, offered: Offered) -> None:
        """Add the next newer release."""
        bit = 1 << len(self.versions)
        self.versions.append(version)
        for module, names in offered.names.items():
            self.modules[module] = self.modules.get(module, 0) | bit
            known = self.names.setdefault(module, {})
            for name in names:
                if not name.startswith("__"):
                    known[name] = known.get(name, 0) | bit
        for module in offered.unlisted:
            self.unlisted[module] = self.unlisted.get(module, 0) | bit
        for function, taken in offered.functions.items():
            last = function.rpartition(".")[2]
            if last.startswith("_") and last not in ("__init__", "__call__", "__new__"):
                continue
            self.functions[function] = self.functions.get(function, 0) | bit
            masks = self.parameters.setdefault(function, {})
            for name in taken:
                masks[name] = masks.get(name, 0) | bit
        for function, classes in offered.inherited.items():
            self.inherited[function] = " ".join(sorted(classes))
        for name in offered.model_types:
            self.model_types[name] = self.model_types.get(name, 0) | bit
        for (module, name), (reach, file) in offered.uses.items():
            _count(self.uses, f"{module}:{name}", bit, reach, file)
        for dotted, (reach, file) in offered.attributes.items():
            _count(self.attributes, dotted, bit, reach, file)
        for (called, keyword), files in offered.calls.items():
            for file in files:
                entry = self.calls.setdefault(f"{called}:{keyword}", {}).setdefault(file, [0, []])
                entry[:] = [entry[0] | bit, sorted({*entry[1], *offered.imported[file]})]

    @property
    def whole(self) -> int:
        """The mask of all releases."""
        return (1 << len(self.versions)) - 1

    def lacks(self, module: str, name: str) -> bool | None:
        """Return whether some release lacks a name of a module; None where that cannot be told."""
        if module not in self.modules:
            return True
        if not name:
            return self.modules[module] != self.whole
        has = self.names[module].get(name, 0) | self.modules.get(f"{module}.{name}", 0)
        unlisted = self.unlisted.get(module, 0)
        if not has and unlisted:
            return None
        return has | unlisted != self.whole


def _count(table: dict[str, list[Any]], key: str, bit: int, reach: int, file: str) -> None:
    entry = table.setdefault(key, [0, 0, 0, ""])
    entry[reach] |= bit
    entry[3] = file


def pack(gathered: Mapping[str, Gathered], day: str) -> dict[str, dict[str, Any]]:
    """Return the members of the packed table.

    Args:
        gathered: projects by name.
        day: the day of the table.
    """
    members: dict[str, dict[str, Any]] = {}
    top = {module: name for name, project in sorted(gathered.items(), reverse=True) for module in project.tops}
    importers: dict[str, dict[str, dict[str, list[Any]]]] = {name: {} for name in gathered}
    callers: dict[str, dict[str, list[Any]]] = {}
    partial = _partial_parameters(gathered)
    shards: dict[str, int] = {}
    for name, project in sorted(gathered.items()):
        parts = [] if name in _USES_ALONE else _parameters(project)
        if name not in _USES_ALONE:
            members[f"{name}/names.json"] = _names(project)
        members |= {f"{name}/{parameters_member(number)}.json": part for number, part in enumerate(parts)}
        shards[name] = max(1, len(parts))
        for (owner, module, used), entry in _foreign_uses(name, project, gathered, top):
            importers[owner].setdefault(module, {}).setdefault(used, []).append(entry)
        for called, keyword, entry in _foreign_calls(name, project, partial, top):
            callers.setdefault(called, {}).setdefault(keyword, []).append(entry)
    for name, table in importers.items():
        members[f"{name}/importers.json"] = table
    members["callers.json"] = callers
    members["index.json"] = {
        "date": day,
        "top": top,
        "projects": {name: project.versions for name, project in sorted(gathered.items())},
        "shards": shards,
    }
    return members


def _foreign_uses(
    name: str, project: Gathered, gathered: Mapping[str, Gathered], top: Mapping[str, str]
) -> Iterator[tuple[tuple[str, str, str], list[Any]]]:
    """Yield ((project, module, name), use) of names of other projects that some release of theirs lacks."""
    uses: dict[tuple[str, str], list[Any]] = {}
    for key, entry in project.uses.items():
        module, _, used = key.partition(":")
        _merge(uses, (module, used), entry)
    for dotted, entry in project.attributes.items():
        owner = gathered.get(top.get(dotted.split(".")[0], ""))
        found = _split(dotted, owner) if owner else None
        if found:
            _merge(uses, found, entry)
    for (module, used), (*masks, file) in sorted(uses.items()):
        owner_name = top.get(module.split(".")[0])
        if owner_name is None or owner_name == name or not gathered[owner_name].lacks(module, used):
            continue
        surer = 0
        for reach, mask in enumerate(masks):
            if mask & ~surer:
                yield (owner_name, module, used), [name, _shown(mask & ~surer, project), reach, file]
            surer |= mask


def _foreign_calls(
    name: str, project: Gathered, partial: Mapping[str, Mapping[str, set[str]]], top: Mapping[str, str]
) -> Iterator[tuple[str, str, list[Any]]]:
    """Yield (called, keyword, use) of keywords that some release of another project lacks, which the file imports."""
    for key, files in sorted(project.calls.items()):
        called, _, keyword = key.partition(":")
        owners = partial.get(called, {}).get(keyword, set()) - {name}
        masks = {file: mask for file, (mask, words) in sorted(files.items()) if owners & set(map(top.get, words))}
        if len(masks) > _MANY_FILES:
            newest = max(masks.items(), key=lambda one: (one[1], one[0]))[0]
            masks = {newest: functools.reduce(or_, masks.values())}
        for file, mask in masks.items():
            yield called, keyword, [name, _shown(mask, project), ELSEWHERE, file]


def _names(project: Gathered) -> dict[str, Any]:
    left_out = set()
    names: dict[str, dict[str, str]] = {}
    for module, masks in sorted(project.names.items()):
        if project.unlisted.get(module, 0) == project.modules[module] and not masks:
            continue
        kept = {}
        for name, mask in masks.items():
            if name in _LEFT_OUT:
                left_out.add(name)
            elif name.startswith("_") and mask == project.modules[module]:
                continue  # private and always there: of these `Symbols.names` says that it doesn't know
            else:
                kept[name] = mask
        if kept:
            names[module] = _groups(kept, project.modules[module])
    return {
        "versions": project.versions,
        "modules": project.modules,
        "names": names,
        "unlisted": project.unlisted,
        "stdlib": " ".join(sorted(left_out)),
        "model_types": project.model_types,
    }


def _parameters(project: Gathered) -> list[dict[str, Any]]:
    """Return the functions, of a large project in parts; those that take the same keywords share an entry."""
    parts: list[list[str]] = [[] for _ in range(1 + len(project.functions) // _FUNCTIONS)]
    for function in sorted(project.functions):
        if function.startswith("_"):
            continue  # private classes
        parts[part_of(function, len(parts))].append(function)
    return [_part_of_parameters(project, functions) for functions in parts]


def _part_of_parameters(project: Gathered, names: Iterable[str]) -> dict[str, Any]:
    shared: dict[str, int] = {}
    entries: list[dict[str, str]] = []
    functions = {}
    for function in names:
        groups = _groups(project.parameters[function], project.functions[function])
        key = repr(groups)
        if key not in shared:
            shared[key] = len(entries)
            entries.append(groups)
        functions[function] = [project.functions[function], shared[key]]
    return {
        "versions": project.versions,
        "functions": functions,
        "parameters": entries,
        "inherited": {name: classes for name, classes in project.inherited.items() if name in functions},
    }


def _groups(masks: Mapping[str, int], whole: int) -> dict[str, str]:
    """Return names by their mask in hexadecimal, "" for the whole."""
    groups: dict[str, list[str]] = {}
    for name, mask in sorted(masks.items()):
        groups.setdefault("" if mask == whole else f"{mask:x}", []).append(name)
    return {mask: " ".join(names) for mask, names in sorted(groups.items())}


def _partial_parameters(gathered: Mapping[str, Gathered]) -> dict[str, dict[str, set[str]]]:
    """Return the projects whose function of a last word takes a keyword in some of its releases only."""
    found: dict[str, dict[str, set[str]]] = {}
    for name, project in gathered.items():
        for function, masks in project.parameters.items():
            words = function.split(".")
            called = words[-2] if words[-1] in ("__init__", "__new__", "__call__") and len(words) > 1 else words[-1]
            everything = masks.get(ANY_PARAMETER, 0)
            for keyword, mask in masks.items():
                if keyword != ANY_PARAMETER and mask | everything != project.functions[function]:
                    found.setdefault(called, {}).setdefault(keyword, set()).add(name)
    return found


def _split(dotted: str, owner: Gathered) -> tuple[str, str] | None:
    """Return the module of a dotted name, the longest that some release has, and the name in it."""
    words = dotted.split(".")
    for end in range(len(words) - 1, 0, -1):
        module = ".".join(words[:end])
        if module in owner.modules:
            return module, words[end]
    return None


def _merge(uses: dict[tuple[str, str], list[Any]], key: tuple[str, str], entry: Iterable[Any]) -> None:
    *masks, file = entry
    known = uses.setdefault(key, [0, 0, 0, file])
    for reach, mask in enumerate(masks):
        known[reach] |= mask


def _shown(mask: int, project: Gathered) -> list[list[Any]]:
    """Return spans as they are packed: first, end or "", and whether older ones may be like it."""
    return [[str(span.first), str(span.end or ""), int(span.from_start)] for span in spans_of(mask, project.versions)]
