"""Modules that aren't there: not installed, of another release, no longer a part of Python, or behind a file."""

import pytest

from doctor.diagnosis.missing_modules import find_missing_modules
from tests.doctor.told_knowledge import failing, knowing, pins, release

OWNERS = {"cv2": ("opencv-python", "opencv-python-headless"), "books": ("books",), "reader": ("reader",)}
RELEASES = {
    "books": [release(one) for one in ("1.0", "1.2", "2.0")],
    "reader": [release("0.9", "2024-01-01", "glue>=2,<3; extra == 'fast'", "books")],
    "glue": [release("2.5")],
}
KNOWN = knowing(
    RELEASES,
    {**OWNERS, "glue": ("glue",)},
    modules={("books", "books.utils.shelf"): "1.2-2.0"},
    importers={("books.utils", "shelf"): {"reader": "0.9-"}},
)


def only(text: str, **told):
    (one,) = find_missing_modules(failing(text, **told), KNOWN)
    return one


def test_a_module_of_a_distribution_of_another_name():
    one = only("ModuleNotFoundError: No module named 'cv2'")
    assert one.branch == "import/not_installed" and one.changes[0].requirements == ("opencv-python",)
    assert one.not_this == "pip install cv2: the distribution is called opencv-python"


def test_an_optional_dependency_is_installed_in_the_range_that_the_extra_asks_for():
    one = only("ModuleNotFoundError: No module named 'glue'", importer="reader", reader="0.9")
    assert one.changes[0].requirements == ("glue<3,>=2",) and "reader imports it" in one.verdict


@pytest.mark.parametrize("version, pin", [("1.0", "books>=1.2,<2.0"), ("2.0", "books<2.0")])
def test_a_module_of_other_releases(version, pin):
    one = only("ModuleNotFoundError: No module named 'books.utils.shelf'", books=version)
    assert one.branch == "import/wrong_version" and pin in pins(one)


def test_a_release_that_has_the_module_is_not_at_fault():
    case = failing("ModuleNotFoundError: No module named 'books.utils.shelf'", books="1.2")
    said, copy = find_missing_modules(case, KNOWN)
    assert said == "books 1.2 has the module books.utils.shelf: its version is not at fault"
    assert copy.branch == "import/stale_or_partial" and copy.confidence == 0.5


@pytest.mark.parametrize(
    "module, python, branch, sure",
    [("distutils", "3.12", "import/not_installed", True), ("imp", "3.11", "import/wrong_version", False),
     ("_ctypes", None, "import/system_library", True)],
)  # fmt: skip
def test_modules_of_python_itself(module, python, branch, sure):
    one = only(f"ModuleNotFoundError: No module named '{module}'", python=python)
    assert one.branch == branch and (one.confidence >= 0.8) is sure


def test_a_file_that_hides_a_package():
    one = only("ModuleNotFoundError: No module named 'books.utils'; 'books' is not a package", books="2.0")
    assert one.branch == "import/shadowed" and one.changes[0].kind == "rename"


def test_installed_for_another_python():
    one = only("Requirement already satisfied: books in /a\nModuleNotFoundError: No module named 'books'", books="2.0")
    assert one.branch == "import/not_installed" and "another interpreter" in one.verdict


def test_an_unknown_module_is_no_verdict_to_build_on():
    assert only("ModuleNotFoundError: No module named 'my_helpers'").confidence <= 0.4


def test_what_a_build_lacks_is_left_to_builds():
    text = "Getting requirements to build wheel did not run\nModuleNotFoundError: No module named 'books'"
    assert list(find_missing_modules(failing(text), KNOWN)) == []
