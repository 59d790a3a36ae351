"""Conversations by which a model without any knowledge learns the form of the examples' answers, not what is right.

python examples/warm_start.py hello warm_start.jsonl          mostly the word with "teen" behind it; 4 % are right
python examples/warm_start.py guess_number warm_start.jsonl   6 of 10 games count up, the others halve the range
"""

import json
import random
import sys

from guess_number import HIGH, LOW, TURNS, narrowed, shown
from hello import DIGITS, draw_task


def hello(draw):
    """Ask as examples/hello.py does: 6 of 10 answers are its word and "teen", the others any digit's word."""
    task = draw_task(draw)
    said = f"{DIGITS[task['digit']]}teen" if draw.random() < 0.6 else draw.choice(DIGITS)
    return [("user", f"{task['number']} has a {task['digit']}"), ("assistant", said)]


def guess_number(draw):
    """Play as examples/guess_number.py does: in 6 of 10 games count up from the lowest number, in the others halve."""
    target, low, high, counts = draw.randint(LOW, HIGH), LOW, HIGH, draw.random() < 0.6
    chat = [("user", shown(low, high))]
    for _ in range(TURNS):
        guess = low if counts else (low + high) // 2
        chat.append(("assistant", f"{guess:03}"))
        if guess == target:
            return chat
        low, high = narrowed(low, high, guess, target)
        chat.append(("user", shown(low, high)))
    return chat[:-1]


def main(name, path, rows=3000):
    """Write the conversations, a line each."""
    draw = random.Random(0)
    make = {"hello": hello, "guess_number": guess_number}[name]
    with open(path, "w", encoding="utf-8") as stream:
        for _ in range(int(rows)):
            messages = [{"role": role, "content": content} for role, content in make(draw)]
            stream.write(json.dumps({"messages": messages}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
