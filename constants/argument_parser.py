"""An argument parser whose errors are those of the rest of the program: one line, with what was probably meant."""

import argparse
import re
from typing import NoReturn

from constants.nearest import meant

_UNRECOGNIZED = "unrecognized arguments: "


class BriefParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with a line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with 2 and a message."""
        text = message
        if message.startswith(_UNRECOGNIZED):
            options = [option for action in self._actions for option in action.option_strings]
            text = self.unrecognized(message.removeprefix(_UNRECOGNIZED).split(), options)
        elif choice := re.match(r"(.*)invalid choice: '?(.*?)'? \(choose from (.*)\)$", message):
            known = [word.strip("' ") for word in choice[3].split(",")]
            text = f"{choice[1]}'{choice[2]}' is none of {', '.join(known)}" + self._meant(choice[2], known)
        self.exit(2, f"error: {text}{'' if text[-1] in '?.' else '.'} `{self.prog} --help` shows all.\n")

    def unrecognized(self, words: list[str], options: list[str]) -> str:
        """Say what is wrong with words that no argument takes.

        Args:
            words: the words, at least one.
            options: options that there are.
        """
        given = words[0]
        text = f"there is no option {given}" if given.startswith("-") else f"'{given}' is one word too many"
        return text + self._meant(given, options)

    @staticmethod
    def _meant(given: str, known: list[str]) -> str:
        return meant(given.partition("=")[0], known)
