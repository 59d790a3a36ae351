"""What training has changed: the same rollouts with the model as it was, and as it is."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from evaluation.text_metrics import paired_bootstrap
from storage.text_samples import TextSample
from train.agents.played import DONE
from train.agents.rollout import Rollout
from train.agents.rollout_summary import rollout_numbers

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FEWEST = 3  # tasks that say something of others


def compared(before: Sequence[Rollout], after: Sequence[Rollout], success: float) -> dict[str, Any]:
    """Compare rollouts of the same tasks.

    Args:
        before: rollouts by the model as training began.
        after: rollouts of the same plans by the trained model.
        success: reward from which on a rollout is a success.

    Returns:
        `before` and `after`: means by name; `change`: of each name how much it has changed from task to task, with the
        95 % interval of that.
    """
    old, new = _means(before, success), _means(after, success)
    by_task = [
        (_means([each for each in before if each.task == task], success),
         _means([each for each in after if each.task == task], success))
        for task in sorted({each.task for each in before})
    ]  # fmt: skip
    changes: dict[str, dict[str, float]] = {}
    for name in sorted(old.keys() & new.keys()):
        pairs = [(one[name], other[name]) for one, other in by_task if name in one and name in other]
        if len(pairs) >= _FEWEST:
            change = paired_bootstrap([one for one, _ in pairs], [other for _, other in pairs])
            changes[name] = {
                "difference": change.difference, "low": change.low, "high": change.high, "tasks": len(pairs),
            }  # fmt: skip
    return {"before": old, "after": new, "change": changes}


def comparison_lines(compared: dict[str, Any]) -> list[str]:
    """Say what has changed, of what `compared` returned: the reward, and what comes of it."""
    lines = []
    before, after, changes = compared["before"], compared["after"], compared["change"]
    for name in ("length", "reward", "success", "turns"):
        if name in before and name in after:
            change, what = changes.get(name), "the validation tasks"
            interval = f"no interval: fewer than {_FEWEST} tasks have both"
            if change is not None:
                what = f"{change['tasks']} validation tasks"
                interval = f"{change['difference']:+.3g}, 95 % interval [{change['low']:+.3g}, {change['high']:+.3g}]"
            lines.append(f"{name} of {what}: {before[name]:.3g} before, {after[name]:.3g} now ({interval})")
    return lines


def _means(rollouts: Sequence[Rollout], success: float) -> dict[str, float]:
    return {name: mean for name, (mean, _) in rollout_numbers(rollouts, success).items()}


def transcripts(
    tokenizer: "PreTrainedTokenizerBase", before: Sequence[Rollout], after: Sequence[Rollout]
) -> list[TextSample]:
    """Return rollouts as text: what the model read and said.

    Args:
        tokenizer: tokenizer of the model.
        before: rollouts by the model as training began.
        after: rollouts of the same plans by the trained model.
    """
    found = []
    for old, new in zip(before, after, strict=True):
        prompt, said = _text(tokenizer, new)
        rewards = " -> ".join("none" if each.reward is None else f"{each.reward:.4g}" for each in (old, new))
        found.append(
            TextSample(
                place=f"task {new.task + 1}, reward {rewards}",
                prompt=prompt,
                before=_text(tokenizer, old)[1],
                answer=said,
                expected="",
                finish="length" if new.cut_off else "stop" if new.outcome == DONE else new.outcome,
                tokens=new.tokens,
            )
        )
    return found


def _text(tokenizer: "PreTrainedTokenizerBase", rollout: Rollout) -> tuple[str, str]:
    """Return the first prompt of a rollout, and all that follows."""
    if not rollout.rows:
        return "", rollout.told
    first = rollout.rows[0]
    begin = int(first.sampled.nonzero()[0])
    rest = [tokenizer.decode(first.ids[begin:].tolist())]
    rest += [tokenizer.decode(row.ids.tolist()) for row in rollout.rows[1:]]
    return tokenizer.decode(first.ids[:begin].tolist()), "\n\n".join([*rest, *filter(None, [rollout.told])])
