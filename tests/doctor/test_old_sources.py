"""C sources that are older than the Python: whose they are, and the release with a wheel."""

import pytest

from doctor.diagnosis.old_sources import find_old_sources
from doctor.knowledge.base import Knowledge
from tests.doctor.pasted import only, pasted, requirements, said

FAILED = "fatal error: longintrepr.h: No such file or directory\nERROR: Failed building wheel for {}"


@pytest.mark.parametrize(
    "project, python, wanted",
    [
        ("aiohttp", "3.11", "aiohttp>=3.8.3"),
        ("aiohttp", "3.12", "aiohttp>=3.9.0"),
        ("aiohttp", None, "aiohttp"),
        ("of-no-table", "3.12", "of-no-table"),
    ],
)
def test_the_first_release_with_a_wheel_for_the_python(project, python, wanted):
    found = only(find_old_sources, pasted(FAILED.format(project), python=python), Knowledge())
    assert found.branch == "build/incompatible" and requirements(found) == [(wanted,)]
    assert found.culprits == (project,)
    assert python != "3.11" or "Python 3.11" in found.verdict


def test_an_older_python_is_one_that_is_older():
    found = only(find_old_sources, pasted(FAILED.format("x"), python="3.10"))
    assert found.changes[1].commands == ("uv venv --python 3.9",)


def test_headers_that_are_missing_are_another_fault():
    assert not said(find_old_sources, pasted("fatal error: Python.h: No such file or directory"))
