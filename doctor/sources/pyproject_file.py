"""pyproject.toml: what a project declares in [project], [dependency-groups], [tool.uv] and [tool.poetry]."""

import re
from pathlib import Path

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name

from doctor.environment.facts import Declared
from doctor.sources.source import PYTHON, Source, read_requirement
from doctor.sources.target import Target
from doctor.sources.toml_file import line_of, read_toml, table, texts


def read_pyproject_file(path: Path, target: Target) -> Source:
    """Read a pyproject.toml: its dependencies, and those of all its extras and groups.

    Raises:
        InputError: it can't be read.
    """
    tables, text = read_toml(path)
    project, tool = table(tables, "project"), table(tables, "tool")
    uv, poetry = table(tool, "uv"), table(tool, "poetry")
    python = project.get("requires-python") or _poetry_range(table(poetry, "dependencies").get("python"))
    requires_python = python if isinstance(python, str) else ""
    target = target.allowed_by(requires_python)
    lists = {"dependencies": texts(project.get("dependencies"))}
    lists |= {f"extra {key}": texts(value) for key, value in table(project, "optional-dependencies").items()}
    lists |= {f"group {key}": texts(value) for key, value in table(tables, "dependency-groups").items()}
    for key in ("constraint-dependencies", "dev-dependencies"):
        lists[f"tool.uv.{key}"] = texts(uv.get(key))
    overrides = texts(uv.get("override-dependencies"))
    return _read(path, text, target, requires_python, lists, overrides, poetry)


def _read(
    path: Path,
    text: str,
    target: Target,
    requires_python: str,
    lists: dict[str, list[str]],
    overrides: list[str],
    poetry: dict[str, object],
) -> Source:
    declared, problems, notes = [], [], []
    if requires_python:
        where = f"{path}:{line_of(text, 'requires-python') or line_of(text, 'python')}"
        try:
            SpecifierSet(requires_python)
            declared.append(Declared(PYTHON, requires_python, where, f"requires-python = {requires_python!r}"))
        except InvalidSpecifier:
            problems.append(f"{where}: {requires_python!r} is no range of versions; allowed is such as '>=3.10,<3.14'")
    overriding = [read_requirement(one, f"{path}:{line_of(text, one)}", target) for one in overrides]
    ruled = {one.name: one for one in overriding if isinstance(one, Declared)}
    for where, requirements in lists.items():
        for requirement in requirements:
            place = f"{path}:{line_of(text, requirement)}" + ("" if where == "dependencies" else f" ({where})")
            found = read_requirement(requirement, place, target)
            if isinstance(found, str):
                problems.append(found)
            elif found is None:
                notes.append(f"{place}: left out, since its marker does not hold here: {requirement}")
            elif found.name not in ruled:
                declared.append(found)
    declared.extend(ruled.values())
    problems += [one for one in overriding if isinstance(one, str)]
    declared.extend(_poetry(path, text, poetry))
    return Source("pyproject", tuple(declared), tuple(problems), tuple(notes))


def _poetry(path: Path, text: str, poetry: dict[str, object]) -> list[Declared]:
    tables = [table(poetry, "dependencies"), table(poetry, "dev-dependencies")]
    tables += [table(group, "dependencies") for group in table(poetry, "group").values()]
    found = []
    for dependencies in tables:
        for name, value in dependencies.items():
            version = value.get("version") if isinstance(value, dict) else value
            if name.lower() != PYTHON:
                place = f"{path}:{line_of(text, name)}"
                shown = f'{name} = "{version}"' if isinstance(version, str) else name
                found.append(Declared(canonicalize_name(name), _poetry_range(version), place, shown))
    return found


def _poetry_range(value: object) -> str:
    """Return Poetry's range of versions as PEP 440 has it; empty where it allows all, or is something else."""
    if not isinstance(value, str) or "||" in value or value.strip() == "*":
        return ""
    parts = []
    for part in (one.strip() for one in value.split(",")):
        sign, version = part[:1], part[1:].strip()
        numbers = [int(one) for one in re.findall(r"\d+", version)]
        if sign == "^" and numbers:
            place = next((i for i, one in enumerate(numbers) if one), len(numbers) - 1)
            parts.append(f">={version},<{_next(numbers[: place + 1])}")
        elif sign == "~" and numbers and not version.startswith("="):
            parts.append(f">={version},<{_next(numbers[: min(2, len(numbers))])}")
        elif part[:1].isdigit():
            parts.append(f"=={part}")
        else:
            parts.append(part)
    try:
        return str(SpecifierSet(",".join(parts)))
    except InvalidSpecifier:
        return ""


def _next(numbers: list[int]) -> str:
    return ".".join(map(str, [*numbers[:-1], numbers[-1] + 1]))
