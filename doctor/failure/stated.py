"""Versions that a text tells: lists of packages, reports of environments, and sentences."""

import re
from collections.abc import Iterator, Sequence
from urllib.parse import unquote

from doctor.environment.facts import Declared
from doctor.failure.cleaning import Line
from doctor.failure.names import ALIASES, KNOWN, NEVER, distribution
from doctor.failure.specifiers import specifier_of

_V = (
    r"v?\d{1,4}(?:\.\d{1,9}){1,5}(?:\.?(?:a|b|rc|post|dev)\d{0,9}){0,3}"
    r"(?:\+[A-Za-z0-9]{1,60}(?:\.[A-Za-z0-9]{1,30}){0,4})?"
)
_NAME = r"[A-Za-z][\w.\-]{0,60}"
# What messages say of what is really there; these come before what anybody writes.
_FOUND = re.compile(
    rf"(?:but found|found|but you have|you have|installed version is|but got) "
    rf"`?(?P<name>{_NAME})(?:==| |-)(?P<version>{_V})(?![\w])"
)
_REQUIRER = re.compile(
    rf"(?:^|\s)(?P<name>{_NAME})(?:\[[\w,\-]*\])? (?P<version>{_V}) requires \S.{{0,200}}?(?:, "
    rf"but you have|, which is not)"
)
_SATISFIED = re.compile(rf"Requirement already satisfied: (?P<name>{_NAME})[^\n]{{0,600}}\((?P<version>{_V})\)\s*$")
_INSTALLED = re.compile(rf"(?P<name>{_NAME}?)-(?P<version>{_V})(?=\s|$)")
_UV_CHANGE = re.compile(rf"\s{{0,4}}[+~] (?P<name>{_NAME})==(?P<version>\S{{1,80}})")
_PINNED = re.compile(
    rf"^[\s>*•+\-|`]{{0,12}}(?:\[(?:pip3?|conda|uv)\] )?[`'\"]?(?P<name>{_NAME})(?:\[[\w, \-]*\])?"
    rf"\s{{0,3}}(?P<specifier>(?:===?|>=|<=|~=|!=|<|>)\s{{0,3}}\d[^\n]{{0,120}})$"
)
_AT_URL = re.compile(rf"\s{{0,8}}(?P<name>{_NAME})(?:\[[\w,\- ]*\])? ?@ ?(?P<url>(?:https?|file|git\+)\S{{1,1000}})")
_WHEEL = re.compile(r"/[\w.]{1,80}-(?P<version>\d[^-/\s]{0,80})-[^/\s]{1,120}\.whl")
_ROW = re.compile(
    rf"^[\s>|\-*•]{{0,6}}(?:\[(?:pip3?|conda|uv)\] )?(?P<name>{_NAME})[ \t|]{{1,60}}(?P<version>{_V}|"
    rf"\d{{1,4}})(?P<rest>(?:[ \t|].{{0,200}})?)$"
)
_HEAD = re.compile(r"[\s>|]{0,8}(?:Package\s+\|?\s*Version|# packages in environment|#\s+Name\s+Version|-{4,}\s+-{4,})")
_COLON = re.compile(
    r"^[\s>*•+\-|\d.)]{0,10}(?P<key>[^:=|\n]{2,60}?)\s{0,20}(?::|\||=(?!=))\s{0,40}(?P<value>\S.{0,300})$"
)
_WORDS = "|".join(
    sorted(
        (
            re.escape(name).replace(r"\-", "[-_ ]?")
            for name in KNOWN | set(ALIASES)
            if name
            not in (
                "art",
                "black",
                "fire",
                "rich",
                "regex",
                "ray",
                "guidance",
                "kernels",
                "adapters",
                "docker",
                "evaluate",
                "requests",
                "outlines",
                "np",
                "tf",
                "pil",
                "yaml",
                "liger",
                "lightning",
                "keras",
            )
        ),
        key=len,
        reverse=True,
    )
)
_SENTENCE = re.compile(
    rf"(?<![\w.\-/])(?P<name>{_WORDS})[`*'\"]{{0,3}}(?: [Vv]ersion)?[`*]{{0,3}}(?:\s{{0,2}}[:=]{{1,2}}\s{{0,2}}|"
    rf"\s(?:(?:is|was|at|is at|of)\s)?|@)(?:version |v)?(?P<version>{_V})(?!\w|/\w|\.\d)",
    re.IGNORECASE,
)
# What people say of a version that they don't know.
_VAGUE = re.compile(
    r"(?:.{0,30}\b)?(?:old|older|new|newer|newest|latest|recent|any|git|main|"
    r"master|source|nightly|dev|pinned|unpinned|default|(?:pre)?installed|wheel|"
    r"build|(?:pre-)?releases?|version|upgraded|downgraded|changed|missing|standalone|copy|"
    r"unknown|early|late|20\d\d|cu\d{2,3}|CUDA|CPU|NCCL|pip|conda|\d[\d.]*)\b"
)
_WANTED = re.compile(
    r"(?:requires?|required|needs?|install|upgrade(?:d)? to|downgrade(?:d)? to|"
    r"until|since|before|after|than|try|use|removed in|added in|in|from|"
    r"(?:work(?:s|ed|ing)?(?: fine)?|compiled|built|tested) with|build|supports?|for|to)\s[`'\"]?$",
    re.IGNORECASE,
)
_DEPENDS = re.compile(
    r"depends on|Because |and because|The conflict is caused|which is incompatible|"
    r"from versions|you require|Collecting |Downloading |Using cached|Cannot install|"
    r"depend on|hint:|requires |is required|->|[├└│]|would require"
)


def read_stated(lines: Sequence[Line], taken: frozenset[int]) -> tuple[Declared, ...]:
    """Return the versions that a text tells, the surest statement of a name first.

    Args:
        lines: lines of the text, without prefixes.
        taken: numbers of lines that belong to tracebacks, where only messages tell a version.

    Returns:
        Names with what is known of their versions; "" where a name is told and its version is not. Of a name that is
        told of twice in different ways both stay, in this order: what a program found, lists, lines "name: version",
        sentences.
    """
    found: list[tuple[int, int, Declared]] = []
    in_table = _tables(lines)
    shown = ""  # the name in the output of `pip show`, whose version is on the next line
    for at, line in enumerate(lines):
        text = line.text
        if not text.strip() or len(text) > 5000:
            continue
        if text.startswith("Name: ") and line.number not in taken:
            shown = text
        elif shown and text.startswith("Version: "):
            name = distribution(shown.removeprefix("Name: "))
            if name:
                specifier = specifier_of(text.removeprefix("Version: "), exact=True)
                found.append(
                    (2, line.number, Declared(name, specifier, f"the text, line {line.number}", shown.strip()))
                )
            shown = ""
            continue
        for rank, name, specifier in _of_line(text, line.number in taken, at in in_table):
            if name not in NEVER:
                found.append(
                    (
                        rank,
                        line.number,
                        Declared(name, specifier, f"the text, line {line.number + 1}", text.strip()[:200]),
                    )
                )
    # Of two installations the later one counts; else the first thing said.
    found.sort(key=lambda one: (one[0], not one[2].specifier, -one[1] if one[0] == 1 else one[1]))
    kept: dict[str, dict[str, Declared]] = {}
    settled: set[str] = set()
    for rank, _, one in found:
        known = kept.setdefault(one.name, {})
        if known and (not one.specifier or rank == 1 or one.name in settled):
            continue
        if rank == 1:
            settled.add(one.name)
        # Of 2.6.0 and 2.6.0+cu124 the one that tells more.
        public = one.specifier.partition("+")[0]
        if public not in known or len(one.specifier) > len(known[public].specifier):
            known[public] = one
    return tuple(one for known in kept.values() for one in known.values())


def states_version(text: str) -> bool:
    """Return whether a line states the version of a distribution that is known by name."""
    if "=" not in text and ":" not in text and not text[-1:].isdigit():
        return False
    found = _PINNED.match(text) or _ROW.match(text)
    if found:
        return distribution(found["name"]) in KNOWN
    keyed = _COLON.match(text)
    if not keyed or distribution(keyed["key"]) not in KNOWN:
        return False
    return bool(specifier_of(keyed["value"]) or _VAGUE.match(keyed["value"])) and not text.startswith("File")


def _of_line(text: str, taken: bool, table: bool) -> Iterator[tuple[int, str, str]]:
    """Yield rank, name and specifier of what a line states."""
    for pattern in (
        (_FOUND, _REQUIRER) if "equire" in text or "ound" in text or "you have" in text or "got" in text else ()
    ):
        for found in pattern.finditer(text):
            name = distribution(found["name"])
            if name:
                yield 0, name, f"=={found['version'].lstrip('v')}"
    if taken:
        return
    if "already satisfied" in text:
        found_one = _SATISFIED.search(text)
        if found_one:
            yield from _exact(2, found_one)
        return
    if "Successfully installed" in text:
        for found in _INSTALLED.finditer(text.partition("Successfully installed")[2]):
            yield from _exact(1, found)
        return
    change = _UV_CHANGE.match(text)
    if change:
        yield from _exact(1, change)
        return
    if _DEPENDS.search(text):
        return
    pinned = _PINNED.match(text)
    if pinned:
        name = distribution(pinned["name"])
        specifier = specifier_of(re.split(r"\s*(?:;|#|--hash|\s@)", pinned["specifier"])[0], exact=True)
        if name and specifier:
            yield 2 if specifier.startswith("==") else 3, name, specifier
        return
    at_url = _AT_URL.match(text)
    if at_url:
        name = distribution(at_url["name"])
        if name:
            wheel = _WHEEL.search(at_url["url"])
            yield 2, name, specifier_of(unquote(wheel["version"]), exact=True) if wheel else ""
        return
    row = _ROW.match(text)
    if row:
        name = distribution(row["name"])
        if name and (table or name in KNOWN):
            rest = row["rest"].strip()
            qualified = re.match(r"(?:or|and) \w+(?:er|ow|ve|p)\b|\+|to \d|[-\u2013] ?\d|dev\b", rest)
            said = specifier_of(f"{row['version']} {rest[:30]}" if qualified else row["version"])
            yield (2, name, f"=={row['version'].lstrip('v')}") if table else (3, name, said)
            return
    keyed = _COLON.match(text)
    if keyed:
        name = distribution(keyed["key"])
        if name in KNOWN and not re.search(r"[\w]\(|\bimport\b|\bTrue\b|\{", keyed["value"].split("(")[0]):
            value = keyed["value"].split("|")[0].strip()
            specifier = specifier_of(value)
            if specifier or (len(value) < 100 and _VAGUE.match(value)):
                yield 3, str(name), specifier
                return
        elif (
            name and re.fullmatch(rf"[`\"']?{_V}[`\"',]?", keyed["value"]) and re.search(r"[Vv]ersion|`", keyed["key"])
        ):
            yield 3, name, specifier_of(keyed["value"].strip("`\"',"))
            return
    for found in _SENTENCE.finditer(text[:1000]):
        if not _WANTED.search(text[: found.start()]):
            yield from _exact(4, found)


def _exact(rank: int, found: re.Match[str]) -> Iterator[tuple[int, str, str]]:
    """Yield a statement of one version."""
    name = distribution(found["name"])
    specifier = specifier_of(found["version"], exact=rank < 4)
    if name and specifier:
        yield rank, name, specifier


def _tables(lines: Sequence[Line]) -> set[int]:
    """Return the places of lines in tables of packages: below a heading, or three and more rows of known names."""
    places: set[int] = set()
    run: list[int] = []
    known = 0
    headed = False
    for at, line in enumerate([*lines, Line(-1, "")]):
        text = line.text
        row = _ROW.match(text) if text.strip() else None
        if row:
            run.append(at)
            known += distribution(row["name"]) in KNOWN
        elif _HEAD.match(text) or (headed and re.fullmatch(r"[\s\-|:]+", text) and text.strip()):
            headed = True
        elif headed and re.match(r"\s*[A-Za-z_][\w.\-]*\s+\S+", text):
            continue  # a name that is odd, in a table
        elif text.startswith("#"):
            continue
        else:
            if (headed and run) or (known >= 2 and len(run) >= 3):
                places.update(run)
            run, known, headed = [], 0, False
    return places
