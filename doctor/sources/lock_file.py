"""uv.lock, pylock.toml (PEP 751) and poetry.lock: the versions that get installed on a target.

Their schemas have versions and grow, so what is missing is taken as not told, and what is not known is passed over.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

from packaging.markers import InvalidMarker, Marker
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename

from doctor.environment.facts import Declared
from doctor.errors import InputError
from doctor.sources.source import PYTHON, Source
from doctor.sources.target import Target
from doctor.sources.toml_file import line_of, read_toml, texts

_WITH_WHEELS = 0.5  # share of packages without a wheel for the target above which a lock is of another platform
_PLATFORMS = {"linux": ("linux",), "darwin": ("macosx",), "win32": ("win",)}


def read_lock_file(path: Path, target: Target) -> Source:
    """Read a lock.

    Raises:
        InputError: it can't be read, or locks nothing.
    """
    tables, text = read_toml(path)
    packages = tables.get("package", tables.get("packages"))
    if not isinstance(packages, list):
        raise InputError(f"{path} locks nothing: a lock has [[package]] or [[packages]] tables")
    metadata = tables.get("metadata")
    python = tables.get("requires-python") or (metadata.get("python-versions") if isinstance(metadata, dict) else None)
    requires_python = python if isinstance(python, str) and _is_range(python) else ""
    target = target.allowed_by(requires_python)
    declared = []
    if requires_python:
        place = f"{path}:{line_of(text, requires_python)}"
        declared.append(Declared(PYTHON, requires_python, place, f"requires-python = {requires_python!r}"))
    usable = [
        one for one in packages if isinstance(one, dict) and isinstance(one.get("name"), str) and _applies(one, target)
    ]
    declared.extend(_versions(usable, path, text))
    other = _other_platform(tables, target, path) or _foreign_wheels(usable, target, path)
    return Source("lock", tuple(declared), other_platform=other, locked=True)


def _is_range(text: str) -> bool:
    try:
        SpecifierSet(text)
    except InvalidSpecifier:
        return False
    return True


def _versions(packages: list[dict[str, object]], path: Path, text: str) -> Iterator[Declared]:
    seen = 0
    for package in packages:
        name, version = str(package["name"]), package.get("version")
        source = package.get("source")
        if isinstance(source, Mapping) and ("virtual" in source or "editable" in source):
            continue  # the project itself
        seen_at = text.find(f'name = "{name}"', seen)
        seen = max(seen, seen_at)
        place = f"{path}:{text.count(chr(10), 0, seen_at) + 1}" if seen_at >= 0 else str(path)
        specifier = f"=={version}" if isinstance(version, str) else ""
        yield Declared(canonicalize_name(name), specifier, place, f"{name} {version or ''}".strip())


def _applies(package: dict[str, object], target: Target) -> bool:
    """Whether a locked package is for the target: one name may be locked in several versions, each with its markers."""
    markers = [*texts(package.get("marker")), *texts(package.get("resolution-markers"))]
    return not markers or any(_holds(one, target) for one in markers)


def _holds(text: str, target: Target) -> bool:
    try:
        return target.holds(Marker(text))
    except InvalidMarker:
        return True


def _other_platform(tables: dict[str, object], target: Target, path: Path) -> str | None:
    """Say that the lock was made for other platforms than the target; None where it says nothing of the kind."""
    for key in ("environments", "supported-markers"):
        markers = texts(tables.get(key))
        if markers and not any(_holds(one, target) for one in markers):
            return (f"{path} was locked for {' or '.join(markers[:3])}, and this is {target.sys_platform} "
                    f"{target.machine} with Python {target.python}")  # fmt: skip
    return None


def _foreign_wheels(packages: list[dict[str, object]], target: Target, path: Path) -> str | None:
    """Say that most of what is locked with platform wheels has none for the target, and no source either."""
    prefixes = _PLATFORMS.get(target.sys_platform, ())
    judged, foreign = 0, []
    for package in packages:
        names = list(_wheel_names(package))
        platforms = {tag.platform for name in names for tag in _tags(name)}
        if not platforms or "any" in platforms or package.get("sdist"):
            continue
        judged += 1
        if not any(platform.startswith(prefixes) for platform in platforms):
            foreign.append((str(package["name"]), sorted(platforms)))
    if not foreign or len(foreign) <= judged * _WITH_WHEELS:
        return None
    name, platforms_of = foreign[0]
    return (f"{path} was locked for another platform: {len(foreign)} of {judged} packages with wheels for certain "
            f"platforms have none for {target.sys_platform}: {name} has {', '.join(platforms_of[:3])}")  # fmt: skip


def _wheel_names(package: dict[str, object]) -> Iterator[str]:
    wheels = package.get("wheels") or package.get("files") or []
    for wheel in wheels if isinstance(wheels, list) else []:
        if isinstance(wheel, Mapping):
            name = (
                wheel.get("name") or wheel.get("filename") or wheel.get("file") or wheel.get("url") or wheel.get("path")
            )
            if isinstance(name, str) and name.endswith(".whl"):
                yield name.rpartition("/")[2].replace("%2B", "+")


def _tags(name: str) -> frozenset:
    try:
        return parse_wheel_filename(name)[3]
    except InvalidWheelFilename:
        return frozenset()
