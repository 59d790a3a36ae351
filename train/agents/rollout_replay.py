"""Rows of earlier epochs that are learned from again, as long as the weights have not gone too far from theirs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.policy_batches import PolicyRow, rows_of_state, spread_rollouts, state_of_rows
from train.seeding import seed_of

_ORDER = 2  # word of the seed of their order


@dataclass(frozen=True)
class AgedRows:
    """Rows of one age.

    Attributes:
        age: optimizer steps between the weights that sampled them and those that learn from them.
        rows: the rows.
    """

    age: int
    rows: Sequence[PolicyRow]

    @property
    def rollouts(self) -> int:
        """Number of rollouts that they are of."""
        return len({row.rollout for row in self.rows})


class Replay:
    """Keeps rows by the epoch whose first weights sampled them.

    The age of a row is the number of optimizer steps that lie between the weights that sampled it and those that learn
    from it: of rows of the epoch at hand, the number of its steps so far. Steps that change nothing count too.

    Args:
        limit: greatest age of a row that is learned from; 0 keeps none, and lets rows of the epoch at hand have any.
        steps: optimizer steps of an epoch.
        batches: batches of an epoch, a multiple of its steps.
        seed: seed of the order.
    """

    def __init__(self, limit: int, steps: int, batches: int, seed: int) -> None:
        self.limit, self._steps, self._batches, self._seed = limit, steps, batches, seed
        self._kept: dict[int, list[PolicyRow]] = {}

    def batches(self, epoch: int) -> list[list[AgedRows]]:
        """Return of each batch of an epoch the rows of earlier epochs that it learns from too.

        Args:
            epoch: number of the epoch, from 0.
        """
        found: list[list[AgedRows]] = [[] for _ in range(self._batches)]
        for made, place, rows in self._spread(epoch):
            age = self.age(epoch, made, place)
            if rows and age <= self.limit:
                found[place].append(AgedRows(age, rows))
        return found

    def dropped(self, epoch: int) -> tuple[int, int]:
        """Return how many rollouts of earlier epochs are dropped for their age in an epoch, and how many there are."""
        spread = [(self.age(epoch, made, place) > self.limit, AgedRows(0, rows).rollouts)
                  for made, place, rows in self._spread(epoch)]  # fmt: skip
        return sum(count for old, count in spread if old), sum(count for _, count in spread)

    def age(self, epoch: int, made: int, place: int) -> int:
        """Return how many optimizer steps old rows are.

        Args:
            epoch: number of the epoch that learns from them.
            made: number of the epoch that they were sampled in.
            place: which of the epoch's batches it is, from 0.
        """
        return (epoch - made) * self._steps + place * self._steps // self._batches

    def _spread(self, epoch: int) -> list[tuple[int, int, list[PolicyRow]]]:
        return [
            (made, place, rows)
            for made, kept in sorted(self._kept.items())
            if made < epoch
            for place, rows in enumerate(spread_rollouts(kept, self._batches, seed_of(self._seed, _ORDER, made), epoch))
        ]

    def begin(self, epoch: int) -> None:
        """Forget what is too old for all of an epoch's steps; what was dropped in the one before has been counted."""
        self._kept = {made: rows for made, rows in self._kept.items() if made < epoch and self._was_in_use(made, epoch)}

    def _was_in_use(self, made: int, epoch: int) -> bool:
        return self.age(epoch, made, 0) <= self.limit + self._steps

    def keep(self, epoch: int, rows: Sequence[PolicyRow]) -> None:
        """Keep the rows of an epoch for later ones."""
        if self.limit:
            self._kept[epoch] = list(rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows as plain data and tensors; empty where there are none."""
        return {str(made): state_of_rows(rows) for made, rows in self._kept.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the rows of a `state_dict`."""
        self._kept = {int(made): rows_of_state(rows) for made, rows in state.items()}
