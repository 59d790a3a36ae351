"""environment.yml of conda: the part that pip installs, and the version of Python."""

import re
from pathlib import Path

import yaml

from doctor.environment.facts import Declared
from doctor.errors import InputError
from doctor.sources.source import PYTHON, Source, read_requirement
from doctor.sources.target import Target
from doctor.sources.text_file import read_text
from doctor.sources.toml_file import line_of


def read_conda_file(path: Path, target: Target) -> Source:
    """Read an environment.yml: pip's part as requirements; conda's own packages are named in a note.

    Raises:
        InputError: it can't be read, or is another YAML file.
    """
    text = read_text(path)
    try:
        tables = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        where = f":{line + 1}" if line is not None else ""
        raise InputError(
            f"{path}{where}: no YAML: {getattr(error, 'problem', None) or 'it can not be parsed'}"
        ) from None
    entries = tables.get("dependencies") if isinstance(tables, dict) else None
    if not isinstance(entries, list):
        raise InputError(f"{path} is no environment.yml: it has no list `dependencies`")
    declared, problems, of_conda = [], [], []
    for entry in entries:
        if isinstance(entry, dict):
            for requirement in (str(one) for one in entry.get("pip") or ()):
                if not requirement.startswith("-"):
                    found = read_requirement(requirement, f"{path}:{line_of(text, requirement)}", target)
                    if isinstance(found, Declared):
                        declared.append(found)
                    elif found:
                        problems.append(found)
        elif found_python := re.match(r"python\s*=*\s*(\d[\d.]*)", str(entry)):
            place = f"{path}:{line_of(text, str(entry))}"
            declared.append(Declared(PYTHON, f"=={found_python[1].rstrip('.')}.*", place, str(entry)))
        else:
            of_conda.append(re.split(r"[\s=<>!]", str(entry))[0])
    notes: tuple[str, ...] = ()
    if of_conda:
        notes = (f"packages of conda are not judged, only pip's part: {', '.join(of_conda[:6])}",)
    return Source("conda", tuple(declared), tuple(problems), notes)
