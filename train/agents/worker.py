"""A process that plays one agent again and again: `python -m train.agents.worker file:function`.

Agents that make their `OpenAI()` themselves read address and key from the environment, of which each process has its
own. A line of JSON comes in for each task, and one goes out with what came of it. What the agent prints goes to
standard error.
"""

import json
import os
import sys
from typing import TextIO

from train.agents.agent_function import AgentFunction, AgentFunctionError, find_agent
from train.agents.played import DONE, FAILED, NO_REWARD
from train.agents.told import told_error


def play(agent: AgentFunction, task: object) -> dict[str, object]:
    """Play the agent once.

    Returns:
        Its `outcome`, with `reward` and `numbers`, or with what is `told` of the error.
    """
    try:
        reward, numbers = agent.call(task)
    except AgentFunctionError as error:
        return {"outcome": NO_REWARD, "told": str(error)}
    except Exception as error:  # whatever an agent raises costs its rollout only
        return {"outcome": FAILED, "told": told_error(error)}
    return {"outcome": DONE, "reward": reward, "numbers": numbers}


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
    main(sys.argv[1], sys.stdin, protocol)
