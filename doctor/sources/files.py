"""Which reader a file is for."""

from collections.abc import Callable
from pathlib import Path

from doctor.environment.facts import Environment, Interpreter
from doctor.errors import InputError
from doctor.sources.conda_file import read_conda_file
from doctor.sources.lock_file import read_lock_file
from doctor.sources.pyproject_file import read_pyproject_file
from doctor.sources.requirements_file import read_requirements_file
from doctor.sources.script_file import read_notebook_file, read_script_file
from doctor.sources.source import PYTHON, Source
from doctor.sources.target import Target
from doctor.sources.toml_file import read_toml

ALLOWED = (
    "allowed are requirements*.txt, pyproject.toml, uv.lock, pylock*.toml, poetry.lock, a *.py with a PEP 723 block, "
    "*.ipynb and environment.yml; a log or traceback is given by --traceback, an environment by --python"
)
_Reader = Callable[[Path, Target], Source]
_BY_SUFFIX: dict[str, _Reader] = {
    ".txt": read_requirements_file,
    ".in": read_requirements_file,
    ".lock": read_lock_file,
    ".py": read_script_file,
    ".ipynb": read_notebook_file,
    ".yml": read_conda_file,
    ".yaml": read_conda_file,
}


def read_file(path: Path, target: Target) -> Source:
    """Read what a file declares.

    Raises:
        InputError: it can't be read, lines of it can't be, or it is of no kind that is known.
    """
    reader = _toml_reader(path) if path.suffix == ".toml" else _BY_SUFFIX.get(path.suffix)
    if reader is None:
        reader = read_requirements_file if "requirements" in path.name else None
    if reader is None:
        raise InputError(f"{path} is of no kind that is known here: {ALLOWED}")
    source = reader(path, target)
    if source.problems:
        raise InputError(*source.problems)
    if not source.declared:
        raise InputError(f"{path} declares nothing")
    return source


def _toml_reader(path: Path) -> _Reader:
    tables, _ = read_toml(path)
    return read_lock_file if {"lock-version", "packages"} & tables.keys() else read_pyproject_file


def environment_of(path: Path, source: Source, target: Target) -> Environment:
    """Return what a file declares as an environment, on a target."""
    python = next((one.specifier for one in source.declared if one.name == PYTHON), "")
    target = target.allowed_by(python)
    version = target.python if not target.assumed else ".".join(target.python.split(".")[:2])
    interpreter = Interpreter("", version, sys_platform=target.sys_platform, machine=target.machine)
    return Environment(str(path), interpreter=interpreter, declared=source.declared)
