"""Guess the number: the agent has ten turns to find a number from 1 to 100, and hears after each whether it is higher.

python train.py Agent agent=examples/guess_number.py:guess_number base_model=tiny adapter=...   (see docs/agents.md)
"""

import re

TURNS = 10


def tasks(split):
    """Targets; of the numbers from 1 to 100 every fifth is held out."""
    targets = range(1, 101)
    return [{"target": target} for target in targets if (target % 5 == 0) == (split == "val")]


def guess_number(task, client):
    """Play a game; return 1 for a hit at once, less for each further turn, 0 if the number was not found."""
    messages = [{"role": "user", "content": "Guess 1-100"}]
    for turn in range(1, TURNS + 1):
        answer = client.chat.completions.create(model="guesser", messages=messages, max_tokens=4)
        said = answer.choices[0].message.content or ""
        guess = int(said) if re.fullmatch(r"\d{1,3}", said) else 0
        if guess == task["target"]:
            return {"reward": 1 - (turn - 1) / TURNS, "success": 1, "guesses": turn}
        hint = "higher" if guess < task["target"] else "lower"
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": hint}]
    return {"reward": 0.0, "success": 0, "guesses": TURNS + 1}
