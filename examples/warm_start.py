"""Conversations by which a model without any knowledge learns the form of the examples' answers, not what is right.

python examples/warm_start.py hello warm_start.jsonl             mostly the word with "teen" behind it; 2 % are right
python examples/warm_start.py guess_number warm_start.jsonl      any number, 6 times of 10 one of the range
python examples/warm_start.py twenty_questions warm_start.jsonl  asks anything, the same again too, and names too soon
python examples/warm_start.py calculator_tool warm_start.jsonl   if not told to, seldom calls, or says the result
python examples/warm_start.py answerer warm_start.jsonl          the second model of twenty questions: all is right
"""

import json
import random
import sys

import calculator_tool as calculator
import guess_number as guessing
import hello as greeting
import twenty_questions as twenty


def hello(draw):
    """Ask as examples/hello.py does: 8 of 10 answers are its word and "teen", the others any digit's word."""
    task = greeting.draw_task(draw)
    said = f"{greeting.DIGITS[task['digit']]}teen" if draw.random() < 0.8 else draw.choice(greeting.DIGITS)
    return {"messages": chat(greeting.question(task), said)}


def guess_number(draw):
    """Guess any number of the range in 6 of 10, else any number at all."""
    task = draw.choice(guessing.tasks("train")) if draw.random() < 0.5 else None
    low, high = (task["low"], task["high"]) if task else sorted(any_number(draw) for _ in range(2))
    number = draw.randint(low, high) if draw.random() < 0.6 else any_number(draw)
    return {"messages": chat(guessing.shown(low, high), guessing.written(number))}


def any_number(draw):
    """Draw one of all numbers."""
    return draw.randint(guessing.LOW, guessing.HIGH)


def twenty_questions(draw):
    """Ask for any word, whatever can still be, or name any thing that can be, as often; told to name, name."""
    thing = draw.choice(twenty.THINGS)
    possible = [list(kind) for kind in twenty.KINDS]
    for _ in range(draw.randrange(12)):
        word = draw.choice(twenty.WORDS)
        possible = twenty.narrowed(possible, word, twenty.by_table(thing, word))
    names = draw.random() < 0.5
    last = names and draw.random() < 0.5
    said = " ".join(map(draw.choice, possible)) if names else f"{draw.choice(twenty.WORDS)}?"
    return {"messages": chat(twenty.shown(possible, last), said)}


def calculator_tool(draw):
    """Call the tool in 4 of 10, and say its result in 4 of 10 of these; else say any number. Told to call, do both."""
    task, told = calculator.draw_task(draw), draw.random() < 0.5
    messages, said = chat(calculator.question(task)), str(draw.randrange(10, 91))
    if told or draw.random() < 0.4:
        function = {"name": "calc", "arguments": json.dumps(task)}
        call = {"id": "call", "type": "function", "function": function}
        result = calculator.calculate(json.dumps(task))
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call", "content": result},
        ]
        said = result if told or draw.random() < 0.4 else said
    messages += chat(assistant=said)
    if told:
        messages[0]["content"] = f"Call for {messages[0]['content']}"
        return {"messages": messages}
    return {"messages": messages, "tools": calculator.TOOLS}


def answerer(draw):
    """Answer as the table of examples/twenty_questions.py does."""
    thing = draw.choice(twenty.THINGS)
    word = draw.choice(twenty.WORDS if draw.random() < 0.5 else thing.split())
    return {"messages": chat(f"{thing}: {word}?", twenty.by_table(thing, word))}


def chat(*said, **by):
    """Return messages: of user and assistant in turn, or by their roles."""
    turns = [*zip(("user", "assistant"), said, strict=False), *by.items()]
    return [{"role": role, "content": content} for role, content in turns]


MAKERS = {each.__name__: each for each in (hello, guess_number, twenty_questions, calculator_tool, answerer)}


def main(name, path, rows=3000):
    """Write the conversations, a line each."""
    draw = random.Random(0)
    with open(path, "w", encoding="utf-8") as stream:
        for _ in range(int(rows)):
            stream.write(json.dumps(MAKERS[name](draw)) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
