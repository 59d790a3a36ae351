"""What pyproject.toml cannot say: files that stand at the root of a checkout, and the commit, go into the wheel."""

import shutil
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


class BuildWithRootFiles(build_py):
    """Puts beautilog.ini, and the commit where there is one, beside constants/paths.py, which reads them there."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:  # the checkout itself is used
            return
        constants = Path(self.build_lib) / "constants"
        shutil.copy(ROOT / "beautilog.ini", constants / "beautilog.ini")
        (constants / "commit.txt").write_text(_commit(), encoding="utf-8")


def _commit() -> str:
    """The commit, with `+changes` where files are not as it has them; empty outside a checkout, or without git."""
    words = ["git", "--no-optional-locks", "-C", str(ROOT)]
    try:
        commit = subprocess.run(
            [*words, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        status = [*words, "status", "--porcelain", "--untracked-files=no"]
        return commit + "+changes" * bool(subprocess.run(status, capture_output=True, text=True, check=True).stdout)
    except (OSError, subprocess.SubprocessError):
        return ""


setup(cmdclass={"build_py": BuildWithRootFiles})
