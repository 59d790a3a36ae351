"""Changes for two distributions of different times, of which one asks for what the other does not have."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from doctor.case import Case
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.moves import Move, into, out_of, to_range
from doctor.finding import Change
from doctor.knowledge.metadata import Release
from doctor.knowledge.symbols import Span


def with_version(case: Case, name: str) -> str:
    version = case.environment.version(name)
    return f"{name} {version}" if version else name


@dataclass(frozen=True)
class Pair:
    """Who asks, of whom, and in which releases of either it goes well."""

    importer: str
    target: str
    has: tuple[Span, ...] | None
    uses: tuple[Span, ...]


def in_common(some: Iterable[Span], others: Iterable[Span]) -> Iterator[Span]:
    """Yield what two series of spans have in common."""
    others = tuple(others)
    for one in some:
        for other in others:
            first = max(one.first, other.first)
            ends = [end for end in (one.end, other.end) if end]
            if not ends or first < min(ends):
                yield Span(first, min(ends) if ends else None, one.from_start and other.from_start)


def joined(spans: Iterable[Span]) -> Iterator[Span]:
    """Yield spans with those that overlap as one."""
    last: Span | None = None
    for span in sorted(spans, key=lambda one: one.first):
        if last and (last.end is None or span.first <= last.end):
            end = None if last.end is None or span.end is None else max(last.end, span.end)
            last = Span(last.first, end, last.from_start)
        else:
            if last:
                yield last
            last = span
    if last:
        yield last


def pair_changes(case: Case, knowledge: Known, pair: Pair) -> Iterator[Change]:
    """Yield changes that mend a pair, the least costly first: by the tables, else by the days of the releases.

    Args:
        case: what is known.
        knowledge: metadata.
        pair: who asks, of whom, and in which releases of either it goes well.
    """
    moves = into(case, knowledge, pair.target, pair.has, but=pair.importer) if pair.has else []
    if pair.uses:
        moves += out_of(case, knowledge, pair.importer, pair.uses, but=pair.target)
    if not pair.has or not pair.uses:
        moves += _by_days(case, knowledge, pair)
    yield from (move.change for move in sorted(moves, key=lambda one: one.cost))
    if not moves:
        text = f"Take a {pair.target} of the time of {with_version(case, pair.importer)}, or the other way round."
        yield Change("code", text)


def _by_days(case: Case, knowledge: Known, pair: Pair) -> list[Move]:
    """Return the moves of sides whose symbols nobody knows: the one that is older is raised, or the other lowered."""
    importer, target = _release(case, knowledge, pair.importer), _release(case, knowledge, pair.target)
    if importer is None or target is None:
        return []
    early = importer.uploaded < target.uploaded
    moves = []
    if not pair.has:
        other = pair.importer
        moves += (
            _lowered(case, knowledge, pair.target, importer, other) if early else raised(case, knowledge, pair.target)
        )
    if not pair.uses:
        other = pair.target
        moves += (
            raised(case, knowledge, pair.importer) if early else _lowered(case, knowledge, pair.importer, target, other)
        )
    return moves


def _release(case: Case, knowledge: Known, name: str) -> Release | None:
    version = case.environment.version(name)
    releases: tuple[Release, ...] = knowledge.metadata.releases(name)
    return next((one for one in releases if one.version == version), None)


def _lowered(case: Case, knowledge: Known, name: str, of: Release, but: str) -> list[Move]:
    """Return the move of a distribution to what was newest when a release of another one was made."""
    here = case.environment.version(name)
    earlier = [one.version for one in knowledge.metadata.releases(name)
               if one.uploaded <= of.uploaded and not one.version.is_prerelease]  # fmt: skip
    earlier = [version for version in earlier if here and version < here]
    return to_range(case, knowledge, name, f"<={earlier[-1]}", but=but) if earlier else []


def raised(case: Case, knowledge: Known, name: str) -> list[Move]:
    """Return the move of a distribution to a newer release, where there is one.

    Args:
        case: what is known.
        knowledge: metadata.
        name: the distribution.
    """
    here = case.environment.version(name)
    if here is None or not any(one.version > here for one in knowledge.metadata.releases(name)):
        return []
    return to_range(case, knowledge, name, f">{here}")


def culprits_of(changes: tuple[Change, ...], importer: str, target: str) -> tuple[str, ...]:
    moved = [re.split(r"[<>=!~\[; ]", change.requirements[0])[0] for change in changes if change.requirements]
    return tuple(dict.fromkeys([*moved, target, importer]))
