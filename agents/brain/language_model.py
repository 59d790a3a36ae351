"""A language model chooses: it is told what is known and what is possible, and names one of it, with a reason."""

import json
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.brain.choice import Action, Choice
from agents.brain.rules import Rules
from agents.effects import Effects
from agents.endpoint.endpoint import Endpoint, EndpointError, ask
from agents.state import TuneState
from agents.task.task_file import Task

_PATIENCE = 60.0  # seconds for an answer, where TUNE_BRAIN_SECONDS says no other; a later one is not waited for
_TOKENS = 300
_OBJECT = re.compile(r"\{.*?\}", re.DOTALL)
_SYSTEM = """You lead the fine-tuning of a language model. You are told what was done and what is possible next. \
Choose one action. Answer by one JSON object and nothing else: {"action": NAME, "reason": a sentence}."""


class LanguageModelBrain:
    """Chooses by a language model; where it can't be asked, or names what is not possible, the written rules choose.

    What it has answered is kept as an effect: a repeat of the step asks nothing again.

    Args:
        task: what is wanted.
        endpoint: where the model is.
        rules: the written rules. Where they end the run, at the goal or at the end of the budget, nobody is asked.
        effects: keeps answers.
        tell: called with what is to be told.
    """

    def __init__(
        self, task: Task, endpoint: Endpoint, rules: Rules, effects: Effects, tell: Callable[[str], None]
    ) -> None:
        self._task, self._endpoint, self._rules, self._effects, self._tell = task, endpoint, rules, effects, tell
        self._patience = float(os.environ.get("TUNE_BRAIN_SECONDS") or _PATIENCE)

    def choose(self, actions: Sequence[Action], state: TuneState) -> Choice:
        """Choose one of some actions.

        Args:
            actions: what is possible, at least one.
            state: what is known.
        """
        ruled = self._rules.choose(actions, state)
        if len(actions) == 1 or self._rules.must_end(state):
            return ruled
        messages = [{"role": "system", "content": _SYSTEM}, {"role": "user", "content": self._told(actions, state)}]
        request = {"address": self._endpoint.address, "model": self._endpoint.model, "messages": messages}

        def do(place: Path) -> dict[str, Any]:
            try:
                reply = ask(self._endpoint, messages, _TOKENS, tries=1, patience=self._patience)
                return {"text": reply.text, "error": "", "tokens": list(reply.tokens)}
            except EndpointError as error:
                return {"text": "", "error": str(error)}

        said = self._effects.once(f"{state['thread']}-{state['step']:04d}-brain", request, do)
        names = [action.name for action in actions]
        choice, why = choice_of(said["text"], names) if not said["error"] else (None, said["error"])
        if choice is not None:
            return Choice(choice.action, f"{choice.reason} ({self._endpoint.model})")
        self._tell(f"the language model can't choose ({why}); the written rules do")
        return Choice(ruled.action, f"{ruled.reason} (the written rules, since {self._endpoint.model} {why})")

    def _told(self, actions: Sequence[Action], state: TuneState) -> str:
        task, baseline = self._task, state["baseline"]
        lines = [f"Task: {task.description}", f"Metric: {task.metric}; the base model has "
                 f"{baseline['value']:.4g} of {baseline['scale']:g}" if baseline else "Not measured yet"]  # fmt: skip
        for each in state["rounds"]:
            settings = ", ".join(f"{key} = {value}" for key, value in each["settings"].items())
            measured = each["measured"]
            came = f"{task.metric} {measured['value']:.4g}" if measured else f"failed: {each['trained']['error']}"
            lines.append(f"Round {each['number']}: {settings}. {came}; {'kept' if each['kept'] else 'not kept'}")
        for proposal in state["proposals"][:3]:
            lines.append(f"Found: {proposal['finding']}. {'; '.join(proposal['evidence'])}")
        lines.append(f"Budget: {len(state['rounds'])} of {task.budget.rounds} rounds, "
                     f"{state['spent'] / 60:.1f} of {task.budget.minutes:g} minutes are used")  # fmt: skip
        return "\n".join([*lines, "Possible:", *(f"- {action.name}: {action.text}" for action in actions)])


def choice_of(text: str, names: Sequence[str]) -> tuple[Choice | None, str]:
    """Return what a model has chosen.

    Args:
        text: its answer: a JSON object with `action` and `reason`, perhaps with words around it.
        names: names of what is possible.

    Returns:
        The choice, None where it is none; and why it is none.
    """
    for found in _OBJECT.findall(text):
        try:
            value = json.loads(found)
        except ValueError:
            continue
        if isinstance(value, dict) and value.get("action") in names:
            reason = " ".join(str(value.get("reason") or "it gave no reason").split())[:500]
            return Choice(str(value["action"]), reason.rstrip(".")), ""
        if isinstance(value, dict) and "action" in value:
            return None, f"named {str(value['action'])[:80]!r}, which is not possible"
    return None, "answered no JSON object with an action"
