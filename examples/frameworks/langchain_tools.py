"""An agent of LangChain that calls a tool (pip install langchain langchain-openai), as one writes it for OpenAI.

python train.py Agent agent=examples/frameworks/langchain_tools.py:play agent_python=ENVIRONMENT/bin/python
"""

from typing import Literal

from langchain.agents import create_agent
from langchain.agents.middleware import wrap_model_call
from langchain.tools import tool
from langchain_openai import ChatOpenAI

Door = Literal["1", "2", "3", "4"]


@tool(return_direct=True)
def open_door(door: Door) -> str:
    """Open one of the doors."""
    return "a prize" if door == "3" else "nothing"


@wrap_model_call
def must_open(request, handler):
    """Let the model open a door, whatever else it would say."""
    return handler(request.override(tool_choice="any"))


model = ChatOpenAI(model="gpt-4o-mini", max_tokens=200)
player = create_agent(model, [open_door], system_prompt="Find the prize.", middleware=[must_open])


def tasks(split):
    """Return rooms, of which all have the same door with a prize."""
    return [{"room": room} for room in (range(12, 16) if split == "val" else range(12))]


def play(task):
    """Open a door; 1 for the prize."""
    said = player.invoke({"messages": [{"role": "user", "content": f"This is room {task['room']}."}]})
    return float(said["messages"][-1].content == "a prize")
