"""A calculator as a tool: the agent is asked for a number, may call a calculator, and says the number.

python examples/run.py calculator_tool
"""

import json
import random
import re

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "calc",
            "parameters": {"type": "object", "properties": {"expression": {"type": "string"}}},
        },
    }
]
CALLS = 3  # most rounds of calls; then there has to be an answer


def draw_task(draw):
    """Draw an expression whose value has two digits."""
    while True:
        first, second, third = draw.randrange(2, 10), draw.randrange(2, 10), draw.randrange(1, 10)
        if first * second + third >= 10:
            return {"expression": f"{first}*{second}+{third}"}


def tasks(split):
    """Return expressions; those to validate with are never trained on."""
    every = {draw_task(random.Random(number))["expression"] for number in range(10000)}
    order = random.Random(51).sample(sorted(every), len(every))
    return [{"expression": each} for each in (order[:100] if split == "val" else order[100:])]


def question(task):
    """Return what the model is asked."""
    return f"What is {task['expression']}?"


def calculate(arguments):
    """Return what the calculator says to the arguments of a call, JSON text: a number, or that it can't."""
    try:
        first, second, third = re.fullmatch(r"(\d)\*(\d)\+(\d)", json.loads(arguments)["expression"]).groups()
    except (ValueError, KeyError, TypeError, AttributeError):
        return "error"
    return str(int(first) * int(second) + int(third))


def calculator_tool(task, client):
    """Ask for the number, and make the calls that the model wants made. The right number is worth 1."""
    messages = [{"role": "user", "content": question(task)}]
    called = 0
    while True:
        answer = client.chat.completions.create(model="reckoner", messages=messages, tools=TOOLS, max_tokens=90)
        message = answer.choices[0].message
        if not message.tool_calls or called == CALLS:
            break
        called += 1
        messages.append(message.model_dump(include={"role", "content", "tool_calls"}))
        for call in message.tool_calls:
            result = calculate(call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    right = (message.content or "").strip() == calculate(json.dumps(task))
    return {"reward": float(right), "calls": called}
