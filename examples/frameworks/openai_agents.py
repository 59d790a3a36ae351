"""An agent of OpenAI's Agents SDK that calls a tool (pip install openai-agents), as one writes it for OpenAI.

python train.py Agent agent=examples/frameworks/openai_agents.py:play agent_python=ENVIRONMENT/bin/python
"""

from typing import Literal

from agents import Agent, ModelSettings, Runner, function_tool, set_tracing_disabled

set_tracing_disabled(True)  # else it sends its traces to OpenAI


@function_tool
def open_door(door: Literal["1", "2", "3", "4"]) -> str:
    """Open one of the doors."""
    return "a prize" if door == "3" else "nothing"


player = Agent(
    name="Player", instructions="Find the prize.", model="gpt-4o-mini", tools=[open_door],
    model_settings=ModelSettings(tool_choice="required", parallel_tool_calls=False, max_tokens=200),
    tool_use_behavior="stop_on_first_tool",
)  # fmt: skip


def tasks(split):
    """Return rooms, of which all have the same door with a prize."""
    return [{"room": room} for room in (range(12, 16) if split == "val" else range(12))]


async def play(task):
    """Open a door; 1 for the prize."""
    done = await Runner.run(player, f"This is room {task['room']}.")
    return float(done.final_output == "a prize")
