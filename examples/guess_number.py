"""Guess the number: the agent has ten turns to find a number from 1 to 100, and hears after each where it still can be.

python train.py Agent agent=examples/guess_number.py:guess_number   (docs/agents.md has the whole of it)
"""

import math
import re

LOW, HIGH, TURNS = 1, 100, 10


def tasks(split):
    """Return targets; of the numbers from 1 to 100 every fifth is held out."""
    return [{"target": target} for target in range(LOW, HIGH + 1) if (target % 5 == 0) == (split == "val")]


def shown(low, high):
    """Return what the model is told: numbers of three digits, since it reads and writes a digit at a time."""
    return f"{low:03}-{high:03}"


def narrowed(low, high, guess, target):
    """Return where the target still can be after a guess that missed; one outside of that tells nothing new."""
    if not low <= guess <= high:
        return low, high
    return (guess + 1, high) if guess < target else (low, guess - 1)


def known(low, high):
    """Return how much is known of the target: 0 at the start, as much more by each halving; a hit is 1."""
    return 1 - math.log(2 * (high - low + 1)) / math.log(2 * (HIGH - LOW + 1))


def guess_number(task, client):
    """Play a game. The reward is what was known after each of ten turns, on average: halving soon is worth most."""
    low, high, knew = LOW, HIGH, []
    messages = [{"role": "user", "content": shown(low, high)}]
    while len(knew) < TURNS:
        answer = client.chat.completions.create(model="guesser", messages=messages, max_tokens=4)
        said = answer.choices[0].message.content or ""
        guess = int(said) if re.fullmatch(r"[0-9]{3}", said) else 0
        if guess == task["target"]:
            guesses = len(knew) + 1
            return {"reward": (sum(knew) + TURNS - len(knew)) / TURNS, "success": 1, "guesses": guesses}
        low, high = narrowed(low, high, guess, task["target"])
        knew.append(known(low, high))
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": shown(low, high)}]
    return {"reward": sum(knew) / TURNS, "success": 0, "guesses": TURNS + 1}
