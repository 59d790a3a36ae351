"""Which commit the program is of, and what `--version` prints."""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from constants.paths import IS_CHECKOUT, PACKAGE_ROOT
from constants.version import VERSION

COMMIT_FILE = PACKAGE_ROOT / "constants" / "commit.txt"
"""Written by setup.py: the commit that an installed program was built from."""


def program_commit() -> str | None:
    """Say which commit the program is of.

    Returns:
        The commit, with `+changes` where files of a checkout are not as it has them; None where it is not known.
    """
    try:
        if not IS_CHECKOUT:
            return COMMIT_FILE.read_text(encoding="utf-8").strip() or None
        if not (PACKAGE_ROOT / ".git").exists():
            return None
        commit = _git("rev-parse", "HEAD").strip()
        return commit + "+changes" * bool(_git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None


def version_text() -> str:
    """Return the line that `--version` prints: `menagerie 0.2.0 (commit 12bf22b9d1)`."""
    commit, _, changes = (program_commit() or "").partition("+")
    shown = f" (commit {commit[:10]}{', with uncommitted changes' * bool(changes)})" if commit else ""
    return f"menagerie {VERSION}{shown}"


class ShowVersion(argparse.Action):
    """`--version`: prints the version and leaves. Asks git only then."""

    def __init__(self, option_strings: Sequence[str], dest: str, **_: Any) -> None:
        super().__init__(option_strings, dest, nargs=0, default=argparse.SUPPRESS, help="show the version and leave")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        sys.stdout.write(f"{version_text()}\n")
        parser.exit()


def _git(*words: str) -> str:
    command = ["git", "--no-optional-locks", "-C", str(PACKAGE_ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
