"""Hello 1024: the agent names a digit of a number and asks for it in a word. One turn, rewarded by the answer.

python train.py Agent agent=examples/hello.py:hello
"""

import random

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def tasks(split):
    """Return numbers with one of their digits; the numbers to validate with are never trained on."""
    draw = random.Random(1024)
    numbers = draw.sample(range(1024, 10_000), 2100)
    found = [{"number": number, "digit": int(draw.choice(str(number)))} for number in numbers]
    return found[:100] if split == "val" else found[100:]


def hello(task, client):
    """Ask for the digit's word; return 1 for it, and 0 for anything else."""
    question = f"{task['number']} has a {task['digit']}"
    answer = client.chat.completions.create(
        model="hello", messages=[{"role": "user", "content": question}], max_tokens=12
    )
    return float(answer.choices[0].message.content == DIGITS[task["digit"]])
