"""`ConfigParser.get(SomeConfig)`: settings from config.ini and the command line, checked to the last key.

A section is a dataclass: `[FeatureFusionTrainer]` is `FeatureFusionTrainerConfig`. Sections inherit as the classes do.
For each field the first of these that has a value wins:

1. the command line (`key=value`), for the section that it is meant for;
2. the config.ini of a run that is gone on with, where `go_on_from` has named one;
3. for the class, then each of its bases that is a dataclass: its section in the file, then the default it declares.

So a default that a class declares itself goes before what the file says in the section of a base.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeVar

from config.config_classes import (
    MISSING,
    class_problems,
    discover,
    key_types,
    lineage,
    own_default,
    section_name,
    shown,
)
from config.config_docs import FieldDoc, describe, dump, shown_value
from config.config_error import ConfigError
from config.config_values import BadValue, absolute, read_value, validate, value_text
from config.config_wording import must_be
from config.ini_reader import Entry, IniFile, Problem, read_ini, shorten
from constants import CONFIG_PATH, PACKAGE_ROOT, PROJECT_ROOT
from constants.nearest import nearest

T = TypeVar("T")
_BASE_SECTION = "BaseTrainer"
_COMMAND_LINE = "command line"
_LISTED = 12


class _Override(NamedTuple):
    key: str
    text: str


class _Before(NamedTuple):
    """The settings of a run that is gone on with: its file, the section, and keys that are not taken from it."""

    ini: IniFile
    folder: Path
    section: str
    without: frozenset[str]


class ConfigParser:
    """The settings of this process. Used as class methods; it has no instances."""

    _given: Path = CONFIG_PATH  # as messages show it
    _path: Path = CONFIG_PATH
    _overrides: tuple[_Override, ...] = ()
    _override_problems: tuple[str, ...] = ()
    _override_folder: Path = Path()
    _section: str | None = None
    _before: _Before | None = None
    _registered: dict[str, type] = {}  # noqa: RUF012 - replaced, never changed in place
    _cache: tuple[Any, IniFile] | None = None
    _reported: ClassVar[set[str]] = set()  # messages that are told once

    def __init__(self) -> None:
        raise TypeError("ConfigParser has no instances: call ConfigParser.get(SomeConfig)")

    @classmethod
    def use(
        cls, path: Path | None = None, overrides: Mapping[str, Any] | Iterable[str] = (), section: str | None = None
    ) -> None:
        """Choose the file and the command line's overrides; replaces what an earlier call chose.

        Args:
            path: the ini file; the project's config.ini if None.
            overrides: `key=value` strings, or a mapping. Relative paths in them are relative to the current folder.
            section: the section that the overrides are for; required where there are overrides.

        Raises:
            ValueError: overrides without a section.
        """
        given = CONFIG_PATH if path is None else Path(path)
        pairs, problems = _parse_overrides(overrides)
        if (pairs or problems) and section is None:
            raise ValueError("ConfigParser.use: overrides need the section that they are for")
        cls._given, cls._path = given, Path.cwd() / given
        cls._overrides, cls._override_problems, cls._section = tuple(pairs), tuple(problems), section
        cls._override_folder, cls._before = Path.cwd(), None

    @classmethod
    def go_on_from(cls, path: Path, section: str, without: Iterable[str] = ("artifacts_dir",)) -> None:
        """Let the settings that a run had go before those of the file, until the next `use`.

        What can't be taken from it (keys that there are no more, values that are no longer allowed, files that are not
        there any more) comes from the file as ever.

        Args:
            path: config.ini of the run.
            section: section of the run's trainer.
            without: keys that are not taken from it.
        """
        cls._before = _Before(read_ini(path), path.parent, section, frozenset(without))

    @classmethod
    def passed_over(cls, config_class: type) -> dict[str, tuple[str, str]]:
        """The keys whose value in the file is another one than that of the run that is gone on with, which counts.

        Args:
            config_class: dataclass of the run's trainer.

        Returns:
            The run's value and the file's, as ini text, by key.
        """
        before = cls._before
        if before is None or section_name(config_class) != before.section:
            return {}
        ini, given, found = cls._ini(), {pair.key for pair in cls._overrides}, {}
        for key, hint in key_types(config_class).items():
            known, value = cls._from_before(before.section, key, hint)
            if not known or key in given:
                continue
            there, other, _ = cls._from_file(config_class, before.section, key, hint, ini)
            if there and other != value:
                found[key] = (value_text(value), value_text(other))
        return found

    @classmethod
    @contextmanager
    def overridden(cls, values: Mapping[str, str], section: str) -> Iterator[None]:
        """For a block, set keys of a section besides what `use` chose; these win.

        Args:
            values: value as ini text, by key.
            section: section of the keys, and of the overrides given to `use`.
        """
        before = cls._overrides, cls._section
        cls.override(values, section)
        try:
            yield
        finally:
            cls._overrides, cls._section = before

    @classmethod
    def override(cls, values: Mapping[str, str], section: str) -> None:
        """Set keys of a section as if the command line had.

        Args:
            values: value as ini text, by key.
            section: section of the keys, and of the overrides given to `use`.
        """
        kept = [pair for pair in cls._overrides if pair.key not in values]
        cls._overrides = (*kept, *(_Override(key, text) for key, text in values.items()))
        cls._section = section

    @classmethod
    def overrides(cls) -> dict[str, str]:
        """The ini text of the keys that the command line sets."""
        return {pair.key: pair.text for pair in cls._overrides}

    @classmethod
    def reset(cls) -> None:
        """Forget everything: file, overrides, classes seen, the parsed file."""
        cls._given = cls._path = CONFIG_PATH
        cls._overrides, cls._override_problems, cls._section = (), (), None
        cls._override_folder, cls._before = Path(), None
        cls._registered, cls._cache = {}, None

    @classmethod
    def get(cls, config_class: type[T]) -> T:
        """The settings of a class from its section.

        Args:
            config_class: a dataclass whose name ends in `Config`.

        Returns:
            A validated instance; every value has its field's type.

        Raises:
            ConfigError: anything is wrong in the whole file, the overrides or this class; all of it at once.
        """
        if mistakes := class_problems(config_class):
            raise ConfigError(mistakes)
        # A class that lives elsewhere than in config/ makes its section known by being asked for.
        cls._registered = cls._registered | {section_name(base): base for base in lineage(config_class)}
        known, problems = cls._known()
        problems += cls._file_problems(known) + cls._command_line_problems(known)
        cls._report_renamed()
        if cls._ini().is_unread:
            raise ConfigError(problems)
        values, more = cls._resolve(config_class)
        problems += [problem for problem in more if problem not in problems]
        if problems:
            raise ConfigError(problems)
        try:
            return config_class(**values)
        except ValueError as error:  # a `__post_init__` that checks one field against another
            given = {key for key, _ in cls._overrides}
            if str(error).partition(" ")[0] in given:
                raise ConfigError([f"{_COMMAND_LINE}: {error}"]) from error
            raise ConfigError(cls._at(0, section_name(config_class), str(error))) from error

    @classmethod
    def check(cls) -> None:
        """Check the whole file and the overrides, without making an instance.

        Keys that are missing are reported for the section given to `use`; the file is not asked to fill the others.

        Raises:
            ConfigError: all problems at once.
        """
        known, problems = cls._known()
        problems += cls._file_problems(known) + cls._command_line_problems(known)
        cls._report_renamed()
        if not cls._ini().is_unread and cls._section in known and not class_problems(known[cls._section]):
            more = cls._resolve(known[cls._section])[1]
            problems += [problem for problem in more if problem not in problems]
        if problems:
            raise ConfigError(problems)

    @classmethod
    def sections(cls) -> dict[str, type]:
        """The known sections: the dataclasses of `config/*_config.py`, and those that were asked for.

        Raises:
            ConfigError: a config module cannot be imported, or its class is malformed.
        """
        known, problems = cls._known()
        if problems:
            raise ConfigError(problems)
        return known

    @classmethod
    def peek(cls, section: str, key: str) -> Any:
        """One key's value, without checking the others.

        Args:
            section: name of the key's section. One without a known class is taken for a trainer that changes no
                default.
            key: name of the key.

        Returns:
            The resolved value, of the field's type.

        Raises:
            ConfigError: the file is malformed, the key is unknown, or its value is missing or wrong.
        """
        known = cls.sections()
        config_class = known.get(section) or known.get(_BASE_SECTION)
        keys = key_types(config_class) if config_class else {}
        if config_class is None or key not in keys:
            raise ConfigError(cls._at(0, section, _unknown("key", key, list(keys))))
        ini = cls._ini()
        problems = [cls._at(*problem) for problem in ini.problems]
        if not problems:
            _, value, problems = cls._resolve_key(config_class, section, key, keys[key], ini)
        if problems:
            raise ConfigError(problems)
        return value

    @classmethod
    def usual(cls, config_class: type, key: str) -> Any:
        """The value that a key has without the command line; the class's default where the file gives the same as it.

        Args:
            config_class: config dataclass of the key.
            key: name of the key.

        Raises:
            ConfigError: the value is missing or wrong.
        """
        section = section_name(config_class)
        in_force = cls.peek(section, key)
        before, cls._overrides = cls._overrides, ()
        try:
            usual = cls.peek(section, key)
        finally:
            cls._overrides = before
        defaults = [own_default(base, key) for base in lineage(config_class)]
        return next((default for default in defaults if default is not MISSING), usual) if usual == in_force else usual

    @classmethod
    def peek_text(cls, section: str, key: str) -> str:
        """One key's value in force as ini text, paths in the project relative to its root; see `peek`."""
        return shown_value(cls.peek(section, key))

    @staticmethod
    def describe(config_class: type) -> list[FieldDoc]:
        """Each key's name, type, default, meaning and declaring class; see `config_docs.describe`."""
        return describe(config_class)

    @staticmethod
    def dump(instance: Any) -> str:
        """An instance as ini text that reads back as an equal one; see `config_docs.dump`."""
        return dump(instance)

    @classmethod
    def path(cls) -> Path:
        """Return the file that settings are read from."""
        return cls._path

    # ---- the file ----------------------------------------------------------------------------------------------------

    @classmethod
    def _ini(cls) -> IniFile:
        """The parsed file, read anew when it has changed."""
        try:
            stat = cls._path.stat()
        except (OSError, ValueError):
            return read_ini(cls._path)  # says why
        stamp = (cls._path, stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if cls._cache is None or cls._cache[0] != stamp:
            cls._cache = (stamp, read_ini(cls._path))
        return cls._cache[1]

    @classmethod
    def _known(cls) -> tuple[dict[str, type], list[str]]:
        found, problems = discover()
        return {**found, **cls._registered}, problems

    @classmethod
    def _at(cls, line: int, section: str, text: str) -> str:
        """A message with its place: `config.ini:14 [Section] text`."""
        place = shown(cls._given) + (f":{line}" if line else "")
        return " ".join(filter(None, [place, section and f"[{section}]", text]))

    @classmethod
    def _file_problems(cls, known: dict[str, type]) -> list[str]:
        ini = cls._ini()
        found = list(ini.problems)
        for section, line in ini.sections.items():
            if section not in known:
                found.append(Problem(line, section, _unknown("section", section, list(known))))
        # A malformed class has been reported; what its keys may be is anybody's guess.
        sound = {section for section, config_class in known.items() if not class_problems(config_class)}
        for entry in ini.entries:
            if entry.section in sound:
                text = _entry_problem(entry, known[entry.section], cls._path.parent)
                found += [Problem(entry.line, entry.section, text)] if text else []
        return [cls._at(*problem) for problem in sorted(found, key=lambda problem: problem[0])]

    @classmethod
    def _report_renamed(cls) -> None:
        """Say, once for each file, which of its sections have another name now."""
        for line, old, new in cls._ini().renamed:
            text = cls._at(line, old, f"is called [{new}] now; the old name goes on working")
            if text not in cls._reported:
                from beautilog import logger  # takes a while, which most files don't need

                cls._reported.add(text)
                logger.warning(text)

    @classmethod
    def _command_line_problems(cls, known: dict[str, type]) -> list[str]:
        found = list(cls._override_problems)
        if cls._section is not None and cls._section not in known:
            found.append(f"[{cls._section}] " + _unknown("section", cls._section, list(known)))
        elif cls._section is not None and not class_problems(known[cls._section]):
            for key, text in cls._overrides:
                entry = Entry(cls._section, key, text, 0)
                problem = _entry_problem(entry, known[cls._section], cls._override_folder)
                found += [problem] if problem else []
        return [f"{_COMMAND_LINE}: {text}" for text in found if text]

    # ---- resolution --------------------------------------------------------------------------------------------------

    @classmethod
    def _resolve(cls, config_class: type) -> tuple[dict[str, Any], list[str]]:
        """Every key's value for a class, and what is wrong with those that have none."""
        ini, section = cls._ini(), section_name(config_class)
        values: dict[str, Any] = {}
        problems: list[str] = []
        for key, hint in key_types(config_class).items():
            has_value, value, found = cls._resolve_key(config_class, section, key, hint, ini)
            problems += found
            if has_value:
                values[key] = value
        return values, problems

    @classmethod
    def _resolve_key(
        cls, config_class: type, section: str, key: str, hint: Any, ini: IniFile
    ) -> tuple[bool, Any, list[str]]:
        """Whether a key has a value, the value, and what is wrong."""
        override = next((text for name, text in cls._overrides if name == key), None)
        if cls._section == section and override is not None:
            try:
                return True, read_value(hint, override, cls._override_folder), []
            except BadValue as error:
                return False, None, [f"{_COMMAND_LINE}: {key} = {shorten(override)}: {error}"]
        known, value = cls._from_before(section, key, hint)
        return (True, value, []) if known else cls._from_file(config_class, section, key, hint, ini)

    @classmethod
    def _from_before(cls, section: str, key: str, hint: Any) -> tuple[bool, Any]:
        """Whether the run that is gone on with has a value for a key that can be taken, and the value."""
        before = cls._before
        if before is None or section != before.section or key in before.without:
            return False, None
        entry = before.ini.find(section, key)
        if entry is None or entry.damaged:
            return False, None
        try:
            value = read_value(hint, entry.text, before.folder)
        except BadValue:
            return False, None
        gone = isinstance(value, Path) and not value.exists()  # the project may have been moved since
        return not gone, value

    @classmethod
    def _from_file(
        cls, config_class: type, section: str, key: str, hint: Any, ini: IniFile
    ) -> tuple[bool, Any, list[str]]:
        """Whether a key has a value in the file or by default, the value, and what is wrong."""
        bases = lineage(config_class)
        names = [section_name(base) for base in bases]
        if section not in names:  # peek at a section without a class: it stands for a child of the base
            entry = ini.find(section, key)
            if entry is not None:
                return cls._from_entry(entry, config_class, hint)
        for base, name in zip(bases, names, strict=True):
            entry = ini.find(name, key)
            if entry is not None:
                return cls._from_entry(entry, config_class, hint)
            default = own_default(base, key)
            if default is not MISSING:
                return cls._from_default(base, key, hint, default)
        if any(problem.line == 0 for problem in ini.problems):
            return False, None, []  # there is no file that one could add the key to
        return False, None, [cls._missing(section, key, hint, ini)]

    @classmethod
    def _from_entry(cls, entry: Entry, config_class: type, hint: Any) -> tuple[bool, Any, list[str]]:
        if entry.damaged:  # has been reported
            return False, None, []
        try:
            return True, read_value(hint, entry.text, cls._path.parent), []
        except BadValue as error:
            text = f"{entry.key} = {shorten(entry.text)}: {error}"
            if entry.section != section_name(config_class):
                own = _entry_problem(entry, cls._known()[0].get(entry.section, config_class), cls._path.parent)
                # Allowed where it stands, but this class is stricter than its base.
                text = own or f"{text} in [{section_name(config_class)}]"
            return False, None, [cls._at(entry.line, entry.section, text)]

    @classmethod
    def _from_default(cls, base: type, key: str, hint: Any, default: Any) -> tuple[bool, Any, list[str]]:
        try:
            # pydantic turns the "data" or [1, 2] that an author wrote into the field's Path or tuple.
            return True, absolute(validate(hint, default), cls._path.parent), []
        except (BadValue, RuntimeError) as error:  # RuntimeError: a `~name` that there is not
            remedy = "; write its type as '... | None'" if default is None else ""
            return False, None, [f"{base.__name__}: the default {key} = {shorten(str(default))} {error}{remedy}"]

    @classmethod
    def _missing(cls, section: str, key: str, hint: Any, ini: IniFile) -> str:
        line = ini.sections.get(section, 0)
        where = f"below line {line}" if line else f"in a section [{section}]"
        return cls._at(line, section, f"missing key '{key}', which {must_be(hint)}: add '{key} = ...' {where}")


def _parse_overrides(overrides: Mapping[str, Any] | Iterable[str]) -> tuple[list[_Override], list[str]]:
    """Overrides as pairs, and what is wrong with those that are none."""
    if isinstance(overrides, str):
        overrides = [overrides]
    if isinstance(overrides, Mapping):
        return [_Override(key, str(value)) for key, value in overrides.items()], []
    pairs: list[_Override] = []
    problems: list[str] = []
    words = [*overrides]
    for place, given in enumerate(words):
        key, equals, text = (part.strip() for part in given.partition("="))
        value = "".join(words[place + 1 : place + 2])
        if not equals and key.isidentifier() and value and "=" not in value:
            problems.append(f"{shorten(given)} is no key=value: write {key}={value}")
            words[place + 1] = f"{key}={value}"  # which is looked at as what was meant
        elif not equals or not key:
            problems.append(f"{shorten(given)} is no key=value")
        elif any(pair.key == key for pair in pairs):
            problems.append(f"duplicate key {key!r}")
        else:
            pairs.append(_Override(key, text))
    return pairs, problems


def _entry_problem(entry: Entry, config_class: type, folder: Path) -> str | None:
    """What is wrong with an entry in the section of a class, or None."""
    keys = key_types(config_class)
    if entry.key not in keys:
        return _unknown("key", entry.key, list(keys))
    if entry.damaged:
        return None
    try:
        read_value(keys[entry.key], entry.text, folder)
    except BadValue as error:
        return f"{entry.key} = {shorten(entry.text)}: {error}"
    return None


def _unknown(what: str, name: str, known: list[str]) -> str:
    """`unknown key 'learing_rate'; did you mean 'learning_rate'?`, or the list of what there is."""
    form = "[{}]".format if what == "section" else "'{}'".format
    subject = "unknown section" if what == "section" else f"unknown key {name!r}"
    near = nearest(name, known)
    file = re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()
    if what == "section" and any((root / "train" / f"{file}.py").is_file() for root in (PROJECT_ROOT, PACKAGE_ROOT)):
        return f"{subject}: train/{file}.py is there, but config/*_config.py has no dataclass {name}Config"
    if near:
        return f"{subject}; did you mean {form(near)}?"
    if not known:
        return f"{subject}; there are none"
    rest = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return f"{subject}; known {what}s are {', '.join(map(form, known[:_LISTED]))}{rest}"
