"""The task's folder is a git repository: each accepted proposal is a commit, made once."""

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

_STEP = "Tune-Step"


class RepositoryError(Exception):
    """Git can't do what is asked; the text has its own words."""


class Repository:
    """A task's folder under git.

    Args:
        folder: the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self) -> None:
        """Make the repository, where there is none.

        Raises:
            RepositoryError: there is no git, or it refuses.
        """
        if not (self._folder / ".git").exists():
            self._git("init", "--quiet", "--initial-branch=main")

    def commit(self, key: str, title: str, text: str, trailers: Mapping[str, str]) -> str:
        """Commit all that has changed, once: a commit that was made with this key is returned as it is.

        Args:
            key: key of the effect, kept as a trailer.
            title: first line.
            text: what follows.
            trailers: further trailers, such as digests.

        Returns:
            The commit's name, 40 digits.

        Raises:
            RepositoryError: git refuses.
        """
        if made := self.made(key):
            return made
        self._git("add", "--all")
        lines = "\n".join(f"{name}: {value}" for name, value in {_STEP: key, **trailers}.items())
        self._git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", title, "-m", text or title, "-m", lines)
        return self.head()

    def made(self, key: str) -> str:
        """Return the commit that was made with a key; "" where there is none."""
        if not self._git("rev-list", "--all", "--max-count=1", check=False):
            return ""
        return self._git(
            "log", "--all", "--fixed-strings", f"--grep={_STEP}: {key}", "--format=%H", "--max-count=1"
        ).strip()

    def head(self) -> str:
        """Return the newest commit."""
        return self._git("rev-parse", "HEAD").strip()

    def changed_by_hand(self) -> list[str]:
        """Return files that differ from the newest commit."""
        return [line[3:] for line in self._git("status", "--porcelain").splitlines()]

    def _git(self, *words: str, check: bool = True) -> str:
        who = {"GIT_AUTHOR_NAME": "menagerie tune", "GIT_AUTHOR_EMAIL": "tune@localhost"}
        who |= {name.replace("AUTHOR", "COMMITTER"): value for name, value in who.items()}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
        try:
            done = subprocess.run(
                ["git", "-c", "commit.gpgsign=false", "-c", "core.hooksPath=/dev/null", *words],
                cwd=self._folder, env={**kept, **who}, capture_output=True, text=True, check=False,
            )  # fmt: skip
        except FileNotFoundError:
            raise RepositoryError("there is no git; install it: each change is kept as a commit") from None
        if done.returncode and check:
            raise RepositoryError(f"git {words[0]} in {self._folder}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout if not done.returncode else ""
