"""Rules: breakages by their names and version ranges, read from doctor/rules/*.yaml, and when one fits a case.

A file holds a list of rules. Keys of a rule:

    id            unique; says the mechanism, never a case
    branch        one of the decision tree's, "import/not_installed"
    level, confidence, environment, gpu
    error         a regular expression, or a list of which one must be found, in an exception or a line of the text
    also, unless  expressions that must all be found in the text or among what is known to be here ("gradio 4.44.1"),
                  and that must not be
    importer      top-level modules; where the failure has frames, the deepest third-party one must be of these
    packages      {name: range}, or a list of such maps of which one must do; python: a range
    system, place names (linux, darwin, win32; colab, kaggle, notebook, docker, kubernetes, wsl, conda, slurm)
    capability    a range of the GPU's compute capability; variables: {NAME: expression}
    verdict, why, not_this, check, provable, changes, culprits    what a Finding says; {name} is a package's version
                  where it is known, or a named group of `error`
    source        where the knowledge is from: an address whose page was read, "symbols of releases" (the doctor's own
                  table), "declared metadata", "wheels of ..." that were read, "observed: ...", or "from knowledge, not
                  looked up"
    confirmed     `how`, one of CONFIRMED, and `on`, a day; `facts` of the table of symbols, which a test looks up:
                  "project: module.name: range", "project: module (module): range", "project: function(keyword): range"
    tests         texts and versions that the rule fits, and others that it does not
"""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.finding import BRANCHES, INSTALLING, KINDS, LEVELS, NOT_CONFIRMED, Change, Finding

FOLDER = Path(__file__).resolve().parent.parent / "rules"
_TEXT = ("id", "branch", "level", "verdict", "why", "not_this", "check", "provable", "python", "capability")
_LISTS = ("error", "also", "unless", "importer", "system", "place", "culprits", "source")
_KEYS = (*_TEXT, *_LISTS, "confidence", "environment", "gpu", "packages", "variables", "changes", "confirmed", "tests")
_NEEDED = ("id", "branch", "verdict", "why", "source", "confirmed", "tests")
_CHANGE_LISTS = ("requirements", "remove", "holds", "commands", "disturbs")
_CHANGE_KEYS = ("kind", "text", *_CHANGE_LISTS, "environment")
# How a rule may have been confirmed, the strongest first. The last two are told to whoever gets its answer.
CONFIRMED = (
    "installed, failed, mended",  # a set of tests/doctor/conflicts.py
    "reproduced",  # run by hand, without any distribution
    "wheels read",
    "table of symbols",
    "declared metadata",
    "documentation read",
    "thread only",
    "from knowledge, " + NOT_CONFIRMED,
    NOT_CONFIRMED,
)
_TABLE = "table of symbols"
_NOT_LOOKED_UP = "from knowledge, not looked up"
_SOURCES = ("https://", "symbols of releases", "declared metadata", "wheels of ", "observed: ", _NOT_LOOKED_UP)
_SYSTEMS = ("linux", "darwin", "win32")
# What one fact that agrees, or that is not known, does to a rule's confidence.
_ALL_KNOWN, _NONE_KNOWN = 1.0, 0.85
# Branches of which versions alone can tell, and what a failure that nobody has seen takes from a rule's confidence.
_OF_PAIRS = ("import/not_installed", "import/wrong_version", "import/binary_abi", "runtime/api_change")
_UNSEEN = 0.85


class RuleError(ValueError):
    """A rule that can't be used: the file, the rule, the key, and what is allowed."""


@dataclass(frozen=True)
class Rule:
    """A rule as its file states it.

    Args:
        id: its name.
        file: the file that it stands in.
        content: its keys, checked.
    """

    id: str
    file: str
    content: Mapping[str, Any]

    def listed(self, key: str) -> tuple[str, ...]:
        """Return a key's value as a tuple, whether one text or a list was written."""
        return _as_tuple(self.content.get(key, ()))

    @property
    def packages(self) -> tuple[Mapping[str, str], ...]:
        """Maps of names to ranges, of which one must do; empty where it asks for none."""
        return _maps(self.content.get("packages"))

    def __repr__(self) -> str:
        return f"{self.file}: {self.id}"


@dataclass(frozen=True)
class Match:
    """How a rule fits a case.

    Args:
        rule: the rule.
        finding: what it says; None where a fact rules it out.
        against: the fact that rules it out, as a sentence; empty where none does.
    """

    rule: Rule
    finding: Finding | None
    against: str = ""


def read_rules(folder: Path = FOLDER) -> tuple[Rule, ...]:
    """Read all rules of a folder.

    Args:
        folder: folder of *.yaml files, each a list of rules.

    Returns:
        The rules in the order of the files' names.

    Raises:
        RuleError: a rule is not as it must be.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    rules: list[Rule] = []
    for path in sorted(folder.glob("*.yaml")):
        try:
            content = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
        except yaml.YAMLError as error:
            raise RuleError(f"{path.name} is no YAML: {error}") from error
        if not isinstance(content, list):
            raise RuleError(f"{path.name} must hold a list of rules, each beginning with `- id: name`")
        rules.extend(_checked(entry, path.name, number) for number, entry in enumerate(content, 1))
    seen: dict[str, str] = {}
    for rule in rules:
        if rule.id in seen:
            raise RuleError(f"{rule}: the id is taken already in {seen[rule.id]}; ids are unique")
        seen[rule.id] = rule.file
    return tuple(rules)


def matches(rules: Iterable[Rule], case: Case) -> Iterator[Match]:
    """Tell which rules speak of a case.

    Args:
        rules: rules to try.
        case: what is known of the environment and of the failure.

    Yields:
        Rules that fit, with their finding; and rules whose error is there but that a fact rules out.
    """
    signs = _signs(case)
    for rule in rules:
        found = _match(rule, case, signs)
        if found:
            yield found


def pair_findings(rules: Iterable[Rule], case: Case) -> Iterator[Finding]:
    """Tell which pairs of versions are here of which rules say that one breaks the other, before anything has failed.

    Only rules of two or more distributions speak, of which one is held back and an installation mends it: the others
    are about a program's own code, which nobody knows yet.

    Args:
        rules: rules to try.
        case: an environment, without a failure.

    Yields:
        Their findings, less sure than with the failure: the broken part may never be used.
    """
    for rule in rules:
        if rule.content.get("environment") or rule.content["branch"] not in _OF_PAIRS or not _is_of_pair(rule, case):
            continue
        known, against = _facts(rule, case)
        if against or not all(known):
            continue
        finding = _finding(rule, case, {}, "", known)
        mends = bool(finding.changes) and finding.changes[0].kind in ("pin", "install")
        if mends and "{" not in finding.verdict + finding.why:
            at_import = finding.branch.startswith("import/")
            level = finding.level if at_import else "warning"
            yield replace(finding, level=level, confidence=round(finding.confidence * _UNSEEN, 3))


def _is_of_pair(rule: Rule, case: Case) -> bool:
    """Return whether what a rule asks for is here, and several distributions are named of which one is held back.

    Who breaks may stand in the map of packages, or only in what a change holds under: "openai<1.55.3".
    """
    held = [one for change in rule.content.get("changes") or () for one in _as_tuple(change.get("holds", ()))]
    back = [one for one in held if "<" in one and _is(case, one) is True]
    for each in rule.packages or ({},):
        if all(case.environment.may_be(name, one) is True for name, one in each.items()):
            names = {*each, *(Requirement(one).name for one in back)}
            if len(names) > 1 and (back or any("<" in one or "==" in one for one in each.values())):
                return True
    return False


def _signs(case: Case) -> tuple[str, ...]:
    """Return what errors are searched in: exception lines, lines of tools, then the whole text."""
    failure = case.failure
    if failure is None:
        return ()
    return (*(one.line for one in failure.raised), *failure.lines, failure.text)


def _match(rule: Rule, case: Case, signs: tuple[str, ...]) -> Match | None:
    groups: dict[str, str] = {}
    seen = ""
    if signs:
        hit = _first(rule.listed("error"), signs)
        if hit is None:
            return None
        whole = "\n".join((*signs, *_named(case)))
        if not all(_pattern(one).search(whole) for one in rule.listed("also")):
            return None
        if any(_pattern(one).search(whole) for one in rule.listed("unless")):
            return None
        importer = case.failure.importer if case.failure else None
        if importer and rule.listed("importer") and importer not in rule.listed("importer"):
            return None
        groups = {name: text or "" for name, text in hit.groupdict().items()}
        seen = _line_of(hit)
    elif not rule.content.get("environment"):
        return None
    known, against = _facts(rule, case)
    if against or (not signs and not all(known)):
        return Match(rule, None, f"{rule.id}: {against}") if against and signs else None
    return Match(rule, _finding(rule, case, groups, seen, known))


def _named(case: Case) -> Iterator[str]:
    """Yield what is known to be here, "gradio 4.44.1", so that `also` may ask for it."""
    for installed in case.environment.installed:
        yield f"{installed.name} {installed.version}"
    for declared in case.environment.declared:
        yield f"{declared.name} {declared.specifier}"


def _first(patterns: tuple[str, ...], signs: tuple[str, ...]) -> "re.Match[str] | None":
    for sign in signs:
        for one in patterns:
            found = _pattern(one).search(sign)
            if found:
                return found
    return None


def _line_of(hit: "re.Match[str]") -> str:
    begin = hit.string.rfind("\n", 0, hit.start()) + 1
    end = hit.string.find("\n", hit.end())
    return hit.string[begin : end if end >= 0 else None].strip()[:300]


def _facts(rule: Rule, case: Case) -> tuple[list[bool], str]:
    """Return for each fact that a rule asks for whether it is known to be so, and what is known to be otherwise."""
    known: list[bool] = []
    told = rule.packages
    if told:
        tried = [{name: case.environment.may_be(name, one) for name, one in each.items()} for each in told]
        possible = [one for one in tried if False not in one.values()]
        if not possible:
            name = next(name for name, answer in tried[0].items() if answer is False)
            return known, f"{name} {_version(case, name) or 'as told'} is not in {told[0][name] or 'any version'}"
        known.extend(answer is True for answer in max(possible, key=lambda one: sum(map(bool, one.values()))).values())
    for what, wanted, have in _surroundings(rule, case):
        if not wanted:
            continue
        if have is None:
            known.append(False)
        elif isinstance(wanted, str) and not SpecifierSet(wanted).contains(have, prereleases=True):
            return known, f"{what} {have} is not in {wanted}"
        elif isinstance(wanted, tuple) and have not in wanted:
            return known, f"{what} is {have}, not {' or '.join(wanted)}"
        else:
            known.append(True)
    for name, expression in (rule.content.get("variables") or {}).items():
        value = case.environment.variables.get(name)
        if value is not None and not re.search(expression, value):
            return known, f"{name} is {value!r}"
        known.append(value is not None)
    return known, ""


def _surroundings(rule: Rule, case: Case) -> Iterator[tuple[str, str | tuple[str, ...], str | None]]:
    told = case.failure.platform if case.failure else None
    machine, interpreter = case.environment.machine, case.environment.interpreter
    python = (interpreter.version if interpreter else None) or (told.python if told else None)
    yield "Python", rule.content.get("python") or "", python
    system = (interpreter.sys_platform if interpreter else None) or (told.sys_platform if told else None)
    yield "the system", rule.listed("system"), system
    place = (machine.container if machine else None) or (told.place if told else None)
    yield "the place", rule.listed("place"), place
    gpus = (machine.gpus if machine else None) or (told.gpus if told else ()) or ()
    capability = next((".".join(map(str, one.capability)) for one in gpus if one.capability), None)
    yield "compute capability", rule.content.get("capability") or "", capability


def _finding(rule: Rule, case: Case, groups: Mapping[str, str], seen: str, known: list[bool]) -> Finding:
    content = rule.content
    told = {**{name: "" for one in rule.packages for name in one}, **dict.fromkeys(rule.listed("culprits"), "")}
    values = {**{name: _version(case, name) for name in told}, **groups}
    share = sum(known) / len(known) if known else 1.0
    certainty = _NONE_KNOWN + (_ALL_KNOWN - _NONE_KNOWN) * share
    evidence = [seen] if seen else []
    evidence += [f"{name} {values[name]}" for name in told if values[name]]
    say = functools.partial(_filled, values=values)
    return Finding(
        id=rule.id,
        branch=content["branch"],
        level=content.get("level", "error"),
        confidence=round(content.get("confidence", 0.8) * certainty, 3),
        verdict=say(content["verdict"]),
        evidence=tuple(evidence),
        why=say(content["why"]),
        changes=tuple(_changes(content.get("changes") or (), case, say)),
        not_this=say(content["not_this"]) if content.get("not_this") else None,
        check=say(content["check"]) if content.get("check") else None,
        culprits=rule.listed("culprits"),
        source=_origin(rule),
        gpu=content.get("gpu", False),
        provable=say(content["provable"]) if content.get("provable") else None,
    )


def _origin(rule: Rule) -> str:
    """Return where a rule's knowledge is from, as its answer tells it."""
    sources = "; ".join(rule.listed("source"))
    how: str = rule.content["confirmed"]["how"]
    return f"{sources} ({NOT_CONFIRMED})" if how.endswith(NOT_CONFIRMED) else sources


def _changes(entries: Iterable[Mapping[str, Any]], case: Case, say: "functools.partial[str]") -> Iterator[Change]:
    """Yield changes that may be right here: what they hold under may be so, and they change something."""
    for entry in entries:
        lists = {key: tuple(say(one) for one in _as_tuple(entry.get(key, ()))) for key in _CHANGE_LISTS}
        lists["requirements"] = tuple(map(_valid, lists["requirements"]))
        if any(_is(case, one) is False for one in lists["holds"]):
            continue
        if entry["kind"] == "pin" and all(_is(case, one) for one in lists["requirements"]):
            continue
        variables = tuple((str(name), str(value)) for name, value in (entry.get("environment") or {}).items())
        yield Change(entry["kind"], say(entry["text"]), environment=variables, **lists)


def _valid(requirement: str) -> str:
    """Return a requirement, without its range where a version that it names is not known ("peft>")."""
    try:
        Requirement(requirement)
    except InvalidRequirement:
        return re.split(r"[<>=!~ ]", requirement)[0]
    return requirement


def _is(case: Case, requirement: str) -> bool | None:
    try:
        one = Requirement(requirement)
    except InvalidRequirement:
        return None
    return case.environment.may_be(one.name, str(one.specifier))


def _version(case: Case, name: str) -> str:
    version = case.environment.version(name)
    return str(version) if version else ""


def _filled(text: str, values: Mapping[str, str]) -> str:
    """Fill {name} in a text; what is not known leaves no gap."""
    filled = re.sub(r"\{([A-Za-z_][\w-]*)\}", lambda one: str(values.get(one[1], one[0])), str(text))
    return re.sub(r" +([,.;:)])", r"\1", re.sub(r"(?<=\S)  +", " ", filled)) if filled != text else filled


@functools.cache
def _pattern(expression: str) -> "re.Pattern[str]":
    return re.compile(expression, re.MULTILINE)


def _as_tuple(value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def _maps(value: Any) -> tuple[Mapping[str, str], ...]:
    if not value:
        return ()
    return (value,) if isinstance(value, Mapping) else tuple(value)


def _checked(entry: Any, file: str, number: int) -> Rule:
    """Return a rule of a file's entry, or say what is wrong with it."""
    if not isinstance(entry, Mapping) or not isinstance(entry.get("id"), str):
        raise RuleError(f"{file}: rule {number} has no `id`, or is no mapping of keys to values")

    def refuse(key: str, problem: str) -> RuleError:
        return RuleError(f"{file}: rule {entry['id']}: {key}: {problem}")

    for key in entry:
        if key not in _KEYS:
            raise refuse(key, f"no such key; allowed are {', '.join(_KEYS)}")
    for key in _NEEDED:
        if not entry.get(key):
            raise refuse(key, "is missing; every rule has " + ", ".join(_NEEDED))
    for key in _TEXT:
        if key in entry and not isinstance(entry[key], str):
            raise refuse(key, f"must be a text, not {entry[key]!r}")
    for key in _LISTS:
        if not all(isinstance(one, str) for one in _as_tuple(entry.get(key))):
            raise refuse(key, f"must be a text or a list of texts, not {entry[key]!r}")
    trunk, _, twig = entry["branch"].partition("/")
    if twig not in BRANCHES.get(trunk, ()):
        known = ", ".join(f"{one}/{each}" for one, twigs in BRANCHES.items() for each in twigs)
        raise refuse("branch", f"{entry['branch']} is none of {known}")
    if entry.get("level", "error") not in LEVELS:
        raise refuse("level", f"must be one of {', '.join(LEVELS)}")
    confidence = entry.get("confidence", 0.8)
    if isinstance(confidence, bool) or not isinstance(confidence, int | float) or not 0 < confidence <= 1:
        raise refuse("confidence", "must be above 0 and at most 1")
    if not entry.get("error") and not entry.get("environment"):
        raise refuse("error", "is missing, and there is no `environment: true`: the rule could never fit")
    _check_ranges(entry, refuse)
    for change in entry.get("changes") or ():
        _check_change(change, refuse)
    for test in entry["tests"]:
        for name, version in (test.get("packages") or {}).items():
            if not isinstance(version, str):
                raise refuse("tests", f"packages: {name}: write {version!r} in quotes, as YAML makes 0.1 of 0.10")
    return Rule(entry["id"], file, {**entry, "confirmed": _checked_origin(entry, refuse)})


def _checked_origin(entry: Mapping[str, Any], refuse: Any) -> dict[str, Any]:
    """Return how a rule was confirmed, whose source says no more than was done."""
    if not isinstance(entry["confirmed"], Mapping):
        raise refuse("confirmed", f"must have `how` and `on`, not {entry['confirmed']!r}")
    # YAML reads the key `on` as true.
    confirmed = {"on" if key is True else key: value for key, value in entry["confirmed"].items()}
    if not {"how", "on"} <= set(confirmed) <= {"how", "on", "facts"}:
        raise refuse("confirmed", f"has `how`, `on` and maybe `facts`, not {', '.join(map(str, confirmed))}")
    if confirmed["how"] not in CONFIRMED:
        raise refuse("confirmed", f"how: {confirmed['how']!r} is none of {'; '.join(CONFIRMED)}")
    if confirmed["how"] == _TABLE and not confirmed.get("facts"):
        raise refuse("confirmed", f"facts: are missing; the {_TABLE} is looked up for them")
    for one in _as_tuple(entry["source"]):
        if not one.startswith(_SOURCES):
            raise refuse("source", f"{one!r} begins with none of {'; '.join(_SOURCES)}")
    if _NOT_LOOKED_UP in _as_tuple(entry["source"]) and not confirmed["how"].endswith(NOT_CONFIRMED):
        raise refuse("source", f"{_NOT_LOOKED_UP!r} can't be confirmed by {confirmed['how']!r}")
    return confirmed


def _check_ranges(entry: Mapping[str, Any], refuse: Any) -> None:
    for one in _maps(entry.get("packages")):
        if not isinstance(one, Mapping):
            raise refuse("packages", f"must map names to ranges, such as {{setuptools: '>=82'}}, not {one!r}")
        for name, specifier in one.items():
            _range(specifier, refuse, f"packages: {name}")
    for key in ("python", "capability"):
        _range(entry.get(key, ""), refuse, key)
    for system in _as_tuple(entry.get("system")):
        if system not in _SYSTEMS:
            raise refuse("system", f"{system} is none of {', '.join(_SYSTEMS)}")


def _check_change(change: Any, refuse: Any) -> None:
    if not isinstance(change, Mapping) or change.get("kind") not in KINDS or not change.get("text"):
        raise refuse("changes", f"each has a `text` and a `kind` of {', '.join(KINDS)}; not {change!r}")
    if (change.get("requirements") or change.get("remove")) and change["kind"] not in INSTALLING:
        raise refuse("changes", f"only {', '.join(INSTALLING)} have requirements or remove; not {change!r}")
    for key in change:
        if key not in _CHANGE_KEYS:
            raise refuse("changes", f"no such key: {key}; allowed are {', '.join(_CHANGE_KEYS)}")
    for key in ("requirements", "holds"):
        for one in _as_tuple(change.get(key)):
            try:
                Requirement(re.sub(r"\{[\w-]+\}", "1", one))
            except InvalidRequirement:
                raise refuse(f"changes: {key}", f"{one!r} is no requirement such as peft<0.14") from None


def _range(text: Any, refuse: Any, key: str) -> None:
    try:
        for part in SpecifierSet(text):
            Version(part.version.removesuffix(".*"))
    except (InvalidSpecifier, InvalidVersion, TypeError, AttributeError):
        raise refuse(key, f"{text!r} is no range such as '>=0.14,<0.18' (with quotes)") from None
