"""Knowledge made of a few lines, for tests of mechanisms: releases, and which of them have or use what."""

from datetime import date
from types import SimpleNamespace

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from doctor.case import Case
from doctor.environment.facts import Declared, Environment
from doctor.failure.facts import Failure, Frame, Platform, Raised
from doctor.knowledge.metadata import Metadata, Release
from doctor.knowledge.symbols import Span, Use


def span(text: str) -> Span:
    """A span of "1.0-2.0" (until before 2.0), "1.0-" (to the newest), "-2.0" (from the start)."""
    first, end = text.split("-")
    return Span(Version(first or "0"), Version(end) if end else None, not first)


def release(version: str, day: str = "2024-01-01", *requires: str, python="", wheels=()) -> Release:
    return Release(Version(version), date.fromisoformat(day), requires, python, wheels=wheels, sdist=not wheels)


class ToldMetadata(Metadata):
    """Metadata of releases that a test names."""

    date = "2026-11-28"
    projects: frozenset[str] = frozenset()

    def __init__(self, releases: dict[str, list[Release]], owners: dict[str, tuple[str, ...]] | None = None) -> None:
        self._told, self._owners = releases, owners or {}
        self.projects = frozenset(releases)

    def releases(self, name):
        return tuple(self._told.get(name, ()))

    def owners(self, module):
        top = module.split(".")[0]
        return self._owners.get(top, (top,) if top in self._told else ())


class ToldSymbols:
    """Symbols that a test names: {(project, module, name): "1.0-2.0"} and so on."""

    date = "2026-11-28"

    def __init__(
        self, names=None, modules=None, parameters=None, importers=None, callers=None, model_types=None, tops=()
    ):
        self._names, self._modules, self._parameters = names or {}, modules or {}, parameters or {}
        self._importers, self._callers, self._types, self._tops = (
            importers or {},
            callers or {},
            model_types or {},
            tops,
        )
        self.projects = frozenset(one[0] for one in (*self._names, *self._modules, *self._parameters))

    @staticmethod
    def _spans(text):
        return None if text is None else tuple(span(one) for one in text.split(" ") if one)

    def project_of(self, module):
        top = module.split(".")[0]
        return dict(self._tops).get(top, top if top in self.projects else None)

    def names(self, project, module, name):
        return self._spans(self._names.get((project, module, name)))

    def modules(self, project, module):
        return self._spans(self._modules.get((project, module)))

    def parameters(self, project, function, parameter, named=False):
        """Those of the keyword; without `named` also those of "**"."""
        every = None if named else self._parameters.get((project, function, "**"))
        if every:
            return self._spans(every)
        return self._spans(self._parameters.get((project, function, parameter)))

    def importers(self, module, name=""):
        found = self._importers.get((module, name), {})
        return tuple(Use(project, self._spans(text), True, f"{project}/a.py") for project, text in found.items())

    def callers(self, function, keyword):
        found = self._callers.get((function, keyword), {})
        return tuple(Use(project, self._spans(text), False, f"{project}/a.py") for project, text in found.items())

    def model_types(self, project, model_type):
        return self._spans(self._types.get(model_type, ""))


def knowing(releases=None, owners=None, **symbols) -> SimpleNamespace:
    return SimpleNamespace(metadata=ToldMetadata(releases or {}, owners), symbols=ToldSymbols(**symbols), rules=())


def failing(text: str, importer=None, place=None, python=None, system="linux", **packages: str) -> Case:
    """A case of exception lines, of who imports, and of versions (underscores stand for dashes)."""
    frames = (Frame(f"/v/site-packages/{importer}/a.py", 1, "f", "", importer),) if importer else ()
    raised = tuple(
        Raised(kind, message, frames)
        for kind, split, message in (line.partition(": ") for line in text.splitlines())
        if split and kind.isidentifier()
    )
    told = tuple(
        Declared(name.replace("_", "-"), one if one[0] in "<>=!" else f"=={one}") for name, one in packages.items()
    )
    told_of = Platform(system, python, place)
    lines = tuple(line for line in text.splitlines() if not line.partition(": ")[0].isidentifier())
    return Case(Environment("the text", declared=told), Failure("python", raised, lines, text, platform=told_of))


def pins(finding) -> list[str]:
    return [" ".join(change.requirements) for change in finding.changes if change.kind == "pin"]


def holds(requirement: str, version: str) -> bool:
    return SpecifierSet(requirement).contains(version)
