"""The command line `python workflow.py`."""

import argparse
import json
import sys
from pathlib import Path

from constants.argument_parser import BriefParser
from constants.commit import ShowVersion
from workflow.commands import add_words, program, run_words
from workflow.lint.linting import RULES, lint_paths
from workflow.lint.report import content_of, rules_text, text_of

OK, FOUND, USAGE, UNREAD = 0, 1, 2, 3

_LINT = """Read scripts on the Tinker API without running them: what costs time, money or results, why, and better code.

exit codes: 0 no error and no warning (notes may be), 1 some, 2 usage, 3 a file could not be read"""


def main(words: list[str] | None = None) -> int:
    """Run the command line.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code.
    """
    parser = BriefParser(
        prog=program(), description="Look after long fine-tuning work on the Tinker API.", allow_abbrev=False
    )
    parser.add_argument("--version", action=ShowVersion)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    add_words(verbs)
    lint = verbs.add_parser(
        "lint", help="say what a script on the Tinker API should do better", description=_LINT, allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    lint.add_argument("paths", nargs="*", type=Path, metavar="SCRIPT.py", help="scripts, and folders of scripts")
    lint.add_argument("--rules", action="store_true", help="show all rules, with why and better code")
    lint.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    arguments = parser.parse_args(words)
    if arguments.verb != "lint":
        return run_words(arguments)
    if arguments.rules:
        _print(rules_text(RULES))
        return OK
    if not arguments.paths:
        lint.error("name a script, or a folder of scripts; --rules shows the rules")
    problems, refused, scripts = lint_paths(arguments.paths)
    if arguments.json:
        _print(json.dumps(content_of(problems, refused, scripts), indent=1))
    else:
        _print(text_of(problems, refused, scripts))
    if refused:
        return UNREAD
    return FOUND if any(one.rule.level != "note" for one in problems) else OK


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
