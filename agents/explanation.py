"""Why a model answers a row as it does: which words of the answer carry the loss, which words of the prompt lower it.

The prompt's words are scored by integrated gradients (Sundararajan 2017) from blanks to the words: their scores add up
to what all of them lower the loss together, but for what a line of 32 points misses.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import Any

from agents.context import TuneContext
from agents.state import Round, TuneState
from agents.task.rows import TaskRow, read_rows, write_rows
from agents.trainers.losses import LOSSES, ROWS, TellsLosses

_SHOWN = 6  # words of the prompt that are told


class ExplanationError(Exception):
    """A row that can't be explained; the text says why."""


@dataclass(frozen=True)
class ExplainedWord:
    """A word of a row.

    Attributes:
        text: the word, with the space before it.
        kind: `answer`, `asked` for words of the messages before it, `template` for what is around them.
        loss: of the answer's words, in nats, summed over its tokens.
        base_loss: the same of the base model.
        lowers: of what is asked, by how many nats a token the word lowers the answer's loss.
        attention: share of their attention that the tokens which predict the answer give the word, on average over
            heads and layers; None where it was not asked.
    """

    text: str
    kind: str
    loss: float = 0.0
    base_loss: float = 0.0
    lowers: float = 0.0
    attention: float | None = None


@dataclass(frozen=True)
class Explanation:
    """A row, and what its words do.

    Attributes:
        row: id of the row.
        round: number of the round whose model it is.
        loss: mean loss of the answer's tokens, in nats.
        base_loss: the same of the base model.
        lowered: by how much all words that are asked lower it together, compared with blanks.
        words: its words, those of the template included.
    """

    row: str
    round: int
    loss: float
    base_loss: float
    lowered: float
    words: Sequence[ExplainedWord]

    def plain(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)

    @staticmethod
    def of(value: Mapping[str, Any]) -> "Explanation":
        """Return an explanation from what `plain` has made of it."""
        return Explanation(**{**value, "words": [ExplainedWord(**one) for one in value["words"]]})

    @property
    def asked(self) -> list[ExplainedWord]:
        """Words of the prompt, those first that do most to the loss."""
        return sorted((one for one in self.words if one.kind == "asked"), key=lambda one: -abs(one.lowers))

    @property
    def answer(self) -> list[ExplainedWord]:
        """Words of the answer, in their order."""
        return [one for one in self.words if one.kind == "answer"]

    @property
    def added(self) -> float:
        """What the scores of the prompt's words add up to; `lowered`, but for what a line of points misses."""
        return sum(one.lowers for one in self.asked)


def explain(context: TuneContext, state: TuneState, wanted: str) -> Explanation:
    """Explain a row under the best model, or the last one where none is better than the base model.

    Args:
        context: what nodes share.
        state: what is known.
        wanted: id of a test row or a training row, or number of a test row from 1.

    Raises:
        ExplanationError: there is no such row or no model yet, or the trainer can't tell.
        TrainerError: the model can't be asked.
    """
    row, over = _row_of(context, wanted), _round_of(state)
    if not isinstance(context.trainer, TellsLosses):
        raise ExplanationError("the trainer of this task tells no losses of words; train.py does")
    run = over["trained"]["run"]
    place = context.folder.kept / "explained" / f"{Path(run).name}-{row.id}"
    if not (place / LOSSES).exists():
        place.mkdir(parents=True, exist_ok=True)
        write_rows(place / ROWS, [row])
        context.trainer.losses(place, context.folder.path / run, True, context.process)
    found = json.loads((place / LOSSES).read_text(encoding="utf-8"))
    if "error" in found:
        raise ExplanationError(f"row {row.id}: {found['error']}")
    words = [ExplainedWord(**one) for one in found["words"]]
    return Explanation(row.id, over["number"], found["loss"], found["base_loss"], found["lowered"], words)


def can_explain(context: TuneContext, state: TuneState) -> bool:
    """Return whether rows can be explained: the trainer tells losses, and there is a model.

    Args:
        context: what nodes share.
        state: what is known.
    """
    return bool(_trained_rounds(state)) and isinstance(context.trainer, TellsLosses)


def _row_of(context: TuneContext, wanted: str) -> TaskRow:
    test = read_rows(context.folder.test_rows)
    if wanted.isdecimal() and 1 <= int(wanted) <= len(test):
        return test[int(wanted) - 1]
    found = next((row for row in [*test, *read_rows(context.folder.train_rows)] if row.id == wanted), None)
    if found is None:
        raise ExplanationError(f"there is no row {wanted}: give 1 to {len(test)}, or the id of a row of data/")
    return found


def _trained_rounds(state: TuneState) -> list[Round]:
    return [each for each in state.get("rounds", []) if each["trained"]["run"] and not each["trained"]["error"]]


def _round_of(state: TuneState) -> Round:
    rounds = _trained_rounds(state)
    if not rounds:
        raise ExplanationError("nothing has been trained yet")
    return state["rounds"][state["best"] - 1] if state["best"] else rounds[-1]


def explanation_text(found: Explanation) -> str:
    """Tell an explanation in lines.

    Args:
        found: the explanation.
    """
    return "\n".join(_lines(found))


def _lines(found: Explanation) -> Iterator[str]:
    yield (
        f"row {found.row}, round {found.round}: loss {found.loss:.3g} nats a token of the answer, "
        f"{found.base_loss:.3g} under the base model"
    )
    yield "words of the answer, by their loss (nats; base model):"
    for one in found.answer:
        yield f"  {one.loss:8.3f}  {one.base_loss:8.3f}  {_shown(one.text)}"
    looked = any(one.attention is not None for one in found.words)
    yield (
        f"words of the prompt, by how much they lower the loss (nats a token; all together {found.lowered:+.3g}, "
        f"the scores add up to {found.added:+.3g}{'; share of attention' if looked else ''}):"
    )
    for one in found.asked[:_SHOWN]:
        share = "" if one.attention is None else f"  {one.attention:6.1%}"
        yield f"  {one.lowers:+8.3f}{share}  {_shown(one.text)}"


def _shown(text: str) -> str:
    return text.strip().replace("\n", "\\n") or repr(text)


def explanation_html(found: Explanation) -> str:
    """Return an explanation as a piece of a page: words with their numbers as titles, and classes for how strong.

    `lowers-1` to `lowers-4` and `raises-1` to `raises-4` are of the prompt's words, `loss-1` to `loss-4` of the
    answer's; no style is set, since a page may forbid it.

    Args:
        found: the explanation.
    """
    most = max((abs(one.lowers) for one in found.words), default=0.0)
    worst = max((one.loss for one in found.words), default=0.0)
    parts = []
    for one in found.words:
        answers = one.kind == "answer"
        kind = "loss" if answers else "lowers" if one.lowers >= 0 else "raises"
        share = one.loss / worst if answers and worst > 0 else abs(one.lowers) / most if most > 0 else 0.0
        told = (
            f"loss {one.loss:.3g}, base model {one.base_loss:.3g}"
            if answers
            else f"lowers the loss by {one.lowers:+.3g}"
        )
        told += "" if one.attention is None else f", {one.attention:.1%} of attention"
        strength = min(4, int(5 * max(0.0, share)))
        name = f' class="{kind}-{strength}"' if strength else ""
        parts.append(f'<span{name} title="{escape(told)}">{escape(one.text)}</span>')
    return f'<p class="explanation">{"".join(parts)}</p>'
