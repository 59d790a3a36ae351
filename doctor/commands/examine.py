"""`python doctor.py [FILE]`: an environment, a file or a traceback is examined."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from constants.commit import ShowVersion
from doctor.commands.options import add_facts, add_output, add_proof, add_python, parser, width
from doctor.errors import InputError

if TYPE_CHECKING:
    from doctor.knowledge.base import Knowledge
    from doctor.report.answer import Answer

_DESCRIPTION = """What is wrong with a Python environment, why, and the smallest change that mends it.

Nothing of the environment is imported or changed. Without FILE and --python this Python's is looked at.

  doctor.py                          this environment, and the files of the current folder that hide modules
  doctor.py --python PATH            another one: its interpreter, its folder, or a folder with a .venv
  doctor.py FILE                     requirements*.txt, pyproject.toml, uv.lock, pylock*.toml, poetry.lock,
                                     a script with a PEP 723 block, a notebook, environment.yml
  doctor.py --traceback FILE|-       what failed; alone, or with any of the above. A pipe does too
  doctor.py run -- COMMAND ...       run a command; diagnose it where it fails
  doctor.py plan "WHAT"              a set of versions for a goal: plan "unsloth + trl on T4, Colab"
  doctor.py pin SCRIPT.py            write what a script imports, with versions, into it (PEP 723)
  doctor.py smoke                    import packages, multiply on the GPU, train a tiny model: runs the environment
  doctor.py update                   fetch newer metadata of releases
  doctor.py memory                   what was proved before

Exit codes: 0 healthy, 1 findings, 2 a mistake in what was given, 3 could not tell. Warnings alone are 0."""


def main(words: list[str]) -> int:
    """Examine what the words name, and write the answer.

    Args:
        words: command-line arguments.

    Returns:
        The exit code.

    Raises:
        InputError: what was given can't be read.
    """
    given = _parser().parse_args(words)
    # Help comes at once; what reads and knows is imported for an examination only.
    from doctor.commands.examination import examine, find_patient
    from doctor.commands.given_facts import read_facts
    from doctor.commands.piped import read_given, read_piped
    from doctor.knowledge.base import Knowledge

    facts = read_facts(given.fact)
    file, failure = given.file, None
    if given.traceback is not None:
        failure = read_given(given.traceback)
    elif file is None and not given.apply and not sys.stdin.isatty():
        # Beside a file a pipe is somebody's answer to a question, or nothing: `--traceback -` takes it as a failure.
        failure = read_piped(alone=not words)
    if file is not None and file.is_dir():
        if given.python is not None:
            raise InputError(f"{file} is a folder; a file is allowed beside --python")
        file, given.python = None, str(file)
    patient = find_patient(given.python, file, failure, facts, given.folder and str(given.folder))
    knowledge = Knowledge()
    return finish(examine(patient, failure, facts, knowledge, given.memory), given, knowledge)


def finish(answer: "Answer", given: argparse.Namespace, knowledge: "Knowledge", to: TextIO | None = None) -> int:
    """Prove what is found, write the answer and the pins, as the options ask for, and return the exit code."""
    if answer.findings and given.proof != "never":
        from doctor.commands.proving import with_proof

        answer = with_proof(answer, given.proof, knowledge, given.memory)
    code = write(answer, given, to)
    if given.apply:
        from doctor.commands.proving import apply_pins

        (to or sys.stdout).flush()
        sys.stderr.write(f"{apply_pins(answer, given)}\n")
    return code


def write(answer: "Answer", given: argparse.Namespace, to: TextIO | None = None) -> int:
    """Write an answer as the options ask for, and return its exit code.

    Args:
        answer: the answer.
        given: with json, verbose and quiet.
        to: where it goes; None for the output.
    """
    to = to or sys.stdout
    if given.json:
        from doctor.report.json_report import as_json

        to.write(as_json(answer))
    else:
        from doctor.report.text_report import as_text

        to.write(as_text(answer, width(), verbose=given.verbose, quiet=given.quiet))
    return answer.exit_code


def _parser() -> argparse.ArgumentParser:
    made = parser("", _DESCRIPTION, "[FILE] [--python PATH] [--traceback FILE|-] [--fact FACT] ...")
    made.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="a file that declares an environment, or one's folder"
    )
    add_python(made)
    made.add_argument("--traceback", metavar="FILE|-", help="a traceback or log; - reads what is piped in")
    add_facts(made)
    made.add_argument("--folder", type=Path, metavar="FOLDER", help="that the program runs in (the current one)")
    add_proof(made)
    add_output(made)
    made.add_argument("--version", action=ShowVersion)
    return made
