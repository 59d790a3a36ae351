"""A greeter of AutoGen (pip install "autogen-agentchat" "autogen-ext[openai]"), as one writes it for OpenAI.

python train.py Agent agent=examples/frameworks/autogen_chat.py:greet agent_python=ENVIRONMENT/bin/python
"""

from autogen_agentchat.agents import AssistantAgent
from autogen_ext.models.openai import OpenAIChatCompletionClient


def tasks(split):
    """Return people to greet; the last of them are held out."""
    people = [f"{first}{last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("bert", "line", "mund", "rik")]
    return [{"name": name} for name in (people[12:] if split == "val" else people[:12])]


async def greet(task):
    """Greet; the reward is the share of small letters among four characters."""
    client = OpenAIChatCompletionClient(model="gpt-4o-mini", max_tokens=4)
    greeter = AssistantAgent("greeter", model_client=client, system_message="Greet in small letters.")
    done = await greeter.run(task=f"This is {task['name']}")
    await client.close()
    return sum("a" <= letter <= "z" for letter in done.messages[-1].content) / 4
