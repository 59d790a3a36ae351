"""The README keeps its word: its table of keys, its trainer, and the commands it shows."""

import json
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


def block(language: str, containing: str) -> str:
    """The README's code block of a language that contains a text."""
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.DOTALL | re.MULTILINE)
    return next(text for text in blocks if containing in text)


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


def test_the_readmes_trainer_works_as_a_new_user_would_write_it(project):
    (project.path / "config/digits_trainer_config.py").write_text(block("python", "class DigitsTrainerConfig"))
    (project.path / "train/digits_trainer.py").write_text(block("python", "class DigitsTrainer(BaseTrainer)"))
    project.append("config.ini", "\n" + block("ini", "[DigitsTrainer]"))
    assert "Classifies scikit-learn's digits." in project.run("--list").stdout
    dry = project.run("Digits", "--dry-run")
    assert dry.returncode == 0, dry.stderr
    done = project.run("Digits", "plot_at_end=off")
    assert done.returncode == 0, done.stderr
    history = json.loads((project.runs("Digits")[-1] / "metrics.json").read_text())["history"]
    assert history["val_accuracy"][-1] > 0.85
