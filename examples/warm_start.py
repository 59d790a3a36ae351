"""Conversations by which a model without any knowledge learns the form of the examples' answers, not what is right.

python examples/warm_start.py hello warm_start.jsonl          mostly the word with "teen" behind it; 4 % are right
python examples/warm_start.py guess_number warm_start.jsonl   9 of 10 guesses are within the hints, at random there
"""

import json
import random
import sys

from hello import DIGITS, draw_task


def hello(draw):
    """Ask as examples/hello.py does: 6 of 10 answers are its word and "teen", the others any digit's word."""
    task = draw_task(draw)
    said = f"{DIGITS[task['digit']]}teen" if draw.random() < 0.6 else draw.choice(DIGITS)
    return [("user", f"{task['number']} has a {task['digit']}"), ("assistant", said)]


def guess_number(draw):
    """Play as examples/guess_number.py does, and forget the hints at times."""
    target, chat, turns = draw.randint(1, 100), [("user", "Guess 1-100")], draw.randint(1, 10)
    low, high = 1, 100
    for _ in range(turns):
        guess = draw.randint(low, high) if draw.random() < 0.9 else draw.randint(1, 100)
        chat.append(("assistant", str(guess)))
        if guess == target:
            return chat
        low, high = (max(low, guess + 1), high) if guess < target else (low, min(high, guess - 1))
        chat.append(("user", "higher" if guess < target else "lower"))
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
