"""docs/configuration.md and config.ini show what BaseTrainerConfig holds."""

import re

import pytest

from config import BaseTrainerConfig, ConfigParser
from config.key_table import PAGE, key_table, main
from constants import CONFIG_PATH


def test_the_page_has_the_table_of_keys(tmp_path):
    text = PAGE.read_text()
    assert key_table() in text, "run `python -m config.key_table`"
    assert "| `epochs` | `50` | int > 0 | Passes over the training data. |\n" in text
    copy = tmp_path / "configuration.md"
    copy.write_text(text.replace("| `epochs` | `50` |", "| `epochs` | `49` |"))
    assert main(copy) == 0
    assert copy.read_text() == text


def test_config_ini_shows_the_defaults_of_the_dataclass():
    ConfigParser.reset()
    resolved = ConfigParser.get(BaseTrainerConfig)
    assert resolved == BaseTrainerConfig()
    section = CONFIG_PATH.read_text().split("\n[BaseTrainer]")[1].split("\n[")[0]
    keys = re.findall(r"^(\w+) =", section, flags=re.MULTILINE)
    assert keys == [doc.name for doc in ConfigParser.describe(BaseTrainerConfig)]


@pytest.mark.parametrize("section", sorted(ConfigParser.sections()))
def test_a_section_of_config_ini_shows_what_its_dataclass_holds(section):
    """In a project of a user's own, trainers that come along have their settings from the classes alone."""
    ConfigParser.reset()
    config_class = ConfigParser.sections()[section]
    assert ConfigParser.get(config_class) == config_class()
