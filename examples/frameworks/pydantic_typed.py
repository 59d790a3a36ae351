"""An agent of Pydantic AI with a typed answer (pip install "pydantic-ai-slim[openai]"), as one writes it for OpenAI.

python train.py Agent agent=examples/frameworks/pydantic_typed.py:play agent_python=ENVIRONMENT/bin/python
"""

from typing import Literal

from pydantic import BaseModel
from pydantic_ai import Agent


class Choice(BaseModel):
    """The door to open."""

    door: Literal["1", "2", "3", "4"]


settings = {"max_tokens": 200}
player = Agent("openai:gpt-4o-mini", output_type=Choice, instructions="Find the prize.", model_settings=settings)


def tasks(split):
    """Return rooms, of which all have the same door with a prize."""
    return [{"room": room} for room in (range(12, 16) if split == "val" else range(12))]


async def play(task):
    """Choose a door; 1 for the prize."""
    done = await player.run(f"This is room {task['room']}.")
    return float(done.output.door == "3")
