"""Texts as people paste them, of many libraries: the branch is right, and innocent errors get no verdict."""

import json
from pathlib import Path

import pytest

from doctor.case import Case
from doctor.diagnosis.engine import diagnose
from doctor.environment.facts import Environment
from doctor.failure.read import read_failure
from doctor.knowledge.base import Knowledge

KNOWLEDGE = Knowledge()
TOLD = [json.loads(line) for line in Path(__file__).with_name("told_failures.jsonl").read_text("utf-8").splitlines()]


def branches(text: str) -> list[str]:
    failure = read_failure(f"{text}\n")
    where = Environment("the text").with_declared(failure.stated)
    return [one.branch for one in diagnose(Case(where, failure), KNOWLEDGE).findings]


def test_nearly_all_texts_get_their_branch_at_first_place():
    wrong = [one for one in TOLD if branches(one["text"])[:1] != [one["branch"]]]
    assert len(wrong) <= 0.04 * len(TOLD), "\n".join(f"{one['branch']}: {one['text'][:100]}" for one in wrong)


@pytest.mark.parametrize(
    "text",
    [
        "Epoch 1: loss 0.53\nall good",
        "ValueError: my own check failed: rows must be positive",
        "KeyError: 'price'",
        "AttributeError: 'NoneType' object has no attribute 'group'",
        "FileNotFoundError: [Errno 2] No such file or directory: 'data.csv'",
        "IndexError: list index out of range",
        "TypeError: unsupported operand type(s) for +: 'int' and 'str'",
        "{'loss': 0.0512, 'grad_norm': 0.0, 'learning_rate': 0.0}",
        "ImportError: attempted relative import with no known parent package",
        "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte",
        "KeyboardInterrupt",
    ],
)
def test_errors_of_a_programs_own_get_no_verdict(text):
    assert branches(text) == []
