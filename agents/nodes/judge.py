"""The judge is tried on answers that a person has judged, before it judges any other."""

from pathlib import Path
from typing import Any

from agents.context import TuneContext, key_of
from agents.scoring.judge import agreement_of, read_labels
from agents.scoring.scores import measured_by, verdicts_of
from agents.state import Agreed, TuneState


def check_judge(context: TuneContext, state: TuneState) -> TuneState:
    """Find out how far the judge agrees with the labels; nothing is done where the task has none."""
    plan = context.task.judge
    if plan is None:
        return TuneState()
    labels = read_labels(plan)

    def do(place: Path) -> dict[str, Any]:
        verdicts = verdicts_of(context.task, place, labels, context.process)
        found = agreement_of([one.label for one in labels], verdicts)
        # What they don't agree on, for a person to look at.
        apart = [f"{one.question[:80]!r}, {one.answer[:80]!r}: you say {one.label}, the judge {verdict or 'nothing'}"
                 for one, verdict in zip(labels, verdicts, strict=True) if one.label != verdict]  # fmt: skip
        return {"judge": Agreed(rows=found.count, accuracy=found.accuracy, kappa=found.kappa, low=found.low,
                                high=found.high, apart=apart[:5])}  # fmt: skip

    done = context.effects.once(key_of(state, "judge"), {"judge": measured_by(context.task)}, do)
    return TuneState(judge=done["judge"], step=state["step"] + 1, spent=state["spent"] + done["seconds"])
