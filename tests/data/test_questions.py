"""What is asked is read from any rows; answers that they have are not looked at; what is no question says why."""

import json

import pytest

from data.chat_messages import Conversation
from data.conversations import open_source
from data.data_error import DataError
from data.questions import OWN_SYSTEM, behind, read_questions

ASKED = {"role": "user", "content": "a"}
ANSWERED = {"role": "assistant", "content": "b"}


def questions(tmp_path, *rows, name="asked.jsonl", text=None, **options):
    path = tmp_path / name
    path.write_text(text if text is not None else "".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(open_source(path, answers=False, **options))


def said(chat: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in chat.messages]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"messages": [ASKED]}, "a"),
        ({"messages": [ASKED, ANSWERED]}, "a"),
        ({"prompt": "a"}, "a"),
        ({"prompt": "a", "completion": ""}, "a"),
        ({"prompt": [ASKED], "completion": "b"}, "a"),
        ({"instruction": "c", "input": "d"}, "c\n\nd"),
        ({"instruction": "a", "output": "b"}, "a"),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}, "a"),
        ({"text": "<|im_start|>user\na<|im_end|>\n"}, "a"),
        ({"text": "a"}, "a"),
    ],
)
def test_questions_of_each_format(tmp_path, row, expected):
    (found,), account = questions(tmp_path, row)
    assert said(found.chat) == [("user", expected)] and found.place == "line 1"
    assert (account.read, account.used) == (1, 1)


def test_lines_of_text_are_questions(tmp_path):
    found, account = questions(tmp_path, name="q.txt", text="first?\r\n\n  second? \n")
    assert [said(each.chat)[0][1] for each in found] == ["first?", "second?"]
    assert [each.place for each in found] == ["line 1", "line 3"] and account.read == 2
    found, _ = questions(tmp_path, name="q.csv", text="question,id\nfirst?,1\nsecond?,2\n",
                         columns={"prompt": "question"})  # fmt: skip
    assert [said(each.chat)[0][1] for each in found] == ["first?", "second?"]


def test_a_conversation_is_asked_up_to_its_last_message_that_is_not_an_answer(tmp_path):
    turns = [{"role": "system", "content": "own"}, ASKED, ANSWERED, {"role": "user", "content": "c"}, ANSWERED]
    (found,), account = questions(tmp_path, {"messages": turns})
    assert said(found.chat) == [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert account.notes == {OWN_SYSTEM: ["line 1"]}
    assert said(found.after("captain"))[0] == ("system", "captain") and found.after("") is found.chat
    weighed = behind("s", Conversation(found.chat.messages, (), (False, True, False)))
    assert weighed.weights == (False, False, True, False)


def test_what_is_no_question_is_left_out_and_counted(tmp_path):
    rows = [{"messages": [ASKED]}, {"messages": [ANSWERED]}, {"messages": [{"role": "bot", "content": "x"}]}]
    found, account = questions(tmp_path, *rows, {"messages": [{"role": "user", "content": ""}]})
    assert len(found) == account.used == 1 and account.read == 4
    assert sum(map(len, account.left_out.values())) == 3
    assert account.left_out["there is no question: no message of a user"] == ["line 2"]
    assert account.left_out["the question is empty"] == ["line 4"]
    with pytest.raises(DataError, match=r"line 2: there is no question"):
        read_questions(open_source(tmp_path / "asked.jsonl", answers=False), "stop")
    with pytest.raises(DataError, match="there is no question"):
        questions(tmp_path, {"messages": [ANSWERED]})
    with pytest.raises(DataError, match="prompt_completion: `prompt`; alpaca: `instruction`"):
        questions(tmp_path, {"question": "a"})
