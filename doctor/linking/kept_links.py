"""Keeps what linking an environment found, so that the next look at it costs no more than its files' times."""

import gc
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from doctor.environment.facts import Environment
from doctor.linking.link import Linker, Unlinked, Visit


@dataclass(frozen=True)
class Links:
    """What linking found.

    Args:
        linker: holds the modules that were reached.
        unlinked: names and modules that are asked for and not there.
        calls: keywords that are given and not taken.
    """

    linker: Linker
    unlinked: tuple[Unlinked, ...]
    calls: tuple[Unlinked, ...]


def links_of(environment: Environment, folder: Path | None) -> Links:
    """Link what is installed, or return what is kept of it where no file has changed since.

    Args:
        environment: its facts.
        folder: keeps what was found; None for none.
    """
    linker = Linker(environment, folder)
    file = folder / f"links-{_key(linker)}.json" if folder else None
    kept = _restored(linker, file) if file else None
    if kept:
        return kept
    collects = gc.isenabled()
    gc.disable()  # syntax trees are made and dropped by the thousand, none in a circle: to look for some is a third
    try:
        links = Links(linker, linker.link(), tuple(linker.keyword_calls()))
    finally:
        if collects:
            gc.enable()
    linker.modules.texts.save()
    if file:
        _keep(links, file)
    return links


def _key(linker: Linker) -> str:
    """Return what an environment is known by: where it is, what declares what, and the code that reads it."""
    environment = linker.environment
    interpreter = environment.interpreter
    python = (interpreter.version, interpreter.sys_platform) if interpreter else ()
    installed = [(one.name, one.version, one.folder, one.modules, one.requires) for one in environment.installed]
    told = repr((_code(), linker.modules.path, python, environment.complete, installed))
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:24]


@cache
def _code() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def _stamps(paths: list[str]) -> list[int]:
    """Return the time of change of each file and folder, 0 where it isn't there."""
    times = []
    for path in paths:
        try:
            times.append(os.stat(path).st_mtime_ns)
        except (OSError, ValueError):
            times.append(0)
    return times


def _keep(links: Links, file: Path) -> None:
    """Write what was found; where it can't be written, the next look links again."""
    linker = links.linker
    paths = linker.modules.looked_at()
    told = {
        "paths": paths, "stamps": _stamps(paths), "read": linker.read, "whole": linker.whole,
        "unlinked": [asdict(one) for one in links.unlinked], "calls": [asdict(one) for one in links.calls],
        "visited": [[one.module, one.reached, one.by] for one in linker.visited.values()],
        "compiled": {path: [one.module, one.reached, one.by] for path, one in linker.compiled.items()},
        "asked_by": {module: sorted(asking) for module, asking in linker.asked_by.items()},
    }  # fmt: skip
    try:
        scratch = file.with_suffix(f".{os.getpid()}")
        file.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_text(json.dumps(told), encoding="utf-8")
        os.replace(scratch, file)
    except (OSError, ValueError):
        return


def _restored(linker: Linker, file: Path) -> Links | None:
    try:
        told = json.loads(file.read_bytes())
        if _stamps(told["paths"]) != told["stamps"]:
            return None
        linker.read, linker.whole = told["read"], told["whole"]
        linker.visited = {one[0]: Visit(*one) for one in told["visited"]}
        linker.compiled = {path: Visit(*one) for path, one in told["compiled"].items()}
        linker.asked_by = {module: set(asking) for module, asking in told["asked_by"].items()}
        unlinked, calls = ([Unlinked(**one) for one in told[name]] for name in ("unlinked", "calls"))
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError):
        return None
    return Links(linker, tuple(unlinked), tuple(calls))
