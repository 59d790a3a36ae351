"""The orchestrator: says what is possible, and lets the brain choose."""

from agents.brain.choice import Action
from agents.context import TuneContext
from agents.nodes.generator import FINDING
from agents.state import TuneState
from agents.task.rows import read_rows

TRAIN, CHANGE, GENERATE, FINISH = "train", "change", "generate", "finish"
_MOST = 2  # times that rows are made in a run


def choose_next(context: TuneContext, state: TuneState) -> TuneState:
    """Choose what is done next among what is possible."""
    actions = [Action(FINISH, "export the best model there is, and end")]
    if state["proposals"]:
        first = state["proposals"][0]
        actions.append(Action(CHANGE, f"propose the change for {first['finding']}, then train"))
    if not state["rounds"]:
        actions.append(Action(TRAIN, "train with the settings as they are"))
    plan = context.task.generator
    if plan is not None and state.get("generated", 0) < _MOST and FINDING not in state["rejected"]:
        rows = len(read_rows(context.folder.train_rows))
        if rows < plan.few:
            actions.append(Action(GENERATE, f"make more rows to train on, of which there are {rows}, by {plan.source}"))
    choice = context.brain.choose(actions, state)
    if choice.action not in [action.name for action in actions]:
        raise ValueError(f"the brain chose {choice.action}, which was not possible")
    return TuneState(next=choice.action, reason=choice.reason)
