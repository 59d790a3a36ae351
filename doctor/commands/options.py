"""The options that the doctor's commands share."""

import argparse
import shutil
import sys
from pathlib import Path

from constants import command
from constants.argument_parser import BriefParser

PROOF = ("never", "ask", "always")


def parser(word: str, description: str, usage: str) -> BriefParser:
    """Return a parser of a command.

    Args:
        word: the command's word; empty for the doctor itself.
        description: what `--help` says first.
        usage: the words behind the program's name.
    """
    prog = f"{command('doctor')} {word}".rstrip()
    return BriefParser(
        prog=prog, description=description, usage=f"{prog} {usage}", allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip


def add_facts(to: argparse.ArgumentParser) -> None:
    """Add what says where something runs."""
    to.add_argument(
        "--fact", action="append", default=[], metavar="FACT",
        help="a fact that nothing shows, again for each: torch==2.6.0, gpu=T4, python=3.10, place=colab",
    )  # fmt: skip


def add_python(to: argparse.ArgumentParser) -> None:
    """Add which environment is meant."""
    to.add_argument("--python", metavar="PATH", help="interpreter, virtual environment, or folder with a .venv")


def add_output(to: argparse.ArgumentParser) -> None:
    """Add how the answer is written."""
    to.add_argument("--json", action="store_true", help="the answer as JSON (docs/doctor.md has its keys)")
    loud = to.add_mutually_exclusive_group()
    loud.add_argument("--quiet", action="store_true", help="only verdicts and first changes")
    loud.add_argument("--verbose", action="store_true", help="everything, all findings in full")


def add_proof(to: argparse.ArgumentParser) -> None:
    """Add whether a change is tried, where what was proved is kept, and whether it is made."""
    to.add_argument(
        "--proof", choices=PROOF, default=None, metavar="WHEN",
        help="try the change in a scratch environment: never, ask (the default at a terminal) or always",
    )  # fmt: skip
    to.add_argument("--memory", type=Path, metavar="FOLDER", help="of what was proved (artifacts/doctor/memory)")
    to.add_argument("--apply", action="store_true", help="write the pins into the file, after showing them and asking")


def width() -> int:
    """Return the columns of the terminal; 100 where there is none."""
    return shutil.get_terminal_size((100, 24)).columns if sys.stdout.isatty() else 100


def confirmed(question: str) -> bool:
    """Ask for a yes at the terminal; False where nobody can answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
