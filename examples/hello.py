"""Hello 1024: the agent names a digit of a number and asks for it in a word. One turn, rewarded by the answer.

python examples/run.py hello
"""

import random

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def draw_task(draw):
    """Draw a number of four digits and one of its digits, each digit as often as any other."""
    digit, place = draw.randrange(10), draw.randrange(4)
    place = max(place, 1) if digit == 0 else place
    digits = [draw.randrange(1, 10), *(draw.randrange(10) for _ in range(3))]
    digits[place] = digit
    return {"number": int("".join(map(str, digits))), "digit": digit}


def tasks(split):
    """Return numbers with one of their digits; the numbers to validate with are never trained on."""
    draw = random.Random(1024)
    found = [draw_task(draw) for _ in range(2100)]
    held_out = {task["number"] for task in found[:100]}
    return found[:100] if split == "val" else [task for task in found[100:] if task["number"] not in held_out]


def question(task):
    """Return what the model is asked."""
    return f"{task['number']} has a {task['digit']}: in one word?"


def hello(task, client):
    """Ask for the digit's word; return 1 for it, and 0 for anything else."""
    answer = client.chat.completions.create(
        model="hello", messages=[{"role": "user", "content": question(task)}], max_tokens=12
    )
    return float(answer.choices[0].message.content == DIGITS[task["digit"]])
