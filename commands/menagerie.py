"""The command `menagerie`: the program's command lines for a project of one's own, and `menagerie init`."""

import argparse
import importlib
import sys
from pathlib import Path

from commands.new_project import write_project
from constants import FOUND_PROJECT, PACKAGE_ROOT, PROJECT_ROOT
from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from constants.paths import SHARED_ROOMS
from storage.errors import OutputError
from train.errors import ScaffoldError

OK, USAGE, FAILED = 0, 2, 4

# What each word runs: a module whose `main(words)` returns the exit code.
_COMMANDS = {
    "train": "commands.command_line",
    "plot": "evaluation.plot_command",
    "recommend": "evaluation.recommend_command",
    "evaluate": "evaluation.evaluate_command",
    "serve": "service.command_line",
    "doctor": "doctor.command_line",
    "workflow": "workflow.command_line",
    "tune": "agents.command_line",
}
_NEED_PROJECT = ("train", "evaluate")
_WITHOUT_PROJECT = {"-h", "--help", "--version", "--list"}  # can be asked anywhere
_HIDING = (
    "agents", "commands", "constants", "doctor", "llm", "menagerie", "service", "storage", "workflow", *SHARED_ROOMS,
)  # fmt: skip

_DESCRIPTION = """Train and look at the trainers of a project: the folder with config.ini that the current one lies in.

  menagerie init FOLDER         write a small project that works at once
  menagerie train NAME ...      run a trainer; --list shows them
  menagerie plot RUN ...        draw, list and compare runs
  menagerie recommend DATASET   rank the zoo's models for a dataset
  menagerie evaluate            measure rankers against baselines
  menagerie serve               serve a language model over the Tinker and OpenAI protocols
  menagerie doctor              say what is wrong with a Python environment, and what mends it
  menagerie workflow            look after long fine-tuning work on the Tinker API
  menagerie tune                fine-tune a model with agents and a person who decides

`menagerie COMMAND --help` tells the words of each."""


def main(words: list[str] | None = None) -> int:
    """Run the command.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    words = sys.argv[1:] if words is None else words
    parser = BriefParser(
        prog="menagerie", description=_DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False, usage="menagerie [-h] [--version] COMMAND ...",
    )  # fmt: skip
    parser.add_argument("command", choices=("init", *_COMMANDS), metavar="COMMAND", help="init, train, plot, ...")
    parser.add_argument("--version", action=ShowVersion)
    if not words:
        parser.print_help(sys.stderr)
        return USAGE
    command = parser.parse_args(words[:1]).command
    if command == "init":
        return _init(words[1:])
    if problems := _hidden_modules():
        return _report("\n".join(problems), USAGE)
    if FOUND_PROJECT is None and command in _NEED_PROJECT and not _WITHOUT_PROJECT & set(words):
        return _report(
            f"there is no project here: neither {PROJECT_ROOT} nor a folder above it has a config.ini. "
            "Go into your project's folder, or write one: menagerie init my_project",
            USAGE,
        )
    return importlib.import_module(_COMMANDS[command]).main(words[1:])


def _init(words: list[str]) -> int:
    parser = BriefParser(prog="menagerie init", description="Write a small project that works at once.")
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="that it gets, such as my_project")
    try:
        sys.stdout.write(write_project(parser.parse_args(words).folder))
    except ScaffoldError as error:
        return _report(str(error), USAGE)
    except OutputError as error:
        return _report(str(error), FAILED)
    return OK


def _hidden_modules() -> list[str]:
    """Say which of the project's modules hide the program's, or are hidden by them; both would fail far from here."""
    if PROJECT_ROOT == PACKAGE_ROOT:
        return []
    found = [PROJECT_ROOT / f"{name}.py" for name in _HIDING] + [PROJECT_ROOT / n / "__init__.py" for n in _HIDING]
    problems = [
        f"{path} hides Menagerie's package {path.parent.name if path.stem == '__init__' else path.stem}: "
        + ("remove it, the folder works without" if path.stem == "__init__" else "give it another name")
        for path in found
        if path.is_file()
    ]
    for room in (*SHARED_ROOMS, "train/callbacks"):
        for path in sorted((PROJECT_ROOT / room).glob("*.py")):
            if path.stem != "__init__" and (PACKAGE_ROOT / room / path.name).is_file():
                problems.append(
                    f"{path} has the name of a module of Menagerie's, which is found in its place: give it another name"
                )
    return problems


def _report(text: str, code: int) -> int:
    sys.stderr.write(f"error: {text}\n")
    return code
