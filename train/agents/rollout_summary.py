"""What an epoch's rollouts came to: numbers for the history, and lines for what went wrong."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from constants.counting import counted
from train.agents.played import DONE, ENDED_WELL, FAILED, NO_CALL, NO_REWARD, TIMED_OUT, UNFINISHED
from train.agents.rollout import Rollout

_TAKEN = frozenset(
    {
        "cut_off", "entropy", "epoch", "failed", "flat_groups", "kl", "length", "loss", "off_policy", "overlong",
        "ratio", "reward", "reward_interval", "sampler_gap", "sampling_rounds", "split", "stale", "turns", "unfinished",
    }
)  # fmt: skip
_DETAILS = frozenset({"reward_interval", "ratio", "sampler_gap", "split", "unfinished"})  # for who looks for them
_TROUBLE = frozenset({"cut_off", "failed"})  # told where there is any
_TOLD = 4  # errors of a kind that are told
Numbers = dict[str, tuple[float, float]]  # of each number its mean, and over how many it is one


def in_line(name: str, value: float) -> bool:
    """Say whether the line of an epoch tells a number of the history; all are in metrics.json."""
    kind = name.partition("_")[2]
    return kind not in _DETAILS and (value > 0 or kind not in _TROUBLE)


def group_of(rollouts: Sequence[Rollout]) -> dict[int, list[Rollout]]:
    """Return rollouts that have a reward by their task."""
    groups: dict[int, list[Rollout]] = {}
    for rollout in rollouts:
        if rollout.reward is not None:
            groups.setdefault(rollout.task, []).append(rollout)
    return groups


def success_of(rollout: Rollout, success: float) -> float:
    """Return whether a rollout was a success: what the agent says of it, else whether its reward is so high.

    Args:
        rollout: the rollout; one without reward was none.
        success: reward from which on a rollout is a success.
    """
    by_reward = rollout.reward is not None and rollout.reward >= success
    return rollout.numbers.get("success", float(by_reward))


def rollout_numbers(rollouts: Sequence[Rollout], success: float) -> Numbers:
    """Return what is told of rollouts, before any of them is left out of training.

    A number of the agent's own whose name is taken is called `agent_<name>`.

    Args:
        rollouts: all that were planned.
        success: reward from which on a rollout is a success.

    Returns:
        By name: `reward`, `success` (the agent's own number of that name, where it has one), the agent's other numbers,
        `turns` and `length` (sampled tokens) of a rollout, `entropy` (mean over the sampled tokens of how unlikely each
        was), and the shares `cut_off`, `failed` and `split`.
    """
    rewarded = [each for each in rollouts if each.reward is not None]
    asked = [each for each in rollouts if each.turns]
    numbers: Numbers = {}
    if rewarded:
        _note(numbers, "reward", [each.reward for each in rewarded if each.reward is not None])
        _note(numbers, "success", [success_of(each, success) for each in rewarded])
        for name in sorted({name for each in rewarded for name in each.numbers} - {"success"}):
            own = f"agent_{name}" if name in _TAKEN else name
            _note(numbers, own, [each.numbers[name] for each in rewarded if name in each.numbers])
    if asked:
        _note(numbers, "turns", [each.turns for each in asked])
        _note(numbers, "length", [each.tokens for each in asked])
        tokens = sum(each.tokens for each in asked)
        numbers["entropy"] = (math.fsum(each.entropy_sum for each in asked) / tokens, tokens)
        _note(numbers, "cut_off", [each.cut_off > 0 for each in asked])
        _note(numbers, "split", [each.splits > 0 for each in asked])
        _note(numbers, "unfinished", [each.cancelled > 0 for each in asked])
    _note(numbers, "failed", [each.outcome not in ENDED_WELL for each in rollouts])
    return numbers


def _note(numbers: Numbers, name: str, values: Sequence[float]) -> None:
    numbers[name] = (math.fsum(values) / len(values), len(values))


def reward_interval(rollouts: Sequence[Rollout]) -> float | None:
    """Return half the width of the 95 % interval of the mean reward; None with fewer than two tasks.

    Rollouts of one task are alike, so each task counts once, by its own mean.
    """
    means = [math.fsum(each.reward or 0.0 for each in group) / len(group) for group in group_of(rollouts).values()]
    if len(means) < 2:
        return None
    mean = math.fsum(means) / len(means)
    variance = math.fsum((each - mean) ** 2 for each in means) / (len(means) - 1)
    return 1.96 * math.sqrt(variance / len(means))


@dataclass(frozen=True)
class Trouble:
    """What went wrong in rollouts.

    Attributes:
        lines: what is told of it, a line for each kind; empty where nothing went wrong.
        hopeless: whether no rollout has a reward and tokens to learn from.
    """

    lines: tuple[str, ...]
    hopeless: bool


def trouble_in(rollouts: Sequence[Rollout]) -> Trouble:
    """Say what went wrong, with the user's lines of the most frequent errors of each kind."""
    kinds: Mapping[str, list[Rollout]] = {}
    kinds = {kind: [each for each in rollouts if each.outcome == kind] for kind in {each.outcome for each in rollouts}}
    lines = []
    for kind in sorted(kinds.keys() - {DONE}):
        found = Counter(each.told for each in kinds[kind]).most_common()
        fate = _fate(kind, kinds[kind])
        for told, count in found[:_TOLD]:
            of_all = f"{count} of {counted(len(rollouts), 'rollout')}"
            lines.append(f"{of_all}: {_NAMES[kind]}{fate}{f': {told}' if told else ''}")
        rest = sum(count for _, count in found[_TOLD:])
        if rest:
            lines.append(f"{rest} of {counted(len(rollouts), 'rollout')}: {_NAMES[kind]}{fate}, for other reasons")
    return Trouble(tuple(lines), all(each.reward is None or not each.turns for each in rollouts))


_NAMES = {
    FAILED: "the agent failed",
    NO_REWARD: "there is no reward",
    TIMED_OUT: "broken off",
    NO_CALL: "the agent never asked the model, so nothing can be learned: does it use the client that it is given, and "
    "await it where it is asynchronous?",
    UNFINISHED: "the agent went away from each of its answers before their end, so nothing can be learned: a stream "
    "must be read to its end",
}


def _fate(kind: str, rollouts: Sequence[Rollout]) -> str:
    """Say what becomes of rollouts of a kind."""
    if kind in ENDED_WELL:
        return ""
    rewards = {each.reward for each in rollouts} - {None}
    if rewards:
        return f", and their reward is failed_reward = {rewards.pop():g}"
    return ", and left out" if kind == TIMED_OUT else ", and they are left out"
