"""The README's table of keys and config.ini show what BaseTrainerConfig holds."""

import re
from pathlib import Path

from config import BaseTrainerConfig, ConfigParser

README = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")


def keys_table() -> str:
    """The table of BaseTrainerConfig's keys as the README must have it."""
    rows = ["| key | default | type | what |", "|---|---|---|---|"]
    for doc in ConfigParser.describe(BaseTrainerConfig):
        default = "artifacts" if doc.name == "artifacts_dir" else doc.default
        rows.append(f"| `{doc.name}` | `{default}` | {doc.type} | {doc.doc} |")
    return "\n".join(rows)


def test_table_of_keys_is_the_dataclass():
    shown = README.split("holds this table to the dataclass -->\n")[1].split("\n<!-- end of keys")[0]
    assert shown == keys_table()


def test_config_ini_shows_the_defaults_of_the_dataclass():
    ConfigParser.reset()
    resolved = ConfigParser.get(BaseTrainerConfig)
    assert resolved == BaseTrainerConfig()
    text = (Path(__file__).resolve().parent.parent / "config.ini").read_text()
    section = text.split("\n[BaseTrainer]")[1].split("\n[")[0]
    keys = re.findall(r"^(\w+) =", section, flags=re.MULTILINE)
    assert keys == [doc.name for doc in ConfigParser.describe(BaseTrainerConfig)]
