"""From summaries of files to what a release offers and uses: re-exports, star imports and lazy tables followed."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from doctor.knowledge.scan import ALWAYS, LATER

Summary = Mapping[str, Any]
AT_IMPORT, IN_FILE, ELSEWHERE = 0, 1, 2
_NO_FIELDS = ("object", "ABC", "Generic", "Protocol", "BaseModel", "NamedTuple", "TypedDict", "Enum")


@dataclass
class Offered:
    """What a release offers and uses.

    Args:
        names: names by module.
        unlisted: modules that may offer more.
        functions: keywords by qualified name.
        inherited: classes of other projects whose constructor a class has, by the class's name.
        model_types: model types.
        uses: (module, name) of others to (how surely, file); name "" for the module. AT_IMPORT: `import
            project` alone reaches it; IN_FILE: importing the file does; ELSEWHERE: it is in a function, try or if.
        attributes: the same, by a dotted name of which is not known where the module ends.
        calls: (what is called, keyword) to the files that do.
        imported: first words of modules that it imports, by file.
    """

    names: dict[str, set[str]] = field(default_factory=dict)
    unlisted: set[str] = field(default_factory=set)
    functions: dict[str, set[str]] = field(default_factory=dict)
    inherited: dict[str, set[str]] = field(default_factory=dict)
    model_types: set[str] = field(default_factory=set)
    uses: dict[tuple[str, str], tuple[int, str]] = field(default_factory=dict)
    attributes: dict[str, tuple[int, str]] = field(default_factory=dict)
    calls: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    imported: dict[str, set[str]] = field(default_factory=dict)


def assemble(files: Mapping[str, str], summary: Callable[[str], Summary | None]) -> Offered:
    """Return what a release offers and uses.

    Args:
        files: keys of summaries by path.
        summary: gives the summary of a key.
    """
    return _Release(files, summary).offered()


def module_of(path: str) -> tuple[str, bool]:
    """Return a file's module, and whether it is a package."""
    parts = list(PurePosixPath(path).parts)
    parts[-1] = parts[-1].split(".")[0]
    if parts[-1] == "__init__":
        return ".".join(parts[:-1]), True
    return ".".join(parts), False


class _Release:
    def __init__(self, files: Mapping[str, str], summary: Callable[[str], Summary | None]) -> None:
        self.summaries: dict[str, Summary] = {}
        self.packages: set[str] = set()
        self.paths: dict[str, str] = {}
        compiled: set[str] = set()
        # A stub counts where there is no source: for compiled modules.
        for path in sorted(files, key=lambda one: (one.endswith(".pyi"), one)):
            module, package = module_of(path)
            if package:
                self.packages.add(module)
            if module in self.summaries:
                continue
            read = summary(files[path]) if files[path] else None
            if path.endswith((".py", ".pyi")):
                self.summaries[module] = read if read is not None else {"unlisted": True}
                self.paths[module] = path
            elif all(part.isidentifier() for part in PurePosixPath(path).parts[:-1]):
                compiled.add(module)
        for module in compiled - self.summaries.keys():
            self.summaries[module] = {"unlisted": True}
        for module in list(self.summaries):
            while "." in module:
                module = module.rpartition(".")[0]
                self.packages.add(module)
                self.summaries.setdefault(module, {})
        self.tops = {module.split(".")[0] for module in self.summaries}
        self._public: dict[str, set[str]] = {}

    def offered(self) -> Offered:
        made = Offered()
        for module, read in self.summaries.items():
            names, unlisted = self._names(module)
            made.names[module] = names
            if unlisted:
                made.unlisted.add(module)
            made.model_types.update(read.get("model_types", ()))
        self._add_functions(made)
        self._add_uses(made)
        return made

    def absolute(self, module: str, level: int, target: str) -> str:
        """Return the module that a relative import names."""
        if not level:
            return target
        parts = module.split(".")
        base = parts if module in self.packages else parts[:-1]
        base = base[: len(base) - level + 1]
        return ".".join([*base, target] if target else base)

    def _names(self, module: str, seen: frozenset[str] = frozenset()) -> tuple[set[str], bool]:
        """Return the names of a module and whether it may have more."""
        read = self.summaries[module]
        names = set(read.get("names", ())) | set(read.get("lazy", ())) | set(read.get("typing", ()))
        unlisted = bool(read.get("unlisted"))
        for _, _, _, bound, sure in read.get("imports", ()):
            if sure != LATER:
                names.add(bound)
        if read.get("lazy") or read.get("structure") or unlisted:
            names |= set(read.get("all", ()))
        for level, target in read.get("stars", ()):
            source = self.absolute(module, level, target)
            if source in self.summaries and source not in seen:
                more, open_ended = self._starred(source, seen | {module})
                names |= more
                unlisted |= open_ended
            elif source not in seen and source.split(".")[0] not in sys.stdlib_module_names:
                unlisted = True
        for below in read.get("structure", ()):
            names |= self._below(".".join([module, *filter(None, below.split("/"))]))
        return names - set(read.get("deleted", ())), unlisted

    def _starred(self, module: str, seen: frozenset[str]) -> tuple[set[str], bool]:
        """Return what `from module import *` brings: more rather than less where `__all__` is put together."""
        names, unlisted = self._names(module, seen)
        return {name for name in names if not name.startswith("_")} | set(
            self.summaries[module].get("all", ())
        ), unlisted

    def _below(self, package: str) -> set[str]:
        """Return the names in `__all__` of the modules below a package."""
        if package not in self._public:
            start = f"{package}."
            self._public[package] = {
                name
                for module, read in self.summaries.items()
                if module.startswith(start)
                for name in read.get("all", ())
            }
        return self._public[package]

    def _add_functions(self, made: Offered) -> None:
        classes: dict[str, tuple[list[str], list[str] | None]] = {}
        for read in self.summaries.values():
            for name, taken in read.get("functions", {}).items():
                made.functions.setdefault(name, set()).update(taken)
            others = {bound: f"{target}.{name}" for level, target, name, bound, _ in read.get("imports", ())
                       if not level and target.split(".")[0] not in self.tops}  # fmt: skip
            others |= {bound: target for target, bound, _ in read.get("modules", ()) if bound}
            for name, (bases, fields) in read.get("classes", {}).items():
                if name in classes and fields is None:
                    continue
                roots = [base.partition(".") for base in bases]
                classes[name] = (["".join((others.get(root, root), dot, rest)) for root, dot, rest in roots], fields)
        for name in classes:
            if f"{name}.__init__" in made.functions:
                continue
            taken, foreign = self._constructor(name, classes, made.functions, frozenset())
            if taken is not None:
                made.functions[f"{name}.__init__"] = taken
                if foreign:
                    made.inherited[f"{name}.__init__"] = foreign

    def _constructor(
        self,
        name: str,
        classes: Mapping[str, tuple[list[str], list[str] | None]],
        functions: Mapping[str, set[str]],
        seen: frozenset[str],
    ) -> tuple[set[str] | None, set[str]]:
        """Return what a constructor takes, None where that is not known, and the classes of others behind it."""
        if f"{name}.__init__" in functions:
            return set(functions[f"{name}.__init__"]), set()
        if name not in classes or name in seen:
            return None, set()
        bases, fields = classes[name]
        taken: set[str] = set(fields or ())
        known = fields is not None
        foreign: set[str] = set()
        for base in bases:
            last = base.split(".")[-1]
            if base == last and (last in classes or f"{last}.__init__" in functions):
                more, others = self._constructor(last, classes, functions, seen | {name})
                foreign |= others
                if more is not None:
                    taken |= more
                    known = True
                    if fields is None:
                        break
            elif last not in _NO_FIELDS:
                foreign.add(base)
                known = True
        return (taken if known else None), foreign

    def _reached(self) -> set[str]:
        """Return the modules that importing the project runs, without those that try or if may leave out."""
        reached: set[str] = set()
        waiting = sorted(self.tops & self.packages)
        while waiting:
            module = waiting.pop()
            if module in reached or module not in self.summaries:
                continue
            reached.add(module)
            parent = module.rpartition(".")[0]
            if parent:
                waiting.append(parent)
            read = self.summaries[module]
            for target, _, sure in read.get("modules", ()):
                if sure == ALWAYS:
                    waiting.append(target)
            for level, target, name, _, sure in read.get("imports", ()):
                if sure == ALWAYS:
                    source = self.absolute(module, level, target)
                    waiting += [source, f"{source}.{name}"]
            waiting += [self.absolute(module, level, target) for level, target in read.get("stars", ())]
        return reached

    def _add_uses(self, made: Offered) -> None:
        reached = self._reached()
        parents: dict[str, set[str]] = {}
        for read in self.summaries.values():
            for name, (bases, _) in read.get("classes", {}).items():
                parents.setdefault(name, set()).update(base.split(".")[-1] for base in bases)
            for name, same in read.get("aliases", {}).items():
                parents.setdefault(name, set()).update(one.split(".")[-1] for one in same)
        for module, read in self.summaries.items():
            path = self.paths.get(module)
            if path is None or path.endswith(".pyi"):
                continue
            here = module in reached
            tops = set()
            for key, sure in self._imports(module, read):
                tops.add(key[0].split(".")[0])
                _note(made.uses, key, _reach(here, sure), path)
            for dotted, sure in read.get("uses", ()):
                if dotted.split(".")[0] not in self.tops:
                    _note(made.attributes, dotted, _reach(here, sure), path)
            if tops:
                made.imported[path] = tops
                for called, keywords in read.get("calls", {}).items():
                    for name in sorted({called, *_above(called, parents)}):
                        for keyword in keywords:
                            made.calls.setdefault((name, keyword), []).append(path)

    def _imports(self, module: str, read: Summary) -> Iterator[tuple[tuple[str, str], int]]:
        """Yield (module, name) of what a file imports of others, and how surely."""
        for target, _, sure in read.get("modules", ()):
            if target.split(".")[0] not in self.tops:
                yield (target, ""), sure
        for level, target, name, _, sure in read.get("imports", ()):
            if not level and target.split(".")[0] not in self.tops:
                yield (target, name), sure
                yield (target, ""), sure


def _reach(reached: bool, sure: int) -> int:
    """Return how surely a use is reached, of a file that importing the project reaches or not."""
    if sure != ALWAYS:
        return ELSEWHERE
    return AT_IMPORT if reached else IN_FILE


def _note(table: dict[Any, tuple[int, str]], key: Any, reach: int, path: str) -> None:
    """Note a use; the surest of several stands."""
    known = table.get(key)
    if known is None or reach < known[0]:
        table[key] = (reach, path)


def _above(name: str, parents: Mapping[str, set[str]], depth: int = 5) -> set[str]:
    """Return the names of classes above a class."""
    found = parents.get(name, set()) if depth else set()
    return found | {one for base in found for one in _above(base, parents, depth - 1)}
