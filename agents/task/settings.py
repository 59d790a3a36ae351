"""training.ini: the settings of the next training, in the form of config.ini."""

import configparser
from collections.abc import Mapping, Sequence
from pathlib import Path

from agents.state import Change
from config import ConfigError, ConfigParser
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
    return dict(parser[SECTION]) if parser.has_section(SECTION) else {}


def write_settings(path: Path, settings: Mapping[str, str]) -> None:
    """Write settings.

    Args:
        path: the file.
        settings: values by name.

    Raises:
        OutputError: it can't be written.
    """
    lines = "".join(f"{key} = {value}\n" for key, value in settings.items())
    write_atomically(path, f"{_HEAD}[{SECTION}]\n{lines}".encode())


def checked(path: Path) -> LanguageModelTrainerConfig:
    """Return the resolved settings of a file.

    Raises:
        ConfigError: a setting is unknown or has a value that it can't have; the text has a line for each.
    """
    ConfigParser.reset()
    try:
        ConfigParser.use(path)
        return ConfigParser.get(LanguageModelTrainerConfig)
    finally:
        ConfigParser.reset()


def with_changes(settings: Mapping[str, str], changes: Sequence[Change]) -> dict[str, str]:
    """Return settings after changes.

    Args:
        settings: values by name.
        changes: what changes.
    """
    return {**settings, **{change["key"]: change["after"] for change in changes}}
