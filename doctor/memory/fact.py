"""A fact of the memory and its line in a file.

A line is a list item of labelled parts, so that people can read and edit it, and two people's files merge line by line:

    - 3f2a9c1b7d · fails: ImportError: cannot import name 'A' from 'b' · with: peft==0.14.0, b==4.40.2 ·
      mended by: peft<0.14 · on: linux-x86_64, Python 3.11 · proved: 2026-11-28, 2 times, log 0123456789abcdef, 11 s ·
      found by: missing-name import/wrong_version
    - 77aa01cc2e · good: tuning on a T4 · set: torch==2.6.0, peft==0.13.2 · on: ... · checked: imports · proved: ...

(each in one line). A fact that was disproved is struck out: `- ~~...~~ 2026-12-01: why`.
"""

import hashlib
import re
from dataclasses import dataclass

from packaging.utils import canonicalize_name

from doctor.finding import BRANCHES, Change
from doctor.proof.error_lines import signature
from doctor.redaction import redact
from doctor.remedy.requirements import parse_requirement

_PROVED = re.compile(r"(\d{4}-\d\d-\d\d), (\d+) times?(?:, log ([0-9a-f]{8,64}))?(?:, ([\d.]+) s)?")
_STRUCK = re.compile(r"~~(.*)~~\s*(?:(\d{4}-\d\d-\d\d)(?::\s*(.*))?)?")
_LINE_ID = re.compile(r"[0-9a-f]{10}")
_LABELS = {"fails": "error", "with": "packages", "set": "packages", "mended by": "change", "good": "name",
           "checked": "checked", "on": "platform", "found by": "found_by"}  # fmt: skip


class BadLine(ValueError):
    """A line that is no fact; the text says why."""


@dataclass(frozen=True)
class Fact:
    """What was proved.

    Args:
        packages: versions that it holds for, "peft==0.14.0"; of a known-good set all of them.
        platform: where, "linux-x86_64, Python 3.11".
        date: day of the newest proof, "2026-11-28".
        error: how it fails, as `error_lines.signature` has it; empty for a known-good set.
        change: what mends it, as `written_change` has it; empty for a known-good set.
        name: of a known-good set: what it is for; empty for a fault.
        checked: of a known-good set: what was tried with it.
        times: how often it was proved.
        log: digest of the newest log.
        seconds: how long the newest proof took.
        found_by: id and branch of the finding.
        struck: day on which it was disproved; empty where it holds.
        why: what disproved it.
    """

    packages: tuple[str, ...]
    platform: str
    date: str
    error: str = ""
    change: str = ""
    name: str = ""
    checked: str = ""
    times: int = 1
    log: str = ""
    seconds: float = 0.0
    found_by: str = ""
    struck: str = ""
    why: str = ""

    @property
    def id(self) -> str:
        """What tells it from others, by its content: the same proof by two people is the same fact."""
        what = "\n".join((self.name, self.error, ",".join(sorted(self.packages)), self.change, self.platform))
        return hashlib.sha256(what.encode()).hexdigest()[:10]

    @property
    def topic(self) -> str:
        """The distribution that it is filed under: the one that is moved, or the first of its set."""
        for text in (*self.change.split(", "), *self.packages):
            requirement = parse_requirement(text.removeprefix("without "))
            if requirement:
                return str(canonicalize_name(requirement.name))
        return "other"


def written(fact: Fact) -> str:
    """Return the line of a fact, without credentials."""
    parts = [fact.id]
    if fact.name:
        parts += [f"good: {_plain(fact.name)}", f"set: {', '.join(fact.packages)}"]
    else:
        parts += [f"fails: {_plain(fact.error)}", f"with: {', '.join(fact.packages)}"]
        parts.append(f"mended by: {_plain(fact.change)}")
    parts.append(f"on: {_plain(fact.platform)}")
    if fact.checked:
        parts.append(f"checked: {_plain(fact.checked)}")
    proved = f"proved: {fact.date}, {fact.times} time{'s' * (fact.times != 1)}"
    proved += f", log {fact.log}" if fact.log else ""
    parts.append(proved + (f", {fact.seconds:g} s" if fact.seconds else ""))
    if fact.found_by:
        parts.append(f"found by: {_plain(fact.found_by)}")
    line = redact(" · ".join(parts))
    return f"- ~~{line}~~ {fact.struck}: {redact(_plain(fact.why))}" if fact.struck else f"- {line}"


def read_line(line: str) -> Fact:
    """Return the fact of a line.

    Raises:
        BadLine: the line is none.
    """
    body = line.strip().removeprefix("- ").strip()
    struck = _STRUCK.fullmatch(body)
    if struck:
        body = struck[1]
    parts = [part.strip() for part in re.split(r"\s+·\s+", body)]
    if _LINE_ID.fullmatch(parts[0]):
        parts = parts[1:]
    values: dict[str, str] = {}
    proved = None
    for part in parts:
        label, colon, value = part.partition(":")
        if label.strip() == "proved":
            proved = _PROVED.fullmatch(value.strip())
            continue
        if not colon or label.strip() not in _LABELS:
            raise BadLine(f"{part[:40]!r} is no part of a fact: {', '.join((*_LABELS, 'proved'))}")
        values[_LABELS[label.strip()]] = value.strip()
    if not proved:
        raise BadLine("it does not say when it was proved: 'proved: 2026-11-28, 1 time'")
    pins = tuple(pin.strip() for pin in values.pop("packages", "").split(",") if pin.strip())
    for pin in pins:
        if parse_requirement(pin) is None:
            raise BadLine(f"{pin!r} is no version of a package, such as peft==0.14.0")
    lacks = [label for label, key in _LABELS.items() if key in ("platform", *_needed(values)) and not values.get(key)]
    if lacks or (values.get("name") and not pins):
        raise BadLine(f"it lacks {' and '.join(map(repr, lacks)) or repr('set')}")
    if values.get("change"):
        read_change(values["change"])
    return Fact(
        pins, date=proved[1], times=int(proved[2]), log=proved[3] or "", seconds=float(proved[4] or 0),
        struck=(struck[2] or proved[1]) if struck else "", why=(struck[3] or "by hand") if struck else "", **values,
    )  # fmt: skip


def _needed(values: dict[str, str]) -> tuple[str, ...]:
    return ("name",) if "name" in values else ("error", "change")


def written_change(change: Change) -> str:
    """Return a change as a line has it: "peft<0.14, without peft-fork, set A=1, unset B"."""
    parts = [re.sub(r",\s+", ",", text) for text in change.requirements] + [f"without {name}" for name in change.remove]
    parts += [f"set {name}={value}" if value else f"unset {name}" for name, value in change.environment]
    return ", ".join(parts)


def read_change(text: str) -> Change:
    """Return the change that a line has.

    Raises:
        BadLine: it has none.
    """
    requirements, remove, settings = [], [], []
    for part in text.split(", "):
        if part.startswith("without "):
            remove.append(part.removeprefix("without "))
        elif part.startswith("set ") and "=" in part:
            name, _, value = part.removeprefix("set ").partition("=")
            settings.append((name, value))
        elif part.startswith("unset "):
            settings.append((part.removeprefix("unset "), ""))
        elif parse_requirement(part):
            requirements.append(part)
        else:
            raise BadLine(f"{part!r} is no change, such as peft<0.14, 'without NAME' or 'set NAME=VALUE'")
    kind = "pin" if requirements else "uninstall" if remove else "environment"
    told = f"Do as was proved before: {text}."
    return Change(kind, told, tuple(requirements), tuple(remove), environment=tuple(settings))


def branch_of(fact: Fact) -> str:
    """Return the branch that the finding of a fact had; the usual one where the line does not tell."""
    found = fact.found_by.rpartition(" ")[2]
    tree, _, twig = found.partition("/")
    return found if twig in BRANCHES.get(tree, ()) else "import/wrong_version"


def platform_of(text: str) -> str:
    """Return a platform without the patch of its Python: "linux-x86_64, Python 3.11"."""
    return re.sub(r"(Python \d+\.\d+)\.\S+", r"\1", text)


def error_of(line: str) -> str:
    """Return how a line of a fact names an error."""
    return _plain(redact(signature(line)))


def _plain(text: str) -> str:
    """Return a text that goes into one part of one line."""
    return " ".join(text.replace("·", "-").replace("~~", "~").split())[:300]
