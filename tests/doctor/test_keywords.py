"""Calls with keywords that a function doesn't take: libraries of two times, overrides, files of settings."""

from doctor.diagnosis.keywords import find_unexpected_keywords
from tests.doctor.told_knowledge import failing, knowing, pins, release

RELEASES = {
    "books": [release(one) for one in ("1.0", "1.2", "2.0")],
    "reader": [release("0.8"), release("0.9")],
    "peft": [release("0.9"), release("0.10")],
}
TAKES = {
    ("books", "Shelf.open", "wide"): "1.2-",
    ("books", "Shelf.__init__", "old"): "-1.2",
    ("peft", "LoraConfig.__init__", "new_key"): "0.10-",
    ("books", "Binder.__init__", "glue"): "1.2-",
    ("books", "Binder.__init__", "**"): "0-",
}
CALLS = {("Shelf.open", "wide"): {"reader": "0.9-"}, ("compute_loss", "items"): {"books": "1.2-"}}
KNOWN = knowing(RELEASES, parameters=TAKES, callers=CALLS)


def only(text: str, **told):
    (one,) = find_unexpected_keywords(failing(f"TypeError: {text}", **told), KNOWN)
    return one


def test_a_library_that_passes_what_another_does_not_take_yet():
    one = only("Shelf.open() got an unexpected keyword argument 'wide'", books="1.0", reader="0.9")
    assert one.branch == "runtime/api_change" and set(pins(one)) == {"books>=1.2", "reader<0.9"}
    assert one.culprits[0] == "books" or one.culprits[0] == "reader"


def test_ones_own_call_of_what_went_is_mended_in_the_code_first():
    one = only("Shelf.__init__() got an unexpected keyword argument 'old'", books="2.0")
    assert [change.kind for change in one.changes] == ["code", "pin"] and pins(one) == ["books<1.2"]


def test_a_key_of_a_newer_file_of_settings_raises_its_reader():
    one = only("LoraConfig.__init__() got an unexpected keyword argument 'new_key'", peft="0.9")
    assert one.branch == "runtime/data_format" and pins(one) == ["peft>=0.10"] and one.changes[1].kind == "code"


def test_an_override_of_ones_own_takes_the_new_argument():
    one = only("MyTrainer.compute_loss() got an unexpected keyword argument 'items'", books="2.0")
    assert one.id == "override-lacks-argument" and one.changes[0].kind == "code" and pins(one) == ["books<1.2"]


def test_a_release_that_takes_it_is_not_at_fault():
    said = only("Shelf.open() got an unexpected keyword argument 'wide'", books="2.0")
    assert said == "books 2.0 takes wide in Shelf.open: its version is not at fault"


def test_without_a_table_only_the_branch_is_told():
    one = only("Stranger.ask() got an unexpected keyword argument 'x'", importer="odd")
    assert one.branch == "runtime/api_change" and one.confidence == 0.5 and one.culprits == ("odd",)


def test_a_stand_in_of_the_same_name_that_takes_all_is_not_what_refused():
    one = only("Binder.__init__() got an unexpected keyword argument 'glue'", books="1.0")
    assert one.branch == "runtime/api_change" and pins(one) == ["books>=1.2"]


def test_a_development_release_is_like_the_release_that_it_leads_to():
    one = only("Shelf.__init__() got an unexpected keyword argument 'old'", books="1.2.dev0")
    assert pins(one) == ["books<1.2"]


def test_settings_that_add_a_word_have_the_fields_of_those_after_it():
    one = only("OwnLoraConfig.__init__() got an unexpected keyword argument 'new_key'", peft="0.9")
    assert pins(one) == ["peft>=0.10"]
