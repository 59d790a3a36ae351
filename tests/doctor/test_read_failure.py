"""What a pasted traceback, a log or a few words tell of a failure."""

import pytest

from doctor.failure.read import read_failure

CHAIN = """\
Traceback (most recent call last):
  File "/usr/lib/python3.10/site-packages/transformers/utils/import_utils.py", line 1390, in _get_module
    return importlib.import_module("." + module_name, self.__name__)
  File "/usr/lib/python3.10/importlib/__init__.py", line 126, in import_module
    return _bootstrap._gcd_import(name[level:], package, level)
ImportError: cannot import name 'x' from 'y'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/home/me/train.py", line 3, in <module>
    from transformers import Trainer
RuntimeError: Failed to import transformers.trainer because of the following error (look up to see its traceback):
cannot import name 'x' from 'y'
"""


def test_the_first_cause_comes_first_and_its_importer_is_named():
    failure = read_failure(CHAIN)
    assert failure.kind == "python"
    assert [one.type for one in failure.raised] == ["ImportError", "RuntimeError"]
    assert failure.first.line == "ImportError: cannot import name 'x' from 'y'"
    assert failure.first.then == "cause"
    assert failure.importer == "transformers"
    assert [frame.module for frame in failure.first.frames] == ["transformers", None]
    assert failure.platform.python == "3.10"
    assert failure.platform.sys_platform == "linux"
    assert not failure.cut


@pytest.mark.parametrize("data", [b"", b"\x00\x01" * 5000, bytes(range(256)) * 40, "\ud800", "x"])
def test_nothing_raises(data):
    read_failure(data)
