"""A pin and the requirement of the same project that stands in a file already, as one requirement."""

from packaging.requirements import Requirement
from packaging.specifiers import Specifier, SpecifierSet
from packaging.utils import canonicalize_name

from doctor.environment.facts import Declared, Environment


def merged(old: str, pin: str) -> str | None:
    """Return a requirement that a pin is worked into; what of the old range goes with the pin stays.

    Args:
        old: the requirement that stands there, without a comment.
        pin: the requirement to hold.

    Returns:
        The new requirement, written as the old one is (its name, extras, marker); the old one where it holds the pin
        already; None where it can't be told, because it names a URL or the pin has another marker.
    """
    before, wanted = Requirement(old), Requirement(pin)
    if before.url or wanted.url or (wanted.marker and str(wanted.marker) != str(before.marker)):
        return None
    if any(part.operator in ("==", "===") and "*" not in part.version for part in before.specifier) and all(
        wanted.specifier.contains(part.version, prereleases=True) for part in before.specifier
    ):
        return old
    if set(wanted.specifier) <= set(before.specifier):
        return old
    exact = any(part.operator in ("==", "===") for part in wanted.specifier)
    kept = [] if exact else [part for part in before.specifier if _goes_with(part, wanted.specifier)]
    extras = sorted(before.extras | wanted.extras)
    name = before.name + (f"[{','.join(extras)}]" if extras else "")
    marker = f"; {before.marker}" if before.marker else ""
    return f"{name}{_in_order([*kept, *wanted.specifier])}{marker}"


def names_the_same(one: str, other: str) -> bool:
    """Return whether two requirements are of one project."""
    return canonicalize_name(Requirement(one).name) == canonicalize_name(Requirement(other).name)


def _goes_with(part: Specifier, wanted: SpecifierSet) -> bool:
    """Return whether some version is in both, and the old part still says something."""
    of_name = Environment("both", declared=(Declared("both", str(part)),))
    if of_name.may_be("both", str(wanted)) is False:
        return False
    return not any(part.operator[0] == one.operator[0] for one in wanted if one.operator != "!=")


def _in_order(parts: list[Specifier]) -> str:
    """Return a range as people write it: from below, then to above."""
    order = {">": 0, ">=": 0, "~=": 1, "==": 2, "===": 2, "<": 3, "<=": 3, "!=": 4}
    return ",".join(dict.fromkeys(map(str, sorted(parts, key=lambda part: (order.get(part.operator, 5), str(part))))))
