"""`python doctor.py update`: newer metadata of releases than those that are shipped."""

import argparse
import sys

from doctor.commands.options import parser
from doctor.errors import PatientError
from doctor.knowledge.build_metadata import refresh
from doctor.knowledge.index import IndexProblem
from doctor.knowledge.metadata import Metadata

_DESCRIPTION = """Look up what was released since the snapshot was made, and keep it for the next answers.

The index is the one that uv and pip use. Some kB a project: page and metadata, no wheels.

Exit codes: 0 all looked up, 1 some projects could not be, 3 no index answers."""
DONE, SOME = 0, 1
_SHOWN = 5  # releases of a project


def main(words: list[str]) -> int:
    """Refresh the metadata.

    Args:
        words: names of projects and options.

    Returns:
        The exit code.

    Raises:
        PatientError: no index answers.
    """
    given = _parser().parse_args(words)
    try:
        changes = refresh(projects=given.project or None, index_url=given.index_url)
    except IndexProblem as error:
        date = Metadata().date
        raise PatientError(f"no index answers: {error}. Answers go on resting on metadata of {date}") from None
    for name, versions in sorted(changes.added.items()):
        more = f" and {len(versions) - _SHOWN} before" if len(versions) > _SHOWN else ""
        sys.stdout.write(f"{name}: {', '.join(reversed(versions[-_SHOWN:]))}{more}\n")
    for name, versions in sorted(changes.yanked.items()):
        sys.stdout.write(f"{name}: withdrawn {', '.join(versions)}\n")
    for problem in changes.problems:
        sys.stderr.write(f"error: {problem}\n")
    if not changes.added and not changes.yanked:
        sys.stdout.write("nothing new\n")
    sys.stdout.write(f"metadata of {Metadata().date}\n")
    return SOME if changes.problems else DONE


def _parser() -> argparse.ArgumentParser:
    made = parser("update", _DESCRIPTION, "[PROJECT ...] [--index-url URL]")
    made.add_argument("project", nargs="*", metavar="PROJECT", help="only these (all of the snapshot)")
    made.add_argument("--index-url", metavar="URL", help="of the index, /simple/ (that of uv and pip)")
    return made
