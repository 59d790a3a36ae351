"""Knows the config dataclasses: where they are, which section each one is, which keys and defaults each one has."""

import dataclasses
import importlib
import inspect
import os
import sys
import traceback
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any, get_type_hints

MISSING = dataclasses.MISSING


def section_name(config_class: type) -> str:
    """The section of a config class: its name less `Config`."""
    return config_class.__name__.removesuffix("Config")


def is_config(thing: Any) -> bool:
    """Whether something is a class that is a dataclass in its own right, not merely the child of one."""
    return isinstance(thing, type) and "__dataclass_fields__" in vars(thing)


def lineage(config_class: type) -> list[type]:
    """The class and its bases that are dataclasses, most specific first."""
    return [base for base in config_class.__mro__ if is_config(base)]


@lru_cache(maxsize=512)
def key_types(config_class: type) -> dict[str, Any]:
    """The keys of a class with their types.

    Args:
        config_class: a config dataclass.

    Returns:
        Type hints, bounds included, by key, in the fields' order; fields that `__init__` does not take are no keys.

    Raises:
        TypeError: a hint does not evaluate.
    """
    try:
        hints = get_type_hints(config_class, include_extras=True)
    except Exception as error:
        raise TypeError(f"{type(error).__name__}: {error}") from error
    return {field.name: hints[field.name] for field in dataclasses.fields(config_class) if field.init}


def declares(config_class: type, key: str) -> bool:
    """Whether the class itself, not a base, annotates the key."""
    return key in inspect.get_annotations(config_class)


def own_default(config_class: type, key: str) -> Any:
    """The default that the class itself gives to a key, or MISSING."""
    if not declares(config_class, key):
        return MISSING
    field = vars(config_class)["__dataclass_fields__"][key]
    if field.default_factory is not MISSING:
        return field.default_factory()
    # `key: int` without a value: dataclasses then take the base's default, which is not this class's word.
    own = key in vars(config_class) or "__slots__" in vars(config_class)
    return field.default if own else MISSING


def class_problems(config_class: Any) -> list[str]:
    """What is wrong with a config class itself, in ways that a dataclass would pass over in silence."""
    if not isinstance(config_class, type):
        return [f"ConfigParser.get takes a config class, such as DigitsTrainerConfig; given: {config_class!r}"]
    return list(_problems_of(config_class))


@lru_cache(maxsize=512)
def _problems_of(config_class: type) -> list[str]:
    name = config_class.__name__
    if not is_config(config_class):
        return [f"{name} is not a dataclass: put @dataclass above the class"]
    # The fields of such a base would be lost, as dataclasses looks only at what its own decorator left behind.
    bases: tuple[type, ...] = config_class.__mro__
    bare = [base for base in bases if dataclasses.is_dataclass(base) and not is_config(base)]
    if bare:
        return [
            f"{base.__name__}, a base of {name}, is not a dataclass: put @dataclass above the class" for base in bare
        ]
    try:
        keys = key_types(config_class)
    except TypeError as error:
        return [f"{name} has a type hint that cannot be read: {error}"]
    return [
        f"{base.__name__} sets '{key}' without a type, which changes nothing: write '{key}: <type> = ...'"
        for base in lineage(config_class)
        for key in keys
        if key in vars(base) and not declares(base, key)
    ]


def shown(path: Path) -> str:
    """A path as messages show it: relative to the current folder when inside it, else as given."""
    try:
        return str(Path(os.path.abspath(path)).relative_to(Path.cwd()))
    except (ValueError, OSError):  # outside, or the current folder is gone
        return str(path)


def discover() -> tuple[dict[str, type], list[str]]:
    """Import every `config/*_config.py`: of the program, and of the project that it works in.

    Returns:
        The config dataclasses by section, and what is wrong with the modules.
    """
    found: dict[str, type] = {}
    problems: list[str] = []
    folders = [Path(folder) for folder in sys.modules[__package__].__path__]
    paths = [path for folder in folders for path in sorted(folder.glob("*_config.py"))]
    if any(f"{__package__}.{path.stem}" not in sys.modules for path in paths):
        importlib.invalidate_caches()  # a file may be younger than the import system's view of its folder
    for path in paths:
        try:
            module = _import(path.stem)
        except Exception as error:
            line = _line_of(error, path)
            place = f"{shown(path)}:{line}" if line else shown(path)
            problems.append(f"{place} cannot be imported: {type(error).__name__}: {error}")
            continue
        problems += _add_classes(module, path, found)
    return dict(sorted(found.items())), problems


def _import(stem: str) -> ModuleType:
    return importlib.import_module(f"{__package__}.{stem}")


def _line_of(error: Exception, path: Path) -> int | None:
    """The line of the module at which its import failed."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines else None


def _add_classes(module: ModuleType, path: Path, found: dict[str, type]) -> list[str]:
    problems = []
    for thing in list(vars(module).values()):
        if not (isinstance(thing, type) and thing.__module__ == module.__name__ and section_name(thing)):
            continue
        if not (thing.__name__.endswith("Config") and dataclasses.is_dataclass(thing)):
            continue
        mistakes = class_problems(thing)
        problems += [f"{shown(path)}: {mistake}" for mistake in mistakes]
        if not is_config(thing):
            continue
        other = found.setdefault(section_name(thing), thing)
        if other is not thing:
            where = shown(Path(sys.modules[other.__module__].__file__ or other.__module__))
            problems.append(f"{shown(path)}: {thing.__name__} is defined in {where} too; rename one of them")
    return problems
