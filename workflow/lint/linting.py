"""Scripts go in, problems come out."""

from collections.abc import Sequence
from pathlib import Path

from workflow.lint.rule import LEVELS, Problem, Rule
from workflow.lint.run_rules import RUN_RULES
from workflow.lint.script import Script, ScriptError
from workflow.lint.step_rules import STEP_RULES

RULES: tuple[Rule, ...] = (*STEP_RULES, *RUN_RULES)
_ALWAYS = frozenset({"key-in-code"})  # said of scripts that never heard of the SDK, too


def lint_text(text: str, name: str) -> list[Problem]:
    """Lint a script.

    Args:
        text: its source.
        name: how it is called in what is said of it.

    Returns:
        Its problems, by line; without those that a line's `# noqa: NAME` turns off.

    Raises:
        ScriptError: it is no Python.
    """
    script = Script(text, name)
    found = [
        Problem(rule, name, line, said)
        for rule in RULES if script.uses_tinker or rule.name in _ALWAYS
        for line, said in rule.find(script) if rule.name not in script.silenced(line)
    ]  # fmt: skip
    return sorted(dict.fromkeys(found), key=lambda one: (one.line, LEVELS.index(one.rule.level), one.rule.name))


def lint_paths(paths: Sequence[Path]) -> tuple[list[Problem], list[str], int]:
    """Lint files, and all Python files of folders.

    Args:
        paths: files and folders.

    Returns:
        Problems; what could not be read, a sentence each; and the number of scripts that were read.
    """
    problems: list[Problem] = []
    refused: list[str] = []
    read = 0
    for path in paths:
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not files:
            refused.append(f"{path}: no Python file lies in it")
        for file in files:
            try:
                problems += lint_text(file.read_text(encoding="utf-8-sig"), str(file))
                read += 1
            except OSError as error:
                refused.append(f"{file}: {error.strerror}")
            except UnicodeDecodeError:
                refused.append(f"{file}: no text in UTF-8")
            except ScriptError as error:
                refused.append(str(error))
    return problems, refused, read
