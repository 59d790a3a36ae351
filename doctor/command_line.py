"""`python doctor.py`: what is wrong with a Python environment, why, and the smallest change that mends it."""

import importlib
import sys

from doctor.errors import InputError, PatientError

HEALTHY, FINDINGS, USAGE, UNKNOWN, INTERRUPTED = 0, 1, 2, 3, 130
# What a first word runs: a module whose `main(words)` returns the exit code. Any other word is a file to look at.
COMMANDS = {
    "run": "doctor.commands.run",
    "plan": "doctor.commands.plan",
    "pin": "doctor.commands.pin",
    "smoke": "doctor.commands.smoke",
    "update": "doctor.commands.update",
    "memory": "doctor.commands.memory",
}
_EXAMINE = "doctor.commands.examine"


def main(words: list[str] | None = None) -> int:
    """Examine, or run the command that the first word names.

    Args:
        words: command-line arguments; None takes those of the process.

    Returns:
        The exit code: 0 healthy, 1 findings, 2 a mistake in what was given, 3 could not tell, 130 after Ctrl-C.
    """
    words = sys.argv[1:] if words is None else words
    known = COMMANDS.get(words[0]) if words else None
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # what a text holds may have no letter in the terminal's encoding
            stream.reconfigure(errors="replace")
    try:
        return importlib.import_module(known or _EXAMINE).main(words[1:] if known else words)
    except InputError as error:
        sys.stderr.write("".join(f"error: {problem}\n" for problem in error.problems))
        return USAGE
    except PatientError as error:
        sys.stderr.write(f"error: {error}\n")
        return UNKNOWN
    except BrokenPipeError:  # `| head` has seen enough
        sys.stderr.close()
        return FINDINGS
    except KeyboardInterrupt:
        sys.stderr.write("error: interrupted\n")
        return INTERRUPTED
