"""What a wheel or a source distribution requires."""

import io
import tarfile
from email.parser import HeaderParser


def wheel_requires(text: str) -> tuple[str, ...]:
    """Return the Requires-Dist lines of METADATA or PKG-INFO."""
    return tuple(" ".join(line.split()) for line in HeaderParser().parsestr(text).get_all("Requires-Dist") or ())


def source_requires(contents: bytes) -> tuple[str, ...] | None:
    """Return what a source distribution requires: of PKG-INFO, else of the requires.txt that setuptools left."""
    found: tuple[str, ...] = ()
    dynamic = True
    with tarfile.open(fileobj=io.BytesIO(contents)) as archive:
        listed = ""
        for member in archive:
            depth = member.name.count("/")
            opened = archive.extractfile(member) if member.isfile() else None
            if opened and depth == 1 and member.name.endswith("/PKG-INFO"):
                text = opened.read().decode("utf-8", "replace")
                found = wheel_requires(text)
                version = HeaderParser().parsestr(text).get("Metadata-Version", "1.0")
                dynamic = tuple(map(int, version.split("."))) < (2, 2)
            elif opened and member.name.endswith(".egg-info/requires.txt"):
                listed = opened.read().decode("utf-8", "replace")
    if found or not dynamic:
        return found
    return _eggrequires(listed)


def _eggrequires(text: str) -> tuple[str, ...]:
    """Return the lines of an egg-info's requires.txt as Requires-Dist lines."""
    made = []
    extra = marker = ""
    for line in map(str.strip, text.splitlines()):
        if line.startswith("[") and line.endswith("]"):
            extra, _, marker = line[1:-1].partition(":")
        elif line:
            conditions = [f"({marker})" if extra and " or " in marker else marker] if marker else []
            conditions += [f'extra == "{extra}"'] if extra else []
            made.append(f"{line} ; {' and '.join(conditions)}" if conditions else line)
    return tuple(made)
