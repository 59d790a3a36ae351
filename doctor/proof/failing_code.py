"""Code that fails as a failure did, taken from the failure itself."""

import ast
import contextlib
import re
import shlex

from doctor.environment.facts import Environment
from doctor.failure.facts import Failure
from doctor.proof.broken_set import imported_modules, owners


def codes_of(failure: Failure | None, environment: Environment) -> tuple[str, ...]:
    """Return code that fails as a failure did and needs nothing of the user's.

    That is the outermost import in its traceback of something that is installed, and imports of `python -c`. Nothing
    but imports is taken: a text may hold any code, and a script does other things besides.

    Args:
        failure: the failure; None where there is none.
        environment: what is installed.
    """
    if failure is None:
        return ()
    found = []
    for raised in failure.raised:
        for frame in raised.frames:
            code = frame.code.strip()
            if _is_import(code) and any(owners(module, environment) for module in imported_modules(code)):
                found.append(code)
                break
    inline = _inline(failure.command or "")
    if inline and _is_import(inline):
        found.append(inline)
    return tuple(dict.fromkeys(found))


def _is_import(code: str) -> bool:
    try:
        tree = ast.parse(code)
    except SyntaxError:
        return False
    imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    relative = any(isinstance(node, ast.ImportFrom) and node.level for node in imports)
    return bool(imports) and len(imports) == len(tree.body) and not relative


def _inline(command: str) -> str | None:
    """Return the code of `python -c CODE`."""
    words: list[str] = []
    with contextlib.suppress(ValueError):
        words = shlex.split(command)
    if words and re.fullmatch(r"(?:.*[\\/])?python[\d.]*(?:\.exe)?", words[0]):
        for place, word in enumerate(words[1:-1], 1):
            if word == "-c":
                return words[place + 1]
            if not word.startswith("-"):
                break  # a script
    return None
