"""What a run knows, as LangGraph keeps it: texts, numbers, lists and mappings, which any version can read."""

from typing import Any, NotRequired, TypedDict


class Measured(TypedDict):
    """Answers to the test rows, and how good they are.

    Attributes:
        key: key of the effect; its folder holds the answers.
        value: score of all answers.
        scores: score of each answer, in the order of the test rows.
        scale: the best possible score.
        cut_off: share of answers that did not end in time.
        metric: name of the metric; absent in runs that are older than this.
        max_tokens: most tokens that an answer had; absent as `metric`.
        by: digest of the user's metric or judge; absent where it was measured by a metric of ours.
        told: what must be known of the scores, a sentence each; absent for nothing.
    """

    key: str
    value: float
    scores: list[float]
    scale: float
    cut_off: float
    metric: NotRequired[str]
    max_tokens: NotRequired[int]
    by: NotRequired[str]
    told: NotRequired[list[str]]


class Difference(TypedDict):
    """A paired comparison: mean difference of the scores, its 95 % interval, and what may be said of it."""

    mean: float
    low: float
    high: float
    verdict: str


class Trained(TypedDict):
    """A training.

    Attributes:
        run: folder of the run, relative to the task's.
        epochs: epochs that are done.
        planned: epochs that it has.
        history: by name the numbers of each epoch.
        rows: rows that were used, and left out; tokens of the answers of those that were used, where it is known.
        error: what ended it where it failed, "" where not.
        code: its exit code.
    """

    run: str
    epochs: int
    planned: int
    history: dict[str, list[float | None]]
    rows: dict[str, int]
    error: str
    code: int


class Change(TypedDict):
    """One change of a setting: its name, what it is now ("" for the default), and what it becomes."""

    key: str
    before: str
    after: str


class Proposal(TypedDict):
    """What is proposed to be changed before the next round, and why.

    Attributes:
        finding: name of what was found, such as `overfitting`.
        evidence: numbers that show it, a sentence each.
        changes: settings that change.
        expected: what it should bring, a sentence.
        weight: how sure it is, from 0 to 1; the surest first.
        drop: ids of training rows to take out; absent for none.
        relabel: other answers for some of the rows to take out, by id, which a person may choose in place of that;
            rows that are not taken out get them; absent for none.
        add: key of an effect whose folder holds `ADDED_ROWS`, rows to add; absent or "" for none.
        minutes: time that the next round will take, as far as the last one tells; absent where nothing tells it.
    """

    finding: str
    evidence: list[str]
    changes: list[Change]
    expected: str
    weight: float
    drop: NotRequired[list[str]]
    relabel: NotRequired[dict[str, str]]
    add: NotRequired[str]
    minutes: NotRequired[float]


class Finding(TypedDict):
    """What the debugger has found in a round, whether or not something can be proposed for it.

    Attributes:
        name: its name, such as `overfitting`.
        evidence: numbers that show it, a sentence each.
        weight: how sure it is, from 0 to 1.
    """

    name: str
    evidence: list[str]
    weight: float


class Applied(TypedDict):
    """A proposal that was carried out.

    Attributes:
        round: number of the round that was trained after it.
        finding: name of what it was for.
        told: what changed, a line each.
        commit: commit of the task's folder.
    """

    round: int
    finding: str
    told: list[str]
    commit: str


class Round(TypedDict):
    """A round that is over.

    Attributes:
        number: from 1.
        settings: settings of its training, by name.
        commit: commit of the task's folder that it was trained with.
        trained: the training.
        measured: its evaluation; None where it failed.
        gain: against the base model.
        against_best: against the best round before it; None in the first.
        kept: whether it is the best from then on.
        found: what the debugger has found in it, the surest first; absent where it has not looked yet.
    """

    number: int
    settings: dict[str, str]
    commit: str
    trained: Trained
    measured: Measured | None
    gain: Difference | None
    against_best: Difference | None
    kept: bool
    found: NotRequired[list[Finding]]


class Answered(TypedDict):
    """A question that was answered: its id, the values of its form, and who answered, `person` or `rule`."""

    question: str
    values: dict[str, Any]
    by: str


class Agreed(TypedDict):
    """How far a judge agrees with a person's labels.

    Attributes:
        rows: answers that both have judged.
        accuracy: share on which they agree.
        kappa: Cohen's kappa.
        low: lower end of its 95 % interval.
        high: upper end of it.
        apart: answers on which they don't agree, a sentence each.
    """

    rows: int
    accuracy: float
    kappa: float
    low: float
    high: float
    apart: list[str]


class TuneState(TypedDict, total=False):
    """State of a run.

    Attributes:
        thread: name of the run: `main`, or a fork's.
        step: number of the next node with effects, from 0; part of their keys, so that a repeat finds them.
        test_digest: digest of the test rows, which must stay as they are.
        baseline: evaluation of the base model.
        rounds: rounds that are over.
        best: number of the best round; 0 where none is better than the base model.
        trained: the training of the round that is under way.
        measured: its evaluation.
        proposals: what the debugger proposes, the surest first.
        rejected: names of findings whose proposals a person has refused.
        applied: proposals that were carried out, in order; absent in runs that began before there was this list.
        answers: all questions that were answered, in order.
        made: what came of making rows where none could be used, a sentence each; empty where some could.
        generated: how often rows were made; absent in runs that began before they could be.
        judge: how far the judge agrees with labels; absent where none judges.
        index: key of the effect that has read the documents; "" where there are none, absent before.
        spent: seconds of trainings and evaluations.
        seconds: the same of the base model's evaluation, then of each round; absent as `applied`.
        next: what the orchestrator has chosen, one of its actions.
        reason: why.
        stop: why the run is over; "" while it is not.
        model: folder of the exported model.
    """

    thread: str
    step: int
    test_digest: str
    baseline: Measured | None
    rounds: list[Round]
    best: int
    trained: Trained | None
    measured: Measured | None
    proposals: list[Proposal]
    rejected: list[str]
    applied: list[Applied]
    answers: list[Answered]
    made: list[str]
    generated: int
    judge: Agreed
    index: str
    spent: float
    seconds: list[float]
    next: str
    reason: str
    stop: str
    model: str


def beginning(thread: str, test_digest: str) -> TuneState:
    """Return the state that a run begins with.

    Args:
        thread: name of the run.
        test_digest: digest of the test rows.
    """
    return TuneState(
        thread=thread, step=0, test_digest=test_digest, baseline=None, rounds=[], best=0, trained=None, measured=None,
        proposals=[], rejected=[], applied=[], answers=[], spent=0.0, seconds=[], next="", reason="", stop="", model="",
    )  # fmt: skip
