"""training.ini: the settings of the next training, in the form of config.ini."""

import configparser
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.state import Change
from config import ConfigError, ConfigParser
from config.language_config import LanguageConfig
from config.language_model_trainer_config import LanguageModelTrainerConfig
from storage.files import write_atomically

SECTION = "LanguageModelTrainer"
_HEAD = """# Settings of the next training. Accepted proposals change them; `git log -p training.ini` tells why.
"""


def read_settings(path: Path) -> dict[str, str]:
    """Return the settings of a file, by name.

    Raises:
        ConfigError: it can't be read, or isn't as config.ini.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except configparser.Error as error:
        raise ConfigError(f"{path}: {error}") from None
    return dict(parser[parser.sections()[0]]) if parser.sections() else {}


def _section_of(path: Path) -> str:
    found = re.search(r"^\[(\w+)\]", path.read_text(encoding="utf-8"), re.MULTILINE) if path.exists() else None
    return found[1] if found else SECTION


def write_settings(path: Path, settings: Mapping[str, str], section: str | None = None) -> None:
    """Write settings.

    Args:
        path: the file.
        settings: values by name.
        section: the trainer's section; None keeps the one that the file has.

    Raises:
        OutputError: it can't be written.
    """
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    write_atomically(path, f"{_HEAD}[{section or _section_of(path)}]\n{lines}".encode())


def checked(path: Path, kind: type[LanguageConfig] = LanguageModelTrainerConfig) -> LanguageConfig:
    """Return the resolved settings of a file.

    Args:
        path: the file.
        kind: settings of the trainer.

    Raises:
        ConfigError: a setting is unknown or has a value that it can't have; the text has a line for each.
    """
    ConfigParser.reset()
    try:
        ConfigParser.use(path)
        return ConfigParser.get(kind)
    finally:
        ConfigParser.reset()


def with_changes(settings: Mapping[str, str], changes: Sequence[Change]) -> dict[str, str]:
    """Return settings after changes.

    Args:
        settings: values by name.
        changes: what changes.
    """
    return {**settings, **{change["key"]: change["after"] for change in changes}}
