"""Nodes of a YAML file that know their lines, and what is wrong with them."""

import json
import re
from pathlib import Path

import yaml

from constants.nearest import meant, nearest

_EXPONENT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+")
_PAIR = re.compile(r"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}")  # one character, as JSON may write it


class Problems:
    """What is wrong with a file.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: list[tuple[int, str]] = []

    def add(self, line: int, text: str) -> None:
        """Add a mistake.

        Args:
            line: its line, from 1; 0 where it is the whole file's.
            text: what is wrong.
        """
        if (line, text) not in self._found:
            self._found.append((line, text))

    @property
    def texts(self) -> list[str]:
        """Each mistake with its place, as found."""
        return [self._told(line, text) for line, text in self._found]

    def sorted(self) -> list[str]:
        """Return each mistake with its place, by line."""
        return [self._told(line, text) for line, text in sorted(self._found)]

    def _told(self, line: int, text: str) -> str:
        return f"{self.path}:{line}: {text}" if line else f"{self.path}: {text}"


def yaml_text(path: Path) -> str:
    """Return the text of a YAML file; that of a JSON file so that a reader of YAML understands all of it.

    Args:
        path: the file.

    Raises:
        OSError: it can't be read.
        UnicodeDecodeError: it is no text in UTF-8.
    """
    text = path.read_text(encoding="utf-8-sig")
    try:
        is_json = text.lstrip().startswith("{") and isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        is_json = False
    if not is_json:
        return text
    # YAML takes no tab for an indentation, and two halves of a character for two characters; the lines stay.
    return _PAIR.sub(lambda found: json.loads(f'"{found[0]}"'), text.replace("\t", " "))


def root_of(path: Path, problems: Problems) -> yaml.Node | None:
    """Read a YAML file as nodes.

    Args:
        path: the file.
        problems: where is told why it can't be read.

    Returns:
        Its root; None where it can't be read, or is empty.
    """
    try:
        return yaml.compose(yaml_text(path), yaml.SafeLoader)
    except OSError as error:
        problems.add(0, error.strerror or str(error))
    except UnicodeDecodeError:
        problems.add(0, "no text in UTF-8")
    except yaml.MarkedYAMLError as error:
        problems.add(error.problem_mark.line + 1 if error.problem_mark else 1, f"no YAML: {error.problem}")
    except (yaml.YAMLError, RecursionError) as error:
        problems.add(0, f"no YAML: {error}")
    return None


class Node:
    """A node of a YAML file.

    Args:
        node: the node.
        problems: where mistakes are collected.
        what: what the file calls it: the key that it is the value of.
    """

    def __init__(self, node: yaml.Node, problems: Problems, what: str) -> None:
        self._node, self.problems, self.what = node, problems, what
        self.line = node.start_mark.line + 1

    @property
    def place(self) -> str:
        """File and line: `training_config.yaml:3`."""
        return f"{self.problems.path.name}:{self.line}"

    def problem(self, text: str) -> None:
        """Say that something is wrong with this node."""
        self.problems.add(self.line, f"{self.what} {text}")

    def mapping(self, known: tuple[str, ...] | None = None, needed: tuple[str, ...] = ()) -> "dict[str, Node] | None":
        """Return keys and values; None, and a mistake, where it is no mapping.

        Args:
            known: keys that there may be; None takes all.
            needed: keys that there must be.
        """
        if not isinstance(self._node, yaml.MappingNode):
            self.problem(f"is {self._kind()}; needed are keys and values" + (f": {', '.join(known)}" if known else ""))
            return None
        found: dict[str, Node] = {}
        misspelt: set[str | None] = set()
        for key, value in self._node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if known is not None and name not in known:
                misspelt.add(nearest(name, known))
                hint = meant(name, known) or f"; there are {', '.join(known)}"
                self.problems.add(line, f"{self.what} has no key {name}{hint}")
            elif name in found:
                self.problems.add(line, f"{self.what} has the key {name} twice")
            else:
                found[name] = Node(value, self.problems, name)
        for name in needed:
            if name not in found and name not in misspelt:
                self.problem(f"lacks the key {name}")
        return found

    def is_mapping(self) -> bool:
        """Return whether it has keys and values."""
        return isinstance(self._node, yaml.MappingNode)

    def is_list(self) -> bool:
        """Return whether it is a list."""
        return isinstance(self._node, yaml.SequenceNode)

    def items(self, what: str) -> "list[Node]":
        """Return the entries of a list; none, and a mistake, where it is no list.

        Args:
            what: what an entry is called.
        """
        if not isinstance(self._node, yaml.SequenceNode):
            self.problem(f"is {self._kind()}; needed is a list")
            return []
        return [Node(one, self.problems, what) for one in self._node.value]

    def texts(self) -> list[str]:
        """Return a list of texts."""
        return [text for one in self.items(self.what) if (text := one.text()) is not None]

    def text(self) -> str | None:
        """Return a text; None, and a mistake, where it is none or empty."""
        if not isinstance(self._node, yaml.ScalarNode):
            self.problem(f"is {self._kind()}; needed is a text")
            return None
        text = str(self._node.value).strip()
        if not text:
            self.problem("is empty")
            return None
        return text

    def whole(self) -> int | None:
        """Return a whole number; None, and a mistake, where it is none."""
        value = self.plain()
        if isinstance(value, bool) or not isinstance(value, int):
            self.problem(f"is {value!r}; needed is a whole number")
            return None
        return value

    def number(self, above: float) -> float | None:
        """Return a number above a bound; None, and a mistake, where it is none."""
        value = self.plain()
        if isinstance(value, str) and _EXPONENT.fullmatch(value):
            value = float(value)  # which YAML 1.1 takes for a text where it has no point
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > above:
            self.problem(f"is {value!r}; needed is a number above {above:g}")
            return None
        return float(value)

    def flag(self) -> bool | None:
        """Return true or false; None, and a mistake, where it is neither."""
        value = self.plain()
        if not isinstance(value, bool):
            self.problem(f"is {value!r}; needed is true or false")
            return None
        return value

    def plain(self) -> object:
        """Return the value as Python has it."""
        loader = yaml.SafeLoader("")
        try:
            value: object = loader.construct_document(self._node)
        except yaml.YAMLError as error:
            self.problem(f"can't be read: {getattr(error, 'problem', error)}")
            return None
        finally:
            loader.dispose()
        return value

    def _kind(self) -> str:
        kinds = {yaml.MappingNode: "keys and values", yaml.SequenceNode: "a list"}
        return next((text for kind, text in kinds.items() if isinstance(self._node, kind)), repr(self._node.value))
