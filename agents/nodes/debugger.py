"""The debugger: reads curves and evaluation, and proposes changes, each with its evidence."""

import math
from collections.abc import Iterator

from agents.context import TuneContext
from agents.proposals import added_rows, is_new
from agents.state import Change, Proposal, Round, TuneState
from agents.task.rows import question_digest, read_rows

_RISE = 1.02  # val_loss at the end this many times its best: it has risen
_FALL = 0.01  # share by which val_loss still falls in the last epoch: it has not come to rest
_JUMP = 1.1  # training loss this many times the first epoch's: it does not learn but drifts away


def find_faults(context: TuneContext, state: TuneState) -> TuneState:
    """Say what the last round suffered from, the surest first."""
    last = state["rounds"][-1]
    tried = {pair for each in state["rounds"] for pair in each["settings"].items()}
    rows = read_rows(context.folder.train_rows)
    found = sorted(_findings(context, last), key=lambda one: -one["weight"])
    fresh = [one for one in found if one["finding"] not in state["rejected"]
             and is_new(one, tried, rows, added_rows(context.effects, one))]  # fmt: skip
    return TuneState(proposals=fresh)


def _findings(context: TuneContext, last: Round) -> Iterator[Proposal]:
    settings, trained = context.trainer.settings(context.folder.settings), last["trained"]
    train = [value for value in trained["history"].get("train_loss", []) if value is not None]
    val = [value for value in trained["history"].get("val_loss", []) if value is not None]
    rate, epochs, size = (float(str(settings[name])) for name in ("learning_rate", "epochs", "batch_size"))
    pieces = float(str(settings.get("accumulation_steps", 1)))

    def lower(by: float) -> Change:
        return Change(key="learning_rate", before=f"{rate:g}", after=f"{rate / by:g}")

    if "memory" in trained["error"].lower() and size > 1:
        yield Proposal(
            finding="out_of_memory", evidence=[trained["error"]], weight=1.0,
            changes=[Change(key="batch_size", before=f"{size:g}", after=f"{size // 2:g}"),
                     Change(key="accumulation_steps", before=f"{pieces:g}", after=f"{2 * pieces:g}")],
            expected="half of the rows at a time need about half of the memory of activations; the step stays the same",
        )  # fmt: skip
    if "not finite" in trained["error"] or "nan" in trained["error"].lower():
        yield Proposal(
            finding="instability", evidence=[trained["error"]], changes=[lower(10)], weight=0.95,
            expected="a tenth of the learning rate keeps the numbers finite",
        )  # fmt: skip
    if len(train) > 1 and (
        train[-1] > _JUMP * train[0] or (val and val[-1] > _JUMP * val[0] and train[-1] > 0.9 * train[0])
    ):
        yield Proposal(
            finding="learning_rate_too_high", changes=[lower(10)], weight=0.9,
            evidence=[f"the training loss went from {train[0]:.3g} to {train[-1]:.3g} in {len(train)} epochs"],
            expected="a tenth of the learning rate lets the loss fall",
        )  # fmt: skip
    if len(val) > 2 and val[-1] > _RISE * min(val) and train[-1] < train[val.index(min(val))]:
        best = val.index(min(val)) + 1
        yield Proposal(
            finding="overfitting", weight=0.7 * min(1.0, math.log(val[-1] / min(val)) * 10),
            evidence=[f"val_loss was best in epoch {best} of {len(val)}, {min(val):.3g}, and ended at {val[-1]:.3g}",
                      f"train_loss went on falling, to {train[-1]:.3g}"],
            changes=[Change(key="epochs", before=f"{epochs:g}", after=f"{max(1, best)}"), lower(2)],
            expected="fewer epochs and half of the learning rate keep what holds for new rows",
        )  # fmt: skip
    if len(val) > 1 and val[-1] < (1 - _FALL) * val[-2] and val[-1] == min(val):
        yield Proposal(
            finding="underfitting", weight=0.6,
            evidence=[f"val_loss still falls in the last epoch, from {val[-2]:.3g} to {val[-1]:.3g}"],
            changes=[Change(key="epochs", before=f"{epochs:g}", after=f"{2 * epochs:g}")],
            expected="twice the epochs let the loss come to rest",
        )  # fmt: skip


def facts_of_data(context: TuneContext) -> list[str]:
    """Say what is wrong with the rows themselves, a sentence each."""
    train, test = read_rows(context.folder.train_rows), read_rows(context.folder.test_rows)
    told = []
    asked = {question_digest(row) for row in train}
    leaked = sum(question_digest(row) in asked for row in test)
    if leaked:
        told.append(f"{leaked} of {len(test)} test rows ask what a training row asks: their scores say too much")
    doubled = len(train) - len({(question_digest(row), row.answer) for row in train})
    if doubled:
        told.append(f"{doubled} of {len(train)} training rows are there twice")
    if len(test) < 30:
        told.append(f"{len(test)} test rows give wide intervals; 100 and more tell small gains")
    return told
