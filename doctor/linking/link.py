"""Walks what importing the installed packages reaches, and checks each name that one asks of another."""

import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from doctor.environment.facts import Environment, Installed
from doctor.environment.installed_files import recorded_paths
from doctor.linking.calls import Signature
from doctor.linking.conditions import Surroundings, runs
from doctor.linking.installed_modules import InstalledModules
from doctor.linking.module_text import KeywordCall, ModuleText, Use
from doctor.linking.text_cache import TextCache

STANDARD_LIBRARY = "python"
# How a module is reached, the surest first: by `import package`; by a command that it installs; under a condition that
# asks whether a library that is installed is available; when a name is asked of the package that it loads only then.
REACHED = ("import", "command", "likely", "lazy")
# A package with more lazy modules than this is read only where its own modules reach.
_LAZY_MODULES = 150
# Source of one distribution that is read at most, in bytes: the first levels of what it imports.
_MOST = 2_000_000
_MOST_ALONE = 300_000
_NOT_THEIRS = re.compile(r"^(tests?|testing|examples?|docs?|benchmarks?|scripts?|tools|samples|_\w+)$")


@dataclass(frozen=True)
class Unlinked:
    """A name that is asked for and not there.

    Args:
        importer: the distribution that asks.
        place: file and line, "peft/peft_model.py:35".
        target: the distribution that doesn't have it; None where nobody here does.
        module: the module that is asked.
        name: the name; "" where the module itself is not there.
        how: "from", "import", "attribute" or "keyword" (then `name` is "Client(proxies)").
        reached: one of REACHED.
        by: what reaches it: "import peft", "from trl import SFTTrainer".
    """

    importer: str
    place: str
    target: str | None
    module: str
    name: str
    how: str
    reached: str
    by: str


@dataclass
class Visit:
    """A module that is reached: how, as one of REACHED, and by what, "import peft"."""

    module: str
    reached: str
    by: str


@dataclass
class Linker:
    """Links what is installed.

    Args:
        environment: its facts.
        cache: folder that keeps what was read; None for none.
    """

    environment: Environment
    cache: Path | None = None
    unlinked: list[Unlinked] = field(default_factory=list)
    compiled: dict[str, Visit] = field(default_factory=dict)
    visited: dict[str, Visit] = field(default_factory=dict)
    whole: list[str] = field(default_factory=list)
    read: dict[str, int] = field(default_factory=dict)
    asked_by: dict[str, set[str]] = field(default_factory=dict)
    limits: dict[str, int] = field(default_factory=dict)
    spaces: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.modules = InstalledModules(self.environment, TextCache(self.cache))
        self.owners = {module: one for one in reversed(self.environment.installed) for module in one.modules}
        versions = {one.name: one.version for one in self.environment.installed}
        for module, one in self.owners.items():
            versions.setdefault(module, one.version)
        interpreter = self.environment.interpreter
        self.around = Surroundings(
            self.modules.python, interpreter.sys_platform if interpreter else "linux", versions
        )  # fmt: skip

    def link(self) -> tuple[Unlinked, ...]:
        """Return the names that are asked for and not there, those that stop an import first."""
        roots = [(one, module) for one in self._distributions() for module in self._roots(one)]
        self._walk(Visit(module, "import", f"import {module}") for _, module in roots)
        self._walk(visit for one, _ in roots for visit in self._commands(one))
        self._walk(visit for _, module in roots for visit in self._lazy(module))
        self.modules.texts.save()
        found = dict.fromkeys(self.unlinked)
        return tuple(sorted(found, key=lambda one: REACHED.index(one.reached)))

    def _distributions(self) -> list[Installed]:
        seen: dict[str, Installed] = {}
        for one in self.environment.installed:
            seen.setdefault(one.name, one)
        return list(seen.values())

    def _roots(self, one: Installed) -> list[str]:
        """Return the modules that a distribution is there for, among the top-level ones that it installs."""
        near = one.name.replace("-", "_")
        own = [module for module in one.modules if not _NOT_THEIRS.match(module) or module == near]
        own = [module for module in own if re.fullmatch(r"\w+", module)]
        exact = [module for module in own if module.lower() == near]
        found = exact or own[:2]
        if found and self.modules.find(found[0]).kind == "namespace":
            return []
        return found

    def owner(self, module: str) -> str | None:
        """Return the distribution that a module belongs to, STANDARD_LIBRARY for Python's own, None where unknown.

        Args:
            module: its full name.
        """
        top = module.split(".")[0]
        found = self.owners.get(top)
        if found and self.modules.find(top).kind == "namespace":
            parts = module.split(".")
            within = [self._shared(top).get(".".join(parts[:end])) for end in range(len(parts), 1, -1)]
            return next((name for name in within if name), None)
        if found:
            return found.name
        path = self.modules.find(top).path.replace("\\", "/")
        if path and "site-packages" not in path and "dist-packages" not in path and "/lib" in path.lower():
            return STANDARD_LIBRARY
        return None

    def _shared(self, top: str) -> dict[str, str]:
        """Return whose the modules below a top-level name are that several distributions share."""
        if top not in self.spaces:
            self.spaces[top] = {}
            for one in self.environment.installed:
                paths = recorded_paths(one.folder) if top in one.modules and one.folder else []
                for path in paths:
                    parts = path.removesuffix(".py").removesuffix("/__init__").split("/")
                    if path.endswith(".py") and parts[0] == top:
                        self.spaces[top].setdefault(".".join(parts), one.name)
        return self.spaces[top]

    def _walk(self, visits: Iterable[Visit]) -> None:
        """Visit modules, and what they reach: all that is surely reached before what is only likely to be."""
        queues = {reached: deque[Visit]() for reached in REACHED}
        for visit in visits:
            queues[visit.reached].append(visit)
        while queue := next((queue for queue in queues.values() if queue), None):
            visit = queue.popleft()
            if visit.module not in self.visited:
                self.visited[visit.module] = visit
                for other in self._visit(visit):
                    queues[other.reached].append(other)

    def _visit(self, visit: Visit) -> Iterator[Visit]:
        found = self.modules.find(visit.module)
        owner = self.owner(visit.module)
        if found.kind == "compiled":
            self.compiled[found.path] = visit
        if found.kind not in ("package", "module") or owner == STANDARD_LIBRARY:
            return
        name = owner or visit.module.split(".")[0]
        self.read[name] = self.read.get(name, 0) + self.modules.size(found.path)
        if self.read[name] > self._most(name):
            return
        quick = self.modules.quick(visit.module)
        if quick is not None:
            for use in quick:
                for other in self._own(visit.module, use):
                    yield Visit(other, visit.reached, visit.by)
            return
        text = self.modules.text(visit.module)
        self.whole.append(visit.module)
        for use in text.uses if text else ():
            state = runs(use.guards, text.assigned, self.around) if use.guards and text else "yes"
            if text and state in ("yes", "likely"):
                sure = state == "yes" or visit.reached == "lazy"
                reached = visit.reached if sure else "likely"
                here = Visit(visit.module, reached, visit.by)
                for other in self._use(visit.module, text, use, here):
                    self.asked_by.setdefault(other, set()).add(visit.module)
                    yield Visit(other, reached, visit.by)

    def _most(self, name: str) -> int:
        """Return how many bytes of a distribution's source are read: few of one that needs no other."""
        if name not in self.limits:
            one = self.environment.find(name)
            needs = any("extra ==" not in line for line in one.requires) if one else False
            self.limits[name] = _MOST if needs else _MOST_ALONE
        return self.limits[name]

    def _use(self, module: str, text: ModuleText, use: Use, visit: Visit) -> Iterator[str]:
        """Check one use, and yield the modules that it imports."""
        if use.how == "attribute":
            self._attribute(module, text, use, visit)
            return
        asked = self.modules.absolute(module, use.module)
        parts = asked.split(".")
        for end in range(1, len(parts) + 1):
            part = ".".join(parts[:end])
            found = self.modules.find(part)
            if found.kind == "missing":
                if not self.modules.vendors(module, part):
                    self._missing(module, use, visit, part, "")
                return
            if not found.there:
                return
            yield part
        for name in use.names:
            inner = f"{asked}.{name}"
            if self.modules.find(inner).there:
                # A name that the package binds itself hides a module of the same name, which it imports then.
                yield inner
            elif not self._same(module, asked) and self.modules.offers(asked, name) is False:
                self._missing(module, use, visit, asked, name)

    def _own(self, module: str, use: Use) -> Iterator[str]:
        """Yield the modules of its own package that a module imports."""
        asked = self.modules.absolute(module, use.module)
        if asked.split(".")[0] != module.split(".")[0] or not self.modules.find(asked).there:
            return
        parts = asked.split(".")
        yield from (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        if self.modules.find(asked).kind == "package":
            yield from (f"{asked}.{name}" for name in use.names if self.modules.find(f"{asked}.{name}").there)

    def _same(self, module: str, asked: str) -> bool:
        """Return whether two modules are of one distribution, or may be."""
        if module.split(".")[0] == asked.split(".")[0]:
            return True
        owner = self.owner(asked)
        return owner is None or owner == self.owner(module)

    def _attribute(self, module: str, text: ModuleText, use: Use, visit: Visit) -> None:
        place = text.bindings.get(use.module)
        if not place:
            return
        current = self.modules.absolute(module, place.split(":")[0])
        names = list(use.names)
        if ":" in place:
            names.insert(0, place.split(":")[1])
            if not self.modules.find(f"{current}.{names[0]}").there:
                return
            other = self.modules.text(current)
            if other is None or names[0] in other.names:
                return
        if self._same(module, current):
            return
        for name in names:
            if not self.modules.find(current).there:
                return
            inner = f"{current}.{name}"
            offered = self.modules.offers(current, name)
            if offered is False:
                self._missing(module, use, visit, current, name)
            other = self.modules.text(current)
            if offered is not True or other is None or name in other.names or not self.modules.find(inner).there:
                return
            current = inner

    def _missing(self, module: str, use: Use, visit: Visit, asked: str, name: str) -> None:
        importer = self.owner(module)
        top = asked.split(".")[0]
        target = self.owner(asked) if self.modules.find(top).there else None
        if importer is None or importer == target:
            return
        place = f"{self.shown(module)}:{use.line}"
        self.unlinked.append(Unlinked(importer, place, target, asked, name, use.how, visit.reached, visit.by))

    def shown(self, module: str) -> str:
        """Return the path of a module below the folder of packages."""
        path = self.modules.find(module).path.replace("\\", "/")
        for mark in ("/site-packages/", "/dist-packages/"):
            if mark in path:
                return path.rpartition(mark)[2]
        return path

    def _lazy(self, module: str) -> Iterator[Visit]:
        """Yield the modules that a package loads when a name is asked of it, with the name."""
        text = self.modules.text(module)
        if text is None or text.lazy is None or text.lazy.folders:
            return
        inner: dict[str, str] = {}
        for name, place in text.lazy.names:
            place = place.lstrip(".")
            place = place.removeprefix(f"{module}.")
            if place and self.modules.find(f"{module}.{place}").there:
                inner.setdefault(f"{module}.{place}", name)
        if len(inner) > _LAZY_MODULES:
            return
        for place, name in inner.items():
            yield Visit(place, "lazy", f"from {module} import {name}")

    def _commands(self, one: Installed) -> Iterator[Visit]:
        """Yield the modules that the commands of a distribution begin with."""
        text = self.modules.source(str(Path(one.folder) / "entry_points.txt")) if one.folder else None
        section = (text or "").partition("[console_scripts]")[2].partition("\n[")[0]
        for line in section.splitlines():
            name, _, place = line.partition("=")
            module = place.partition(":")[0].strip()
            if module.split(".")[0] in one.modules and self.modules.find(module).there:
                yield Visit(module, "command", f"the command {name.strip()}")

    def requires(self, distribution: str, name: str) -> bool | None:
        """Return whether a distribution declares another: True, False, or None where only an extra of it does.

        Args:
            distribution: the one that declares.
            name: the other one.
        """
        one = self.environment.find(distribution)
        answer: bool | None = False
        for line in one.requires if one else ():
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            if canonicalize_name(requirement.name) == canonicalize_name(name):
                if requirement.marker is None or "extra" not in str(requirement.marker):
                    return True
                answer = None
        return answer

    def keyword_calls(self) -> Iterator[Unlinked]:
        """Yield calls, anywhere in the modules that were reached, with keywords that their callee doesn't take."""
        for module in self.whole:
            visit, text = self.visited[module], self.modules.text(module)
            owner = self.owner(module)
            if text is None or owner in (None, STANDARD_LIBRARY):
                continue
            for call in text.calls:
                found = self._callee(module, text, call)
                if not found:
                    continue
                where, name, signature = found
                target = self.owner(where)
                if target in (None, owner) or signature.keywords is None:
                    continue
                for keyword in call.keywords:
                    if keyword not in signature.keywords and keyword not in signature.also:
                        yield Unlinked(owner or "", f"{self.shown(module)}:{call.line}", target, where,
                                       f"{name}({keyword})", "keyword", visit.reached, call.function)  # fmt: skip

    def _callee(self, module: str, text: ModuleText, call: KeywordCall) -> tuple[str, str, Signature] | None:
        if call.callee.startswith("super:"):
            name = call.callee.partition(":")[2]
            own = text.signatures.get(name)
            return self._base(module, own.bases, (), 0) if own else None
        return self._resolve(module, call.callee, 0)

    def _resolve(self, module: str, name: str, depth: int) -> tuple[str, str, Signature] | None:
        """Return the signature of what a dotted name of a module stands for, and where it is defined."""
        text = self.modules.text(module)
        if text is None or depth > 12:
            return None
        first, _, rest = name.partition(".")
        own = text.signatures.get(first)
        if own and not rest and first not in text.bindings:
            if own.keywords is not None or not own.bases:
                return module, first, own
            return self._base(module, own.bases, own.also, depth + 1)
        place = text.bindings.get(first)
        if not place:
            for star in () if own or first in text.names else text.stars:
                other = self.modules.absolute(module, star)
                found = self._resolve(other, name, depth + 1)
                if found:
                    return found
            return None
        target, _, inner = place.partition(":")
        target = self.modules.absolute(module, target)
        names = [part for part in (inner, *rest.split(".")) if part]
        while names and self.modules.find(f"{target}.{names[0]}").there:
            outer = self.modules.text(target)
            if outer is not None and names[0] in outer.names:
                break
            target = f"{target}.{names.pop(0)}"
        return self._resolve(target, ".".join(names), depth + 1) if len(names) == 1 else None

    def _base(
        self, module: str, bases: tuple[str, ...], also: tuple[str, ...], depth: int
    ) -> tuple[str, str, Signature] | None:
        """Return the signature that a class has from its base."""
        found = self._resolve(module, bases[0], depth + 1) if len(bases) == 1 else None
        if not found:
            return None
        where, name, signature = found
        return where, name, Signature(signature.keywords, signature.bases, (*signature.also, *also))
