"""`workflow.py new`: writes a workflow that works at once into a folder of its own."""

import shutil
from pathlib import Path

from constants.nearest import meant
from constants.paths import PACKAGE_ROOT

TEMPLATES = Path(__file__).resolve().parent / "templates"
_SHARED = {"prompt_distillation": (PACKAGE_ROOT / "data" / "near_duplicates.py",)}  # files of ours that it takes along


class NewProjectError(Exception):
    """A workflow that can't be written; the text says why."""


def template_names() -> list[str]:
    """Return the names of the workflows that there are."""
    return sorted(path.name for path in TEMPLATES.iterdir() if (path / "workflow.yaml").is_file())


def write_project(name: str, folder: Path) -> list[str]:
    """Write a workflow's files.

    Args:
        name: name of the workflow.
        folder: where to; it must be empty or not be there.

    Returns:
        The names of its files.

    Raises:
        NewProjectError: there is no such workflow, something is there already, or the folder can't be written.
    """
    if name not in template_names():
        hint = meant(name, template_names()) or f"; there is {', '.join(template_names())}"
        raise NewProjectError(f"there is no workflow {name}{hint}")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise NewProjectError(f"{folder} is there already; name a folder that is not, or an empty one")
        shutil.copytree(TEMPLATES / name, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for shared in _SHARED.get(name, ()):
            shutil.copyfile(shared, folder / shared.name)
    except OSError as error:
        raise NewProjectError(f"{folder} can't be written: {error.strerror or error}") from None
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
