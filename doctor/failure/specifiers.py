"""Versions that people write in words, as specifiers: "older than 4.43" is "<4.43"."""

import re

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

NOT_THERE = "<0"  # no version lies in it: the text says that it is not installed
# A version: 4.40.2, 2.6.0.dev+cu124, 2.4.0a0, 0.0.29.post3, 2.8.2+cu12torch2.6, 5.x, 2025.2.x; a number alone only as
# a whole text.
_VERSION = (
    r"(?<![\w.\-=<>])v?(?P<{0}>\d{{1,4}}(?:\.\d{{1,9}})*(?:\.(?:[xX*]\b|\*)|"
    r"(?:\.?(?:a|b|rc|post|dev)\d{{0,9}}){{0,3}}(?:\+[A-Za-z0-9]{{1,60}}(?:\.[A-Za-z0-9]{{1,30}}){{0,4}})?))(?![\w]|"
    r"\.\d)"
)
_ONE = re.compile(_VERSION.format("version"))
_EXPLICIT = re.compile(r"\s*[\"'(]?\s*(?P<operator>===?|>=|<=|~=|!=|<|>|=|≥|≤)\s*v?(?P<version>\d[\w.*+!]*)")
_DATES = re.compile(
    r"\b(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)[a-z]*\.?(?:\s*[-/\u2013]\s*(?:Jan|"
    r"Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*)?\s+(?:\d{1,2},?\s+)?(?:19|"
    r"20)\d\d\b|"
    r"\b(?:early|mid|late|end of|summer|spring|autumn|winter|in|of)[- ](?:19|20)\d\d\b(?!\.)|\b20\d\d-\d\d(?:-\d\d)?\b"
)
# Numbers that belong to something else.
_OTHERS = re.compile(
    r"\b(?:NCCL|nccl|CUDA|cuda|Python|python|cuDNN|cudnn|driver|line|lines|GLIBC|"
    r"glibc|GCC|gcc|nv|ROCm|issue|PR|SM|sm|capability)[ _:=v]{0,3}\d[\d.]*|(?<![+\w])cu\d{2,3}(?:/cu\d{2,3})*\b|"
    r"\b\d+(?:\.\d+)? ?(?:GB|GiB|MB|MiB|bit|%|s\b|x\b)|#\d+|\b(?:capped|requires|"
    r"needs|with|while) [a-z][\w\-]*\s*[<>=!]=?\s*\d[\d.]*|"
    r"\b(?:for|against|by|into) [A-Za-z][\w\-]{1,40} v?\d[\d.]*|\b\d\d\.\d\d?(?= (?:container|"
    r"image|toolkit|driver|runtime)\b)|"
    r"[,;] (?:while |but |though )?(?:the )?(?:newest|latest|expected|needs?|wants?|required|requires)\b[^,;(]{0,80}"
)
# "pre-1.0" and "upgraded from 1.0 to 2.0" in the words that the rest reads.
_SPELT = (
    (re.compile(r"(?<![.\w])[Pp]re-?(?=\d)"), "before "),
    (re.compile(r"(?<![.\w])[Pp]ost-?(?=\d)"), "since "),
    (
        re.compile(
            r"(?:\b(?:up|down)grad\w+ |\bmoved |\bchanged )?\bfrom \S+ to (?=v?\d)|.*(?:->|"
            r"\u2192|\u21d2)\s*(?=v?\d)"
        ),
        "",
    ),
)
_BELOW = re.compile(
    r"\b(?:older|earlier|lower|less|smaller) than|\b(?:before|below|prior to|under|until|pre-?)\b", re.IGNORECASE
)
_ABOVE = re.compile(r"\b(?:newer|later|higher|greater|more recent) than|\b(?:after|above|beyond)\b", re.IGNORECASE)
_AT_MOST = re.compile(r"\b(?:up to|at most|not newer than|no newer than|through|maximum)\b", re.IGNORECASE)
_AT_LEAST = re.compile(
    r"\b(?:at least|not older than|no older than|since|from|starting (?:with|at)|minimum)\b", re.IGNORECASE
)
_OR_OLDER = re.compile(r"[^\d,;.]{0,25}?\b(?:or|and) (?:older|earlier|lower|below|before|less)\b", re.IGNORECASE)
_OR_NEWER = re.compile(
    r"[^\d,;.]{0,25}?\b(?:or|and) (?:newer|later|higher|above|up|upwards|greater|"
    r"more)\b|\+(?![\w.])|\s?(?:and )?onwards\b",
    re.IGNORECASE,
)
_ABSENT = re.compile(
    r"(?:is |was )?(?:not (?:installed|there|present|found|available)|absent|"
    r"missing|uninstalled|removed|n/?a|none|no)\b[^\d]*$",
    re.IGNORECASE,
)
_BETWEEN = re.compile(
    _VERSION.format("low")
    + r"\s*(?:-|\u2013|\u2014|to|\.\.|through|and)\s*"
    + _VERSION.format("high").replace(r"(?<![\w.\-=<>])", "")
)


def specifier_of(text: str, *, exact: bool = False) -> str:
    """Return the versions that a text about one distribution allows.

    Args:
        text: what is said of its version: "4.40.2", ">=4.39 (dev at the time)", "0.7.11 or older", "2025.2.x".
        exact: whether a number of two parts is a whole version, as in tables, and not a series, as in sentences.

    Returns:
        A specifier that packaging reads. "" where none can be told. Of several versions that are named beside one
        another the range from the lowest to the highest. `NOT_THERE` where it is said not to be installed.
    """
    text = text.strip().strip("`\"'*")[:400]
    explicit = _leading(text)
    if explicit:
        return "" if re.search(r"\bor\s+[<>=]", text) else explicit
    if _ABSENT.match(text):
        return NOT_THERE
    for pattern, word in _SPELT:
        text = pattern.sub(word, text)
    plain = _OTHERS.sub(" ", _DATES.sub(" ", text))
    if re.search(r"after the fix|either side", plain, re.IGNORECASE):
        return ""
    outside = re.sub(r"\([^()]*\)?", " ", plain)
    inside = re.search(r"\((\s*[<>=~!][^()]*)", plain)
    if inside and not re.search(r"\d", outside):
        return _leading(inside[1])
    plain = outside if _ONE.search(outside) else plain
    if len(re.findall(r"\d", plain)) == 0:
        return ""
    lone = re.fullmatch(r"\s*v?(\d{1,4})\s*", plain)
    if lone:
        return f"=={lone[1]}.*"
    found = [
        one
        for one in _ONE.finditer(plain)
        if "." in one["version"]
        or (one["version"].isdigit() and int(one["version"]) < 100 and _may_be_alone(plain, one))
    ]
    if not found:
        return ""
    return _valid(_ranged(plain, found, exact))


def _may_be_alone(text: str, found: re.Match[str]) -> bool:
    """Return whether a number without a dot is a version: at the beginning, or after "below" and its like."""
    before = text[: found.start()]
    return not before.strip() or bool(re.search(r"(?:than|below|under|before|above|least|to) $", before))


def _ranged(text: str, found: list[re.Match[str]], exact: bool) -> str:
    """Return the specifier of a text by the versions that were found in it and the words beside them."""
    first = found[0]
    before, after = text[: first.start()][-40:], text[first.end() :][:60]
    version = first["version"]
    if re.search(r"\bnot (?:the )?$", before):
        return f"!={_series(version)}"
    if _BELOW.search(before):
        return f"<{_public(version)}"
    if _AT_MOST.search(before):
        return _at_most(version)
    between = _BETWEEN.search(text)
    if between and between.start() <= first.start():
        return f">={_public(between['low'])},{_at_most(between['high'])}"
    if _ABOVE.search(before):
        return f">{_public(version)}"
    if _AT_LEAST.search(before):
        return f">={_public(version)}"
    if _OR_OLDER.match(after):
        return _at_most(version)
    if _OR_NEWER.match(after):
        dev = ".dev0" if re.match(r"\s?(?:dev|nightly|nightlies|pre)", after) and "dev" not in version else ""
        return f">={_public(version)}{dev}"
    if re.search(r"\b(?:an )?older (?:copy|one|version)", after):
        return _at_most(version)
    if re.match(r"-era", after):
        return f"=={_series(version)}"
    others = (
        []
        if re.match(r"\s?(?:instead of|rather than|not|chosen|over)\b", after)
        else [one["version"] for one in found[1:]]
    )
    if others:
        return _hull([version, *others])
    if re.match(r"\s?(?:dev\b|nightly|dev builds)", after) and len(version.split(".")) == 2:
        return f"=={_series(version)}"
    return _equal(version, exact)


def _leading(text: str) -> str:
    """Return the comparisons that a text begins with: ">=0.25,<0.26 in this image"."""
    parts, at = [], 0
    while found := _EXPLICIT.match(text, at):
        operator = {"=": "==", "≥": ">=", "≤": "<="}.get(found["operator"], found["operator"])
        version = found["version"].rstrip(".")
        if operator in ("<", ">", "<=", ">=", "~="):
            version = _public(version)
        elif version.endswith((".x", ".X")):
            version = f"{version[:-1]}*"
        parts.append(operator + version)
        at = found.end()
        comma = re.match(r"\s*,(?=\s*[<>=!~])|\s+(?:and\s+)?(?=[<>=!~])", text[at:])
        if not comma:
            break
        at += comma.end()
    return _valid(",".join(parts))


def _public(version: str) -> str:
    """Return a version without its local part and its x."""
    return re.sub(r"\+.*$|(?:\.[xX*])+$", "", version)


def _series(version: str) -> str:
    """Return a version as the series that it names: 2.11 is 2.11.*, and so is 2.11.x."""
    public = _public(version)
    return public if re.search(r"[a-z]", public) else f"{public}.*"


def _at_most(version: str) -> str:
    """Return the comparison that ends with a version, or with the whole series where it is one."""
    public = _public(version)
    if (
        public.count(".") >= 2
        or re.search(r"[a-z]", public)
        or (version == public and public.count(".") == 1 and False)
    ):
        return f"<={public}"
    parts = [int(part) for part in public.split(".")]
    return f"<{'.'.join(map(str, [*parts[:-1], parts[-1] + 1]))}"


def _equal(version: str, exact: bool) -> str:
    """Return the specifier of a version: exact, or the series where it names one."""
    public = _public(version)
    if version[-1:] in "xX*":
        return f"=={public}.*"
    return (
        f"=={version}"
        if exact or "+" in version or public.count(".") >= 2 or re.search(r"[a-z]", public)
        else f"=={public}.*"
    )


def _hull(versions: list[str]) -> str:
    """Return the range from the lowest to the highest of several versions."""
    try:
        ordered = sorted(versions, key=lambda version: (Version(_public(version)), -len(version)))
    except InvalidVersion:
        return ""
    low, high = ordered[0], ordered[-1]
    if Version(_public(low)) == Version(_public(high)):
        return _equal(high, False)
    return f">={_public(low)},{_at_most(high)}"


def _valid(specifier: str) -> str:
    """Return a specifier that packaging reads, else "" ."""
    try:
        return (
            str(SpecifierSet(specifier))
            if "," not in specifier
            else ",".join(str(SpecifierSet(part)) for part in specifier.split(","))
        )
    except InvalidSpecifier:
        return ""
