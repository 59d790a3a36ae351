"""An argument parser whose errors are those of the rest of the program: one line, with what was probably meant."""

import argparse
import difflib
import re
from typing import NoReturn

UNRECOGNIZED = "unrecognized arguments: "


class BriefParser(argparse.ArgumentParser):
    """An argument parser that answers a mistake with a line instead of the whole usage."""

    def error(self, message: str) -> NoReturn:
        """Leave with 2 and a message."""
        text = message
        if message.startswith(UNRECOGNIZED):
            given = message.removeprefix(UNRECOGNIZED).split()[0]
            known = [option for action in self._actions for option in action.option_strings]
            text = f"there is no option {given}" if given.startswith("-") else f"'{given}' is one word too many"
            text += self._meant(given, known)
        elif choice := re.match(r"(.*)invalid choice: '?(.*?)'? \(choose from (.*)\)$", message):
            known = [word.strip("' ") for word in choice[3].split(",")]
            text = f"{choice[1]}'{choice[2]}' is none of {', '.join(known)}" + self._meant(choice[2], known)
        self.exit(2, f"error: {text}{'' if text[-1] in '?.' else '.'} `{self.prog} --help` shows all.\n")

    @staticmethod
    def _meant(given: str, known: list[str]) -> str:
        near = difflib.get_close_matches(given.partition("=")[0], known, n=1)
        return f"; did you mean {near[0]}?" if near else ""
