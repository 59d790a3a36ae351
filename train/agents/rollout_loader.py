"""A loader whose epochs are rollouts: made when the epoch begins, by the weights as they are then."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from beautilog import logger

from constants.counting import counted
from data.policy_batches import PolicyBatch, PolicyRow, pack_policy_rows, spread_rollouts
from data.tensor_loader import epoch_generator
from model.token_losses import group_advantages
from train.agents.rollout import Rollout, RolloutPlan, SampledRow, rollouts_of, state_of
from train.agents.rollout_summary import Numbers, group_of, reward_interval, rollout_numbers, trouble_in
from train.errors import TrainingError
from train.seeding import seed_of

_TRAINING, _VALIDATION = 0, 1  # words of a seed, so that neither's rollouts have the other's random numbers
_VAL_BATCH = 32  # rollouts of a validation batch

Gather = Callable[[Sequence[RolloutPlan]], list[Rollout]]
Reference = Callable[[Sequence[SampledRow]], list[torch.Tensor]]


@dataclass(frozen=True)
class RolloutSettings:
    """What is made of rollouts.

    Attributes:
        group_size: rollouts of a task, whose rewards are compared with one another.
        tasks_per_epoch: tasks that an epoch draws; 0 for all.
        batches: batches that an epoch's rollouts are spread over.
        fresh_batches: of these, the first, which the epoch's first optimizer step takes.
        seed: seed of tasks, requests and order.
        advantage: what a rollout is compared with; see `group_advantages`.
        average: `tokens` or `rollouts`: what the loss is a mean over.
        train_cut_off: whether rollouts are trained on in which an answer was cut off.
        success: reward from which on a rollout is a success.
        kl_weight: weight of the penalty on the divergence from the start.
        probing: whether steps are only tried: few rollouts, and made-up advantages.
    """

    group_size: int = 8
    tasks_per_epoch: int = 0
    batches: int = 1
    fresh_batches: int = 1
    seed: int = 0
    advantage: str = "centred"
    average: str = "tokens"
    train_cut_off: bool = True
    success: float = 1.0
    kl_weight: float = 0.0
    probing: bool = False


class RolloutLoader:
    """Batches of an epoch's rollouts.

    Which tasks, in which order and with which random numbers follows from (seed, epoch); what is sampled, from the
    weights too. So an epoch that was cut off while its rollouts were made makes them again; one that was cut off
    between its steps has them in its checkpoint (`state_dict`).

    Args:
        tasks: number of tasks there are.
        gather: function that makes rollouts, with the weights as they are.
        settings: what is made of them.
        reference: function that gives of rows the log-probabilities of their sampled ids at the start of training,
            where the divergence from it is wanted.

    Attributes:
        epoch: number of the epoch that the next pass gives.
        rollouts: rollouts of the epoch at hand; empty before they are made, and after its end.
    """

    draws_by_epoch = True
    drop_last = False

    def __init__(
        self, tasks: int, gather: Gather, settings: RolloutSettings, reference: Reference | None = None
    ) -> None:
        self._tasks, self._gather, self._reference = tasks, gather, reference
        self.settings, self.epoch = settings, 0
        self.rollouts: list[Rollout] = []
        self._made_in = -1
        self._told = Told()

    @property
    def batch_size(self) -> int:
        """Rollouts of a batch, about."""
        return max(1, self._tasks_drawn * self.settings.group_size // self.settings.batches)

    @property
    def _tasks_drawn(self) -> int:
        return min(self.settings.tasks_per_epoch or self._tasks, self._tasks)

    def __len__(self) -> int:
        return self.settings.batches

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next pass gives."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[PolicyBatch]:
        return self._pass()

    def _pass(self) -> Iterator[PolicyBatch]:
        if self._made_in != self.epoch or not self.rollouts:
            self.rollouts, self._made_in = [], -1
            found = self._gather(self.plans())
            self._told.tell(found, f"epoch {self.epoch + 1}")
            self.rollouts, self._made_in = found, self.epoch
        yield from self._batches()
        self.rollouts, self._made_in, self.epoch = [], -1, self.epoch + 1

    def plans(self) -> list[RolloutPlan]:
        """Return the rollouts of the epoch at hand."""
        settings = self.settings
        order = torch.randperm(self._tasks, generator=epoch_generator(settings.seed, self.epoch)).tolist()
        drawn, size = order[: self._tasks_drawn], settings.group_size
        if settings.probing:
            drawn, size = drawn[:2], min(size, 2)
        return [
            RolloutPlan(task, sample, seed_of(settings.seed, _TRAINING, self.epoch, task, sample))
            for task in drawn
            for sample in range(size)
        ]

    def first_batch(self) -> PolicyBatch:
        """Return a batch of the form of the others, made up: rollouts take their time, and the epoch makes them."""
        return made_up_batch()

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts of the epoch at hand, as plain data and tensors."""
        return {"epoch": self._made_in, **state_of(self.rollouts)} if self.rollouts else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the rollouts of a `state_dict`."""
        self.rollouts = rollouts_of(state) if state else []
        self._made_in = int(state["epoch"]) if state else -1

    # -------------------------------------------------------------------------------------------------- what is learned

    def _batches(self) -> Iterator[PolicyBatch]:
        settings = self.settings
        numbers = rollout_numbers(self.rollouts, settings.success)
        interval = reward_interval(self.rollouts)
        if interval is not None:
            numbers["reward_interval"] = (interval, 1)
        rows, flat = self._rows(numbers)
        if flat is not None:
            numbers["flat_groups"] = flat
        batches = spread_rollouts(rows, settings.batches, settings.seed, self.epoch)
        if not rows:
            logger.warning(f"epoch {self.epoch + 1}: no step, since {self._why_nothing()}")
        counts = [len({row.rollout for row in batch}) for batch in batches]
        for place, (batch, count) in enumerate(zip(batches, counts, strict=True)):
            fresh = place < settings.fresh_batches
            yield pack_policy_rows(batch, count, fresh, numbers=numbers if place == 0 else None)

    def _rows(self, numbers: Numbers) -> tuple[list[PolicyRow], tuple[float, float] | None]:
        """Return what is trained on, and the share of groups whose rewards are all the same."""
        settings = self.settings
        rewarded = [each for group in group_of(self.rollouts).values() for each in group]
        rewards, tasks = [each.reward or 0.0 for each in rewarded], [each.task for each in rewarded]
        advantages = group_advantages(rewards, tasks, settings.advantage)
        level: dict[int, bool] = {}
        for rollout, apart in zip(rewarded, group_advantages(rewards, tasks), strict=True):
            level[rollout.task] = level.get(rollout.task, True) and apart == 0
        flat = (sum(level.values()) / len(level), float(len(level))) if level else None
        if settings.probing:
            advantages = [1.0 if place % 2 else -1.0 for place in range(len(rewarded))]
        kept = [
            (place, rollout, advantage)
            for place, (rollout, advantage) in enumerate(zip(rewarded, advantages, strict=True))
            if rollout.turns and (settings.train_cut_off or not rollout.cut_off)
        ]
        penalties = self._penalties([row for _, rollout, _ in kept for row in rollout.rows], numbers)
        found = []
        for place, rollout, advantage in kept:
            weight = 1.0 if settings.average == "tokens" else 1.0 / rollout.tokens
            for row in rollout.rows:
                of_each = torch.where(row.sampled, advantage, 0.0).float()
                if penalties is not None:
                    of_each = of_each + next(penalties)
                elif advantage == 0:
                    continue  # nothing would be learned from it
                found.append(PolicyRow(row.ids, row.sampled, row.logprobs, of_each, weight, place))
        return found, flat

    def _penalties(self, rows: Sequence[SampledRow], numbers: Numbers) -> Iterator[torch.Tensor] | None:
        """Return what the penalty on the divergence from the start adds to the advantages of each row."""
        if self._reference is None or not self.settings.kl_weight or not rows:
            return None
        ratios = [(row.logprobs - reference) * row.sampled
                  for row, reference in zip(rows, self._reference(rows), strict=True)]  # fmt: skip
        count = sum(int(row.sampled.sum()) for row in rows)
        mean = math.fsum(float(ratio.double().sum()) for ratio in ratios) / count
        numbers["kl"] = (mean, count)
        # As `kl_advantages` has it, over the sampled ids of the whole epoch.
        return iter([self.settings.kl_weight * (mean - ratio) * row.sampled
                     for row, ratio in zip(rows, ratios, strict=True)])  # fmt: skip

    def _why_nothing(self) -> str:
        cut = sum(each.cut_off > 0 for each in self.rollouts)
        if cut == len(self.rollouts) and not self.settings.train_cut_off:
            return f"all {counted(cut, 'rollout')} were cut off, and train_cut_off = off leaves these out"
        groups = counted(len(group_of(self.rollouts)), "task")
        return f"the rewards of the rollouts are the same within each of {groups}"


class ValidationRollouts:
    """Batches of rollouts of all validation tasks, with the same random numbers each time.

    Args:
        tasks: number of tasks there are.
        samples: rollouts of each.
        gather: function that makes rollouts, with the weights as they are.
        settings: what is made of them.
    """

    draws_by_epoch = True
    drop_last = False
    batch_size = _VAL_BATCH

    def __init__(self, tasks: int, samples: int, gather: Gather, settings: RolloutSettings) -> None:
        self._tasks, self._samples, self._gather, self.settings = tasks, samples, gather, settings
        self._told = Told()

    def __len__(self) -> int:
        return -(-len(self.plans()) // _VAL_BATCH)

    def __iter__(self) -> Iterator[PolicyBatch]:
        rollouts = self._gather(self.plans())
        self._told.tell(rollouts, "the validation")
        numbers, interval = rollout_numbers(rollouts, self.settings.success), reward_interval(rollouts)
        if interval is not None:
            numbers["reward_interval"] = (interval, 1)
        for start in range(0, len(rollouts), _VAL_BATCH):
            some = rollouts[start : start + _VAL_BATCH]
            rewards = [each.reward for each in some if each.reward is not None]
            mean = math.fsum(rewards) / max(1, len(rewards))
            rows = [PolicyRow(row.ids, row.sampled, row.logprobs, row.sampled * (rollout.reward or 0.0), rollout=place)
                    for place, rollout in enumerate(some) for row in rollout.rows]  # fmt: skip
            yield pack_policy_rows(rows, len(rewards), True, mean, None if start else numbers)

    def plans(self) -> list[RolloutPlan]:
        """Return the rollouts that are made."""
        tasks, samples = (min(self._tasks, 2), 1) if self.settings.probing else (self._tasks, self._samples)
        return [
            RolloutPlan(task, sample, seed_of(self.settings.seed, _VALIDATION, task, sample))
            for task in range(tasks)
            for sample in range(samples)
        ]

    def first_batch(self) -> PolicyBatch:
        """Return a batch of the form of the others, made up."""
        return replace(made_up_batch(), numbers={"reward": (0.0, 1.0), "success": (0.0, 1.0)})


class Told:
    """Tells what went wrong in rollouts, each kind once."""

    __slots__ = ("_kinds",)  # no part of a checkpoint

    def __init__(self) -> None:
        self._kinds: set[str] = set()

    def tell(self, rollouts: Sequence[Rollout], when: str) -> None:
        """Warn of what is new.

        Args:
            rollouts: rollouts that were made.
            when: in which epoch, or validation.

        Raises:
            TrainingError: there is nothing to learn from in any of them; the text has the user's line.
        """
        trouble = trouble_in(rollouts)
        if trouble.hopeless:
            lines = "".join(f"\n  {line}" for line in trouble.lines)
            raise TrainingError(
                f"{when}: no rollout can be learned from.{lines}\n"
                "Try the agent by itself, against any OpenAI endpoint, before it is trained."
            )
        for line in (*trouble.lines, *sorted({remark for each in rollouts for remark in each.remarks})):
            kind = line.partition(" rollouts: ")[2] or line
            if kind not in self._kinds:
                self._kinds.add(kind)
                logger.warning(f"{when}: {line}")


def made_up_batch() -> PolicyBatch:
    """Return a batch of two short rows, of which one is to become likelier and the other one less likely."""
    ids, sampled = torch.tensor([1, 2, 3, 4], dtype=torch.int32), torch.tensor([False, False, True, True])
    rows = [PolicyRow(ids, sampled, torch.full((4,), -1.0), torch.where(sampled, advantage, 0.0), rollout=place)
            for place, advantage in enumerate((1.0, -1.0))]  # fmt: skip
    return pack_policy_rows(rows, 2)
