"""Releases that can't be had, and old ones that were chosen."""

import pytest

from doctor.diagnosis.releases import chosen_by_resolver, find_unobtainable
from tests.doctor.told_knowledge import failing, knowing, release

LINUX = ("cp310-cp310-manylinux_2_28_x86_64", "cp311-cp311-manylinux_2_28_x86_64")
KNOWN = knowing(
    {
        "books": [
            release("1.0", "2023-01-01", python=">=3.7", wheels=("py3-none-any",)),
            release("2.0", "2024-06-01", python=">=3.10", wheels=LINUX),
        ],
        "opencv-python": [release("4.1")],
    },
    {"cv2": ("opencv-python",), "books": ("books",)},
)
NONE = "ERROR: No matching distribution found for "


def only(text: str, **told):
    (one,) = find_unobtainable(failing(text, **told), KNOWN)
    return one


@pytest.mark.parametrize(
    "text, python, says, change",
    [("books==2.0", "3.9", "asks for Python >=3.10; this is 3.9", "Use a Python of >=3.10."),
     ("books==2.0", "3.13", "has no file for Python 3.13", "Use a Python that it has wheels for: 3.10, 3.11."),
     ("books==1.7", "3.11", "no release ==1.7; the nearest is 1.0", "Ask for books 1.0."),
     ("cv2", None, "No distribution called cv2", "Install opencv-python."),
     ("bookz", None, "No distribution called bookz", "Install books.")],
)  # fmt: skip
def test_why_no_release_fits(text, python, says, change):
    one = only(NONE + text, python=python)
    assert one.branch == "resolve/no_wheel" and says in one.verdict and one.changes[0].text == change


@pytest.mark.parametrize(
    "text",
    ["Because books was not found in the package registry and you require books, your requirements are unsatisfiable.",
     "error: Distribution `books==2.0 @ registry+https://a` can't be installed because it doesn't have a wheel",
     "ERROR: Could not find a version that satisfies the requirement books==2.0 (from versions: 1.0)"],
)  # fmt: skip
def test_other_words_of_pip_and_uv(text):
    assert only(text).culprits == ("books",)


def test_files_of_another_system_only():
    one = only(NONE + "books==2.0", python="3.11", system="win32")
    assert "has files for Linux only" in one.verdict
    assert one.changes[0].requirements == ("books==2.0; sys_platform == 'linux'",)


@pytest.mark.parametrize(
    "text, chosen",
    [("uv picked books 1.0 silently", True), ("books: 1.0 chosen by uv for '>=1.0'", True),
     ("books: 1.0 instead of 2.0", True), ("pip and conda both installed books", False), ("books: 1.0", False)],
)  # fmt: skip
def test_whether_a_text_says_that_an_installer_chose(text, chosen):
    assert chosen_by_resolver(failing(text), "books") is chosen


def test_the_next_release_with_a_file_for_this_python_is_offered():
    wheels = {"1.0": "cp310-cp310-win_amd64", "1.1": "cp310-cp310-win_amd64", "1.2": "cp311-cp311-win_amd64"}
    releases = {"books": [release(one, wheels=(wheel, LINUX[1])) for one, wheel in wheels.items()]}
    (one,) = find_unobtainable(failing(NONE + "books==1.0", python="3.11", system="win32"), knowing(releases))
    assert one.changes[0].text == "Use a Python that it has wheels for: 3.10."
    assert one.changes[1].requirements == ("books==1.2",)


def test_what_pip_says_that_the_index_has_is_offered():
    line = (
        "ERROR: Could not find a version that satisfies the requirement stranger==0.11 (from versions: 0.9, 0.14, 0.15)"
    )
    (one,) = find_unobtainable(failing(line), knowing({"stranger": [release("0.11"), release("0.15")]}))
    assert one.changes[-1].requirements == ("stranger==0.14",)
