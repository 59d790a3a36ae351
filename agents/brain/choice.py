"""A choice among actions that are possible."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from agents.state import TuneState


@dataclass(frozen=True)
class Action:
    """Something that can be done next.

    Attributes:
        name: its name.
        text: what it does, a sentence.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Choice:
    """What was chosen.

    Attributes:
        action: name of the action.
        reason: why, a sentence.
    """

    action: str
    reason: str


class Brain(Protocol):
    """Chooses; it can name none but the given actions."""

    def choose(self, actions: Sequence[Action], state: TuneState) -> Choice:
        """Choose one of some actions.

        Args:
            actions: what is possible, at least one.
            state: what is known.
        """
        ...
