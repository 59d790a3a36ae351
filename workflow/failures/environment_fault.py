"""Faults of an environment, as the doctor tells them: missing modules, broken libraries, versions that clash."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from doctor.environment.facts import Environment
from doctor.environment.read import EnvironmentUnreadable, read_environment
from workflow.failures.advice import Advice
from workflow.failures.kinds import kind_named

if TYPE_CHECKING:
    from doctor.report.answer import Remedy

_LEAST = {"module": 0.35, "unknown": 0.7}  # confidence from which a finding is told, by what else is known
_WAYS = 2


class Examination:
    """Looks at the environment of a failed step beside the steps that still run; it can take half a minute.

    Args:
        advice: what is known without the environment.
        lines: what the step printed.
        command: what was run, a line of a shell.
        python: the project's interpreter.
        folder: the project's folder.
        variables: environment variables that the step saw.
    """

    def __init__(
        self, advice: Advice, lines: Sequence[str], command: str, python: str, folder: Path,
        variables: Mapping[str, str],
    ) -> None:  # fmt: skip
        self._advice = advice
        self._about = ("\n".join(lines), command, python, folder, dict(variables))
        self._found: Advice | None = None
        self._thread = threading.Thread(target=self._look, daemon=True)  # it must not hold up whoever stops the run
        self._thread.start()

    @staticmethod
    def is_worth(advice: Advice) -> bool:
        """Return whether a failure may be the environment's."""
        return advice.kind in _LEAST

    def result(self) -> Advice | None:
        """Return what is to be told; None while it is still being looked at."""
        return None if self._thread.is_alive() else self._found or self._advice

    def _look(self) -> None:
        # What the doctor knows is read for a failure only.
        from doctor.commands.examination import Patient, examine
        from doctor.commands.given_facts import GivenFacts
        from doctor.failure.read import read_failure
        from doctor.knowledge.base import Knowledge

        text, command, python, folder, variables = self._about
        try:
            environment = read_environment(python, variables=variables)
        except EnvironmentUnreadable:
            return
        failure = replace(read_failure(text), command=command)
        answer = examine(Patient(environment, str(folder)), failure, GivenFacts(), Knowledge())
        if not answer.findings or answer.findings[0].finding.confidence < _LEAST[self._advice.kind]:
            return
        finding, remedies = answer.findings[0].finding, answer.findings[0].remedies[:_WAYS]
        usual = kind_named(self._advice.kind).recovery
        own = tuple(text for text in self._advice.recovery if text not in usual)
        self._found = replace(
            self._advice, kind="module", cause=f"{finding.verdict} {finding.why}".strip(),
            recovery=(*own, *(one.change.text for one in remedies)), commands=_typed(remedies, environment),
        )  # fmt: skip


def install_commands(requirements: Sequence[str], environment: Environment) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return how requirements are installed into an environment, and what that would break besides, a sentence each.

    Args:
        requirements: as pip reads them.
        environment: the environment.
    """
    from doctor.commands.examination import remedy_of
    from doctor.finding import Change
    from doctor.knowledge.base import Knowledge

    text = f"Install {', '.join(requirements)}."
    remedy = remedy_of(Change("install", text, tuple(requirements)), environment, Knowledge())
    # What it needs itself is installed with it.
    others = tuple(text for text in remedy.change.disturbs if not text.endswith("it is not installed."))
    return _typed((remedy,), environment), others


def _typed(remedies: Sequence["Remedy"], environment: Environment) -> tuple[str, ...]:
    """Return the commands of the first way that has any: for pip, or for uv where the environment has no pip."""
    tools = ("pip", "uv", "shell") if environment.version("pip") is not None else ("uv", "pip", "shell")
    for remedy in remedies:
        for tool in tools:
            if commands := remedy.commands.get(tool):
                return commands[:1] if tool == "shell" else commands
    return ()
