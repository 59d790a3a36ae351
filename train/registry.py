"""The names of the trainers, read from their source files without importing them (torch takes seconds)."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constants import command
from constants.renamed import RENAMED_TRAINERS


class UnknownTrainerError(KeyError):
    """A name that no trainer has; the text lists the nearest ones."""

    def __str__(self) -> str:
        return str(self.args[0])


class RegistryError(Exception):
    """Trainer files that cannot all be in one registry, such as two trainers of one name."""


@dataclass(frozen=True)
class TrainerEntry:
    """What is known of a trainer before its module is imported.

    Attributes:
        name: class name of the trainer.
        target: address of the class, `package.module:ClassName`, or the class itself.
        file: source file of the trainer, None where it is not known.
        line: line of the class statement.
        description: first line of the class docstring.
        section: name of the trainer's section of config.ini.
    """

    name: str
    target: str | type
    file: Path | None
    line: int
    description: str
    section: str

    def load(self) -> type:
        """Import the trainer's module (and torch with it) and return the class."""
        if isinstance(self.target, type):
            return self.target
        module, _, attribute = self.target.partition(":")
        return getattr(importlib.import_module(module), attribute)


class TrainerRegistry(Mapping[str, type]):
    """Maps names to trainer classes; imports a trainer when it is asked for.

    Names match without case and with the suffix `Trainer` optional.

    Args:
        folders: of one package, whose `*_trainer.py` files hold the trainers; those of the first go before others'.
    """

    def __init__(self, *folders: Path) -> None:
        self.folders = folders
        self.broken: dict[Path, str] = {}
        """Trainer files that do not parse, with the reason."""
        self._added: dict[str, TrainerEntry] = {}
        self._found: dict[str, TrainerEntry] | None = None

    def entries(self) -> dict[str, TrainerEntry]:
        """Return every trainer's entry by class name, in alphabetic order.

        Raises:
            RegistryError: two trainers of one name; the text names both files.
        """
        if self._found is None:
            self._found = self._scan()
        together = dict(self._found)
        for name, entry in self._added.items():
            _refuse_twin(together.get(name), entry)
            together[name] = entry
        return dict(sorted(together.items()))

    def entry(self, name: str) -> TrainerEntry:
        """Find the entry of a trainer.

        Args:
            name: class name, in any case, with or without `Trainer`.

        Raises:
            UnknownTrainerError: no trainer has that name.
        """
        entries = self.entries()
        if name in entries:
            return entries[name]
        by_short = {_short(known): entry for known, entry in entries.items()}
        if _short(name) in by_short:
            return by_short[_short(name)]
        former = next((old for old in RENAMED_TRAINERS if _short(old) == _short(name)), None)
        if former is not None and RENAMED_TRAINERS[former] in entries:
            from beautilog import logger  # takes a while, which `--list` has not

            logger.warning(f"{former} is called {RENAMED_TRAINERS[former]} now; the old name goes on working")
            return entries[RENAMED_TRAINERS[former]]
        if "=" in name:
            raise UnknownTrainerError(
                f"'{name}' is a setting; the name of a trainer comes before it. `{command('train')} --list` shows all."
            )
        self._explain_file(name)
        near = [by_short[short].name for short in difflib.get_close_matches(_short(name), by_short, n=3, cutoff=0.5)]
        hint = f"; did you mean {' or '.join(near)}?" if near else ";"
        broken = "".join(f"\n{path}: {reason} (its trainers are not listed)" for path, reason in self.broken.items())
        raise UnknownTrainerError(f"unknown trainer '{name}'{hint} `{command('train')} --list` shows all.{broken}")

    def _explain_file(self, name: str) -> None:
        """Say why a trainer whose file is there has no entry.

        Raises:
            UnknownTrainerError: its file is no Python, or is not called as trainers' files are.
        """
        for path, reason in self.broken.items():
            if _short(path.stem.replace("_", "")) == _short(name):
                raise UnknownTrainerError(f"{path} can't be read, so it has no trainers: {reason}")
        for path in [path for folder in self.folders for path in sorted(folder.glob("*.py"))]:
            if path.stem.endswith("_trainer"):
                continue
            text = path.read_text(encoding="utf-8", errors="replace")
            for found in re.findall(r"^class (\w+)\(.*Trainer\b.*\):", text, re.MULTILINE):
                if _short(found) == _short(name):
                    raise UnknownTrainerError(
                        f"{path} has a class {found}, but trainers are looked for in train/*_trainer.py: "
                        f"rename the file to {path.stem}_trainer.py"
                    )

    def section_of(self, trainer: type) -> str:
        """Return the section of config.ini that a trainer's class reads; one that is not known here has its own."""
        entry = self.entries().get(trainer.__name__)
        return trainer.__name__ if entry is None else entry.section

    def __getitem__(self, name: str) -> type:
        return self.entry(name).load()

    def __setitem__(self, name: str, target: str | type) -> None:
        """Add a trainer that lives outside the folder: its class, or `package.module:ClassName`."""
        entry = _entry_of_target(name, target)
        _refuse_twin(self._added.get(name), entry)
        self._added[name] = entry

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and self.entry(name) is not None
        except UnknownTrainerError:
            return False

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries())

    def __len__(self) -> int:
        return len(self.entries())

    def _scan(self) -> dict[str, TrainerEntry]:
        found: dict[str, TrainerEntry] = {}
        for path in [path for folder in self.folders for path in sorted(folder.glob("*_trainer.py"))]:
            try:
                entries = list(_entries_of_file(path, f"{path.parent.name}.{path.stem}"))
            except (SyntaxError, UnicodeDecodeError, OSError) as error:
                self.broken[path] = f"{type(error).__name__}: {error}"
                continue
            for entry in entries:
                twin = next((known for known in found.values() if _short(known.name) == _short(entry.name)), None)
                _refuse_twin(twin, entry)
                found[entry.name] = entry
        return found


def _short(name: str) -> str:
    return name.lower().removesuffix("trainer")


def _refuse_twin(known: TrainerEntry | None, new: TrainerEntry) -> None:
    if known is not None and (known.file, known.line) != (new.file, new.line):
        raise RegistryError(
            f"two trainers have the name {new.name}: {known.file}:{known.line} and {new.file}:{new.line}; rename one."
        )


def _entries_of_file(path: Path, module: str) -> Iterator[TrainerEntry]:
    for node in ast.parse(path.read_text(encoding="utf-8"), filename=str(path)).body:
        # A base such as `BaseTrainer` or `base_trainer.BaseTrainer`. A class over another trainer is listed too:
        # importing it then gives the error that says why that is not allowed.
        if not isinstance(node, ast.ClassDef):
            continue
        bases = [ast.unparse(base).split(".")[-1] for base in node.bases]
        if any(base.endswith("Trainer") for base in bases) and node.name != "BaseTrainer":
            doc = (ast.get_docstring(node) or "(no docstring)").splitlines()[0]
            yield TrainerEntry(node.name, f"{module}:{node.name}", path, node.lineno, doc, _section_of(node))


def _section_of(node: ast.ClassDef) -> str:
    """The section that `self.config = ConfigParser.get(SomeConfig)` reads; by custom it is the trainer's name."""
    for part in ast.walk(node):
        if isinstance(part, ast.Assign) and "self.config" in map(ast.unparse, part.targets):
            call = part.value
            if not isinstance(call, ast.Call) or not ast.unparse(call.func).endswith("ConfigParser.get"):
                continue
            if call.args and isinstance(call.args[0], ast.Name | ast.Attribute):
                return ast.unparse(call.args[0]).split(".")[-1].removesuffix("Config")
    return node.name


def _entry_of_target(name: str, target: Any) -> TrainerEntry:
    if isinstance(target, type):
        doc = (target.__doc__ or "(no docstring)").strip().splitlines()[0]
        file, line = Path(inspect.getfile(target)), inspect.getsourcelines(target)[1]
        return TrainerEntry(name, target, file, line, doc, name)
    module, colon, attribute = str(target).partition(":")
    if not colon:
        raise RegistryError(f"TRAINER_REGISTRY['{name}'] = {target!r}: must be a class or 'package.module:ClassName'.")
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        raise RegistryError(f"TRAINER_REGISTRY['{name}'] = {target!r}: there is no module {module}.")
    for entry in _entries_of_file(Path(spec.origin), module):
        if entry.name == attribute:
            return TrainerEntry(name, target, entry.file, entry.line, entry.description, entry.section)
    raise RegistryError(f"TRAINER_REGISTRY['{name}'] = {target!r}: {spec.origin} has no trainer class {attribute}.")
