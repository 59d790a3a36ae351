"""Which rollouts of a training are kept to be read: of the first epoch and of the last, the best and the worst."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from storage.agent_transcripts import Passage, Transcript, read_transcripts, write_transcripts
from train.agents.credit import Credit
from train.agents.rollout import Rollout, SampledRow

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LONGEST = 4000  # tokens of a transcript


def transcripts_of(
    rollouts: Sequence[Rollout], epoch: int, credit: Credit, tokenizer: "PreTrainedTokenizerBase", tasks: int
) -> list[Transcript]:
    """Return what is worth reading of an epoch: of some tasks the best rollout and the worst.

    Args:
        rollouts: rollouts of the epoch.
        epoch: its number, 1 for the first.
        credit: what makes advantages of rewards; a rollout that it leaves out of training has none.
        tokenizer: tokenizer of the model.
        tasks: number of tasks, those first whose rewards differ most.
    """
    groups = credit.groups(rollouts)
    compared = [sorted(zip(group, advantages, strict=True), key=lambda each: (-credit.reward(each[0]), each[0].sample))
                for group, advantages in zip(groups, credit.advantages(groups), strict=True)]  # fmt: skip
    compared.sort(key=lambda group: credit.reward(group[-1][0]) - credit.reward(group[0][0]))
    ends = [end for group in compared[:tasks] for end in ([group[0], group[-1]] if len(group) > 1 else group)]
    failed = [each for each in rollouts if each.reward is None][: 1 if tasks else 0]
    return [
        *(_transcript(each, epoch, value if credit.learns_from(each) else None, tokenizer) for each, value in ends),
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
