"""Installed distributions, read from the dist-info and egg-info folders of a path; nothing is imported."""

import ast
import json
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from packaging.utils import canonicalize_name

from doctor.environment.facts import Installed
from doctor.environment.installed_files import recorded_paths, top_level_names
from doctor.environment.version_text import version_text
from doctor.redaction import redact

_HEADERS = {"name", "version", "requires-dist", "requires-python"}
_FOLDER_NAME = re.compile(r"(?P<name>[A-Za-z0-9._]+?)-(?P<version>\d[^-]*)(-py[\d.]+.*)?\.(dist|egg)-info")


def read_distributions(path: Sequence[str]) -> tuple[Installed, ...]:
    """Return the distributions of a path, in its order: of two of a name the first is the one that is imported.

    Args:
        path: folders that modules are looked for in.

    Returns:
        Each dist-info, egg-info and egg-link that is found; of two of a project in one folder, the one whose version
        the files state is first, else the one that was written last.
    """
    found: list[Installed] = []
    for site in path:
        found += _ordered(list(_of_folder(site)))
    # What is installed from its source folder has an egg-info there too, if the folder is on the path.
    editables = {(one.name, os.path.realpath(one.editable)) for one in found if one.editable}
    return tuple(
        one
        for one in found
        if one.editable
        or not any(one.name == name and _inside(one.folder, source) for name, source in editables)
        or one.folder.endswith(".dist-info")
    )


def _ordered(here: list[tuple[float, Installed]]) -> list[Installed]:
    """Return the distributions of one folder by name, those that are there twice with the likelier one first."""
    counts = Counter(one.name for _, one in here)
    twice = {one.folder: version_text(one) != one.version for _, one in here if counts[one.name] > 1}
    here.sort(key=lambda each: (each[1].name, twice.get(each[1].folder, False), each[0]))
    return [one for _, one in here]


def _inside(path: str, folder: str) -> bool:
    return os.path.realpath(path).startswith(folder + os.sep)


def _of_folder(site: str) -> Iterator[tuple[float, Installed]]:
    """Yield the distributions of one folder, with minus the time at which each was written."""
    try:
        entries = list(os.scandir(site))
    except OSError:  # a zip file, or not readable
        return
    editable_modules = _finder_modules(site, [entry.name for entry in entries])
    for entry in entries:
        name = entry.name
        if name[0] in "~-":  # what pip leaves of an interrupted change; not a distribution
            continue
        try:
            if name.endswith((".dist-info", ".egg-info")):
                one = _from_info(entry.path, site, editable_modules)
            elif name.endswith(".egg") and os.path.isdir(os.path.join(entry.path, "EGG-INFO")):
                one = _from_info(os.path.join(entry.path, "EGG-INFO"), entry.path, {})
            elif name.endswith(".egg-link"):
                one = _from_link(entry.path, site)
            else:
                continue
            if one is not None:
                yield -entry.stat().st_mtime, one
        except OSError:
            continue


def _from_info(folder: str, site: str, finders: dict[str, str]) -> Installed | None:
    metadata = folder if os.path.isfile(folder) else os.path.join(folder, _metadata_name(folder))
    headers = _headers(metadata)
    named = _FOLDER_NAME.fullmatch(os.path.basename(folder))
    name = next(iter(headers["name"]), named["name"] if named else "")
    version = next(iter(headers["version"]), named["version"] if named else "")
    if not name:
        return None
    requires = tuple(headers["requires-dist"]) or _egg_requires(os.path.join(folder, "requires.txt"))
    origin, editable = _origin(os.path.join(folder, "direct_url.json"))
    normal = canonicalize_name(name)
    names = _lines(os.path.join(folder, "top_level.txt")) or top_level_names(recorded_paths(folder))
    if editable is None and normal in finders:
        editable = finders[normal]
    return Installed(
        name=normal,
        version=version,
        folder=folder,
        site=site,
        requires=requires,
        requires_python=next(iter(headers["requires-python"]), ""),
        tags=tuple(
            line[5:].strip() for line in _lines(os.path.join(folder, "WHEEL")) if line.lower().startswith("tag: ")
        ),
        modules=tuple(names),
        installer=next(iter(_lines(os.path.join(folder, "INSTALLER"))), ""),
        editable=editable,
        origin=origin,
    )


def _metadata_name(folder: str) -> str:
    return "METADATA" if folder.endswith(".dist-info") else "PKG-INFO"


def _from_link(file: str, site: str) -> Installed | None:
    """Return the distribution of an egg-link: an old editable install, whose facts lie in its source folder."""
    source = os.path.normpath(os.path.join(site, next(iter(_lines(file)), "")))
    for name in sorted(os.listdir(source)) if os.path.isdir(source) else ():
        if name.endswith(".egg-info"):
            found = _from_info(os.path.join(source, name), site, {})
            if found:
                return Installed(**{**found.__dict__, "editable": source})
    return Installed(canonicalize_name(os.path.basename(file)[: -len(".egg-link")]), "", file, site, editable=source)


def _headers(file: str) -> dict[str, list[str]]:
    """Return the headers of a METADATA file that are of use; its long body is not read."""
    found: dict[str, list[str]] = {key: [] for key in _HEADERS}
    text = b""
    try:
        with open(file, "rb") as stream:
            while block := stream.read(8192):
                text += block
                if b"\n\n" in text or b"\n\r\n" in text:
                    break
    except OSError:
        return found
    head = re.split(rb"\r?\n\r?\n", text, maxsplit=1)[0].decode("utf-8", errors="replace")
    key = ""
    for line in head.splitlines():
        if line[:1] in (" ", "\t"):
            if found.get(key):
                found[key][-1] += " " + line.strip()
            continue
        key, _, value = line.partition(":")
        key = key.strip().lower()
        if key in found and value.strip():
            found[key].append(value.strip())
    return found


def _lines(file: str) -> list[str]:
    try:
        with open(file, encoding="utf-8", errors="replace") as stream:
            return [line.strip() for line in stream if line.strip()]
    except OSError:
        return []


def _egg_requires(file: str) -> tuple[str, ...]:
    """Return the lines of an egg's requires.txt as Requires-Dist lines: its sections are extras and markers."""
    found, condition = [], ""
    for line in _lines(file):
        section = re.fullmatch(r"\[([^:\]]*)(?::(.*))?\]", line)
        if section:
            parts = [f"extra == '{section[1]}'"] if section[1] else []
            parts += [f"({section[2]})"] if section[2] else []
            condition = " and ".join(parts)
        else:
            found.append(f"{line} ; {condition}" if condition else line)
    return tuple(found)


def _origin(file: str) -> tuple[str | None, str | None]:
    """Return where a distribution came from, and its source folder if it is installed from there."""
    try:
        with open(file, encoding="utf-8") as stream:
            told = json.load(stream)
        url = str(told["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, None
    path = _as_path(url) if url.startswith("file:") else None
    editable = path if path and told.get("dir_info", {}).get("editable") else None
    url = redact(url)
    vcs = told.get("vcs_info") or {}
    if vcs:
        url = f"{vcs.get('vcs', 'git')}+{url}@{vcs.get('commit_id', '')}".rstrip("@")
    return path or url, editable


def _as_path(url: str) -> str:
    from urllib.parse import unquote, urlsplit

    path = unquote(urlsplit(url).path)
    return path[1:] if re.match(r"/[A-Za-z]:", path) else path


def _finder_modules(site: str, names: list[str]) -> dict[str, str]:
    """Return source folders of editable installs by distribution, from the mappings in setuptools' finder files."""
    found: dict[str, str] = {}
    for name in names:
        match = re.fullmatch(r"__editable___(.+)_finder\.py", name)
        if not match:
            continue
        try:
            with open(os.path.join(site, name), encoding="utf-8") as stream:
                text = stream.read()
            mapping = re.search(r"^MAPPING[^=\n]*=\s*(\{.*\})\s*$", text, re.MULTILINE)
            folders = ast.literal_eval(mapping[1]) if mapping else {}
        except (OSError, ValueError, SyntaxError):
            continue
        project = canonicalize_name(re.sub(r"_\d+(_\w+)*$", "", match[1]))
        if folders:
            found[project] = os.path.dirname(str(next(iter(folders.values()))))
    return found
