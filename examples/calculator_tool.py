"""A calculator as a tool: the agent is asked for a product, may call a calculator, and says the number.

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
LOW, HIGH = 32, 100  # numbers whose products have four digits


def tasks(split):
    """Return pairs of numbers of two digits; those to validate with are never trained on."""
    draw = random.Random(51)
    pairs = draw.sample([(first, second) for first in range(LOW, HIGH) for second in range(LOW, HIGH)], 2100)
    return [{"first": first, "second": second} for first, second in (pairs[:100] if split == "val" else pairs[100:])]


def calculate(arguments):
    """Return what the calculator says to the arguments of a call, JSON text: a number, or what is wrong."""
    try:
        expression = json.loads(arguments)["expression"]
        first, second = re.fullmatch(r"\s*(\d{1,6})\s*\*\s*(\d{1,6})\s*", expression).groups()
        return str(int(first) * int(second))
    except (ValueError, KeyError, TypeError, AttributeError):
        return "error"


def calculator_tool(task, client):
    """Ask for the product, and make the calls that the model wants made. The right number is worth 1."""
    messages = [{"role": "user", "content": f"What is {task['first']} * {task['second']}?"}]
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
    right = (message.content or "").strip() == str(task["first"] * task["second"])
    return {"reward": float(right), "calls": called}
