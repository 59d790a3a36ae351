"""What the lint found, as text and as JSON."""

import textwrap
from collections import Counter
from collections.abc import Sequence

from constants.counting import counted
from workflow.lint.rule import LEVELS, Problem, Rule


def text_of(problems: Sequence[Problem], refused: Sequence[str], scripts: int) -> str:
    """Return the report: each problem with its place, each rule's reason and better code once, and a sum.

    Args:
        problems: what was found.
        refused: what could not be read.
        scripts: number of scripts that were read.
    """
    lines: list[str] = []
    told: set[str] = set()
    for problem in problems:
        rule = problem.rule
        lines.append(f"{problem.file}:{problem.line}: {rule.level} {rule.name}: {problem.text}")
        if rule.name not in told:
            told.add(rule.name)
            lines += [*_explained(rule), ""]
    lines += [f"not read: {one}" for one in refused]
    counts = Counter(problem.rule.level for problem in problems)
    found = ", ".join(counted(counts[level], level) for level in LEVELS if counts[level]) or "nothing to say"
    lines.append(f"{counted(scripts, 'script')}: {found}")
    if problems:
        lines.append(f"`# noqa: {problems[0].rule.name}` at the end of a line turns a rule off there.")
    return "\n".join(lines)


def rules_text(rules: Sequence[Rule]) -> str:
    """Return all rules with what they are for."""
    return "\n\n".join("\n".join([f"{rule.name} ({rule.level})", *_explained(rule)]) for rule in rules)


def content_of(problems: Sequence[Problem], refused: Sequence[str], scripts: int) -> dict[str, object]:
    """Return the report for programs; `schema_version` changes where a key changes its meaning."""
    return {
        "schema_version": 1,
        "scripts": scripts,
        "not_read": list(refused),
        "problems": [
            {
                "file": one.file, "line": one.line, "level": one.rule.level, "rule": one.rule.name, "text": one.text,
                "why": one.rule.why, "better": one.rule.better, "reference": one.rule.reference,
            }
            for one in problems
        ],
    }  # fmt: skip


def _explained(rule: Rule) -> list[str]:
    why = textwrap.wrap(rule.why, 100, initial_indent="    ", subsequent_indent="    ")
    return [*why, *textwrap.indent(rule.better, "        ").splitlines(), f"    {rule.reference}"]
