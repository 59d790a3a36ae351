"""A failed script is told as what it is: its kind, its place, and what to do."""

import subprocess
import sys

import pytest

from workflow.failures.advice import FailedStep, advise

CASES = [
    ("raise SystemExit(3)", "unknown", "it ended with the exit code 3"),
    ("import no_such_package", "module", "No module named 'no_such_package'"),
    ("raise ConnectionError('Connection refused')", "connection", "Connection refused"),
    ("raise TimeoutError('the request timed out')", "connection", "timed out"),
    ("raise RuntimeError('HTTP 503 ServiceUnavailable')", "connection", "503"),
    ("raise RuntimeError('401: invalid api key')", "key", "invalid api key"),
    ("raise KeyError('TINKER_API_KEY is not set')", "key", "TINKER_API_KEY"),
    ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "memory", "out of memory"),
    ("raise MemoryError", "memory", "MemoryError"),
    ("import json\\njson.loads('{')", "data", "Expecting property name"),
    ("raise KeyError('dialogue')", "data", "dialogue"),
    ("raise RuntimeError('insufficient_quota')", "quota", "insufficient_quota"),
    ("raise RuntimeError('Error code: 429, rate limit')", "rate", "429"),
    ("raise OSError(28, 'No space left on device')", "disk", "No space left"),
    ("raise RuntimeError('checkpoint 000400 could not be saved')", "checkpoint", "000400"),
    ("raise RuntimeError('loss became nan at step 5')", "nan", "step 5"),
    ("open('absent.jsonl')", "file", "absent.jsonl"),
    ("import os\\nos.kill(os.getpid(), 9)", "memory", "it was killed (137)"),
    ("import os\\nos.kill(os.getpid(), 2)", "unknown", "a signal ended it (2)"),
]


@pytest.mark.parametrize(("line", "kind", "what"), CASES)
def test_a_failure_is_known_by_what_it_printed(tmp_path, line, kind, what):
    script = tmp_path / "03_generate.py"
    script.write_text("def work():\n    " + line.replace("\\n", "\n    ") + "\n\n\nwork()\n")
    done = subprocess.run([sys.executable, "-S", str(script)], text=True, capture_output=True, cwd=tmp_path)
    code = done.returncode if done.returncode >= 0 else 128 - done.returncode
    advice = advise(
        FailedStep(done.stderr.splitlines(), code, tmp_path, at="example 1,250 of 5,000", own="first look at step 7")
    )
    assert advice.kind == kind and what in advice.what, advice
    assert advice.cause.endswith(".") and advice.recovery[0] == "first look at step 7"
    assert advice.where.endswith("example 1,250 of 5,000")
    if "SystemExit" not in line and "kill" not in line:
        assert advice.where.startswith("03_generate.py:")
    assert advice.passes is (kind in ("connection", "rate"))


def test_a_script_that_says_it_lost_its_connection_is_believed(tmp_path):
    assert advise(FailedStep(["whatever"], 75, tmp_path)).passes


def test_keys_are_never_shown(tmp_path):
    lines = ["Error: 401 for key tml-0123456789abcdefABCDEF0123456789 api_key=sk-abcdefghijklmnopqrstuvwx"]
    told = advise(FailedStep(lines, 1, tmp_path))
    assert "sk-abcdefghijkl" not in told.what


def test_a_line_that_a_script_names_is_to_be_mended_whatever_else_was_printed(tmp_path):
    """What the environment grumbled before it, and what its words may mean elsewhere, is not what failed."""
    (tmp_path / "script.py").write_text("")
    noise = ["Error processing line 1 of /env/distutils-precedence.pth:", "", "  Traceback (most recent call last):",
             '    File "<string>", line 1, in <module>', "  ModuleNotFoundError: No module named '_distutils_hack'", "",
             "Remainder of file ignored"]  # fmt: skip
    told = "error: data/mine.csv:17: `question` is 'billing?!'; allowed is a question"
    advice = advise(FailedStep([*noise, "61 rows", told], 1, tmp_path, script="script.py"))
    assert (advice.kind, advice.what, advice.where) == ("row", told, "script.py")
    assert advice.recovery == ("Mend that line as the error says; what was finished is kept.",)
