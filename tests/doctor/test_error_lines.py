"""Whether two exception lines mean the same."""

import pytest

from doctor.proof.error_lines import error_lines, same_error, signature

OUTPUT = """\
WARNING: ValueError: not one
Traceback (most recent call last):
  File "a.py", line 1, in f
    ValueError: in code
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "a.py", line 2
google.api.core.CustomError: it went
wrong: RuntimeError: no
Traceback (most recent call last):
AssertionError
"""


def test_lines_behind_tracebacks():
    assert error_lines(OUTPUT) == ("KeyError: 'x'", "google.api.core.CustomError: it went", "AssertionError")


@pytest.mark.parametrize(
    "one, other, same",
    [
        ("OddError: no 'A' in 'b' (/x/b/__init__.py)", "OddError: no 'A' in 'b' (unknown location)", True),
        ("ImportError: no name 'A' in 'b' (.../b/__init__.py)", "ImportError: no name 'A' in 'b'", True),
        ("ImportError: no name 'A' in 'b'", "ImportError: no name 'B' in 'b'", False),
        ("AttributeError: module 'p' has no 'X'. Did you mean: 'Y'?", "AttributeError: module 'p' has no 'X'", True),
        ("a.b.OddError: at 0x7f12ab", "OddError: at 0x00aa", True),
        ("OSError: libcudart.so.12: cannot open...", "OSError: libcudart.so.12: cannot open shared object file", True),
        ("OSError: [Errno 2] '/home/jo/x.json'", "OSError: [Errno 2] 'C:\\\\Users\\\\jo\\\\x.json'", True),
        ("TypeError: f", "TypeError: f() got an unexpected keyword argument 'a'", False),
        ("ValueError: a", "TypeError: a", False),
        ("AssertionError", "AssertionError", True),
    ],
)
def test_two_lines(one, other, same):
    assert same_error(one, other) is same_error(other, one) is same


def test_a_signature_has_no_place_of_a_machine():
    line = "pkg.mod.ImportError: /home/jo/v/lib/x.so: undefined symbol: _ZN3c10 (at 0x7ff)"
    assert signature(line) == "ImportError: PATH: undefined symbol: _ZN3c10 (at 0x)"
