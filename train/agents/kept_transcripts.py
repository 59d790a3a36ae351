"""Which rollouts of a training are kept to be read: of the first epoch and of the last, the best and the worst."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from model.token_losses import group_advantages
from storage.agent_transcripts import Passage, Transcript, read_transcripts, write_transcripts
from train.agents.rollout import Rollout, SampledRow
from train.agents.rollout_summary import group_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST = 4000  # tokens of a transcript


def transcripts_of(
    rollouts: Sequence[Rollout], epoch: int, advantage: str, tokenizer: "PreTrainedTokenizerBase", tasks: int
) -> list[Transcript]:
    """Return what is worth reading of an epoch: of some tasks the best rollout and the worst.

    Args:
        rollouts: rollouts of the epoch.
        epoch: its number, 1 for the first.
        advantage: what a reward is compared with; see `group_advantages`.
        tokenizer: tokenizer of the model.
        tasks: number of tasks, those first whose rewards differ most.
    """
    rewarded = [each for group in group_of(rollouts).values() for each in group]
    rewards = [each.reward or 0.0 for each in rewarded]
    advantages = group_advantages(rewards, [each.task for each in rewarded], advantage)
    groups: dict[int, list[tuple[float, Rollout]]] = {}
    for value, rollout in zip(advantages, rewarded, strict=True):
        groups.setdefault(rollout.task, []).append((value, rollout))
    for group in groups.values():
        group.sort(key=lambda each: (-(each[1].reward or 0.0), each[1].sample))
    chosen = sorted(groups.values(), key=lambda group: (group[-1][1].reward or 0.0) - (group[0][1].reward or 0.0))
    ends = [end for group in chosen[:tasks] for end in ([group[0], group[-1]] if len(group) > 1 else group)]
    failed = [each for each in rollouts if each.reward is None][: 1 if tasks else 0]
    return [
        *(_transcript(rollout, epoch, value, tokenizer) for value, rollout in ends),
        *(_transcript(rollout, epoch, None, tokenizer) for rollout in failed),
    ]


def keep_transcripts(path: Path, found: Sequence[Transcript]) -> None:
    """Write transcripts of an epoch beside those of the first; those of other epochs go.

    Args:
        path: the file.
        found: transcripts of one epoch.

    Raises:
        OutputError: the file can't be written.
    """
    if not found:
        return
    known, epoch = read_transcripts(path.parent), found[0].epoch
    first = min((each.epoch for each in known), default=epoch)
    write_transcripts(path, [*(each for each in known if each.epoch == first and first < epoch), *found])


def _transcript(
    rollout: Rollout, epoch: int, advantage: float | None, tokenizer: "PreTrainedTokenizerBase"
) -> Transcript:
    rows, left = [], _LONGEST
    for row in rollout.rows:
        if left > 0:
            rows.append(_passages(row, left, tokenizer))
        left -= len(row.ids)
    return Transcript(
        epoch, rollout.task + 1, rollout.sample + 1, rollout.outcome, rollout.reward, advantage, rollout.told, rows,
        cut=left < 0,
    )  # fmt: skip


def _passages(row: SampledRow, most: int, tokenizer: "PreTrainedTokenizerBase") -> list[Passage]:
    """Cut a row where the model begins and ends to speak."""
    ids, sampled = row.ids[:most].tolist(), row.sampled[:most].tolist()
    passages, begin = [], 0
    for at in range(1, len(ids) + 1):
        if at == len(ids) or sampled[at] != sampled[begin]:
            passages.append(Passage(tokenizer.decode(ids[begin:at]), bool(sampled[begin])))
            begin = at
    return passages
