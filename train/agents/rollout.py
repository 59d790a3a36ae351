"""One rollout: a task that an agent has done, what the model sampled on the way, and the reward."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from data.trajectories import Trajectory, TrajectoryRow
from train.agents.played import DONE, NO_CALL, UNFINISHED


@dataclass(frozen=True)
class RolloutPlan:
    """A rollout that is to be made.

    Attributes:
        task: number of the task.
        sample: number of the rollout among those of the task.
        seed: seed of its requests.
    """

    task: int
    sample: int
    seed: int


@dataclass(frozen=True)
class SampledRow:
    """Tokens of one row of a rollout.

    Attributes:
        ids: (L,) int32 token ids, as they were read and sampled.
        sampled: (L,) bool, which of them were sampled.
        logprobs: (L,) float32, of each sampled id its log-probability when it was sampled; 0 for the others.
        versions: ids of the weights that were sampled from.
    """

    ids: Tensor
    sampled: Tensor
    logprobs: Tensor
    versions: tuple[str, ...] = ()

    @staticmethod
    def of(row: TrajectoryRow) -> "SampledRow":
        """Make one of a trajectory's row."""
        return SampledRow(
            torch.tensor(row.ids, dtype=torch.int32),
            torch.tensor(row.sampled),
            torch.tensor(row.logprobs, dtype=torch.float32),
            tuple(row.versions),
        )


@dataclass
class Rollout:
    """What came of a plan.

    Attributes:
        task: number of the task.
        sample: number of the rollout among those of the task.
        outcome: how it ended.
        reward: its reward; None where it has none.
        numbers: further numbers that the agent returned, by name.
        told: what is said of an outcome that is not done: the user's line and the error.
        rows: its tokens.
        turns: answers of the model.
        tokens: sampled ids.
        splits: answers that went on from no row, though there was one.
        cut_off: answers that ended for their length alone.
        cancelled: answers that nobody waited for.
        remarks: what is odd about how the model was asked.
        retries: how often it was begun again, since its agent failed or took too long.
    """

    task: int
    sample: int
    outcome: str = DONE
    reward: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    told: str = ""
    rows: list[SampledRow] = field(default_factory=list)
    turns: int = 0
    tokens: int = 0
    splits: int = 0
    cut_off: int = 0
    cancelled: int = 0
    remarks: list[str] = field(default_factory=list)
    retries: int = 0

    def take(self, trajectory: Trajectory, left: int = 0) -> None:
        """Take in what was sampled.

        Args:
            trajectory: the answers.
            left: answers that the agent didn't wait for, and that the trajectory doesn't count.
        """
        self.rows = [SampledRow.of(row) for row in trajectory.rows]
        self.turns, self.tokens, self.splits = trajectory.turns, trajectory.tokens, trajectory.splits
        self.cut_off, self.cancelled = trajectory.cut_off, trajectory.cancelled + left
        if not self.turns and self.outcome == DONE:
            self.outcome = UNFINISHED if self.cancelled else NO_CALL

    @property
    def entropy_sum(self) -> float:
        """Sum over the sampled ids of how unlikely each was: an estimate of the entropy, summed over them."""
        return -sum(float(row.logprobs.double().sum()) for row in self.rows)


_PLAIN = (
    "task", "sample", "outcome", "reward", "numbers", "told", "turns", "tokens", "splits", "cut_off", "cancelled",
    "remarks", "retries",
)  # fmt: skip


def plain_of(rollout: Rollout) -> dict[str, Any]:
    """Return a rollout as plain data without tensors."""
    rows = [
        {"ids": row.ids.tolist(), "sampled": row.sampled.int().tolist(), "logprobs": row.logprobs.tolist(),
         "versions": list(row.versions)}
        for row in rollout.rows
    ]  # fmt: skip
    return {**{name: getattr(rollout, name) for name in _PLAIN}, "rows": rows}


def rollout_of(plain: Mapping[str, Any]) -> Rollout:
    """Return the rollout of a `plain_of`: what can't be held as text, a float32, is the same to the bit."""
    rows = [
        SampledRow(
            torch.tensor(row["ids"], dtype=torch.int32), torch.tensor(row["sampled"], dtype=torch.bool),
            torch.tensor(row["logprobs"], dtype=torch.float32), tuple(row["versions"]),
        )
        for row in plain["rows"]
    ]  # fmt: skip
    return Rollout(**{**plain, "rows": rows})


def state_of(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    """Return rollouts as plain data and a few tensors, whatever their number."""
    rows = [row for rollout in rollouts for row in rollout.rows]
    nothing = torch.zeros(0)
    return {
        "rollouts": [{name: getattr(rollout, name) for name in _PLAIN} for rollout in rollouts],
        "rows": [len(rollout.rows) for rollout in rollouts],
        "lengths": [len(row.ids) for row in rows],
        "versions": [list(row.versions) for row in rows],
        "ids": torch.cat([row.ids for row in rows]) if rows else nothing.to(torch.int32),
        "sampled": torch.cat([row.sampled for row in rows]) if rows else nothing.to(torch.bool),
        "logprobs": torch.cat([row.logprobs for row in rows]) if rows else nothing,
    }


def rollouts_of(state: Mapping[str, Any]) -> list[Rollout]:
    """Return the rollouts of a `state_of`."""
    lengths = list(state["lengths"])
    ids, sampled, logprobs = (state[name].split(lengths) if lengths else () for name in ("ids", "sampled", "logprobs"))
    parts = zip(ids, sampled, logprobs, map(tuple, state["versions"]), strict=True)
    rows = (SampledRow(*each) for each in parts)
    return [
        Rollout(**plain, rows=[next(rows) for _ in range(count)])
        for plain, count in zip(state["rollouts"], state["rows"], strict=True)
    ]
