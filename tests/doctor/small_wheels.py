"""Wheels of a few lines, made on the spot, and a folder that uv takes as its only index."""

import base64
import hashlib
import shutil
import zipfile
from pathlib import Path

import pytest

UV = shutil.which("uv")
needs_uv = pytest.mark.skipif(UV is None, reason="uv is not there: pip install -r requirements-dev.txt")


def make_wheel(folder: Path, name: str, version: str, code: str = "", requires=(), extras=()) -> None:
    """Write a wheel whose one module, named like it, has some code."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"Provides-Extra: {extra}" for extra in extras] + [f"Requires-Dist: {need}" for need in requires]
    files = {
        f"{name}.py": f'__version__ = "{version}"\n{code}\n', f"{info}/METADATA": "\n".join(lines) + "\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }  # fmt: skip
    record = ""
    for path, text in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record += f"{path},sha256={digest},{len(text.encode())}\n"
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(path, text)


def only_index(monkeypatch: pytest.MonkeyPatch, folder: Path, cache: Path) -> None:
    """Let uv and pip see nothing but the wheels of a folder."""
    for name, value in (("UV_FIND_LINKS", folder), ("UV_NO_INDEX", 1), ("UV_OFFLINE", 1), ("UV_CACHE_DIR", cache),
                        ("PIP_FIND_LINKS", folder), ("PIP_NO_INDEX", 1), ("PIP_CONFIG_FILE", "/dev/null")):  # fmt: skip
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("UV_CONFIG_FILE", raising=False)


def make_tools(folder: Path) -> None:
    """Make an index: tool 1 needs a name of base that base 2 has no more; none of them declares it.

    tool 2 does without; guard declares base>=2; rider imports extra, which it declares for an extra only.
    """
    folder.mkdir(exist_ok=True)
    make_wheel(folder, "base", "1.0", "old_name = 1")
    make_wheel(folder, "base", "1.1", "old_name = 1")
    make_wheel(folder, "base", "2.0")
    make_wheel(folder, "tool", "1.0", "from base import old_name", ("base",))
    make_wheel(folder, "tool", "2.0", "import base", ("base",))
    make_wheel(folder, "guard", "1.0", "import base", ("base>=2",))
    make_wheel(folder, "stubborn", "1.0", "import base", ("base>=2",))
    make_wheel(folder, "extra", "1.0")
    needs = ("base", 'extra; extra == "full"')
    make_wheel(folder, "rider", "1.0", "import extra\nfrom base import old_name", needs, ("full",))
    make_wheel(folder, "strict", "1.0", "import base\nassert base.__version__ > '2'", ("base<2",))
    make_wheel(folder, "guard", "0.9", "import base", ("base",))
    make_wheel(folder, "dated", "1.0", "from base import old_name", ("base<2",))
