"""The written rules by which a run goes where no language model chooses: offline, and the same each time."""

from collections.abc import Sequence

from agents.brain.choice import Action, Choice
from agents.state import TuneState
from agents.task.task_file import Task

_PATIENCE = 2  # rounds in a row that are not better


class Rules:
    """Chooses by rules: stop at the goal, at the end of the budget or of ideas; else change what was found, and train.

    Args:
        task: what is wanted.
    """

    def __init__(self, task: Task) -> None:
        self._task = task

    def choose(self, actions: Sequence[Action], state: TuneState) -> Choice:
        """Choose one of some actions.

        Args:
            actions: what is possible, at least one.
            state: what is known.
        """
        names = [action.name for action in actions]
        if why := self.must_end(state) or self._is_no_better(state):
            return Choice("finish", why)
        if "generate" in names and not state.get("generated", 0):
            return Choice("generate", "the rows to train on are few")
        if "change" in names:
            first = state["proposals"][0]
            return Choice("change", f"{first['finding']}: {first['expected']}")
        if "train" in names:
            return Choice("train", "nothing has been trained yet")
        if "generate" in names:
            return Choice("generate", "nothing was found that could be changed, and the rows to train on are few")
        return Choice("finish", "nothing was found that could be changed")

    def must_end(self, state: TuneState) -> str:
        """Say why a run is over whoever chooses: the goal is reached, or the budget used; "" where it may go on.

        Args:
            state: what is known.
        """
        rounds = state["rounds"]
        best = rounds[state["best"] - 1]["measured"] if state["best"] else state["baseline"]
        if best is not None and self._task.goal is not None and best["value"] >= self._task.goal:
            return f"the goal is reached: {self._task.metric} {best['value']:.4g} (wanted {self._task.goal:g})"
        if len(rounds) >= self._task.budget.rounds:
            return f"the budget of {self._task.budget.rounds} rounds is used"
        if state["spent"] >= 60 * self._task.budget.minutes:
            return f"the budget of {self._task.budget.minutes:g} minutes is used"
        return ""

    @staticmethod
    def _is_no_better(state: TuneState) -> str:
        rounds = state["rounds"]
        if len(rounds) - state["best"] >= _PATIENCE and len(rounds) >= _PATIENCE:
            return f"the last {len(rounds) - state['best']} rounds were no better"
        return ""
