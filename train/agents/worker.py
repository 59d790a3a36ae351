"""A process that plays one agent again and again: `python -m train.agents.worker file:function`.

Agents that make their `OpenAI()` themselves read address and key from the environment, of which each process has its
own. A line of JSON comes in for each task, and one goes out with what came of it. What the agent prints goes to
standard error.

This file, and all that it imports, needs the standard library alone: with `--alone` the interpreter is that of the
agent's own environment (`agent_python`), in which names such as `config` and `data` are the agent's.
"""

import json
import os
import sys
from typing import TextIO

from constants import PACKAGE_ROOT
from train.agents.agent_function import AgentFunction, AgentFunctionError, find_agent
from train.agents.played import DONE, FAILED, NO_REWARD
from train.agents.told import told_error
from train.agents.worker_process import ALONE, DESCRIBE


def play(agent: AgentFunction, task: object) -> dict[str, object]:
    """Play the agent once.

    Returns:
        Its `outcome`, with `reward` and `numbers`, or with what is `told` of the error.
    """
    try:
        reward, numbers = agent.call(task, _client(agent) if agent.takes_client else None)
    except AgentFunctionError as error:
        return {"outcome": NO_REWARD, "told": str(error)}
    except Exception as error:  # whatever an agent raises costs its rollout only
        return {"outcome": FAILED, "told": told_error(error)}
    return {"outcome": DONE, "reward": reward, "numbers": numbers}


def _client(agent: AgentFunction) -> object:
    """Return a client of the environment's address and key, for an agent that takes one."""
    import openai

    # As in this program's threads: a retry would be another request, and time is limited for the rollout as a whole.
    made = openai.AsyncOpenAI if agent.is_async else openai.OpenAI
    return made(max_retries=0, timeout=None)


def describe(target: str, with_tasks: bool) -> dict[str, object]:
    """Return what an agent is: its `file` and the `tasks` of its module, or what is `told` of why it can't be had."""
    try:
        agent = find_agent(target)
        tasks = agent.module_tasks() if with_tasks else {}
        json.dumps(tasks)
    except AgentFunctionError as error:
        return {"told": str(error)}
    except (TypeError, ValueError) as error:
        return {"told": f"tasks() of agent = {target} must give plain data: {error}"}
    except Exception as error:  # whatever a user's function raises
        return {"told": f"tasks() of agent = {target} fails: {told_error(error)}"}
    return {"file": str(getattr(agent.module, "__file__", None) or ""), "tasks": tasks}


def leave_names() -> None:
    """Forget this program's packages, once all is imported: their names are then the agent's to use."""
    sys.path[:] = [place for place in sys.path if place != str(PACKAGE_ROOT)]
    root = f"{PACKAGE_ROOT}{os.sep}"
    for name, module in list(sys.modules.items()):
        if name != "__main__" and str(getattr(module, "__file__", None) or "").startswith(root):
            del sys.modules[name]
    kept = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place != str(PACKAGE_ROOT)]
    os.environ["PYTHONPATH"] = os.pathsep.join(kept)  # of processes that the agent starts


def main(target: str, lines: TextIO, answers: TextIO) -> None:
    """Play an agent for each line, until there are no more.

    Args:
        target: the agent, `file:function` or `module:function`.
        lines: JSON of each task: `{"task": ...}`.
        answers: where what came of them is written to.
    """
    try:
        agent = find_agent(target)
    except AgentFunctionError as error:
        answers.write(json.dumps({"outcome": FAILED, "told": str(error)}) + "\n")
        answers.flush()
        return
    for line in lines:
        answers.write(json.dumps(play(agent, json.loads(line)["task"])) + "\n")
        answers.flush()


if __name__ == "__main__":
    protocol = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what is printed, by whomever, must not get between the answers
    _, named, *asked = sys.argv
    if ALONE in asked:
        leave_names()
    if DESCRIBE in asked:
        protocol.write(json.dumps(describe(named, "tasks" in asked)) + "\n")
        protocol.flush()
    else:
        main(named, sys.stdin, protocol)
