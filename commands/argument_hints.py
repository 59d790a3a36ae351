"""What somebody probably meant by an option that there is not: another option, or a setting."""

import re
from collections.abc import Iterable

from config import ConfigError, ConfigParser
from config.config_classes import key_types
from constants.argument_parser import BriefParser
from constants.nearest import nearest

# What settings are called elsewhere, where the spelling doesn't tell.
_ELSEWHERE = {
    "lr": "learning_rate", "max_epochs": "epochs", "num_epochs": "epochs", "num_train_epochs": "epochs",
    "bs": "batch_size", "wd": "weight_decay", "workers": "num_workers", "gpus": "device", "gpu": "device",
    "accelerator": "device", "amp": "precision", "max_grad_norm": "gradient_clip_value",
    "gradient_clip_val": "gradient_clip_value", "accumulate_grad_batches": "accumulation_steps",
    "gradient_accumulation_steps": "accumulation_steps", "output_dir": "artifacts_dir", "patience":
    "early_stopping_patience",
}  # fmt: skip


class HintingParser(BriefParser):
    """A brief parser that knows of an unknown option whether a setting was meant."""

    def unrecognized(self, words: list[str], options: list[str]) -> str:
        """Say what is wrong with words that no argument takes; see `BriefParser`."""
        return unrecognized(words, options, _known_settings())


def unrecognized(words: list[str], options: Iterable[str], settings: Iterable[str]) -> str:
    """Say what is wrong with words that argparse does not know.

    Args:
        words: the words, the first of which is an option mostly.
        options: options that there are.
        settings: keys that there are.

    Returns:
        A sentence: `there is no option --epochs; settings have no dashes: write epochs=5.`
    """
    option, _, value = words[0].partition("=")
    if not option.startswith("-"):
        return f"'{' '.join(words)}' is one word too many; settings are key=value."
    key = re.sub(r"^-+(no-)?", "", option).replace("-", "_").lower()
    known = list(settings)
    near_option = nearest(option, options, cutoff=0.7)
    near = _ELSEWHERE.get(key) if key not in known else key
    near = near or nearest(key, known, cutoff=0.8)
    head = f"there is no option {option}"
    if near and (near == key or not near_option):
        given = value or next((word for word in words[1:2] if not word.startswith("-")), "VALUE")
        return f"{head}; settings have no dashes: write {near}={given}."
    return f"{head}; did you mean {near_option}?" if near_option else f"{head}."


def _known_settings() -> list[str]:
    try:
        return list(dict.fromkeys(key for known in ConfigParser.sections().values() for key in key_types(known)))
    except ConfigError:  # which is told when the option is mended
        return []
