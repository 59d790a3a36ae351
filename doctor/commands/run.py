"""`python doctor.py run -- COMMAND ...`: run a command, and say why it fails where it does."""

import argparse
import os
import shlex
import sys
from dataclasses import replace

from doctor.commands.command_python import python_of
from doctor.commands.examine import finish
from doctor.commands.live_process import run_live
from doctor.commands.options import add_facts, add_output, add_proof, add_python, parser
from doctor.errors import InputError

_DESCRIPTION = """Run a command, and where it fails say why and what mends it.

Its output is passed through as it comes, by pipes, so that it sees no terminal; its input is this one's. The
environment is that of the Python that the command runs, where it can be told (python, a console script, `uv run`).

Exit codes: 0 where the command passed. Where it failed: 1 with findings, 3 where nothing explains it. A command that
was stopped (Ctrl-C, kill) is not diagnosed: 128 and the signal's number. 2: there is no such command."""


def main(words: list[str]) -> int:
    """Run a command and diagnose its failure.

    Args:
        words: options, `--`, and the command.

    Returns:
        The exit code.

    Raises:
        InputError: there is no such command.
    """
    made = _parser()
    cut = words.index("--") if "--" in words else len(words)
    given = made.parse_args(words[:cut])
    command = [*given.command, *words[cut + 1 :]]
    if not command:
        made.error("no command is given: run -- python script.py")
    sys.stdout.flush()
    # The answer alone is on the output then, for a program to read.
    out = sys.stderr.buffer if given.json else sys.stdout.buffer
    ended = run_live(command, out, sys.stderr.buffer)
    if ended.stopped or ended.code == 0:
        return ended.code
    return _diagnose(command, ended.code, ended.output, given)


def _diagnose(command: list[str], code: int, output: str, given: argparse.Namespace) -> int:
    from doctor.commands.examination import examine, find_patient
    from doctor.commands.given_facts import read_facts
    from doctor.failure.read import read_failure
    from doctor.knowledge.base import Knowledge

    facts = read_facts(given.fact)
    failure = read_failure(output)
    failure = replace(failure, command=failure.command or shlex.join(command))
    used = python_of(command)
    try:
        patient = find_patient(given.python or used.python, None, failure, facts, used.folder or os.getcwd())
    except InputError as error:
        patient = find_patient(None, None, failure, facts, used.folder or os.getcwd())
        patient = replace(patient, notes=(*patient.notes, *error.problems))
    knowledge = Knowledge()
    answer = examine(patient, failure, facts, knowledge, given.memory)
    answer = replace(answer, about=f"{shlex.join(command)} (exit code {code}); {answer.about}")
    return finish(answer, given, knowledge, sys.stdout if given.json else sys.stderr)


def _parser() -> argparse.ArgumentParser:
    made = parser("run", _DESCRIPTION, "[--python PATH] [--fact FACT] ... -- COMMAND ...")
    add_python(made)
    add_facts(made)
    add_proof(made)
    add_output(made)
    made.set_defaults(file=None)
    made.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what to run, and its words")
    return made
