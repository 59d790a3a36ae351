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
    """Ask for the digit's word; return 1 for it, less for another digit's, the less the further it is, and else 0."""
    question = f"{task['number']} has a {task['digit']}"
    answer = client.chat.completions.create(
        model="hello", messages=[{"role": "user", "content": question}], max_tokens=12
    )
    said = answer.choices[0].message.content
    if said not in DIGITS:
        return 0.0
    away = abs(DIGITS.index(said) - task["digit"])
    return 0.5 * (1 - away / 9) if away else 1.0
