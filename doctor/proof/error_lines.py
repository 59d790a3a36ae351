"""Exception lines of an output, and whether two mean the same."""

import re
from collections.abc import Iterable

# "ImportError: ..." or "a.b.SomeError: ..." or a bare "AssertionError", at the beginning of a line.
_LINE = re.compile(
    r"^(?:\s*[|+][|+ -]*)?"
    r"((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Interrupt|Exit|Warning|NotImplemented|NotFound|Failed))"
    r"(?::[ \t]*(.*))?$"
)
_PATH = re.compile(r"(?:[A-Za-z]:)?[\\/]+(?:[\w .@+~-]+[\\/]+)+[\w.@+~-]*")


def error_lines(output: str) -> tuple[str, ...]:
    """Return the exception lines of an output: those behind a traceback's frames, not what a program logs of others."""
    found = []
    in_traceback = False
    for line in output.splitlines():
        if "Traceback (most recent call last)" in line:
            in_traceback = True
            continue
        match = _LINE.match(line) if in_traceback else None
        if match and not match[1].endswith("Warning"):
            found.append(f"{match[1]}: {match[2]}" if match[2] else match[1])
            in_traceback = False
    return tuple(found)


def without_path(line: str) -> str:
    """Return an exception line without the file that Python names behind a module, in brackets."""
    return re.sub(r"\s*\((?:\.\.\.)?[^()]*[\\/][^()]*\)", "", line)


def signature(line: str) -> str:
    """Return an exception line without what differs from machine to machine: module of its type, paths, addresses."""
    kind, _, message = line.strip().partition(":")
    message = message.strip().splitlines()[0] if message.strip() else ""
    message = re.sub(r"\s*\(unknown location\)", "", message)
    message = without_path(message)
    message = _PATH.sub("PATH", message)
    message = re.sub(r"0x[0-9a-fA-F]+", "0x", message)
    message = re.sub(r"\s*\.?\s*Did you mean:.*$", "", message)
    message = re.sub("[`'\"\u2018\u2019\u201c\u201d]", "'", message)
    kind = kind.strip().rsplit(".", 1)[-1]
    message = " ".join(message.split()).rstrip(".")
    return f"{kind}: {message}" if message else kind


def same_error(one: str, other: str) -> bool:
    """Return whether two exception lines are of the same fault, also where one is cut off."""
    first, second = signature(one), signature(other)
    if first == second:
        return True
    if first.partition(":")[0] != second.partition(":")[0]:
        return False
    short, long = sorted((first.rstrip(". …"), second), key=len)
    return len(short) > len(first.partition(":")[0]) + 12 and long.startswith(short)


def any_same(seen: Iterable[str], expected: Iterable[str]) -> bool:
    """Return whether one of the exception lines seen is one of those expected."""
    wanted = tuple(expected)
    return any(same_error(line, one) for line in seen for one in wanted)
