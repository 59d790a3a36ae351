"""A case: what is known of an environment and, where something failed, of the failure."""

from dataclasses import dataclass

from doctor.environment.facts import Environment
from doctor.failure.facts import Failure


@dataclass(frozen=True)
class Case:
    """What is diagnosed.

    Args:
        environment: what is known of the environment; perhaps little (Environment("the text")).
        failure: what failed; None where somebody asks before trouble.
        folder: the folder that the failing program ran in, whose files may hide modules; None where not known.
    """

    environment: Environment
    failure: Failure | None = None
    folder: str | None = None
