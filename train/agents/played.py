"""What came of playing an agent once. It needs no torch, so that an agent's process starts quickly."""

from dataclasses import dataclass, field

# How a rollout ended. Only those that are done have a reward of the agent's own.
DONE, FAILED, NO_REWARD, TIMED_OUT = "done", "failed", "no reward", "timed out"
NO_CALL = "no call"  # it is done, but the model was never asked
LOST = "lost"  # it could not go on through no fault of its own, and is to be begun again
UNFINISHED = "unfinished"  # it is done, but went away from each of its answers before their end
ENDED_WELL = frozenset({DONE, NO_CALL, UNFINISHED})


@dataclass
class Played:
    """What came of playing an agent once.

    Attributes:
        outcome: how it ended.
        reward: its reward; None where it has none.
        numbers: further numbers by name.
        told: what is said of an error.
    """

    outcome: str = DONE
    reward: float | None = None
    numbers: dict[str, float] = field(default_factory=dict)
    told: str = ""
