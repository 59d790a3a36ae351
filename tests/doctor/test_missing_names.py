"""Names that aren't there: which side moves, and when no version is at fault."""

from dataclasses import replace

import pytest

from doctor.diagnosis.missing_names import find_missing_names
from doctor.diagnosis.shadowing import find_shadowing_files, find_two_owners, find_wrong_copies
from doctor.failure.facts import Frame
from tests.doctor.told_knowledge import failing, knowing, pins, release

NEW = "ImportError: cannot import name 'Shelf' from 'books' (/v/site-packages/books/__init__.py)"
READERS = {"0.8": "2024-01-01", "0.9": "2024-02-01", "1.0": "2024-03-01"}
RELEASES = {
    "books": [release(one) for one in ("1.0", "1.1", "1.2", "2.0")],
    "reader": [release(version, day, "books") for version, day in READERS.items()],
}
KNOWN = knowing(
    RELEASES,
    names={("books", "books", "Shelf"): "1.2-", ("books", "books", "Old"): "-1.2"},
    importers={("books", "Shelf"): {"reader": "0.9-"}, ("books", "Old"): {"reader": "-0.9"}},
)


def found(case, known=KNOWN):
    return list(find_missing_names(case, known))


def test_a_name_that_came_later_moves_who_imports_it_back_or_its_project_on():
    (one,) = found(failing(NEW, books="1.1", reader="0.9"))
    assert one.branch == "import/wrong_version" and one.confidence == 0.9
    assert one.verdict == "books 1.1 has no books.Shelf, which reader 0.9 asks for."
    assert pins(one) == ["reader<0.9", "books>=1.2"]


def test_a_name_that_went_moves_its_project_back_or_who_imports_it_on():
    (one,) = found(failing(NEW.replace("Shelf", "Old"), books="2.0", reader="0.8"))
    assert set(pins(one)) == {"books<1.2", "reader>=0.9"}


def test_a_range_that_a_project_holds_rules_its_own_side_out():
    (one,) = found(failing(NEW, books="<1.2", reader=">0"))
    assert "reader<0.9" in pins(one) and one.verdict.startswith("books has no books.Shelf")


def test_what_another_distribution_declares_it_needs_limits_the_move():
    needy = {**RELEASES, "shop": [release("3.0", "2024-01-01", "books<2")]}
    known = knowing(needy, names={("books", "books", "Shelf"): "1.2-"})
    (one,) = found(failing(NEW, books="1.1", shop="3.0"), known)
    assert pins(one) == ["books>=1.2,<=1.2"]


def test_frames_say_who_imports_and_nobody_else_is_moved():
    (one,) = found(failing(NEW, importer="mine", books="1.1", reader="0.9"))
    assert pins(one) == ["books>=1.2"] and "which mine asks for" in one.verdict


@pytest.mark.parametrize("line", [NEW, "AttributeError: module 'books' has no attribute 'Shelf'"])
def test_where_the_release_has_the_name_no_version_is_at_fault(line):
    case = failing(line, books="2.0")
    assert found(case) == ["books 2.0 has books.Shelf: its version is not at fault"]
    (copy,) = find_wrong_copies(case, KNOWN)
    assert copy.branch == "import/stale_or_partial" and copy.changes[0].kind == "clean"


def test_in_a_live_notebook_the_kernel_is_restarted():
    (copy,) = find_wrong_copies(failing(NEW, place="colab", books="2.0"), KNOWN)
    assert copy.branch == "import/stale_or_partial" and copy.changes[0].kind == "restart"


def test_a_per_user_folder_hides_what_is_installed():
    line = NEW.replace("/v/", "/home/a/.local/lib/python3.11/")
    (copy,) = find_wrong_copies(failing(line, books="2.0"), KNOWN)
    assert copy.branch == "import/shadowed" and copy.changes[0].environment == (("PYTHONNOUSERSITE", "1"),)


def test_what_no_release_has_is_told_as_ruled_out():
    known = knowing(RELEASES, names={("books", "books", "Shelf"): ""})
    assert found(failing(NEW), known) == ["no release of books that was read has books.Shelf"]


@pytest.mark.parametrize(
    "line",
    ["ImportError: cannot import name 'Shelf' from 'books' (/home/a/work/books.py)",
     r"ImportError: cannot import name 'Shelf' from 'books' (C:\work\books.py)",
     "/home/a/work/books.py: cannot import name 'Shelf' from 'books'",
     "ImportError: cannot import name 'Shelf' from partially initialized module 'books' (/w/books/__init__.py)"],
)  # fmt: skip
def test_a_file_of_the_program_that_hides_a_library_is_renamed(line):
    (one,) = find_shadowing_files(failing(line), KNOWN)
    assert one.branch == "import/shadowed" and one.changes[0].kind == "rename" and one.confidence >= 0.9


def test_a_library_in_its_own_place_hides_nothing():
    assert list(find_shadowing_files(failing(NEW), KNOWN)) == []


def test_without_a_table_dates_of_releases_propose_the_move():
    case = failing("ImportError: cannot import name 'X' from 'books' (/v/site-packages/books/a.py)", books="9", old="1")
    known = knowing(
        {"books": [release("1", "2022-01-01"), release("9", "2025-01-01")], "old": [release("1", "2022-02-01")]}
    )
    (one,) = find_missing_names(case, known)
    assert one.confidence < 0.6 and pins(one)[0] == "books<=1"


def test_a_frame_in_a_file_of_that_name_shows_what_hides_the_library():
    text = (
        "AttributeError: partially initialized module 'books' has no attribute 'Shelf' (most likely due to a circular "
        'import)\nFile "/home/a/project/books.py", line 3, in <module>'
    )
    (one,) = find_shadowing_files(failing(text), KNOWN)
    assert one.branch == "import/shadowed" and "/home/a/project/books.py" in one.evidence[1]


def test_two_distributions_that_write_one_folder():
    known = knowing({"books": [release("2.0")]}, {"books": ("books", "books-fork")})
    (one,) = find_two_owners(failing(f"{NEW}\nbooks-fork: installed in the same command", books="2.0"), known)
    assert one.branch == "import/shadowed" and one.changes[0].remove == ("books", "books-fork")
    assert list(find_two_owners(failing(NEW, books="2.0"), known)) == []


def test_a_circle_of_a_library_without_a_table_is_no_matter_of_versions():
    line = "AttributeError: partially initialized module 'books' has no attribute 'X' (most likely due to a circular)"
    assert list(find_missing_names(failing(line, books="2.0"), KNOWN)) == []
    (one,) = find_wrong_copies(failing(line, books="2.0"), KNOWN)
    assert one.branch == "import/shadowed" and one.confidence == 0.6


def test_a_library_that_asks_itself_is_of_two_releases():
    (one,) = find_wrong_copies(failing(NEW.replace("Shelf", "_inner"), importer="books"), KNOWN)
    assert one.branch == "import/stale_or_partial" and one.changes[0].remove == ("books",)


def test_a_folder_elsewhere_needs_no_reason_where_the_release_lacks_the_name():
    line = "ImportError: cannot import name 'Shelf' from 'books' (/opt/extra/books/__init__.py)"
    assert list(find_shadowing_files(failing(line, books="1.1"), KNOWN)) == []
    assert [one.branch for one in find_shadowing_files(failing(line, books="1.2"), KNOWN)] == ["import/shadowed"]


def test_a_script_called_like_a_standard_module_is_renamed():
    line = "AttributeError: partially initialized module 'books' has no attribute 'Shelf'"
    for file, count in (("/home/u/random.py", 1), ("/usr/lib/python3.11/random.py", 0), ("/home/u/train.py", 0)):
        case = failing(line)
        (raised,) = case.failure.raised
        started = replace(raised, frames=(Frame(file, 1, "<module>"),))
        case = replace(case, failure=replace(case.failure, raised=(started,)))
        said = [one for one in find_shadowing_files(case, KNOWN) if "random.py" in one.verdict]
        assert len(said) == count and all(one.confidence == 0.9 for one in said)


def test_without_a_table_what_another_declares_it_needs_is_the_move():
    releases = {
        "books": [release("1.0"), release("1.5"), release("2.0")],
        "shop": [release("3.0", "2024-01-01", "books>=1.5,<2")],
    }
    case = failing(
        "ImportError: cannot import name 'X' from 'books.a' (/v/site-packages/books/a.py)", books="1.0", shop="3.0"
    )
    (one,) = find_missing_names(case, knowing(releases))
    assert one.confidence == 0.85 and pins(one) == ["books>=1.5,<2"] and "shop" in one.verdict


def test_a_python_that_can_not_have_the_release_is_what_moves():
    releases = {"books": [release("1.0", python=">=3.7"), release("2.0", python=">=3.9")]}
    known = knowing(releases, names={("books", "books", "Shelf"): "2.0-"})
    (one,) = find_missing_names(failing(NEW, python="3.8"), known)
    assert one.changes[0].kind == "system" and one.changes[0].commands == ("uv venv --python '>=3.9'",)
    assert list(find_shadowing_files(failing(NEW.replace("/v/site-packages", "/opt"), python="3.8"), known)) == []
