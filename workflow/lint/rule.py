"""A rule of the lint, and what it finds."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from workflow.lint.script import Script

LEVELS = ("error", "warning", "note")
DOCS = "https://tinker-docs.thinkingmachines.ai"
COOKBOOK = "https://github.com/thinking-machines-lab/tinker-cookbook"


@dataclass(frozen=True)
class Rule:
    """What a script should not do.

    Attributes:
        name: its name, by which `# noqa: NAME` turns it off.
        level: `error` loses the run or its money, `warning` costs time or quality, `note` is worth a thought.
        why: what it costs, in one or two sentences.
        better: code that does it well.
        reference: where more is said of it.
        find: gives the line and one sentence for each place where a script does it.
    """

    name: str
    level: str
    why: str
    better: str
    reference: str
    find: Callable[[Script], Iterator[tuple[int, str]]]


@dataclass(frozen=True)
class Problem:
    """A place where a script breaks a rule.

    Attributes:
        rule: the rule.
        file: name of the script.
        line: number of the line.
        text: one sentence on this place.
    """

    rule: Rule
    file: str
    line: int
    text: str
