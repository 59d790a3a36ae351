"""Answers survive a kill at any byte, are read by other readers as data, and by one process at a time added to."""

import json

from data.conversations import open_source
from storage.answer_journal import AnswerJournal, KeptAnswer, read_answers, write_answers

ASKED = {"prompt": [{"role": "user", "content": "Hi\u2028 é"}]}
WHOLE = KeptAnswer("k", 0, (1, 2, 3), "stop", "Ahoy\n!", ASKED)
CUT = KeptAnswer("k", 1, (4,), "length", "Aye, aye, ay", ASKED)


def kept(folder, *answers):
    with AnswerJournal(folder, {"base_model": "tiny"}) as journal:
        for answer in answers:
            journal.keep([answer])
    return journal


def test_what_is_kept_is_read(tmp_path):
    journal = kept(tmp_path / "a", WHOLE, CUT)
    assert journal.read() == ({("k", 0): WHOLE, ("k", 1): CUT}, 0)
    assert json.loads((tmp_path / "a" / "facts.json").read_text()) == {"base_model": "tiny"}
    assert AnswerJournal(tmp_path / "nothing", {}).read() == ({}, 0)
    write_answers(tmp_path / "copy.jsonl", [CUT, WHOLE])
    assert read_answers(tmp_path / "copy.jsonl")[0] == journal.read()[0]


def test_a_line_that_was_cut_at_any_byte_costs_that_line_alone(tmp_path):
    journal = kept(tmp_path, WHOLE, CUT)
    content = journal.file.read_bytes()
    first = content.index(b"\n") + 1
    for size in range(first, len(content)):
        journal.file.write_bytes(content[:size])
        assert journal.read() == ({("k", 0): WHOLE}, 0)
    kept(tmp_path, CUT)  # it goes on behind the last whole line
    assert journal.file.read_bytes() == content
    journal.file.write_bytes(content.replace(b'"number": 0', b'"number": }', 1))
    assert journal.read() == ({("k", 1): CUT}, 1)


def test_answers_are_rows_to_train_on_and_those_cut_off_are_not(tmp_path):
    rows = list(open_source(kept(tmp_path, WHOLE, CUT).file).rows())
    assert [message["content"] for message in rows[0].example.messages] == ["Hi\u2028 é", "Ahoy\n!"]
    assert "there is no `completion`" in str(rows[1].example)


def test_another_process_waits_for_its_turn(tmp_path):
    import threading

    entered, leave = threading.Event(), threading.Event()

    def other():
        with AnswerJournal(tmp_path, {}) as journal:
            entered.set()
            leave.wait(60)
            journal.keep([WHOLE])

    thread = threading.Thread(target=other)
    thread.start()
    assert entered.wait(60)
    threading.Timer(0, leave.set).start()
    with AnswerJournal(tmp_path, {}) as journal:
        assert journal.read()[0] == {("k", 0): WHOLE}
    thread.join()
