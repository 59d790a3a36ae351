"""What a resolver says of why nothing fits: who wants what, which versions there are."""

import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from doctor.failure.specifiers import specifier_of

# All of them bounded, so that the time stays linear.
_NAME = r"(?<![\w.\-])[A-Za-z0-9][\w.\-]{0,60}"
_WHO = rf"(?P<by>(?<![\w.\-])(?!\d[\d.]{{0,60}}(?![\w.\-])){_NAME})(?:\[[\w,\- ]{{0,80}}\])?"
_SPECS = r"(?:[<>=!~^]=?=?\s?[\w.*+!]{1,40}(?:\s?,\s?|\s(?:and|or)\s(?=[<>=!~]))?){0,8}"
_WHAT = rf"(?P<name>{_NAME})(?:\[[\w,\- ]{{0,80}}\])?\s?\(?(?P<specifier>{_SPECS})\)?"
_PIP = re.compile(rf"^[ \t]{{0,12}}{_WHO}\s(?P<version>\d\S{{0,60}}) depends on {_WHAT}", re.MULTILINE)
_PIP_USER = re.compile(rf"^[ \t]{{0,12}}The user requested (?:\(constraint\) )?{_WHAT}", re.MULTILINE)
_CHECK = re.compile(
    rf"(?:^|\s){_WHO} (?P<version>\d\S{{0,60}}) requires {_WHAT}(?:; [^,\n]{{1,80}})?, "
    rf"(?:but you have (?P<there>{_NAME})[ =]{{1,2}}(?P<has>\d\S{{0,60}}?)(?: which|\.?\s|\.?$)|which is not)",
    re.MULTILINE,
)
_UV = re.compile(rf"(?<![\w.\-]){_WHO}(?P<version>{_SPECS}|\s\(\d[\w.]{{0,40}}\)) (?:depends?|depending) on {_WHAT}")
_UV_ALL = re.compile(rf"\ball (?:of the )?versions of {_WHO}(?P<version>) depend on {_WHAT}")
_UV_USER = re.compile(rf"\b(?:you require|your project depends on|your workspace requires|and depends on) {_WHAT}")
_CONDA = re.compile(
    rf"\b{_WHO}[ -](?P<version>\d[\w.]{{0,40}})\S{{0,60}} (?:requires|would require) {_WHAT}(?![^\n]{{0,200}}(?:but "
    rf"you have|which is not))",
)
_OFFERED = re.compile(
    r"requirement (?P<name>[\w.\-]{1,80})[^\n]{0,200}?\(from versions: (?P<versions>[^)\n]{0,20000})\)"
)
_MISSING = re.compile(
    rf"(?P<name>{_NAME})(?:{_SPECS}) was not found in the (?:package registry|provided|cache)|"
    rf"there (?:is|are) no versions? of (?P<none>{_NAME})|No matching distribution found for (?P<nothing>{_NAME})"
)
_PYTHON = re.compile(
    rf"(?<![\w.])(?P<version>\d[\w.]{{0,40}}) Requires-Python (?P<python>{_SPECS})|"
    rf"Package '(?P<name>{_NAME})' requires a different Python: \S+ not in '(?P<needs>[^'\n]{{1,100}})'|"
    rf"(?P<by>{_NAME})(?:{_SPECS}| \d\S{{0,60}}) (?:depends on|requires|would require) [Pp]ython ?(?P<wants>{_SPECS})"
)


@dataclass(frozen=True)
class Wish:
    """A requirement that takes part in a conflict.

    Args:
        by: normalised name of the distribution that has it; empty where the user has.
        version: its version, or a range of them as a specifier; empty where not told.
        name: normalised name of what is required.
        specifier: versions of it that would do; empty where any.
        found: version of it that is installed, where the statement is about an environment.
    """

    by: str
    version: str
    name: str
    specifier: str
    found: str | None = None


@dataclass(frozen=True)
class Resolution:
    """What a resolver says.

    Args:
        wishes: requirements in the order in which they are told.
        offered: names with the versions that the index has.
        missing: names that the index does not have, or of which no version fits.
        python: versions or names with the Pythons that they need.
    """

    wishes: tuple[Wish, ...] = ()
    offered: tuple[tuple[str, tuple[str, ...]], ...] = ()
    missing: tuple[str, ...] = ()
    python: tuple[tuple[str, str], ...] = ()


def read_resolution(text: str) -> Resolution:
    """Return what a resolver's output says, of pip, uv, Poetry and conda.

    Args:
        text: the output, without colours; other lines in it don't matter.

    Returns:
        Its facts; empty ones where it is no such output.
    """
    text = re.sub(
        rf"depends on both ({_NAME} \([^()\n]{{0,80}}\)) and ", r"depends on \1 and depends on ", text[:200_000]
    )
    flat = " ".join(line.strip().lstrip("│╰├─▶ ") for line in text.split("\n"))
    wishes: list[Wish] = []
    for pattern, where in ((_PIP, text), (_CHECK, text), (_UV, flat), (_UV_ALL, flat), (_CONDA, text)):
        for found in pattern.finditer(where):
            wish = _wish(found)
            if wish and wish.by not in ("you", "project", "python"):
                wishes.append(wish)
    for pattern, where in ((_PIP_USER, text), (_UV_USER, flat)):
        for found in pattern.finditer(where):
            wishes.append(Wish("", "", canonicalize_name(found["name"]), _specifier(found["specifier"])))
    offered: list[tuple[str, tuple[str, ...]]] = []
    for found in _OFFERED.finditer(text):
        versions = tuple(one.strip() for one in found["versions"].split(",") if one.strip()[:1].isdigit())
        offered.append((canonicalize_name(re.split(r"[<>=!~\[ ]", found["name"])[0]), versions))
    missing = (found["name"] or found["none"] or found["nothing"] for found in _MISSING.finditer(flat))
    python = (
        (
            found["version"] or found["name"] or found["by"],
            (found["python"] or found["needs"] or found["wants"]).strip(),
        )
        for found in _PYTHON.finditer(flat)
        if (found["python"] or found["needs"] or found["wants"])
    )
    return Resolution(
        tuple(dict.fromkeys(wishes)),
        tuple(dict.fromkeys(offered)),
        tuple(dict.fromkeys(canonicalize_name(name) for name in missing)),
        tuple(dict.fromkeys((name, requires.rstrip(",")) for name, requires in python)),
    )


def _wish(found: re.Match[str]) -> Wish | None:
    """Return the requirement of a match; None where it names Python or nothing."""
    name = canonicalize_name(found["name"].rstrip("."))
    if name in ("python", "") or found["by"].lower() in ("because", "and", "that"):
        return None
    version = (found["version"] or "").strip(" ()")
    version = version.removeprefix("==") if version.startswith("==") and "," not in version else version
    return Wish(
        canonicalize_name(found["by"]),
        version.rstrip(","),
        name,
        _specifier(found["specifier"]),
        found.groupdict().get("has"),
    )


def _specifier(text: str) -> str:
    """Return the specifier of a requirement as resolvers write them: "<1 and >=0.23.0", "^2.0", ">=1,<2"."""
    text = text.strip().rstrip(",").replace(" and ", ",").replace(" ", "")
    if text.startswith("^"):
        parts = text[1:].split(".")
        return f">={text[1:]},<{int(parts[0]) + 1}" if parts[0].isdigit() else ""
    return specifier_of(text) if text else ""
