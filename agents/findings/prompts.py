"""Findings in how prompts are written: another template than the model's, or marks of one in the rows."""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

from agents.findings.evidence import Evidence
from agents.proposals import line_of
from agents.state import Change, Proposal
from agents.task.rows import TaskRow
from constants.counting import counted

# What templates write around messages; in the text of a message it is there a second time.
_MARKS = re.compile(
    r"<\|im_(?:start|end)\|>|<\|(?:user|assistant|system|end|endoftext|eot_id|begin_of_text|start_header_id)\|>|"
    r"\[/?INST\]|<<SYS>>|<(?:start|end)_of_turn>|^###? ?(?:Instruction|Response|Input|Human|Assistant) ?:|"
    r"^(?:User|Human|Assistant|ASSISTANT|USER) ?:",
    re.MULTILINE,
)
_LEAST = 0.02  # share of rows with marks


def template_mismatch(seen: Evidence) -> Iterator[Proposal]:
    """Rows hold marks of a template, or the training has another template than the model has learned."""
    marked = [row for row in seen.train if marks_of(row)]
    share = len(marked) / max(1, len(seen.train))
    if share >= _LEAST:
        found = Counter(mark for row in marked for mark in marks_of(row))
        in_test = sum(bool(marks_of(row)) for row in seen.test)
        yield Proposal(
            finding="template_mismatch", changes=[], drop=[row.id for row in marked] if share < 0.5 else [],
            weight=min(0.98, 0.9 + share),
            evidence=[f"{len(marked)} of {counted(len(seen.train), 'training row')} hold marks of a template in their "
                      f"text: {', '.join(f'{mark!r}' for mark, _ in found.most_common(3))}; the model's own template "
                      f"comes around them once more. Of {counted(len(seen.test), 'test row')} {in_test} hold some",
                      *(line_of(row) for row in marked[:2])],
            expected="rows without the marks, as the questions of the test are, teach answers and not a template",
        )  # fmt: skip
    template = str(seen.settings.get("template") or "")
    if template and template != "None" and seen.losses is not None and seen.losses.template == "another":
        yield Proposal(
            finding="template_mismatch", weight=0.94, changes=[Change(key="template", before=template, after="")],
            evidence=[f"template = {template} is another than the chat template of the base model, by which it was "
                      "measured first and which it has learned"],
            expected="the model's own template lets it begin from what it can do already",
        )  # fmt: skip


def marks_of(row: TaskRow) -> Sequence[str]:
    """Return the marks of templates in a row's messages."""
    return [" ".join(mark.split()) for one in row.messages for mark in _MARKS.findall(str(one.get("content") or ""))]
