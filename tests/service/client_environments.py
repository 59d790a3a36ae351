"""Environments of other versions of clients, for tests that run them as they come."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest


def client_python(folder: Path, *packages: str, alone: bool = False) -> Path:
    """Return the Python of a new environment in a folder; where its packages can't be installed, skip the test.

    Args:
        folder: it is made in here.
        packages: words for pip's install.
        alone: without the packages that are here.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "client"], check=True)
    python = folder / "client" / "bin" / "python"
    (own,) = (folder / "client" / "lib").glob("python*/site-packages")
    if not alone:
        # Their own .pth files are read too: one lets torchvision be imported beside the CPU build of torch.
        (own / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{packages} can't be installed here: {(done.stderr or done.stdout).strip()[-300:]}")
    return python
