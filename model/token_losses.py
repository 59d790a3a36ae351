"""Losses of tokens from their log-probabilities, and what reinforcement makes of rewards. Sums, never means.

Who calls them divides, once for each optimizer step, so that neither microbatches nor packing change what is learned.
The names and formulas are those of the Tinker protocol.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Probability of tokens beside the likeliest that is taken for none, in fp32.
_LEAST_REST = 1e-5
# What each loss takes beside the log-probabilities, and its settings with their defaults.
LOSS_INPUTS: dict[str, tuple[str, ...]] = {
    "cross_entropy": ("weights",),
    "importance_sampling": ("logprobs", "advantages"),
    "ppo": ("logprobs", "advantages"),
    "cispo": ("logprobs", "advantages"),
    "dro": ("logprobs", "advantages"),
}
LOSS_SETTINGS: dict[str, dict[str, float]] = {
    "cross_entropy": {},
    "importance_sampling": {},
    "ppo": {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2},
    "cispo": {"clip_low_threshold": 0.0, "clip_high_threshold": 4.0},
    "dro": {"beta": 0.05},
}

# What a rollout is compared with: see `group_advantages`.
ADVANTAGES = ("centred", "std", "leave_one_out", "batch")
_SAME_REWARD = 1e-9  # share of a reward by which others differ from it by rounding alone


def cross_entropy(logprobs: Tensor, weights: Tensor) -> Tensor:
    """Return -sum(weights * logprobs).

    Args:
        logprobs: (N,) log-probabilities of the targets; (N, K) where each token has K targets.
        weights: of the same shape; negative ones are allowed, and what has 0 counts for nothing whatever it is.

    Returns:
        A scalar.
    """
    return -(weights * _only(logprobs, weights != 0)).sum()


def importance_sampling(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor) -> Tensor:
    """Return -sum(exp(logprobs - old_logprobs) * advantages): the policy gradient of samples of another policy.

    Args:
        logprobs: (N,) log-probabilities of the sampled tokens now.
        old_logprobs: (N,) the same when they were sampled.
        advantages: (N,) how much better than expected each was; what has 0 counts for nothing.

    Returns:
        A scalar.
    """
    return -(_only(logprobs - old_logprobs, advantages != 0).exp() * advantages).sum()


def ppo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> Tensor:
    """Return -sum(min(r * advantages, clip(r) * advantages)) with r = exp(logprobs - old_logprobs) (Schulman, 2017).

    Args:
        logprobs: (N,) log-probabilities of the sampled tokens now.
        old_logprobs: (N,) the same when they were sampled.
        advantages: (N,) how much better than expected each was; what has 0 counts for nothing.
        clip_low_threshold: lowest ratio r that is not clipped.
        clip_high_threshold: highest ratio r that is not clipped.

    Returns:
        A scalar.
    """
    change = logprobs - old_logprobs
    ratio = change.detach().exp()
    above = (advantages > 0) & (ratio > clip_high_threshold)
    below = (advantages < 0) & (ratio < clip_low_threshold)
    # Clipped ratios have no gradient; taking them out before exp keeps an overflow there from becoming 0 * inf.
    free = _only(change, (advantages != 0) & ~above & ~below).exp()
    chosen = torch.where(above, clip_high_threshold, torch.where(below, clip_low_threshold, free))
    return -(chosen * advantages).sum()


def cispo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low_threshold: float = 0.0,
    clip_high_threshold: float = 4.0,
) -> Tensor:
    """Return -sum(clip(r) * logprobs * advantages), no gradient through r = exp(logprobs - old_logprobs) (MiniMax-M1).

    Args:
        logprobs: (N,) log-probabilities of the sampled tokens now.
        old_logprobs: (N,) the same when they were sampled.
        advantages: (N,) how much better than expected each was; what has 0 counts for nothing.
        clip_low_threshold: what lower ratios are raised to.
        clip_high_threshold: what higher ratios are lowered to.

    Returns:
        A scalar.
    """
    used = advantages != 0
    ratio = _only(logprobs.detach() - old_logprobs, used).exp().clamp(clip_low_threshold, clip_high_threshold)
    return -(ratio * _only(logprobs, used) * advantages).sum()


def dro(logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, beta: float = 0.05) -> Tensor:
    """Return -sum(logprobs * advantages - beta / 2 * (logprobs - old_logprobs)^2) (Richemond et al., 2024).

    Args:
        logprobs: (N,) log-probabilities of the sampled tokens now.
        old_logprobs: (N,) the same when they were sampled.
        advantages: (N,) how much better than expected each was; what has 0 still pays for its distance.
        beta: weight of the distance.

    Returns:
        A scalar.
    """
    gained = _only(logprobs, advantages != 0) * advantages
    return -(gained - 0.5 * beta * (logprobs - old_logprobs).square()).sum()


def _only(values: Tensor, used: Tensor) -> Tensor:
    """Return values, 0 where they are not used: 0 * inf would be NaN, in the gradient too."""
    return torch.where(used, values, torch.zeros((), dtype=values.dtype, device=values.device))


_POLICY_LOSSES: dict[str, Callable[..., Tensor]] = {
    "importance_sampling": importance_sampling,
    "ppo": ppo,
    "cispo": cispo,
    "dro": dro,
}


def require_loss(loss: str, config: Mapping[str, float] | None = None) -> dict[str, float]:
    """Check a loss's name and settings.

    Args:
        loss: name of the loss.
        config: settings that differ from the defaults.

    Returns:
        All settings of the loss.

    Raises:
        ValueError: there is no such loss or setting, or its value is not allowed.
    """
    if loss not in LOSS_SETTINGS:
        raise ValueError(f"there is no loss {loss!r}; there are: {', '.join(LOSS_SETTINGS)}")
    settings = LOSS_SETTINGS[loss] | dict(config or {})
    strange = sorted(settings.keys() - LOSS_SETTINGS[loss].keys())
    if strange:
        known = ", ".join(LOSS_SETTINGS[loss]) or "none"
        raise ValueError(f"the loss {loss} has no setting {', '.join(map(repr, strange))}; it has: {known}")
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise ValueError(f"{name} of the loss {loss} is {value!r}; it must be a finite number, 0 or more")
    if "clip_low_threshold" in settings and settings["clip_low_threshold"] > settings["clip_high_threshold"]:
        raise ValueError(
            f"clip_low_threshold of the loss {loss} is {settings['clip_low_threshold']}, above clip_high_threshold "
            f"{settings['clip_high_threshold']}; both are ratios, such as 0.8 and 1.2"
        )
    return settings


def token_loss(
    loss: str, logprobs: Tensor, inputs: Mapping[str, Tensor], config: Mapping[str, float] | None = None
) -> Tensor:
    """Return a loss by its name.

    Args:
        loss: a name in `LOSS_INPUTS`.
        logprobs: (N,) log-probabilities of the targets; for cross_entropy also (N, K).
        inputs: what `LOSS_INPUTS` says it takes, by name, each of the shape of `logprobs`; others are not looked at.
        config: settings that differ from the defaults.

    Returns:
        A scalar.

    Raises:
        ValueError: loss, settings or inputs are wrong.
    """
    settings = require_loss(loss, config)
    given = [inputs.get(name) for name in LOSS_INPUTS[loss]]
    for name, value in zip(LOSS_INPUTS[loss], given, strict=True):
        if value is None:
            raise ValueError(f"the loss {loss} needs {name}")
        if value.shape != logprobs.shape:
            raise ValueError(f"{name} has the shape {tuple(value.shape)}, the targets {tuple(logprobs.shape)}")
    if loss == "cross_entropy":
        return cross_entropy(logprobs, *given)  # type: ignore[arg-type]  # none of them is None
    return _POLICY_LOSSES[loss](logprobs, *given, **settings)


def has_effect(loss: str, inputs: Mapping[str, Tensor]) -> Tensor:
    """Say of each token whether its log-probability has an effect on a loss.

    Args:
        loss: a name in `LOSS_INPUTS`.
        inputs: its inputs by name, (N,) or (N, K).

    Returns:
        (N,) bool.
    """
    if loss == "dro":  # each token pays for its distance
        return torch.ones(inputs["advantages"].shape, dtype=torch.bool, device=inputs["advantages"].device)
    used = inputs["weights" if loss == "cross_entropy" else "advantages"] != 0
    return used if used.dim() == 1 else used.any(1)


# ------------------------------------------------------------------------------------------------ distances of policies


def kl_k1(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) by the log-ratio: without bias, of either sign.

    Args:
        logprobs: (N,) log-probabilities of tokens that the policy sampled.
        reference_logprobs: (N,) those of the reference.

    Returns:
        (N,) estimates, whose mean is the divergence.
    """
    return logprobs - reference_logprobs


def kl_k2(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) by half the squared log-ratio: a little biased, never negative.

    As a loss it is the one of the three whose gradient, on the policy's own samples, is that of the divergence.

    Args:
        logprobs: (N,) log-probabilities of tokens that the policy sampled.
        reference_logprobs: (N,) those of the reference.

    Returns:
        (N,) estimates.
    """
    return 0.5 * (logprobs - reference_logprobs).square()


def kl_k3(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Estimate KL(policy || reference) by q/p - 1 - log(q/p): without bias, never negative (Schulman, 2020).

    Args:
        logprobs: (N,) log-probabilities of tokens that the policy sampled.
        reference_logprobs: (N,) those of the reference.

    Returns:
        (N,) estimates, whose mean is the divergence.
    """
    change = reference_logprobs - logprobs
    return torch.expm1(change) - change


def kl_divergence(logprobs: Tensor, reference_logprobs: Tensor) -> Tensor:
    """Return KL(policy || reference) of whole distributions: sum of p * log(p / q).

    Args:
        logprobs: (N, V) log-probabilities of the policy.
        reference_logprobs: (N, V) those of the reference.

    Returns:
        (N,).
    """
    probabilities = logprobs.exp()
    return (probabilities * _only(logprobs - reference_logprobs, probabilities > 0)).sum(-1)


def forward_kl_top_k(logprobs: Tensor, teacher_logprobs: Tensor) -> Tensor:
    """Return KL(teacher || student) of each token over the teacher's K likeliest tokens, and all others as one.

    What both give to the others is one more outcome, so that nothing has to be said of how it lies among them, and the
    student is neither pushed to give them nothing nor let off. It is at most the divergence of the whole
    distributions, equal to it where K is the vocabulary, and 0 where both are the same.

    Args:
        logprobs: (N, K) the student's log-probabilities of these tokens.
        teacher_logprobs: (N, K) the teacher's.

    Returns:
        (N,), in nats.
    """
    chosen = (teacher_logprobs.exp() * (teacher_logprobs - logprobs)).sum(-1)
    rest, students = 1 - teacher_logprobs.exp().sum(-1), 1 - logprobs.exp().sum(-1)
    # Below that, 1 - sum is rounding. The gradient is that of the number itself, so that it does not vanish there.
    students = students + (_LEAST_REST - students).clamp(min=0).detach()
    of_rest = rest * (rest.clamp(min=_LEAST_REST).log() - students.log())
    return chosen + _only(of_rest, rest > _LEAST_REST)


def kl_advantages(old_logprobs: Tensor, reference_logprobs: Tensor, weight: float) -> Tensor:
    """Return what a penalty on KL(policy || reference) adds to the advantages of a batch.

    It goes through the advantages, not the loss: the gradient of a sampled log-ratio is 0 on average, and that of
    `kl_k3` is another divergence's.

    Args:
        old_logprobs: (N,) log-probabilities of the sampled tokens when they were sampled.
        reference_logprobs: (N,) those of the reference.
        weight: weight of the penalty.

    Returns:
        (N,) numbers whose sum is 0: `weight` times how much less than the mean each token's log-ratio is.
    """
    ratio = kl_k1(old_logprobs, reference_logprobs)
    return weight * (ratio.mean() - ratio) if ratio.numel() else ratio


# --------------------------------------------------------------------------------------------------- groups of rollouts


def centred_advantages(rewards: Sequence[float], groups: Sequence[int]) -> list[float]:
    """Return each rollout's reward less the mean of its group. It is not divided by the deviation.

    So a group whose rewards differ little also teaches little, and one whose rewards are all the same teaches exactly
    nothing: a division would blow up what rounding leaves there.

    Args:
        rewards: of each rollout its reward.
        groups: of each rollout the number of its group.

    Returns:
        Of each rollout its advantage.

    Raises:
        ValueError: a reward is not finite, or the numbers of rewards and groups differ.
    """
    if len(rewards) != len(groups):
        raise ValueError(f"{len(rewards)} rewards and {len(groups)} groups")
    wrong = [index for index, reward in enumerate(rewards) if not math.isfinite(reward)]
    if wrong:
        raise ValueError(f"the reward of rollout {wrong[0]} is {rewards[wrong[0]]}; rewards must be finite numbers")
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    advantages = [0.0] * len(rewards)
    for indices in members.values():
        first = rewards[indices[0]]
        above = [rewards[index] - first for index in indices]  # exactly 0 where all are the same
        mean = math.fsum(above) / len(above)
        for index, value in zip(indices, above, strict=True):
            advantages[index] = value - mean
    return advantages


def group_advantages(rewards: Sequence[float], groups: Sequence[int], kind: str = "centred") -> list[float]:
    """Return each rollout's advantage over its group, or over all of them.

    A group whose rewards are the same but for rounding teaches exactly nothing, of whatever kind. A group of one
    rollout has nothing to compare with: its advantage is 0.

    Args:
        rewards: of each rollout its reward.
        groups: of each rollout the number of its group.
        kind: `centred` (reward less the mean of the group), `std` (that, divided by the group's population standard
            deviation), `leave_one_out` (reward less the mean of the others: n / (n - 1) times the first) or `batch`
            (reward less the mean of all rollouts, whatever their group: one that fails in a group where all fail is
            made less likely too, which no comparison inside of a group does).

    Returns:
        Of each rollout its advantage.

    Raises:
        ValueError: a reward is not finite, the numbers of rewards and groups differ, or there is no such kind.
    """
    if kind not in ADVANTAGES:
        raise ValueError(f"there are no advantages {kind!r}; there are: {', '.join(ADVANTAGES)}")
    if kind == "batch":
        return group_advantages(rewards, [0] * len(groups))
    advantages = centred_advantages(rewards, groups)
    members: dict[int, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    for indices in members.values():
        size, own = len(indices), [rewards[index] for index in indices]
        if max(own) - min(own) <= _SAME_REWARD * max(map(abs, own)):
            scale = 0.0
        elif kind == "leave_one_out":
            scale = size / (size - 1)
        elif kind == "std":
            scale = math.sqrt(size / math.fsum(advantages[index] ** 2 for index in indices))
        else:
            scale = 1.0
        for index in indices:
            advantages[index] *= scale
    return advantages


@dataclass(frozen=True)
class RolloutCounts:
    """What rollouts come to.

    Attributes:
        denominator: tokens that are trained on, by which a loss summed over tokens is divided; 0 skips the step.
        mean_length: mean of the tokens of all rollouts, those that are left out included.
        share_cut_off: share of the rollouts that were cut off.
    """

    denominator: int
    mean_length: float
    share_cut_off: float


def count_rollouts(lengths: Sequence[int], cut_off: Sequence[bool], leave_out: bool = True) -> RolloutCounts:
    """Count the tokens of rollouts, some of which were cut off at their greatest length.

    Args:
        lengths: of each rollout the number of its sampled tokens.
        cut_off: of each rollout whether it ended for its length alone.
        leave_out: whether those that were cut off are not trained on.

    Returns:
        The counts.
    """
    kept = [length for length, cut in zip(lengths, cut_off, strict=True) if not (cut and leave_out)]
    number = max(len(lengths), 1)
    return RolloutCounts(sum(kept), sum(lengths) / number, sum(map(bool, cut_off)) / number)
