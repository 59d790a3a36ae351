"""A YAML file in which every value is text with its line, so that each is read as config.ini would read it.

YAML's own rules would make a text of `1e-5`, a bool of `on` and silence of a key that comes twice.
"""

from pathlib import Path
from typing import Any

from config import ConfigError


class Text(str):
    """A text, and the line that it stands in."""

    line: int = 0

    @classmethod
    def at(cls, text: str, line: int) -> "Text":
        """Make one.

        Args:
            text: text in the YAML file.
            line: number of the line that the text stands in.
        """
        made = cls(text)
        made.line = line
        return made


def read_yaml(path: Path) -> tuple[dict[Text, Any], list[tuple[int, str]]]:
    """Read a YAML file that holds a mapping.

    Args:
        path: path of the YAML file.

    Returns:
        Texts, lists and mappings; and keys that come twice, as line and message.

    Raises:
        ConfigError: there is no such file, or it is no YAML mapping.
    """
    import yaml

    twice: list[tuple[int, str]] = []
    try:
        content = _plain(yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader), twice)
    except RecursionError:
        raise ConfigError(f"{path} holds an alias (*name) inside of what it stands for, or too many levels") from None
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is no UTF-8 text: {error.reason}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ConfigError(f"{place} is no YAML: {getattr(error, 'problem', None) or error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must hold `key: value` lines, such as `trials: 20`")
    return content, twice


def _plain(node: Any, twice: list[tuple[int, str]]) -> Any:
    import yaml

    if isinstance(node, yaml.MappingNode):
        found: dict[Text, Any] = {}
        for key_node, value_node in node.value:
            key = _plain(key_node, twice)
            if not isinstance(key, Text):
                key = Text.at("?", key_node.start_mark.line + 1)
            if key in found:
                twice.append((key.line, f"key '{key}' comes twice"))
            found[key] = _plain(value_node, twice)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, twice) for item in node.value]
    return Text.at(node.value, node.start_mark.line + 1) if node is not None else None
