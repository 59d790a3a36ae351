"""How a process is started that plays an agent: its command and its environment."""

import os

from constants import PACKAGE_ROOT

ALONE = "--alone"  # the worker's word for an environment that is not this program's
DESCRIBE = "--describe"  # and for telling what the agent is, in place of playing it
FORK = "--fork"  # and for forking processes that play it; the number of a socket follows at the end
PRELOAD = "--preload"  # and for importing it before they are forked


def worker_command(python: str, target: str, *words: str) -> list[str]:
    """Return how a process is started that plays an agent.

    Args:
        python: the interpreter.
        target: the agent, `file:function` or `module:function`.
        words: ALONE, DESCRIBE, FORK, PRELOAD.
    """
    return [python, "-m", "train.agents.worker", target, *words]


def worker_environment(**own: str) -> dict[str, str]:
    """Return the environment of a process that plays an agent: this one's, and what is given."""
    path = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH", "")]))
    return os.environ | {"PYTHONPATH": path, "NO_PROXY": "127.0.0.1,localhost"} | own
