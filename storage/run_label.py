"""The name and the note that a person gives a run, `label.json` in its folder, and what is found by them."""

import contextlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from storage.files import write_json

FILE = "label.json"
_LONGEST = 60
_NAME = re.compile(rf"\w[\w.+-]{{0,{_LONGEST - 1}}}")
_TAKEN = re.compile(r"latest|auto|seeds-.*|\d{8}-\d{6}(-\d+)?")  # they mean something else where a run is asked for


@dataclass(frozen=True)
class RunLabel:
    """What a person calls a run.

    Attributes:
        name: name by which the run is found and shown; None where it was given none.
        note: text about the run; None where it was given none.
    """

    name: str | None = None
    note: str | None = None

    def entries(self) -> dict[str, str]:
        """Return what there is of it, by the names of the attributes."""
        return {key: value for key, value in asdict(self).items() if value}


def read_label(folder: Path) -> RunLabel:
    """Read the label of a run, or of a group of seeds; a file that can't be read is none.

    Args:
        folder: folder of the run or group.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        content = json.loads((folder / FILE).read_text(encoding="utf-8"))
        found = {key: content.get(key) for key in ("name", "note")}
        return RunLabel(**{key: value if isinstance(value, str) and value else None for key, value in found.items()})
    return RunLabel()


def write_label(folder: Path, given: RunLabel) -> RunLabel:
    """Give a run, or a group of seeds, a label; what is not given stays as it was.

    Args:
        folder: folder of the run or group.
        given: new name, note or both.

    Returns:
        The label that it has now.
    """
    label = RunLabel(**(read_label(folder).entries() | given.entries()))
    if given.entries():
        write_json(folder / FILE, label.entries())
    return label


def labelled(name: str, artifacts_dir: Path, model: str = "*") -> list[Path]:
    """Find the runs, and groups of seeds, of a name.

    Args:
        name: name that they were given.
        artifacts_dir: folder of all runs and published models.
        model: name of the model's folder; `*` looks through all.

    Returns:
        Their folders; at most one of a model, unless somebody has copied runs.
    """
    return [folder for folder, given in _names(artifacts_dir, model) if given == name]


def names_given(artifacts_dir: Path) -> list[str]:
    """Return all names that runs and groups of seeds were given."""
    return [name for _, name in _names(artifacts_dir)]


def _names(artifacts_dir: Path, model: str = "*") -> list[tuple[Path, str]]:
    files = [file for kind in ("runs", "seeds") for file in artifacts_dir.glob(f"models/{model}/{kind}/*/{FILE}")]
    return [(file.parent, name) for file in sorted(files) if (name := read_label(file.parent).name)]


def name_problem(
    name: str, artifacts_dir: Path, model: str, trainers: Iterable[str] = (), own: Path | None = None
) -> str | None:
    """Say why a run can't have a name, None where it can.

    Args:
        name: name that is wanted.
        artifacts_dir: folder of all runs and published models.
        model: name of the model's folder.
        trainers: class names of all trainers, which stand for their newest runs.
        own: folder of the run, where it exists already.
    """
    if not _NAME.fullmatch(name):
        near = re.sub(r"[^\w.+-]+", "-", name).strip("-.+")[:_LONGEST]
        hint = f", such as {near}" if _NAME.fullmatch(near) else ""
        return (
            f"--name {name!r}: a name is up to {_LONGEST} letters, digits and . _ + - without spaces{hint}; "
            "--note takes any text"
        )
    if _TAKEN.fullmatch(name):
        return f"--name {name}: that stands for other runs where a run is asked for; give another name"
    if name.lower().removesuffix("trainer") in {trainer.lower().removesuffix("trainer") for trainer in trainers}:
        return f"--name {name}: that is a trainer, which stands for its newest run; give another name"
    known = _names(artifacts_dir, model)
    taken = next((folder for folder, given in known if given == name and _is_other(folder, own)), None)
    if taken is None:
        return None
    others = {given for _, given in known}
    number = next(n for n in range(2, 10**6) if f"{name}-{n}" not in others)
    return (
        f"--name {name}: {taken.name} of {model} has that name. Give another, such as {name}-{number}, or go on "
        f"with that run: --resume {name}"
    )


def _is_other(folder: Path, own: Path | None) -> bool:
    return own is None or folder.resolve() != own.resolve()
