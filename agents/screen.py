"""What a person sees of a run in the terminal."""

import re
import time
from typing import TextIO

from agents.questions import Question

_TITLES = {
    "check_judge": "", "ask_judge": "", "baseline": "measuring the base model", "orchestrate": "",
    "ask_training": "", "train_first": "training", "ask_half_way": "", "train_rest": "training on",
    "evaluate": "measuring", "ask_evaluation": "", "debug": "looking for faults", "ask_change": "",
    "apply_change": "making the change", "retrieve": "", "generate": "making rows", "export": "exporting",
}  # fmt: skip
_SHOWN = re.compile(r"\bepoch \d+/\d+: .*")  # of a training's lines


class Screen:
    """Tells what happens, a line each.

    Args:
        stream: where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def tell(self, node: str, text: str) -> None:
        """Tell that a node has begun, or what a process has said.

        Args:
            node: name of the node, `answer`, `brain`, or "" for a process's line.
            text: the line.
        """
        if not node:
            if found := _SHOWN.search(text):
                self._line(f"    {found[0]}")
        elif node in ("answer", "brain"):
            self._line(text)
        elif title := _TITLES.get(node, node):
            self._line(title)

    def _line(self, text: str) -> None:
        self._stream.write(f"{time.strftime('%H:%M:%S')} {text}\n")
        self._stream.flush()


def question_text(question: Question) -> str:
    """Return a question as a person reads it in a terminal.

    Args:
        question: the question.
    """
    lines = ["", f"? {question.title}", f"  {question.text}"]
    lines += [f"    {line}" for each in question.evidence for line in each.splitlines()]
    for field in question.fields:
        lines.append(f"  {field.name}:")
        lines += [f"    {value}: {text}{' (default)' if value == field.default else ''}"
                  for value, text in field.choices.items()]  # fmt: skip
    return "\n".join(lines)
