"""Twenty questions: the agent finds out which of 64 things is meant, by yes and no, and then names it, once.

python examples/run.py twenty_questions

Who answers: a table, or a second model where ANSWERER_BASE_URL has the address of an OpenAI endpoint
(ANSWERER_MODEL its model, ANSWERER_API_KEY a key). It is asked `big red cat: red?` and says yes or no.
"""

import functools
import os
import random
from itertools import product

KINDS = (("big", "old", "shy", "wet"), ("red", "tan", "jet", "ash"), ("cat", "dog", "hen", "fox"))
WORDS = [word for kind in KINDS for word in kind]
THINGS = [" ".join(words) for words in product(*KINDS)]
QUESTIONS, FEWER = 20, 10  # of a game; of one to train with, so that those who ask without end cost less time
COST = 0.01  # what a question takes off the reward


def tasks(split):
    """Return things; every fourth is held out, so that each word is among those that are trained on."""
    order = random.Random(64).sample(THINGS, len(THINGS))
    held_out = order[::4]
    questions = QUESTIONS if split == "val" else FEWER
    return [{"thing": thing, "questions": questions} for thing in THINGS if (thing in held_out) == (split == "val")]


def by_table(thing, word):
    """Answer from what is known of the thing."""
    return "yes" if word in thing.split() else "no"


@functools.cache
def second_model():
    """Return a client of the model that answers, which is another than the one that asks."""
    from openai import OpenAI

    return OpenAI(base_url=os.environ["ANSWERER_BASE_URL"], api_key=os.environ.get("ANSWERER_API_KEY", "tml-local"))


def by_model(thing, word):
    """Let the second model answer; what it says beside yes is a no."""
    answer = second_model().chat.completions.create(
        model=os.environ.get("ANSWERER_MODEL", "answerer"), temperature=0, max_tokens=4,
        messages=[{"role": "user", "content": f"{thing}: {word}?"}],
    )  # fmt: skip
    return "yes" if (answer.choices[0].message.content or "").strip().lower().startswith("yes") else "no"


def shown(possible, last=False):
    """Return what the model is asked: it hears what can still be, and says `red?` or names a thing; at last it must."""
    return " ".join("/".join(kind) for kind in possible) + (": name" if last else ": ask or name")


def narrowed(possible, word, reply):
    """Return what can still be after a reply, of each kind of word."""
    keep = (lambda each: each == word) if reply == "yes" else (lambda each: each != word)
    return [[each for each in kind if keep(each)] or kind if word in kind else kind for kind in possible]


def twenty_questions(task, client):
    """Play a game. Half of the reward is for the thing, half for its words that are right; each question costs."""
    answerer = by_model if os.environ.get("ANSWERER_BASE_URL") else by_table
    possible, asked = [list(kind) for kind in KINDS], 0
    while True:
        messages = [{"role": "user", "content": shown(possible, asked == task["questions"])}]
        answer = client.chat.completions.create(model="asker", messages=messages, max_tokens=14)
        said = answer.choices[0].message.content or ""
        if not said.endswith("?") or asked == task["questions"]:
            break
        asked, word = asked + 1, said[:-1]
        if word in WORDS:
            possible = narrowed(possible, word, answerer(task["thing"], word))
    right = said == task["thing"]
    words = sum(one == other for one, other in zip(said.split(), task["thing"].split(), strict=False)) / len(KINDS)
    return {"reward": (right + words) / 2 - COST * asked, "success": float(right), "questions": asked}
