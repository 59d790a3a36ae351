"""The version that the files of a package state, read as text."""

import os
import re

from doctor.environment.facts import Installed

_FILES = ("version.py", "_version.py", "__version__.py", "__about__.py", "about.py", "__init__.py", "_version_info.py")
_STATED = re.compile(
    r"^(?:__version__|VERSION|version)\b(?:\s*:\s*\w+)?[^=\n#]*=\s*['\"](\d[^'\"\s]*)['\"]", re.MULTILINE
)


def version_text(installed: Installed) -> str | None:
    """Return the version that a distribution's own files state.

    Args:
        installed: the distribution; its module of its own name is read, or its only one.

    Returns:
        The version, None where no file states one as plain text.
    """
    found = stated_version(installed)
    return found[0] if found else None


def stated_version(installed: Installed) -> tuple[str, str] | None:
    """Return the version that a distribution's own files state and the file that does, None where none does."""
    own = [name for name in installed.modules if name.lower().replace("_", "-") == installed.name]
    public = [name for name in installed.modules if not name.startswith("_")]
    names = own or (public if len(public) == 1 else []) or [installed.name.replace("-", "_")]
    for name in names:
        folder = os.path.join(installed.site, name)
        for file in (*(os.path.join(folder, one) for one in _FILES), f"{folder}.py"):
            try:
                with open(file, encoding="utf-8", errors="replace") as stream:
                    match = _STATED.search(stream.read(200_000))
            except OSError:
                continue
            if match:
                return match[1], file
    return None
