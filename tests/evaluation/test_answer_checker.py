"""A user's checker in a process of its own: one that hangs, dies or raises costs its answer, not the run."""

import os
import time

import pytest

from data.data_error import DataError
from evaluation.answer_checker import AnswerChecker, CheckedAnswer, pass_rate

CHECK = """
import os, subprocess, sys, time
from helper import WANTED

def is_right(answer, row):
    print("x" * 200_000)
    if answer == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        open(row["note"], "w").write(str(child.pid))
        time.sleep(600)
    if answer == "die":
        os._exit(3)
    if answer == "raise":
        raise KeyError("no such thing")
    return answer == row.get("want", WANTED)
"""


@pytest.fixture
def check(tmp_path):
    (tmp_path / "helper.py").write_text('WANTED = "yes\\u2028"\n')
    (tmp_path / "check.py").write_text(CHECK)
    return f"{tmp_path / 'check.py'}:is_right"


def is_gone(pid: int) -> bool:
    """Whether a process has ended, or is about to be reaped."""
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_answers_are_checked_and_a_bad_one_costs_only_itself(check, tmp_path):
    note = tmp_path / "note"
    with AnswerChecker(check, seconds=1.5) as checker:
        assert checker("yes\u2028") == CheckedAnswer(True)
        assert checker("no") == CheckedAnswer(False)
        assert checker("raise") == CheckedAnswer(False, "KeyError: 'no such thing'")
        assert checker("die") == CheckedAnswer(False, "the checker's process died (exit code 3)")
        assert checker("x" * 300_000, {"want": "x" * 300_000}).passed
        assert checker("hang", {"note": str(note)}) == CheckedAnswer(False, "took longer than 1.5 seconds")
        child = int(note.read_text())
        deadline = time.monotonic() + 10
        while not is_gone(child) and time.monotonic() < deadline:
            os.sched_yield()
        assert is_gone(child)  # what the checker started has ended too
        assert checker("yes\u2028").passed


def test_pass_rate(check):
    with AnswerChecker(check) as checker:
        rates = pass_rate(checker, [["a", "b", "a"], ["b", "b", "b"]], [{"want": "a"}, {"want": "a"}], (1, 2))
        assert rates == {"pass@1": pytest.approx(1 / 3), "pass@2": pytest.approx(0.5)}
        with pytest.raises(DataError, match="1 tasks with answers and 0 rows"):
            pass_rate(checker, [["a"]], [])


def test_what_is_no_checker_is_told(tmp_path):
    (tmp_path / "broken.py").write_text("import nothing_like_that\n")
    (tmp_path / "empty.py").write_text("")
    for spec, words in (
        ("check.py", "must be a file and a function"),
        (f"{tmp_path}/none.py:f", "there is no file"),
        (f"{tmp_path}/broken.py:f", "can't be loaded: ModuleNotFoundError: No module named 'nothing_like_that'"),
        (f"{tmp_path}/empty.py:f", "can't be loaded: AttributeError: module 'user_checker' has no attribute 'f'"),
    ):
        with pytest.raises(DataError) as told:
            AnswerChecker(spec)
        assert words in str(told.value)
    with pytest.raises(DataError, match="time limit is 0 seconds"):
        AnswerChecker(f"{tmp_path}/empty.py:f", seconds=0)
