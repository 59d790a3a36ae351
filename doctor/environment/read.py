"""An environment read from its files, and the machine around it."""

import os
from collections.abc import Mapping

from doctor.environment.distributions import read_distributions
from doctor.environment.facts import Environment
from doctor.environment.interpreter import read_interpreter
from doctor.environment.locate import EnvironmentUnreadable
from doctor.environment.machine import read_machine
from doctor.environment.variables import relevant_variables

__all__ = ["EnvironmentUnreadable", "read_environment"]


def read_environment(
    python: str | None = None,
    *,
    variables: Mapping[str, str] | None = None,
    root: str = "/",
    machine: bool = True,
    timeout: float = 20.0,
) -> Environment:
    """Return all that can be read of an environment. Nothing that is installed in it is imported.

    Args:
        python: an interpreter, the folder of a virtual environment, or the prefix of a conda environment; the running
            interpreter if None.
        variables: environment variables that a script would be started with; those of this process if None.
        root: where /proc, /sys and /dev are looked for; another folder in tests.
        machine: whether the machine is read too: it asks nvidia-smi and compilers, which takes a while.
        timeout: seconds that the interpreter and nvidia-smi each may take.

    Returns:
        The environment, which is complete: what it does not hold is not installed.

    Raises:
        EnvironmentUnreadable: with a sentence for the user, where there is no environment.
    """
    told = dict(os.environ if variables is None else variables)
    interpreter = read_interpreter(python, variables=told, timeout=timeout)
    return Environment(
        source=python or interpreter.executable,
        interpreter=interpreter,
        machine=read_machine(near=interpreter.prefix, variables=told, root=root, timeout=timeout) if machine else None,
        installed=read_distributions(interpreter.path),
        variables=relevant_variables(told),
        complete=True,
    )
