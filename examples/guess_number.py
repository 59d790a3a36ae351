"""Guess the number: the agent finds a number from 1 to 32, and tells the model where it still can be.

python examples/run.py guess_number           (GUESS_HIGH=100 before it: numbers to 100)
"""

import functools
import math
import os
import random
import re

LOW, HIGH = 1, int(os.environ.get("GUESS_HIGH", "32"))
PATIENCE = HIGH  # guesses of a game that is validated with: it always ends with the number
WIDTH = max(2, len(str(HIGH)))  # digits of each number


@functools.cache
def tasks(split):
    """Return games. Those to train with have ranges of all sizes, and end after the guesses that halving needs.

    Those to validate with are the whole game for each number. Every fifth number is never trained on.
    """
    if split == "val":
        return [{"low": LOW, "high": HIGH, "number": number, "guesses": PATIENCE} for number in range(LOW, HIGH + 1)]
    draw, found = random.Random(HIGH), []
    while len(found) < 2000:
        guesses = draw.randint(1, HIGH.bit_length())
        width = min(draw.randint(2 ** (guesses - 1), 2**guesses - 1), HIGH)
        low = draw.randint(LOW, HIGH - width + 1)
        number = draw.randrange(low, low + width)
        if number % 5:
            found.append({"low": low, "high": low + width - 1, "number": number, "guesses": guesses})
    return found


def written(number):
    """Return a number as it is shown and said: of as many digits as all others."""
    return f"{number:0{WIDTH}}"


def shown(low, high):
    """Return what the model is asked: to guess, and where the number can be."""
    return f"guess {written(low)}-{written(high)}"


def told_by(low, high, guess):
    """Return how many bits a guess tells on average: whether the number is below, above, or the guess itself."""
    count = high - low + 1
    return -sum(part / count * math.log2(part / count) for part in (guess - low, 1, high - guess) if part)


def guess_number(task, client):
    """Play a game: a guess outside of the range is taken for the nearest number inside it.

    The reward is how much each guess told, as a share of what the middle would, on average; one outside of the range
    costs by its distance. So it is for how the guesses were, whatever luck they had.
    """
    low, high, number = task["low"], task["high"], task["number"]
    rewards, inside, found = [], 0, False
    while not found and len(rewards) < task["guesses"]:
        messages = [{"role": "user", "content": shown(low, high)}]
        answer = client.chat.completions.create(model="guesser", messages=messages, max_tokens=WIDTH + 1)
        said = answer.choices[0].message.content or ""
        guess = int(said) if re.fullmatch(rf"[0-9]{{{WIDTH}}}", said) else 0
        taken = min(max(guess, low), high)
        most = told_by(low, high, (low + high) // 2)
        rewards.append((told_by(low, high, taken) / most if most else 1.0) - abs(taken - guess) / HIGH / 2)
        inside += taken == guess
        found = taken == number
        low, high = (taken + 1, high) if taken < number else (low, taken - 1)
    count = len(rewards)
    return {"reward": sum(rewards) / count, "success": float(found), "guesses": count + (not found),
            "inside": inside / count}  # fmt: skip
