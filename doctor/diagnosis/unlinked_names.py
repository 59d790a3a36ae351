"""What the sources of the installed packages ask of one another that is not there: see linking/.

An error is only what must stop an import (or a command) of something that is installed. What is loaded when it is asked
for, or called with a keyword that is gone, is a warning. A failure that names what was found makes it surer; one that
does not makes it less likely to be the cause.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace

from constants import ARTIFACTS_DIR
from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said
from doctor.diagnosis.other_builds import old_binaries, old_generated
from doctor.diagnosis.pair_changes import Pair, culprits_of, in_common, joined, pair_changes, raised, with_version
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span
from doctor.linking.installed_modules import GONE_MODULES
from doctor.linking.kept_links import links_of
from doctor.linking.link import STANDARD_LIBRARY, Linker, Unlinked

CACHE = ARTIFACTS_DIR / "doctor" / "links"
_SOURCE = "the sources of the installed packages"
_SURE = {"import": 0.9, "command": 0.85, "likely": 0.7, "lazy": 0.7}
# Modules that ask for one which lacks something, from which on it is more than a feature of the package.
_MUCH = 3
# Names of one pair of distributions that are looked up for a change, and shown.
_LOOKED_UP, _SHOWN = 4, 6


def find_unlinked_names(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find names, modules and keywords that installed packages ask of others which do not have them."""
    if not case.environment.complete or not any(one.site for one in case.environment.installed):
        return
    links = links_of(case.environment, CACHE)
    linker = links.linker
    groups: dict[tuple[str, str | None, str], list[Unlinked]] = {}
    for one in links.unlinked:
        if _counts(one, linker, knowledge):
            kind = "missing" if one.target is None else "names"
            groups.setdefault((one.importer, one.target or one.module.split(".")[0], kind), []).append(one)
    for one in links.calls:
        if _changed(case, knowledge, one):
            groups.setdefault((one.importer, one.target, "keywords"), []).append(one)
    for (_, _, kind), found in groups.items():
        make = {"missing": _missing_module, "names": _missing_names, "keywords": _lost_keywords}[kind]
        yield _weighed(case, make(case, knowledge, found))
    for finding in (*old_binaries(case, knowledge, linker), *old_generated(case, knowledge, linker)):
        yield _weighed(case, finding)
    if not groups:
        yield f"{len(linker.visited)} modules of {len(linker.read)} packages were read: the names they import are there"


def _counts(one: Unlinked, linker: Linker, knowledge: Known) -> bool:
    """Return whether a name that is not there is a fault, and one that nothing else tells of."""
    if one.target is not None:
        return True
    top = one.module.split(".")[0]
    owners = knowledge.metadata.owners(top) or (top,)
    if any(linker.environment.find(name) for name in owners):
        return one.reached in ("import", "command")  # a distribution is here that had the module once
    # What is declared is told as such where it is not here, and what only an extra asks for is optional.
    return all(linker.requires(one.importer, name) is False for name in owners) and _matters(one, linker)


def _matters(one: Unlinked, linker: Linker) -> bool:
    """Return whether a package can't do without a module: when it is imported, or for much of what it loads later."""
    module = one.place.partition(".py:")[0].replace("/", ".").removesuffix(".__init__")
    return one.reached == "import" or (one.reached == "lazy" and len(linker.asked_by.get(module, ())) >= _MUCH)


def _changed(case: Case, knowledge: Known, one: Unlinked) -> bool:
    """Return whether a keyword was taken by another release: one that never was is a fault of nobody's versions."""
    spans = _keyword_spans(knowledge, one)
    if spans is not None:
        return bool(spans)
    return one.by.endswith("__init__")


def _keyword_spans(knowledge: Known, one: Unlinked) -> tuple[Span, ...] | None:
    function, _, keyword = one.name.rstrip(")").partition("(")
    for name in (f"{function}.__init__", function):
        spans: tuple[Span, ...] | None = knowledge.symbols.parameters(one.target, name, keyword)
        if spans is not None:
            return spans
    return None


def _weighed(case: Case, finding: Finding) -> Finding:
    """Say in which line of a failure a finding shows; one that shows in none is less likely its cause."""
    if case.failure is None:
        return finding
    names = [name for name in finding.evidence[0].split("`")[1::2] if name]
    for one in case.failure.raised:
        line = one.line.splitlines()[0].strip() if one.line else ""
        whole = next((each.strip() for each in one.line.splitlines() if any(_says(each, name) for name in names)), "")
        if whole or any(_says(line, name) for name in names):
            return replace(finding, evidence=(whole or line, *finding.evidence), level="error",
                           confidence=min(0.95, finding.confidence + 0.05))  # fmt: skip
    return replace(finding, confidence=finding.confidence * 0.55)


def _says(line: str, name: str) -> bool:
    return re.search(rf"['\"`. ]{re.escape(name)}(?![\w])", f" {line}") is not None


def _missing_names(case: Case, knowledge: Known, found: list[Unlinked]) -> Finding:
    first = found[0]
    target = first.target or ""
    names = list(dict.fromkeys(f"{one.module}.{one.name}".rstrip(".") for one in found))
    if target == STANDARD_LIBRARY:
        return _of_python(case, knowledge, found, names)
    has, uses = _spans(knowledge, found)
    changes = tuple(pair_changes(case, knowledge, Pair(first.importer, target, has, uses)))
    asked = _listed(names)
    level = "error" if _stops(first) else "warning"
    stops = sorted({one.by for one in found if one.reached == first.reached}, key=len)[:3]
    return Finding(
        "unlinked-name", "import/wrong_version", level, _SURE[first.reached],
        f"{with_version(case, first.importer)} asks for {asked}, which {with_version(case, target)} does not have.",
        _evidence(found),
        f"{_listed(stops)} fails: the two are of different times, and what they declare allows them together.",
        changes, culprits=culprits_of(changes, first.importer, target), source=_source(knowledge, has, uses),
        check=f'python -c "{first.by}"' if first.reached != "command" else None,
        provable=_provable(first),
    )  # fmt: skip


def _of_python(case: Case, knowledge: Known, found: list[Unlinked], names: list[str]) -> Finding:
    """Return what an old package asks of Python that this Python no longer has, or not yet."""
    first = found[0]
    interpreter = case.environment.interpreter
    changes = [
        *(move.change for move in raised(case, knowledge, first.importer)),
        Change("system", "Or use a Python that has it."),
    ]
    return Finding(
        "unlinked-name", "import/wrong_version", "error" if _stops(first) else "warning",
        _SURE[first.reached],
        f"{with_version(case, first.importer)} asks for {_listed(names)}, which Python "
        f"{interpreter.version if interpreter else ''} does not have.",
        _evidence(found), "The standard library changes with Python, and the package is not of its time.",
        tuple(changes), culprits=(first.importer,), source=_SOURCE, provable=_provable(first),
    )  # fmt: skip


def _missing_module(case: Case, knowledge: Known, found: list[Unlinked]) -> Finding:
    first = found[0]
    top = first.module.split(".")[0]
    owners = [name for name in knowledge.metadata.owners(top) if case.environment.find(name)]
    if not owners and top in GONE_MODULES:
        return _of_python(case, knowledge, found, [top])
    if not owners:
        return _undeclared(case, knowledge, found, top)
    owner = owners[0]
    spans = knowledge.symbols.modules(owner, top)
    uses = tuple(
        span for use in knowledge.symbols.importers(top, "") if use.project == first.importer for span in use.spans
    )
    changes = tuple(pair_changes(case, knowledge, Pair(first.importer, owner, spans, uses)))
    return Finding(
        "unlinked-module", "import/not_installed", "error" if _stops(first) else "warning", _SURE[first.reached],
        f"{with_version(case, first.importer)} imports {top}, which {with_version(case, owner)} no longer has.",
        _evidence(found), f"{first.by} fails. The module is part of {owner}, which is installed, in another release.",
        changes, not_this=f"pip install {owner}: it is installed", culprits=(owner, first.importer),
        source=_source(knowledge, spans, uses), provable=_provable(first),
        check=f'python -c "import {top}"',
    )  # fmt: skip


def _undeclared(case: Case, knowledge: Known, found: list[Unlinked], top: str) -> Finding:
    """Return that a package imports another that it doesn't declare, and that is not here."""
    first = found[0]
    name = next(iter(knowledge.metadata.owners(top)), top)
    newer = [move.change for move in raised(case, knowledge, first.importer)]
    level = "error" if first.reached == "import" else "warning"
    return Finding(
        "undeclared-import", "import/not_installed", level, 0.8 if level == "error" else 0.6,
        f"{with_version(case, first.importer)} imports {top}, which is not installed and which it does not declare.",
        _evidence(found), f"{first.by} fails. Nobody who installs {first.importer} alone has it.",
        (Change("install", f"Install {name}.", (name,)), *newer),
        culprits=(name, first.importer), source=_SOURCE, provable=_provable(first), check=f'python -c "import {top}"',
    )  # fmt: skip


def _lost_keywords(case: Case, knowledge: Known, found: list[Unlinked]) -> Finding:
    first = found[0]
    target = first.target or ""
    function, _, keyword = first.name.rstrip(")").partition("(")
    has = _keyword_spans(knowledge, first)
    uses = [use for use in knowledge.symbols.callers(function, keyword) if use.project == first.importer]
    spans = tuple(span for use in uses for span in use.spans)
    changes = tuple(pair_changes(case, knowledge, Pair(first.importer, target, has, spans)))
    names = list(dict.fromkeys(one.name.replace("(", "(…").replace("(…", "(", 1) for one in found))
    shown = _listed([name.replace(")", "=...)") for name in names])
    return Finding(
        "unlinked-keyword", "runtime/api_change", "warning", 0.75,
        f"{with_version(case, first.importer)} calls {shown}, which {with_version(case, target)} does not take.",
        _evidence(found), f"{first.by} fails with a TypeError as soon as it is called.",
        changes, culprits=culprits_of(changes, first.importer, target), source=_source(knowledge, has, spans),
    )  # fmt: skip


def _stops(one: Unlinked) -> bool:
    """Return whether something that a package is there for can't work: its import, or the command of its own name."""
    return one.reached == "import" or one.by == f"the command {one.importer}"


def _evidence(found: list[Unlinked]) -> tuple[str, ...]:
    """Return a line for each place; the names stand in `` of the first, by which a failure's line is known."""
    words = {"from": "imports", "import": "imports", "attribute": "uses", "keyword": "calls"}
    lines = []
    for one in found[:_SHOWN]:
        name = re.sub(r"\((\w+)\)$", r"` with `\1", one.name) if one.how == "keyword" else one.name or one.module
        lines.append(f"{one.place} {words[one.how]} `{name}` of {one.target or 'nobody here'} ({one.by})")
    more = [f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
    return (*lines, *more)


def _provable(first: Unlinked) -> str | None:
    if first.reached == "command":
        return f"import {first.place.partition('.py:')[0].replace('/', '.').removesuffix('.__init__')}"
    return first.by if first.by.startswith(("import ", "from ")) else None


def _listed(names: Iterable[str]) -> str:
    shown = list(names)
    more = f" and {len(shown) - 3} more" if len(shown) > 4 else ""
    shown = shown[:3] if more else shown
    return (", ".join(shown[:-1]) + " and " + shown[-1] if len(shown) > 1 and not more else ", ".join(shown)) + more


def _source(knowledge: Known, *known: object) -> str:
    return f"{_SOURCE}; symbols of {knowledge.symbols.date}" if any(known) else _SOURCE


def _spans(knowledge: Known, found: list[Unlinked]) -> tuple[tuple[Span, ...] | None, tuple[Span, ...]]:
    """Return the releases of the target that have all names, None where nobody knows, and those that ask for one."""
    has: tuple[Span, ...] | None = None
    uses: list[Span] = []
    for one in found[:_LOOKED_UP]:
        symbols = knowledge.symbols
        spans = symbols.names(one.target, one.module, one.name) if one.name else symbols.modules(one.target, one.module)
        if spans:
            has = spans if has is None else tuple(in_common(has, spans))
        for use in symbols.importers(one.module, one.name):
            uses += use.spans if use.project == one.importer else ()
    return has, tuple(joined(uses))
