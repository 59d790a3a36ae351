"""What pip's and uv's resolvers say: which requirement forces what, and which single one to loosen or to pin."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said
from doctor.diagnosis.moves import name_of, requirement
from doctor.finding import Change, Finding
from doctor.knowledge.metadata import Release

_NAME = r"[A-Za-z][\w.-]*?(?:\[[\w,.-]+\])?"
_VERSION = r"\d(?:[\w.+!-]*[\w*])?"
_RANGE = rf"[<>=!~]=?\s*{_VERSION}(?:(?:\s*,\s*|\s+and\s+)[<>=!~]=?\s*{_VERSION})*"
_DEPENDS = re.compile(
    rf"(?P<who>{_NAME})\s*\(?(?:(?P<version>\d[\w.+!-]*)|(?P<whose>{_RANGE}))?\)?\s+(?:depends\s+on|requires)\s+"
    rf"(?P<name>{_NAME})\s*\(?(?P<range>{_RANGE})?(?=[\s,.;)]|$)"
)
_REQUESTED = re.compile(
    rf"The user requested (?:\(constraint\) )?(?P<name>{_NAME})\s*(?P<range>{_RANGE})?\s*$", re.MULTILINE
)
_YOU_REQUIRE = re.compile(r"you require (?P<list>.+?)(?:, we can conclude|\.\s|\.?$)")
_ONE = re.compile(rf"(?P<name>{_NAME})\s*(?P<range>{_RANGE})(?=[\s,.;]|$)")
_CONFLICT = re.compile(
    r"conflicting dependencies|ResolutionImpossible|No solution found|requirements are unsatisfiable|are incompatible"
    r"|is incompatible with|version solving failed"
)


@dataclass(frozen=True)
class Edge:
    """A requirement: who (with version, where told) asks for which range of what; `who` is empty for the user."""

    who: str
    version: str
    name: str
    range: str

    def __str__(self) -> str:
        by = f"{self.who}{' ' + self.version if self.version else ''}" if self.who else "your request"
        return f"{by} asks for {self.name}{self.range}"


def edges(text: str) -> tuple[Edge, ...]:
    """Return the requirements that a resolver's output names, each once."""
    flat = re.sub(r"[│╰─▶├┤]", " ", text)
    joined = re.sub(r"\s+", " ", flat)
    found = [
        Edge(
            _bare(one["who"]),
            one["version"] or (one["whose"] or "").removeprefix("==").strip(),
            _bare(one["name"]),
            _tight(one["range"]),
        )
        for one in _DEPENDS.finditer(joined)
    ]
    found += [Edge("", "", _bare(one["name"]), _tight(one["range"])) for one in _REQUESTED.finditer(flat)]
    yours = [one for told in _YOU_REQUIRE.finditer(joined) for one in _ONE.finditer(told["list"])]
    found += [Edge("", "", _bare(one["name"]), _tight(one["range"])) for one in yours]
    return tuple(dict.fromkeys(found))


def _bare(name: str) -> str:
    return canonicalize_name(name.split("[")[0])


def _tight(specifier: str | None) -> str:
    return re.sub(r"\s+", "", re.sub(r"\s+and\s+", ",", specifier or "")).rstrip(".")


def find_conflicts(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find requirements that can't be met together, as pip or uv tells."""
    text = case.failure.text if case.failure else ""
    if not _CONFLICT.search(text):
        return
    told = edges(text)
    for name in dict.fromkeys(edge.name for edge in told):
        ranges = [edge for edge in told if edge.name == name and _is_range(edge.range)]
        against = _clash(ranges, knowledge.metadata.releases(name))
        if against:
            yield _conflict(case, knowledge, name, against, told)


def _is_range(specifier: str) -> bool:
    try:
        return bool(specifier) and SpecifierSet(specifier) is not None
    except InvalidSpecifier:
        return False


def _clash(ranges: list[Edge], releases: tuple[Release, ...]) -> tuple[Edge, Edge] | None:
    """Return two requirements of one distribution that no release meets."""
    for place, one in enumerate(ranges):
        for other in ranges[place + 1 :]:
            if one.who != other.who and not _both(one.range, other.range, releases):
                return one, other
    return None


def _both(one: str, other: str, releases: tuple[Release, ...]) -> bool:
    whole = SpecifierSet(f"{one},{other}")
    if releases:
        return any(whole.contains(release.version) for release in releases)
    limits = [part.version.removesuffix(".*") for part in whole if part.operator != "==="]
    return any(whole.contains(one, prereleases=True) for limit in limits for one in (limit, f"{limit}.1"))


def _conflict(case: Case, knowledge: Known, name: str, against: tuple[Edge, Edge], told: Iterable[Edge]) -> Finding:
    one, other = against
    requested = {edge.name: edge.range for edge in told if not edge.who}
    changes = []
    for mover, stays in ((one, other), (other, one)):
        if not mover.who:
            changes.append(
                (500, Change("pin", f"Ask for the {name} that {stays.who} asks for.", (f"{name}{stays.range}",)))
            )
            continue
        release, steps = _release_that_goes(knowledge, mover, name, stays.range)
        if release is None:
            continue
        moved = f"{mover.who}=={release.version}"
        asked = requested.get(mover.who, "")
        cost = steps + (1000 if asked and not SpecifierSet(asked).contains(release.version) else 0)
        wants = f"{stays.who} {stays.version}".strip() + " asks" if stays.who else "you ask"
        text = f"Take {mover.who} {release.version}: it goes with the {name}{stays.range} that {wants} for."
        changes.append((cost, Change("pin", text, (moved,))))
    changes.sort(key=lambda each: each[0])
    return Finding(
        "conflicting-requirements",
        "resolve/conflict",
        "error",
        0.9,
        f"{one}, and {other}: no release of {name} is both.",
        tuple(str(edge) for edge in against),
        "A resolver can't choose two releases of one distribution; one of the two who ask must move.",
        tuple(change for _, change in changes),
        not_this="--no-deps or --force-reinstall: it installs a pair that nobody tested",
        culprits=tuple(dict.fromkeys((*(edge.who for edge in against if edge.who), name))),
        source=f"the resolver's own words; declared metadata of {getattr(knowledge.metadata, 'date', '')}",
    )


def _release_that_goes(knowledge: Known, mover: Edge, name: str, specifier: str) -> tuple[Release | None, int]:
    """Return the release of who asks, nearest to the told one, whose requirement some release in a range meets."""
    releases: tuple[Release, ...] = knowledge.metadata.releases(mover.who)
    there = [place for place, one in enumerate(releases) if str(one.version) == mover.version]
    start = there[0] if there else len(releases) - 1
    candidates = knowledge.metadata.releases(name)
    for place in sorted(range(len(releases)), key=lambda each: (abs(each - start), each < start)):
        release = releases[place]
        wanted = _required(release, name)
        if wanted is None or release.yanked or release.version.is_prerelease:
            continue
        if not wanted or _both(wanted, specifier, candidates):
            return release, abs(place - start)
    return None, 0


def _required(release: Release, name: str) -> str | None:
    """Return the range that a release asks of a distribution, "" for any; None where it doesn't ask."""
    asked = next((requirement(line) for line in release.requires if name_of(line) == name), None)
    return str(asked.specifier) if asked else None
