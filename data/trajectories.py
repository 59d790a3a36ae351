"""Rows of tokens out of the answers of one rollout: turns that go on from one another become one row.

Token ids are the only truth: a row has the ids that were read and sampled, in their order, and says of each whether it
was sampled and with which log-probability.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

LENGTH, CANCELLED = "length", "cancelled"


class Turn(Protocol):
    """One answer of a model, as it was sampled."""

    @property
    def prompt_ids(self) -> Sequence[int]:
        """Ids that the model read."""

    @property
    def token_ids(self) -> Sequence[int]:
        """Sampled ids, the one that ended the answer included."""

    @property
    def logprobs(self) -> Sequence[float]:
        """Log-probability of each sampled id under the model as it is."""

    @property
    def finish(self) -> str:
        """Why the answer ended: `length` where it was cut off, `cancelled` where nobody waited for it."""

    @property
    def version(self) -> str:
        """Id of the weights that were sampled from."""


@dataclass
class TrajectoryRow:
    """Tokens of one or more turns, each of which goes on from the one before.

    Attributes:
        ids: token ids, as they were read and sampled.
        sampled: of each id whether it was sampled; all else (prompts, results of tools, headers) was only read.
        logprobs: of each sampled id its log-probability under the weights that it was sampled from; 0 for the others.
        versions: ids of these weights, in their order, each once.
        turns: answers in the row.
    """

    ids: list[int] = field(default_factory=list)
    sampled: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    turns: int = 0

    def takes(self, turn: Turn) -> bool:
        """Say whether a turn goes on from this row: its prompt begins with all of the row's ids."""
        return list(turn.prompt_ids[: len(self.ids)]) == self.ids

    def add(self, turn: Turn) -> None:
        """Add a turn that goes on from the row.

        Raises:
            ValueError: it has not as many log-probabilities as ids.
        """
        if len(turn.logprobs) != len(turn.token_ids):
            raise ValueError(f"{len(turn.token_ids)} sampled ids with {len(turn.logprobs)} log-probabilities")
        read = turn.prompt_ids[len(self.ids) :]
        self.ids += [*read, *turn.token_ids]
        self.sampled += [False] * len(read) + [True] * len(turn.token_ids)
        self.logprobs += [0.0] * len(read) + [float(each) for each in turn.logprobs]
        self.versions += [turn.version] if turn.version not in self.versions else []
        self.turns += 1


@dataclass
class Trajectory:
    """What a rollout's answers come to.

    Attributes:
        rows: the rows.
        turns: answers in them.
        tokens: sampled ids in them.
        splits: turns that went on from no row, though there was one: edited histories, retries, sub-agents, thoughts
            that a template leaves out.
        cut_off: answers that ended for their length alone.
        cancelled: answers nobody waited for; they are in no row.
    """

    rows: list[TrajectoryRow] = field(default_factory=list)
    turns: int = 0
    tokens: int = 0
    splits: int = 0
    cut_off: int = 0
    cancelled: int = 0


def trajectory_of(turns: Iterable[Turn]) -> Trajectory:
    """Put the answers of a rollout together.

    A turn joins the longest row that its prompt begins with. A prompt that was asked twice gives two rows: both answers
    were sampled, and both count.

    Args:
        turns: answers in the order in which they were asked for.

    Returns:
        The rows and their account.
    """
    whole = Trajectory()
    for turn in turns:
        if turn.finish == CANCELLED:
            whole.cancelled += 1
            continue
        if not turn.token_ids:
            continue
        fitting = [row for row in whole.rows if row.takes(turn)]
        row = max(fitting, key=lambda each: len(each.ids), default=None)
        if row is None:
            whole.splits += bool(whole.rows)
            row = TrajectoryRow()
            whole.rows.append(row)
        row.add(turn)
        whole.turns += 1
        whole.tokens += len(turn.token_ids)
        whole.cut_off += turn.finish == LENGTH
    return whole
