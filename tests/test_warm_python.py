"""Starts of Python by tests have the heavy packages in memory, whatever the tests of a process have imported."""

import subprocess

import pytest
import warm_python


def test_starts_are_warm_beside_packages_that_set_variables(tmp_path):
    if warm_python.cold:
        pytest.skip("--cold starts Python itself")
    (tmp_path / "script.py").write_text("import sys\nprint('torch' in sys.modules)\n")
    warm_python.run_python(["script.py"], tmp_path)  # the server starts, if this is the first test
    import sklearn  # noqa: F401
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    cache_dir()
    done = warm_python.run_python(["script.py"], tmp_path)
    assert done.stdout == "True\n", done.stderr


def test_a_start_that_takes_too_long_says_where_it_was(tmp_path):
    if warm_python.cold:
        pytest.skip("--cold starts Python itself")
    (tmp_path / "script.py").write_text("import threading\n\ndef waits():\n    threading.Event().wait()\n\nwaits()\n")
    with pytest.raises(subprocess.TimeoutExpired) as late:
        warm_python.run_python(["script.py"], tmp_path, timeout=1)
    assert 'script.py", line 4 in waits' in "".join(late.value.__notes__)
