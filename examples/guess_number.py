"""Guess the number: the agent finds a number from 1 to 32, and tells the model where it still can be.

python examples/run.py guess_number           (GUESS_HIGH=100 before it: numbers to 100)
"""

import math
import os
import random
import re

LOW, HIGH = 1, int(os.environ.get("GUESS_HIGH", "32"))
PATIENCE = HIGH  # guesses of a game that is validated with: it always ends with the number
WIDTH = max(2, len(str(HIGH)))  # digits of each number


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
    """Return what the model hears: where the number can be."""
    return f"{written(low)}-{written(high)}"


def guess_number(task, client):
    """Play a game: a guess outside of the range is taken for the nearest number inside it, and costs by its distance.

    The reward is what was known after each guess, on average.
    """
    low, high, number = task["low"], task["high"], task["number"]
    whole, rewards, inside = math.log(2 * (high - low + 1)), [], 0
    while len(rewards) < task["guesses"]:
        messages = [{"role": "user", "content": shown(low, high)}]
        answer = client.chat.completions.create(model="guesser", messages=messages, max_tokens=WIDTH + 1)
        said = answer.choices[0].message.content or ""
        guess = int(said) if re.fullmatch(rf"[0-9]{{{WIDTH}}}", said) else 0
        taken = min(max(guess, low), high)
        inside += taken == guess
        if taken == number:
            found = len(rewards) + 1
            rewards += [1 - abs(taken - guess) / HIGH / 2] + [1.0] * (task["guesses"] - found)
            break
        low, high = (taken + 1, high) if taken < number else (low, taken - 1)
        known = 1 - math.log(2 * (high - low + 1)) / whole  # 0 at the start, more by each halving
        rewards.append(known - abs(taken - guess) / HIGH / 2)
    else:
        found = len(rewards) + 1
    reward, success = sum(rewards) / len(rewards), float(found <= len(rewards))
    return {"reward": reward, "success": success, "guesses": found, "inside": inside / min(found, len(rewards))}
