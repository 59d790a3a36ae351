"""A loader whose epochs are rollouts: made when the epoch begins, by the weights as they are then."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

import torch
from beautilog import logger

from constants.counting import counted
from data.policy_batches import PolicyBatch, PolicyRow, pack_policy_rows, spread_rollouts
from train.agents.credit import Credit
from train.agents.rollout import Rollout, RolloutPlan, rollouts_of, state_of
from train.agents.rollout_replay import AgedRows, Replay
from train.agents.rollout_summary import Numbers, reward_interval, rollout_numbers, success_of, trouble_in
from train.agents.task_draw import TaskDraw
from train.errors import TrainingError
from train.seeding import seed_of

_TRAINING, _VALIDATION = 0, 1  # words of a seed, so that neither's rollouts have the other's random numbers
_VAL_BATCH = 32  # rollouts of a validation batch

Gather = Callable[[Sequence[RolloutPlan]], list[Rollout]]
Keep = Callable[[Sequence[Rollout]], None]


@dataclass(frozen=True)
class RolloutSettings:
    """How the rollouts of an epoch are drawn, and spread over its steps.

    Attributes:
        group_size: rollouts of a task, whose rewards are compared with one another.
        tasks_per_epoch: tasks that an epoch draws; 0 for all.
        curriculum: which tasks are drawn; see `TaskDraw`.
        sampling_rounds: rounds of rollouts of an epoch, at most: from the second on, tasks are drawn in place of those
            whose rollouts all have one reward. 1 for no such.
        steps: optimizer steps of an epoch.
        accumulation: batches of an optimizer step.
        max_steps_off_policy: greatest age, in optimizer steps, of rollouts that are learned from; see `Replay`.
        seed: seed of tasks, requests and order.
        success: reward from which on a rollout is a success.
        probing: whether steps are only tried: few rollouts, and made-up advantages.
    """

    group_size: int = 8
    tasks_per_epoch: int = 0
    curriculum: str = "none"
    sampling_rounds: int = 1
    steps: int = 1
    accumulation: int = 1
    max_steps_off_policy: int = 0
    seed: int = 0
    success: float = 1.0
    probing: bool = False

    @property
    def batches(self) -> int:
        """Batches that an epoch's rollouts are spread over."""
        return self.steps * self.accumulation


class RolloutLoader:
    """Batches of an epoch's rollouts.

    Which tasks, in which order and with which random numbers follows from (seed, epoch), and where there is a
    curriculum or a choice by rewards from what came of earlier rollouts; what is sampled, from the weights too. So an
    epoch that was cut off while its rollouts were made makes them again; one that was cut off between its steps has
    them in its checkpoint (`state_dict`).

    Args:
        tasks: number of tasks there are.
        gather: function that makes rollouts, with the weights as they are.
        settings: how they are drawn and spread.
        credit: what makes rows that are learned from of them.
        keep: called with all rollouts of an epoch when they have been made.

    Attributes:
        epoch: number of the epoch that the next pass gives.
        rollouts: rollouts of the epoch at hand; empty before they are made.
        draw: what draws the tasks.
        replay: rows of earlier epochs.
    """

    draws_by_epoch = True
    drop_last = False
    reading = "rollouts are made"  # before the first batch

    def __init__(
        self, tasks: int, gather: Gather, settings: RolloutSettings, credit: Credit, keep: Keep = lambda made: None
    ) -> None:
        self._tasks, self._gather, self.credit, self._keep = tasks, gather, credit, keep
        self.settings, self.epoch = settings, 0
        self.rollouts: list[Rollout] = []
        self._made_in, self._rounds = -1, 1
        self.draw = TaskDraw(tasks, settings.seed, settings.curriculum)
        self.replay = Replay(settings.max_steps_off_policy, settings.steps, settings.batches, settings.seed)
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
            found = self._gathered()
            self._told.tell(found, f"epoch {self.epoch + 1}")
            self._keep(found)
            self.draw.note([each.task for each in found], [success_of(each, self.settings.success) for each in found])
            self.replay.begin(self.epoch)
            self.rollouts, self._made_in = found, self.epoch
        yield from self._batches()
        self.epoch += 1  # the rollouts stay: steps of this epoch may not all be done yet, if batches are read ahead

    # ---------------------------------------------------------------------------------------------------- rollouts

    def plans(self) -> list[RolloutPlan]:
        """Return the first rollouts of the epoch at hand: all of them, but where tasks of one reward are replaced."""
        drawn, size = self._tasks_drawn, self.settings.group_size
        if self.settings.probing:
            drawn, size = min(drawn, 2), min(size, 2)
        return self._plans(islice(self.draw.order(self.epoch), drawn), size, Counter())

    def _plans(self, tasks: Iterable[int], size: int, drawn: Counter[int]) -> list[RolloutPlan]:
        """Return the plans of groups.

        Args:
            tasks: of each group its task.
            size: rollouts of a group.
            drawn: how many groups of each task this epoch has already; counts on.
        """
        seed, plans = self.settings.seed, []
        for task in tasks:
            samples = range(drawn[task] * size, (drawn[task] + 1) * size)
            plans += [RolloutPlan(task, each, seed_of(seed, _TRAINING, self.epoch, task, each)) for each in samples]
            drawn[task] += 1
        return plans

    def _gathered(self) -> list[Rollout]:
        """Make the epoch's rollouts, in rounds where tasks whose rollouts all have one reward are replaced."""
        settings, self._rounds = self.settings, 1
        if settings.sampling_rounds == 1 or settings.probing:
            return self._gather(self.plans())
        tasks, drawn, found = self.draw.order(self.epoch), Counter[int](), list[Rollout]()
        missing = self._tasks_drawn
        while True:
            found += self._gather(self._plans(islice(tasks, missing), settings.group_size, drawn))
            varied = sum(not self.credit.is_flat(group) for group in self.credit.groups(found))
            missing = self._tasks_drawn - varied
            if missing <= 0 or self._rounds >= settings.sampling_rounds or trouble_in(found).hopeless:
                return found
            self._rounds += 1

    def first_batch(self) -> PolicyBatch:
        """Return a batch of the form of the others, made up: rollouts take their time, and the epoch makes them."""
        return made_up_batch()

    # --------------------------------------------------------------------------------------------------- the state

    def state_dict(self, inside: bool = True) -> dict[str, Any]:
        """Return what later steps need, as plain data and tensors.

        Args:
            inside: whether the epoch at hand has steps to come, for which its rollouts are needed.
        """
        state: dict[str, Any] = {}
        if inside and self.rollouts:
            state |= {"epoch": self._made_in, "rounds": self._rounds, **state_of(self.rollouts)}
        parts = {"draw": self.draw.state_dict(), "replay": self.replay.state_dict()}
        return state | {name: part for name, part in parts.items() if part}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a `state_dict`."""
        self.rollouts = rollouts_of(state) if "rollouts" in state else []
        self._made_in, self._rounds = int(state.get("epoch", -1)), int(state.get("rounds", 1))
        self.draw.load_state_dict(state.get("draw", {}))
        self.replay.load_state_dict(state.get("replay", {}))

    # -------------------------------------------------------------------------------------------------- what is learned

    def _batches(self) -> Iterator[PolicyBatch]:
        settings = self.settings
        numbers = rollout_numbers(self.rollouts, settings.success)
        interval = reward_interval(self.rollouts)
        if interval is not None:
            numbers["reward_interval"] = (interval, 1)
        if settings.sampling_rounds > 1:
            numbers["sampling_rounds"] = (self._rounds, 1)
        rows = self.credit.rows(self.rollouts, numbers)
        batches = spread_rollouts(rows, settings.batches, settings.seed, self.epoch)
        parts = [
            [AgedRows(place // settings.accumulation, batch), *old]
            for place, (batch, old) in enumerate(zip(batches, self.replay.batches(self.epoch), strict=True))
        ]
        if settings.max_steps_off_policy:
            self._note_ages(parts, numbers)
        if not any(row.teaches for batch in parts for part in batch for row in part.rows):
            numbers["ratio"] = (math.nan, 1)
            logger.warning(f"epoch {self.epoch + 1}: no step, since {self._why_nothing()}")
        if not any(row.teaches for batch in parts if batch[0].age == 0 for row in batch[0].rows):
            numbers["sampler_gap"] = (math.nan, 1)
        for place, batch in enumerate(parts):
            new, *old = ([row for row in part.rows if row.teaches] for part in batch)
            yield pack_policy_rows(
                new, sum(part.rollouts for part in batch), fresh=batch[0].age == 0,
                numbers=numbers if place == 0 else None, old=list(chain(*old)),
                total_weight=math.fsum(row.counts for part in batch for row in part.rows),
            )  # fmt: skip
        self.replay.keep(self.epoch, rows)

    def _note_ages(self, batches: Sequence[Sequence[AgedRows]], numbers: Numbers) -> None:
        """Note how old the rollouts are that are learned from, and the share of earlier ones that are too old."""
        parts = [part for batch in batches for part in batch]
        count = sum(part.rollouts for part in parts)
        mean = sum(part.age * part.rollouts for part in parts) / count if count else math.nan
        numbers["off_policy"] = (mean, max(1, count))
        dropped, had = self.replay.dropped(self.epoch)
        numbers["stale"] = (dropped / max(1, had), max(1, had))

    def _why_nothing(self) -> str:
        cut = sum(each.cut_off > 0 for each in self.rollouts)
        if cut == len(self.rollouts) and not self.credit.settings.train_cut_off:
            return f"all {counted(cut, 'rollout')} were cut off, and train_cut_off = off leaves these out"
        groups = counted(len(self.credit.groups(self.rollouts)), "task")
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
                "Try the agent by itself, against any OpenAI endpoint, before it is trained; then --resume makes these "
                "rollouts again."
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
