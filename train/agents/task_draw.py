"""Which tasks an epoch draws: all alike, or rather those of which the agent does some and fails at others."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from data.tensor_loader import epoch_generator

CURRICULA = ("none", "success")
_KEPT = 0.75  # share of what is known of a task that still counts when it is done again: agents change
_LEAST = 0.01  # weight of a task that always succeeds, or never, beside 0.25 of one that does half of the time


class TaskDraw:
    """Draws tasks.

    What is drawn follows from (seed, epoch), and with a curriculum from the successes that it was told of.

    Args:
        tasks: number of tasks there are.
        seed: seed of the draws.
        curriculum: `none` draws all tasks alike; `success` draws a task with a weight of p (1 - p), where p is its
            share of successes so far: at p of 0 or 1 its rollouts are all alike, and nothing is learned from them.

    Attributes:
        successes: (tasks,) float64 successes of each task, of which earlier ones count less.
        rollouts: (tasks,) float64 rollouts of each task, counted alike.
    """

    def __init__(self, tasks: int, seed: int, curriculum: str = "none") -> None:
        self.tasks, self._seed, self._by_success = tasks, seed, curriculum == "success"
        self.successes = torch.zeros(tasks, dtype=torch.float64)
        self.rollouts = torch.zeros(tasks, dtype=torch.float64)

    def order(self, epoch: int) -> Iterator[int]:
        """Yield tasks without end: all of them in the epoch's order, then all of them again in another one.

        Args:
            epoch: number of the epoch, from 0.
        """
        generator = epoch_generator(self._seed, epoch)
        while True:
            if not self._by_success:
                yield from torch.randperm(self.tasks, generator=generator).tolist()
                continue
            # The smallest of exponential times of these rates, one after another: draws by weight, none twice.
            times = torch.empty(self.tasks, dtype=torch.float64).exponential_(generator=generator)
            yield from (times / self.weights()).argsort(stable=True).tolist()

    def weights(self) -> torch.Tensor:
        """Return (tasks,) float64 weights of the draw with a curriculum."""
        p = self.success()
        return p * (1 - p) + _LEAST

    def success(self) -> torch.Tensor:
        """Return (tasks,) float64 estimates of each task's share of successes; one never done has 0.5."""
        return (self.successes + 0.5) / (self.rollouts + 1)

    def note(self, tasks: Sequence[int], successes: Sequence[float]) -> None:
        """Take in what came of an epoch's rollouts.

        Args:
            tasks: of each rollout its task.
            successes: of each rollout whether it was a success, 0 to 1.
        """
        if not self._by_success or not tasks:
            return
        where = torch.tensor(tasks)
        done = where.unique()
        for known, new in ((self.successes, torch.tensor(successes, dtype=torch.float64)), (self.rollouts, 1.0)):
            known[done] *= _KEPT
            known.index_add_(0, where, torch.as_tensor(new, dtype=torch.float64).expand(len(tasks)).contiguous())

    def state_dict(self) -> dict[str, Any]:
        """Return what is known of the tasks; nothing without a curriculum."""
        return {"successes": self.successes, "rollouts": self.rollouts} if self._by_success else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; where the number of tasks is another now, nothing is known of them."""
        if state and len(state["successes"]) == self.tasks:
            self.successes, self.rollouts = state["successes"].clone(), state["rollouts"].clone()
