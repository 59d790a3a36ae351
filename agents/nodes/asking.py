"""Questions to a person. A node that asks has one interrupt and no effect: what is before an interrupt is repeated."""

from collections.abc import Mapping
from typing import Any

from langgraph.types import interrupt

from agents.context import TuneContext
from agents.nodes.debugger import facts_of_data
from agents.nodes.evaluator import close_round, compare
from agents.proposals import added_rows, diff_of, relabelling
from agents.questions import Field, Question
from agents.state import Answered, Trained, TuneState
from agents.story import agreement_text, difference_text
from agents.task.rows import read_rows
from agents.task.settings import read_settings
from constants.counting import counted


def ask(state: TuneState, question: Question) -> tuple[Mapping[str, str], TuneState]:
    """Ask a question and wait for its answer.

    Args:
        state: what is known.
        question: the question.

    Returns:
        The values of the form, and the state's answers with this one.
    """
    answer: dict[str, Any] = interrupt(question.plain())
    given = Answered(question=question.id, values=dict(answer["values"]), by=answer["by"])
    return answer["values"], TuneState(answers=[*state["answers"], given], step=state["step"] + 1)


def _id(state: TuneState, kind: str) -> str:
    return f"{state['thread']}-{state['step']:04d}-{kind}"


def ask_judge(context: TuneContext, state: TuneState) -> TuneState:
    """Ask whether a judge is to be used that agrees too little with the labels; nothing is asked of one that does."""
    plan, found = context.task.judge, state.get("judge")
    if plan is None or found is None or found["kappa"] >= plan.least:
        return TuneState(next="measure")
    question = Question(
        _id(state, "judge"), "judge", "The judge agrees too little with your labels. Use it?",
        f"Cohen's kappa is {found['kappa']:.2f}, and {plan.least:g} was wanted: what it calls better may not be.",
        [agreement_text(found), *found["apart"]],
        [Field("decision", "What is to be done?",
               {"finish": "end here; another judge, or another criterion, is a new task",
                "measure": "measure by it all the same"}, "finish")],
    )  # fmt: skip
    values, update = ask(state, question)
    if values["decision"] == "finish":
        update["reason"] = f"the judge agrees too little with the labels: {agreement_text(found)}"
    return {**update, "next": values["decision"]}


def ask_training(context: TuneContext, state: TuneState) -> TuneState:
    """Ask before a training."""
    settings, number = context.trainer.settings(context.folder.settings), len(state["rounds"]) + 1
    rows = read_rows(context.folder.train_rows)
    told = [f"{name} = {value}" for name, value in read_settings(context.folder.settings).items()]
    facts = [*state.get("made", []), *(facts_of_data(context) if number == 1 else [])]
    question = Question(
        _id(state, "training"), "training", f"Round {number}: train on {len(rows)} rows?",
        f"{settings['epochs']} epochs of {len(rows)} rows, learning rate {settings['learning_rate']}.", [*told, *facts],
        [Field("decision", "What is to be done?",
               {"train": "train now", "finish": "end here with the best model there is"}, "train")],
    )  # fmt: skip
    values, update = ask(state, question)
    if values["decision"] == "finish":
        update["reason"] = "a person has ended it before a training"
    return {**update, "next": values["decision"]}


def ask_half_way(context: TuneContext, state: TuneState) -> TuneState:
    """Ask in the middle of a training; nothing is asked where there was no middle."""
    trained = state["trained"]
    if trained is None or trained["error"] or trained["epochs"] >= trained["planned"]:
        return TuneState()
    losses = trained["history"].get("val_loss", [])
    worse = len(losses) > 1 and None not in losses and losses[-1] > losses[0]  # type: ignore[operator]  # no None
    told = [f"epoch {number}: " + ", ".join(
        f"{name} {values[number - 1]:.4g}" for name, values in trained["history"].items()
        if name in ("train_loss", "val_loss") and number <= len(values) and values[number - 1] is not None)
        for number in range(1, trained["epochs"] + 1)]  # fmt: skip
    told += _too_long(context, trained)
    question = Question(
        _id(state, "half_way"), "half_way", f"{trained['epochs']} of {trained['planned']} epochs are done. Go on?",
        "The validation loss is higher than at first." if worse else "The validation loss is falling.", told,
        [Field("decision", "What is to be done?",
               {"go_on": "train to the end", "stop_here": "measure what there is"}, "stop_here" if worse else "go_on")],
    )  # fmt: skip
    values, update = ask(state, question)
    return {**update, "next": values["decision"]}


def _too_long(context: TuneContext, trained: Trained) -> list[str]:
    """Say where answers as long as the wanted ones do not end in the tokens that they are measured with."""
    rows, most = trained["rows"], context.task.max_tokens
    mean = rows.get("answer_tokens", 0) / max(1, rows.get("used", 0))
    if mean <= most:
        return []
    return [f"the answers to learn from have {mean:.0f} tokens in the mean, and max_tokens = {most} cuts off what is "
            "said when it is measured: figures say little. A larger one is a new task."]  # fmt: skip


def ask_evaluation(context: TuneContext, state: TuneState) -> TuneState:
    """Ask whether what was trained is the best from now on. A training that failed is not asked about."""
    measured, baseline = state["measured"], state["baseline"]
    if measured is None or baseline is None:
        return close_round(context, state, keep=False)
    best = state["rounds"][state["best"] - 1]["measured"] if state["best"] else baseline
    assert best is not None
    found = compare(best, measured)
    better = found["mean"] > 0 and (found["verdict"] == "better" or bool(state["best"]))
    than = f"round {state['best']}" if state["best"] else "the base model"
    this = f"round {len(state['rounds']) + 1}"
    question = Question(
        _id(state, "evaluation"), "evaluation", 
        f"Whether {this} is better than {than} is not clear" if found["verdict"] == "not clear"
        else f"{this.capitalize()} is {found['verdict']} than {than}",
        f"{context.task.metric}: {measured['value']:.4g}, {than} {best['value']:.4g}.",
        [f"difference over {len(measured['scores'])} test rows: {difference_text(found)}",
         f"answers that did not end in {context.task.max_tokens} tokens: {measured['cut_off']:.0%}",
         *(_too_long(context, state["trained"]) if state["trained"] else []),
         *measured.get("told", [])],
        [Field("decision", "Which is the best from now on?",
               {"keep": "this one", "drop": f"still {than}"}, "keep" if better else "drop")],
    )  # fmt: skip
    values, update = ask(state, question)
    return {**update, **close_round(context, state, keep=values["decision"] == "keep")}


def ask_change(context: TuneContext, state: TuneState) -> TuneState:
    """Ask before a change is made."""
    first = state["proposals"][0]
    diff = diff_of(first, read_rows(context.folder.train_rows), added_rows(context.effects, first))
    data = bool(first.get("drop") or first.get("add"))
    other = first.get("relabel", {})
    ways = {"accept": "make the change for the next training"}
    if other:
        rest = len(first.get("drop", [])) - len(other)
        ways["relabel"] = (
            f"give {counted(len(other), 'row')} the answer shown" + (f", take {rest} out" if rest else "")
            + ", and train again"
        )  # fmt: skip
    what = " and ".join(["the settings"] * bool(first["changes"]) + ["the rows"] * data)
    found = state["rounds"][-1].get("found", []) if state["rounds"] else []
    others = [f"found too: {one['name'].replace('_', ' ')} ({one['weight']:.2f}), {one['evidence'][0]}"
              for one in found if one["name"] != first["finding"]]  # fmt: skip
    cost = [f"the next round will take about {first['minutes']:.2g} minutes"] if "minutes" in first else []
    question = Question(
        _id(state, "change"), "change", f"{first['finding'].replace('_', ' ').capitalize()}: change {what}?",
        f"{first['expected'].capitalize()}.", [*first["evidence"], *diff, *cost, *others],
        [Field("decision", "What is to be done?",
               {**ways, "refuse": "leave it as it is", "finish": "end here with the best model there is"}, "accept")],
    )  # fmt: skip
    values, update = ask(state, question)
    if values["decision"] == "relabel":
        update["proposals"] = [relabelling(first), *state["proposals"][1:]]
        return {**update, "next": "accept"}
    if values["decision"] == "refuse":
        update["rejected"] = [*state["rejected"], first["finding"]]
        update["proposals"] = state["proposals"][1:]
    if values["decision"] == "finish":
        update["reason"] = "a person has ended it"
    return {**update, "next": values["decision"]}
