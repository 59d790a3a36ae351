"""Pairs of answers: each form of a row, and rows that are none."""

import json

import pytest

from data.chat_messages import RowError
from data.preferences import preference_of, read_preferences

ASK, CHOSEN, REJECTED = {"role": "user", "content": "Hi"}, "Ahoy", "Hello"


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


@pytest.mark.parametrize("row", [
    {"prompt": [ASK], "chosen": CHOSEN, "rejected": REJECTED},
    {"prompt": [ASK], "chosen": [said(CHOSEN)], "rejected": said(REJECTED)},
    {"messages": [ASK, said(CHOSEN)], "rejected": REJECTED},
    {"chosen": [ASK, said(CHOSEN)], "rejected": [ASK, said(REJECTED)]},
    {"messages": [ASK], "chosen": CHOSEN, "rejected": REJECTED},
])  # fmt: skip
def test_all_forms_say_the_same(row):
    found = preference_of(row, "line 1")
    assert [dict(one) for one in found.chosen.messages] == [ASK, said(CHOSEN)]
    assert [dict(one) for one in found.rejected.messages] == [ASK, said(REJECTED)]


def test_only_the_last_answer_counts_and_text_is_taken_as_it_is():
    found = preference_of({"prompt": [ASK, said("Who?"), ASK], "chosen": CHOSEN, "rejected": REJECTED}, "line 1")
    assert [found.chosen.trains_on(number) for number in range(4)] == [False, False, False, True]
    plain = preference_of({"prompt": "Hi: ", "chosen": CHOSEN, "rejected": REJECTED}, "line 1")
    assert (plain.chosen.prompt, plain.chosen.completion, plain.rejected.completion) == ("Hi: ", CHOSEN, REJECTED)


@pytest.mark.parametrize(("row", "told"), [
    ({"prompt": [ASK], "completion": CHOSEN}, "the row has prompt, completion"),
    ({"prompt": [ASK], "chosen": CHOSEN, "rejected": CHOSEN}, "are the same"),
    ({"chosen": [ASK, said(CHOSEN)], "rejected": [said("?"), ASK, said(REJECTED)]}, "not answers to the same question"),
    ({"prompt": "Hi", "chosen": [said(CHOSEN)], "rejected": REJECTED}, "the prompt is text, and an answer is not"),
    ({"prompt": [ASK], "chosen": [ASK], "rejected": REJECTED}, "does not end with an assistant's answers"),
])  # fmt: skip
def test_what_is_no_pair_is_said(row, told):
    with pytest.raises(RowError, match=told):
        preference_of(row, "line 1")


def test_columns_may_be_called_otherwise(tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps({"question": "Hi", "better": CHOSEN, "worse": REJECTED}) + "\n[1]\n")
    (first, row), (second, error) = read_preferences(path, "prompt=question, chosen=better, rejected=worse")
    assert (first, row.chosen.prompt, second) == ("line 1", "Hi", "line 2") and isinstance(error, RowError)
