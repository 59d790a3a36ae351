"""Programs asked for their versions, all at the same time."""

import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Answer(NamedTuple):
    """What a program said, and whether it ended well."""

    works: bool
    text: str


def ask_all(commands: Mapping[str, Sequence[str]], variables: Mapping[str, str], timeout: float) -> dict[str, Answer]:
    """Run programs side by side and return what each said.

    Args:
        commands: a command by name.
        variables: environment variables of the programs.
        timeout: seconds after which those that still run are stopped.

    Returns:
        The answers by name; a program that can't be started or takes too long has failed.
    """
    started: dict[str, subprocess.Popen[str]] = {}
    answers: dict[str, Answer] = {}
    for name, command in commands.items():
        try:
            started[name] = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                env=dict(variables),
                cwd=os.path.abspath(os.sep),  # away from files that change what a tool does, as rust-toolchain.toml
            )
        except OSError as error:
            answers[name] = Answer(False, str(error))
    end = time.monotonic() + timeout
    for name, process in started.items():
        try:
            text, _ = process.communicate(timeout=max(0.01, end - time.monotonic()))
            answers[name] = Answer(process.returncode == 0, text)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            answers[name] = Answer(False, f"{commands[name][0]} did not answer within {timeout:.0f} seconds")
    return answers
