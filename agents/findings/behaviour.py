"""Findings in what the trained model does: what it has forgotten, and which kinds of questions it serves worse."""

from collections.abc import Iterator

from agents.findings.evidence import Evidence
from agents.slices import slices_of
from agents.state import Proposal
from constants.counting import counted

_FORGOTTEN = 0.15  # nats a token by which text of other kinds has become less likely
_KNOWN = 3.5  # loss above which the base model did not know it either


def forgetting(seen: Evidence) -> Iterator[Proposal]:
    """Text that has nothing to do with the task has become less likely."""
    general = seen.losses.general if seen.losses is not None else ()
    if not general:
        return
    before, after = (sum(getattr(one, name) for one in general) / len(general) for name in ("base", "loss"))
    if before < _KNOWN and after - before > _FORGOTTEN:
        worse = sum(one.loss > one.base for one in general)
        yield Proposal(
            finding="forgetting", weight=min(0.65, 0.3 + 0.3 * (after - before)),
            changes=[seen.change("learning_rate", seen.number("learning_rate") / 2)],
            evidence=[f"{counted(len(general), 'answer')} to general questions had a loss of {before:.3g} under the "
                      f"base model, and have {after:.3g} now; {worse} of them are less likely"],
            expected="half of the learning rate keeps more of what the base model knows",
        )  # fmt: skip


def bias_between_slices(seen: Evidence) -> Iterator[Proposal]:
    """One kind of test rows scores worse than the others, beyond chance."""
    measured = seen.last["measured"]
    if measured is None or len(measured["scores"]) != len(seen.test):
        return
    bad = [one for one in slices_of(seen.test, measured["scores"]) if one.behind]
    if bad:
        yield Proposal(
            finding="bias_between_slices", changes=[], weight=0.4,
            evidence=[f"{one.told(seen.task.metric)}; the others {one.others:.4g}" for one in bad[:5]],
            expected="more rows of these kinds, so that they are served as well as the others",
        )  # fmt: skip
