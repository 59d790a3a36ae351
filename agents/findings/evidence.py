"""What findings are made from: all that is known of a round, and nothing that has to be fetched."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from agents.state import Change, Measured, Proposal, Round
from agents.task.rows import TaskRow, question_digest
from agents.task.task_file import Task
from evaluation.text_metrics import label_of

_MOST_LABELS, _LEAST_OF_LABEL = 20, 3  # of a classification: different answers, and rows of each on average


@dataclass(frozen=True)
class RowLoss:
    """Loss of a row's answer, mean over its tokens, in nats: after the training, and of the base model; its tokens."""

    loss: float
    base: float
    tokens: int = 1


@dataclass(frozen=True)
class Losses:
    """Losses that a process has measured, under the best weights of the round.

    Attributes:
        rows: by id those of training rows; some of them where there are many.
        general: of questions that have nothing to do with the task.
        others: by id those of rows with the label that the words of all other rows say; only of rows that have another.
        swapped: by id those of the same questions with answers of other rows; only where answers are no labels.
        template: whose template the prompts are made by: `the model's own`, `another`, `a plain one`.
    """

    rows: Mapping[str, RowLoss] = field(default_factory=dict)
    general: Sequence[RowLoss] = ()
    swapped: Mapping[str, Sequence[RowLoss]] = field(default_factory=dict)
    template: str = ""
    others: Mapping[str, RowLoss] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """What is known of a round.

    Attributes:
        task: what is wanted.
        settings: settings of its training by name, defaults included.
        last: the round.
        baseline: evaluation of the base model.
        train: training rows.
        test: test rows.
        losses: losses of rows; None where the trainer tells none.
        advice: what the doctor says of the environment; "" where it was not asked.
        minutes: time that the round took; None where that was not kept.
    """

    task: Task
    settings: Mapping[str, object]
    last: Round
    baseline: Measured | None
    train: Sequence[TaskRow]
    test: Sequence[TaskRow]
    losses: Losses | None = None
    advice: str = ""
    minutes: float | None = None

    def number(self, name: str, usual: float = 0.0) -> float:
        """Return a setting as a number."""
        return float(str(self.settings.get(name, usual)))

    def curve(self, name: str) -> list[float]:
        """Return the numbers of each epoch that has one."""
        return [value for value in self.last["trained"]["history"].get(name, []) if value is not None]

    def change(self, name: str, after: float, usual: float = 0.0) -> Change:
        """Return the change of a setting that is a number."""
        return Change(key=name, before=f"{self.number(name, usual):g}", after=f"{after:g}")

    def with_cost(self, proposal: Proposal) -> Proposal:
        """Return a proposal with the minutes that the next round will take: as the last, by epochs and rows."""
        if self.minutes is None or not (proposal["changes"] or proposal.get("drop") or proposal.get("add")):
            return proposal
        epochs = next((float(one["after"]) for one in proposal["changes"] if one["key"] == "epochs"), None)
        share = epochs / max(1.0, self.number("epochs", 1)) if epochs is not None else 1.0
        rows = 1 - len(proposal.get("drop", [])) / max(1, len(self.train))
        return {**proposal, "minutes": round(self.minutes * share * rows, 2)}

    @property
    def guessed_loss(self) -> float | None:
        """Loss of guessing labels by how frequent they are, mean over tokens; None where answers are no labels."""
        if not self.labels or self.losses is None or not self.losses.rows:
            return None
        total = self.labels.total()
        entropy = -sum(count / total * math.log(count / total) for count in self.labels.values())
        return entropy * len(self.losses.rows) / sum(one.tokens for one in self.losses.rows.values())

    @cached_property
    def labels(self) -> Counter[str]:
        """Count the different answers of a classification; empty where answers are no labels."""
        return labels_of(self.train)


def labels_of(rows: Sequence[TaskRow]) -> Counter[str]:
    """Count the different answers where they are labels: few, and each many times; else return nothing.

    Args:
        rows: rows.
    """
    found = Counter(label_of(row.answer) for row in rows)
    questions = len({question_digest(row) for row in rows})
    few = 1 < len(found) <= _MOST_LABELS and questions >= _LEAST_OF_LABEL * len(found)
    return found if few else Counter()
