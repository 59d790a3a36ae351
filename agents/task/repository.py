"""The task's folder is a git repository: each accepted proposal is a commit, made once."""

import os
import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

_STEP = "Tune-Step"
MAIN = "main"
"""The thread that a run begins with, and its branch."""
_FORKS = "tune/"
_PATIENCE = 5.0  # seconds that a git of a killed attempt has to end


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
        self._end_left_behind()
        self._git("add", "--all")
        lines = "\n".join(f"{name}: {value}" for name, value in {_STEP: key, **trailers}.items())
        self._git("commit", "--quiet", "--allow-empty", "--no-verify", "-m", title, "-m", text or title, "-m", lines)
        return self.head()

    def _end_left_behind(self) -> None:
        """Take away the lock of a git that was killed; one that still works is waited for.

        Whoever commits has the task's folder to itself, so that the lock is of an earlier attempt.
        """
        lock, until = self._folder / ".git" / "index.lock", time.monotonic() + _PATIENCE
        while lock.exists() and time.monotonic() < until:
            time.sleep(0.05)
        lock.unlink(missing_ok=True)

    def made(self, key: str) -> str:
        """Return the commit that was made with a key; "" where there is none."""
        if not self._git("rev-list", "--all", "--max-count=1", check=False):
            return ""
        return self._git(
            "log", "--all", "--fixed-strings", f"--grep={_STEP}: {key}", "--format=%H", "--max-count=1"
        ).strip()

    def fork(self, thread: str, of: str, before: int) -> None:
        """Make the branch of a new thread: what another thread's has from before a step.

        Args:
            thread: name of the new thread.
            of: name of the other.
            before: number of the step: commits of this one and later ones, and what was committed by hand after the
                last earlier one, are left behind.

        Raises:
            RepositoryError: git refuses.
        """
        words = f"--format=%H %(trailers:key={_STEP},valueonly,separator=%x2C)"
        lines = self._git("log", words, self.branch_of(of)).splitlines()
        made = [line.partition(" ")[::2] for line in lines]
        at = next(name for name, key in made if key and _step_of(key) < before)
        self._git("branch", "--force", f"{_FORKS}{thread}", at)

    def branch_of(self, thread: str) -> str:
        """Return the branch of a thread: a fork's is named after it, that of `main` may have any name.

        Args:
            thread: name of the thread.
        """
        if thread != MAIN:
            return f"{_FORKS}{thread}"
        now = self._git("rev-parse", "--abbrev-ref", "HEAD").strip()
        return MAIN if now.startswith(_FORKS) else now  # somebody may have named it otherwise

    def switch(self, thread: str) -> None:
        """Bring the files of a thread into the folder; nothing is done where they are there.

        Args:
            thread: name of the thread.

        Raises:
            RepositoryError: files were changed by hand, which belong to the branch that is there.
        """
        now = self._git("rev-parse", "--abbrev-ref", "HEAD").strip()
        if now == (branch := self.branch_of(thread)):
            return
        if changed := [line[3:] for line in self._git("status", "--porcelain", "-uno").splitlines()]:
            raise RepositoryError(
                f"{', '.join(changed)} in {self._folder} differs from the last commit of {now}, and {thread} is to go "
                f"on: `git commit -a` keeps it in {now}, `git checkout .` drops it"
            )
        self._git("checkout", "--quiet", branch)

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


def _step_of(key: str) -> int:
    """Return the number in an effect's key; the folder's first commit has none, and is before all."""
    found = re.search(r"-(\d{4,})-[a-z_]+$", key)
    return int(found[1]) if found else -1
