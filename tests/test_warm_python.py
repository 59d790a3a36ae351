"""Starts of Python by tests have the heavy packages in memory, whatever the tests of a process have imported."""

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
