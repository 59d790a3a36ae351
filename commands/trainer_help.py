"""`--help` of a trainer: its settings as they are in force, and what they mean."""

from config import BaseTrainerConfig, ConfigError, ConfigParser
from config.config_classes import lineage, section_name
from train.registry import TrainerEntry


def trainer_help(entry: TrainerEntry) -> str:
    """Write a trainer's settings with their values, types and meanings: its own, then those of every trainer.

    Args:
        entry: trainer whose settings are those that `ConfigParser` was told to use.
    """
    config_class = ConfigParser.sections().get(entry.section)
    if config_class is None:
        return f"\n{entry.name} has no config class in config/.\n"
    docs = ConfigParser.describe(config_class)
    shared = {doc.name for doc in ConfigParser.describe(BaseTrainerConfig)}
    between = [base for base in lineage(config_class) if base not in (config_class, BaseTrainerConfig)]
    over = "".join(f" over [{section_name(base)}]" for base in between)
    parts = {
        f"its own settings, [{entry.section}]{over}": [doc for doc in docs if doc.name not in shared],
        f"settings of every trainer, [{entry.section}] over [BaseTrainer]": [doc for doc in docs if doc.name in shared],
    }
    lines = [f"{entry.name}: {entry.description}"]
    for title, keys in parts.items():
        lines += [f"{title}:"] if keys else []
        for doc in keys:
            value = _value(entry.section, doc.name)
            default = "no default" if doc.default == "required" else f"default {doc.default}"
            note = doc.type if value == doc.default else f"{doc.type}; {default}"
            lines += [f"  {doc.name} = {value}  ({note})", f"      {doc.doc}"]
    try:
        ConfigParser.check()
    except ConfigError as error:
        lines += ["what is wrong with the settings (? is a value that can't be told):"]
        lines += [f"  {problem}" for problem in error.problems]
    return "\n" + "\n".join(lines) + "\n"


def _value(section: str, key: str) -> str:
    try:
        return ConfigParser.peek_text(section, key)
    except ConfigError:
        return "?"
