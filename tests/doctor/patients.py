"""Environments to be diagnosed: real virtual environments without pip, with distributions written by hand."""

import base64
import hashlib
import os
import subprocess
import venv
from pathlib import Path


class Patient:
    """A virtual environment made by `python -m venv --without-pip`.

    Args:
        folder: where it is made.
        python: interpreter that makes it; the one of the tests if None.
        options: further options of venv.
    """

    def __init__(self, folder: Path, python: str | None = None, *options: str) -> None:
        self.folder = folder
        if python is None:  # the same as below, without a process of its own
            venv.create(folder, symlinks=True, system_site_packages="--system-site-packages" in options)
        else:
            subprocess.run([python, "-m", "venv", "--without-pip", *options, str(folder)], check=True)
        self.python = str(folder / "bin" / "python")
        self.site = next(folder.glob("lib/python3*/site-packages"))

    def install(self, name: str, version: str, **told: object) -> Path:
        """Write a distribution into the environment, as `install_into` does."""
        return install_into(self.site, name, version, **told)

    def run(self, code: str, cwd: Path | None = None, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run code with the environment's interpreter."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
        return subprocess.run(
            [self.python, "-c", code], cwd=cwd, env={**clean, **variables}, capture_output=True, text=True
        )


def install_into(
    site: Path,
    name: str,
    version: str,
    *,
    requires: tuple[str, ...] = (),
    requires_python: str = "",
    tags: tuple[str, ...] = ("py3-none-any",),
    files: dict[str, str] | None = None,
    installer: str = "pip",
    record: bool = True,
    extra: dict[str, str] | None = None,
) -> Path:
    """Write a distribution as pip would.

    Args:
        site: folder of packages.
        name: its name.
        version: its version.
        requires: Requires-Dist lines.
        requires_python: its Requires-Python.
        tags: wheel tags.
        files: texts of the files that it installs, by path; a package of its name if None.
        installer: text of INSTALLER.
        record: whether RECORD is written.
        extra: further files of the dist-info folder.

    Returns:
        The dist-info folder.
    """
    module = name.replace("-", "_").lower()
    files = {f"{module}/__init__.py": f'__version__ = "{version}"\n'} if files is None else files
    info = site / f"{name.replace('-', '_')}-{version}.dist-info"
    head = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}"]
    head += [f"Requires-Python: {requires_python}"] if requires_python else []
    head += [f"Requires-Dist: {one}" for one in requires]
    wheel = ["Wheel-Version: 1.0\nGenerator: by hand", *(f"Tag: {tag}" for tag in tags)]
    written = dict(files)
    written[f"{info.name}/METADATA"] = "\n".join(head) + "\n\nRequires-Dist: not-a-header\n"
    written[f"{info.name}/WHEEL"] = "\n".join(wheel) + "\n"
    written[f"{info.name}/INSTALLER"] = installer + "\n"
    for key, text in (extra or {}).items():
        written[f"{info.name}/{key}"] = text
    lines = []
    for path, text in written.items():
        place = site / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    if record:
        (info / "RECORD").write_text("\n".join([*lines, f"{info.name}/RECORD,,"]) + "\n")
    return info


def fake_program(folder: Path, name: str, script: str) -> Path:
    """Write a shell script that stands for a program, such as nvidia-smi."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / name
    file.write_text(f"#!/bin/sh\n{script}\n")
    file.chmod(0o755)
    return file


def fake_nvidia_smi(folder: Path, *rows: str, cuda: str = "12.4", capability: bool = True) -> Path:
    """Write an nvidia-smi that answers rows such as "Tesla T4, 15360, 550.54.15, 7.5"."""
    table = "\n".join(f"echo '{row}'" for row in rows)
    refuse = (
        "" if capability else 'case "$*" in *compute_cap*) echo "Field \\"compute_cap\\" is not valid"; exit 2;; esac'
    )
    return fake_program(
        folder,
        "nvidia-smi",
        f"""{refuse}
case "$*" in
*query-gpu*)
{table}
;;
*) echo "| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: {cuda}  |" ;;
esac""",
    )
