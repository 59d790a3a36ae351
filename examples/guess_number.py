"""Guess the number: the agent has ten turns to find a number from 1 to 100, and hears after each whether it is higher.

python train.py Agent agent=examples/guess_number.py:guess_number   (docs/agents.md has the whole of it)
"""

import re

TURNS = 10


def tasks(split):
    """Return targets; of the numbers from 1 to 100 every fifth is held out."""
    return [{"target": target} for target in range(1, 101) if (target % 5 == 0) == (split == "val")]


def guess_number(task, client):
    """Play a game; half of the reward is for an early hit, half for guesses that the hints allow."""
    messages = [{"role": "user", "content": "Guess 1-100"}]
    low, high, sensible = 1, 100, 0
    for turn in range(1, TURNS + 1):
        answer = client.chat.completions.create(model="guesser", messages=messages, max_tokens=4)
        said = answer.choices[0].message.content or ""
        guess = int(said) if re.fullmatch(r"[0-9]{1,3}", said) else 0
        sensible += low <= guess <= high
        if guess == task["target"]:
            early = 1 - (turn - 1) / TURNS
            return {"reward": 0.5 * early + 0.5 * sensible / turn, "success": 1, "guesses": turn}
        if guess < task["target"]:
            hint, low = "higher", max(low, guess + 1)
        else:
            hint, high = "lower", min(high, guess - 1)
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": hint}]
    return {"reward": 0.5 * sensible / TURNS, "success": 0, "guesses": TURNS + 1}
