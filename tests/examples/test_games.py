"""The games of the examples, played by players whose results are known: no model, so rewards are checked exactly."""

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
Message = Mapping[str, str]


@pytest.fixture
def example(monkeypatch) -> Callable[[str], ModuleType]:
    """Import an example by its name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    names = [path.stem for path in EXAMPLES.glob("*.py")]
    for name in names:
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield lambda name: __import__(name)
    for name in names:
        sys.modules.pop(name, None)


def client_of(says: Callable[[list[Message]], object]) -> SimpleNamespace:
    """Return a client of a model that says what a function makes of the messages: text, or arguments of a call."""

    def create(*, messages: list[Message], **request: object) -> SimpleNamespace:
        said = says(messages)
        call = SimpleNamespace(id="call", function=SimpleNamespace(name="calc", arguments=json.dumps(said)))
        message = SimpleNamespace(content=said, tool_calls=None) if isinstance(said, str) else SimpleNamespace(
            content=None, tool_calls=[call], model_dump=lambda **include: {"role": "assistant"})  # fmt: skip
        return SimpleNamespace(choices=[SimpleNamespace(message=message)])

    return SimpleNamespace(chat=SimpleNamespace(completions=SimpleNamespace(create=create)))


def range_of(messages: list[Message]) -> tuple[int, int]:
    low, high = messages[-1]["content"].removeprefix("guess ").split("-")
    return int(low), int(high)


def means(module: ModuleType, play: str, tasks: list[object], says: Callable[[list[Message]], object]) -> dict:
    played = [getattr(module, play)(task, client_of(says)) for task in tasks]
    return {name: sum(each[name] for each in played) / len(played) for name in played[0]}


def test_guess_number(example):
    """Halving takes 135 guesses for the 32 numbers, and each is worth all; nonsense counts up from the lowest."""
    module = example("guess_number")
    every = module.tasks("val")
    found = means(module, "guess_number", every, lambda messages: f"{sum(range_of(messages)) // 2:02}")
    assert found == {"reward": 1.0, "success": 1.0, "guesses": 135 / 32, "inside": 1.0}
    found = means(module, "guess_number", every, lambda messages: "I don't know")
    assert found["guesses"] == 33 / 2 and found["inside"] == 0.0 and found["success"] == 1.0 and found["reward"] < 0.2
    draw = random.Random(0)
    found = means(module, "guess_number", every * 50, lambda messages: f"{draw.randint(1, 32):02}")
    assert found["guesses"] == pytest.approx(6.6, abs=0.2), "numbers at random"
    train = module.tasks("train")
    assert len(train) == 2000 and not any(task["number"] % 5 == 0 for task in train)
    assert all(task["low"] <= task["number"] <= task["high"] for task in train)
    assert {task["guesses"] for task in train} == {1, 2, 3, 4, 5, 6}
    short = {"low": 1, "high": 32, "number": 3, "guesses": 2}
    assert module.guess_number(short, client_of(lambda messages: "32"))["success"] == 0.0


def test_the_number_may_be_greater(example, monkeypatch):
    monkeypatch.setenv("GUESS_HIGH", "100")
    module = example("guess_number")
    assert module.shown(1, 100) == "guess 001-100" and len(module.tasks("val")) == 100
    found = means(module, "guess_number", module.tasks("val"), lambda messages: f"{sum(range_of(messages)) // 2:03}")
    assert found == {"reward": 1.0, "success": 1.0, "guesses": 5.8, "inside": 1.0}


def test_what_a_guess_tells(example):
    """Of four numbers: the second leaves one below it and two above it; the lowest one only three above it."""
    told_by = example("guess_number").told_by
    assert told_by(1, 4, 2) == pytest.approx(1.5) and told_by(5, 5, 5) == 0.0
    assert told_by(1, 4, 1) == pytest.approx(0.8112781)


def asks_each_word(messages: list[Message]) -> str:
    kinds = [kind.split("/") for kind in messages[0]["content"].partition(":")[0].split()]
    unknown = [kind[0] for kind in kinds if len(kind) > 1]
    return f"{unknown[0]}?" if unknown else " ".join(kind[0] for kind in kinds)


def test_twenty_questions(example, monkeypatch):
    """Who asks for words that still can be finds all; who names at once has chance alone."""
    module = example("twenty_questions")
    tasks = [*module.tasks("train"), *module.tasks("val")]
    assert len(tasks) == 64 and len(module.tasks("val")) == 16
    found = means(module, "twenty_questions", tasks, asks_each_word)
    asked = 3 * (1 + 2 + 3 + 3) / 4
    assert found == pytest.approx({"reward": 1.0 - asked / 100, "success": 1.0, "questions": asked})
    found = means(module, "twenty_questions", tasks, lambda messages: "big red cat")
    assert found == pytest.approx({"reward": (1 / 64 + 1 / 4) / 2, "success": 1 / 64, "questions": 0.0})
    for split, asked in (("train", 10), ("val", 20)):
        found = means(module, "twenty_questions", module.tasks(split)[:1], lambda messages: "what?")
        assert found == {"reward": -asked / 100, "success": 0.0, "questions": asked}, "questions without use cost"
    asked = []

    def second_model(messages: list[Message]) -> str:
        asked.append(messages[0]["content"])
        thing, _, word = messages[0]["content"].partition(": ")
        return "Yes." if word.rstrip("?") in thing.split() else "No"

    monkeypatch.setenv("ANSWERER_BASE_URL", "http://127.0.0.1:1/v1")
    monkeypatch.setattr(module, "second_model", lambda: client_of(second_model))
    task = {"thing": "old red cat", "questions": 20}
    assert module.twenty_questions(task, client_of(asks_each_word))["success"] == 1.0
    assert asked == ["old red cat: big?", "old red cat: old?", "old red cat: red?", "old red cat: cat?"]


def test_calculator_tool(example):
    """Its result is the way to the reward; a call that it can't read is answered, and calls without end are ended."""
    module = example("calculator_tool")
    train, val = module.tasks("train"), module.tasks("val")
    assert len(val) == 100 and not {each["expression"] for each in val} & {each["expression"] for each in train}

    def calls_first(messages: list[Message]) -> object:
        last = messages[-1]
        return last["content"] if last["role"] == "tool" else {"expression": last["content"][8:-1]}

    assert means(module, "calculator_tool", val, calls_first) == {"reward": 1.0, "calls": 1.0}
    assert means(module, "calculator_tool", val[:1], lambda messages: {"x": 1}) == {"reward": 0.0, "calls": 3.0}
    assert module.calculate('{"expression": "7*8+5"}') == "61" and module.calculate("7*8+5") == "error"


def test_numbers_are_guessed_at_random_at_first(example):
    """In the warm start 4 of 10 guesses are any number and the others any of the range; its middle is as any other."""
    make, draw = example("warm_start").MAKERS["guess_number"], random.Random(0)
    inside = middle = expected_inside = expected_middle = 0.0
    for _ in range(8000):
        ask, answer = make(draw)["messages"]
        (low, high), number = range_of([ask]), int(answer["content"])
        width = high - low + 1
        inside, middle = inside + (low <= number <= high), middle + (number == (low + high) // 2)
        expected_inside += 0.4 * width / 32 + 0.6
        expected_middle += 0.4 / 32 + 0.6 / width
    assert inside == pytest.approx(expected_inside, rel=0.03) and middle == pytest.approx(expected_middle, rel=0.06)
