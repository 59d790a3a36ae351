"""A crew of one greeter of CrewAI (pip install crewai), as one writes it for OpenAI.

python train.py Agent agent=examples/frameworks/crewai_crew.py:greet agent_python=ENVIRONMENT/bin/python
"""

import os

os.environ |= {"CREWAI_DISABLE_TELEMETRY": "true", "OTEL_SDK_DISABLED": "true", "CREWAI_TRACING_ENABLED": "false"}

from crewai import LLM, Agent, Crew, Task

greeter = Agent(
    role="Greeter", goal="Greet in small letters", backstory="You greet.", llm=LLM(model="gpt-4o-mini", max_tokens=4)
)


def tasks(split):
    """Return people to greet; the last of them are held out."""
    people = [f"{first}{last}" for first in ("Ada", "Bo", "Cy", "Di") for last in ("bert", "line", "mund", "rik")]
    return [{"name": name} for name in (people[12:] if split == "val" else people[:12])]


def greet(task):
    """Greet; the reward is the share of small letters among four characters."""
    job = Task(description=f"This is {task['name']}", expected_output="a greeting", agent=greeter)
    said = Crew(agents=[greeter], tasks=[job]).kickoff().raw
    return sum("a" <= letter <= "z" for letter in said) / 4
