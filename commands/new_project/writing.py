"""Writes a new project's files."""

import shlex
from importlib.util import find_spec
from pathlib import Path

from constants.program import typed
from storage.errors import OutputError
from train.errors import ScaffoldError

_FILES = Path(__file__).resolve().parent / "files"
_NAMES = {"gitignore": ".gitignore"}  # as it lies here it would be heeded here
CONFTEST = _FILES / "tests" / "conftest.py"
"""The fixture that tests of a project's trainers use."""


def write_project(folder: Path) -> str:
    """Write a small project: a trainer of digits, its config, its section of config.ini and its test.

    Args:
        folder: folder that the project gets; made where it isn't there. `.` is the current one.

    Returns:
        What was written, and the next commands.

    Raises:
        ScaffoldError: something of that name is there already; nothing was written.
        OutputError: a file can't be written.
    """
    texts = _texts(folder)
    if folder.exists() and not folder.is_dir():
        raise ScaffoldError(f"menagerie init {folder}: there is a file of that name; take another.")
    taken = [name for name in texts if (folder / name).exists() or (folder / name).is_symlink()]
    if taken:
        raise ScaffoldError(
            f"menagerie init {folder} would overwrite {', '.join(taken)}. Take another folder; nothing was written."
        )
    for name, text in texts.items():
        try:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"cannot write {folder / name}: {error.strerror or error}.") from error
    return _report(folder, list(texts))


def _texts(folder: Path) -> dict[str, str]:
    """The files by name, those of the project's own folder last."""
    paths = sorted(path for path in _FILES.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    paths.sort(key=lambda path: path.parent == _FILES)
    names = [path.relative_to(_FILES).as_posix() for path in paths]
    texts = [path.read_text(encoding="utf-8") for path in paths]
    title = folder.resolve().name or "Project"
    return {_NAMES.get(name, name): text.replace("PROJECT", title) if name == "README.md" else text
            for name, text in zip(names, texts, strict=True)}  # fmt: skip


def _report(folder: Path, names: list[str]) -> str:
    here, train = folder.resolve() == Path.cwd(), typed("train")
    lines = ["wrote", *(f"  {folder / name}" for name in names), "next"]
    lines += [] if here else [f"  cd {shlex.quote(str(folder))}"]
    lines += [f"  {train} Digits --dry-run", f"  {train} Digits", f"  {typed('plot')} latest"]
    lines += [] if find_spec("pytest") else [f"  {typed('python')} -m pip install pytest"]
    lines += [f"  {typed('python')} -m pytest", "README.md tells the rest."]
    return "\n".join(lines) + "\n"
