"""The orchestrator: says what is possible, and lets the brain choose."""

from agents.brain.choice import Action
from agents.context import TuneContext
from agents.state import TuneState

TRAIN, CHANGE, FINISH = "train", "change", "finish"


def choose_next(context: TuneContext, state: TuneState) -> TuneState:
    """Choose what is done next among what is possible."""
    actions = [Action(FINISH, "export the best model there is, and end")]
    if state["proposals"]:
        first = state["proposals"][0]
        actions.append(Action(CHANGE, f"propose the change for {first['finding']}, then train"))
    if not state["rounds"]:
        actions.append(Action(TRAIN, "train with the settings as they are"))
    choice = context.brain.choose(actions, state)
    if choice.action not in [action.name for action in actions]:
        raise ValueError(f"the brain chose {choice.action}, which was not possible")
    return TuneState(next=choice.action, reason=choice.reason)
