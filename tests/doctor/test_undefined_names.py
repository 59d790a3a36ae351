"""Names that a library did not import: absent packages, and packages that are too old."""

from dataclasses import replace

from doctor.diagnosis.undefined_names import find_undefined_names
from doctor.failure.facts import Frame
from tests.doctor.told_knowledge import failing, knowing, pins, release

RELEASES = {
    "reader": [release("1.0", "2024-01-01", "books; extra == 'shop'", "glue")],
    "books": [release("1.0"), release("2.0")],
    "glue": [release("0.1"), release("0.2", python=">=3.9")],
}
KNOWN = knowing(RELEASES, names={("books", "books", "Shelf"): "-", ("glue", "glue", "Pot"): "0.2-"})


def only(text: str, **told):
    (one,) = find_undefined_names(failing(text, **told), KNOWN)
    return one


def test_a_name_that_nobody_is_known_to_have():
    text = "NameError: name 'Lamp' is not defined"
    assert only(text, importer="reader").culprits == ("reader",)
    assert list(find_undefined_names(failing(text), KNOWN)) == []


def test_what_an_extra_would_bring_is_installed():
    for told in ({"importer": "reader"}, {"reader": "1.0"}):
        one = only("NameError: name 'Shelf' is not defined", **told)
        assert one.branch == "import/not_installed" and one.changes[0].requirements == ("books",)


def test_what_is_too_old_is_raised():
    one = only("NameError: name 'Pot' is not defined", importer="reader", glue="0.1")
    assert one.branch == "import/wrong_version" and pins(one) == ["glue>=0.2"] and one.culprits[0] == "glue"


def test_what_this_python_can_not_have_asks_for_another_python():
    one = only("NameError: name 'Pot' is not defined", importer="reader", glue="0.1", python="3.8")
    assert [change.kind for change in one.changes] == ["system"] and ">=3.9" in one.changes[0].text


def test_ones_own_code_that_forgot_an_import_is_no_matter_of_packages():
    case = failing("NameError: name 'Shelf' is not defined", reader="1.0", importer="")
    (raised,) = case.failure.raised
    own = replace(raised, frames=(Frame("/home/u/train.py", 3, "main", "", None),))
    case = replace(case, failure=replace(case.failure, raised=(own,)))
    assert list(find_undefined_names(case, KNOWN)) == []


def test_a_path_tells_the_library_where_no_frame_can_be_read():
    text = "/v/dist-packages/reader/a.py in Reader()\nNameError: name 'Shelf' is not defined"
    assert only(text).culprits == ("books", "reader")
