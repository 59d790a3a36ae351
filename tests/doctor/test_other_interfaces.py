"""Attributes and arguments that don't fit, where only the kind of fault is sure."""

from doctor.diagnosis.other_interfaces import find_missing_attributes, find_wrong_arguments
from tests.doctor.told_knowledge import failing, knowing

KNOWN = knowing()


def test_an_attribute_of_a_librarys_object():
    (one,) = find_missing_attributes(failing("AttributeError: 'SFTConfig' object has no attribute 'x'"), KNOWN)
    assert one.branch == "runtime/api_change" and one.confidence < 0.5
    for text in ("'NoneType' object has no attribute 'x'", "'str' object has no attribute 'x'"):
        assert list(find_missing_attributes(failing(f"AttributeError: {text}"), KNOWN)) == []


def test_arguments_in_another_number():
    case = failing("TypeError: MyTrainer.log() takes 2 positional arguments but 3 were given")
    (one,) = find_wrong_arguments(case, KNOWN)
    assert one.branch == "runtime/api_change" and one.confidence < 0.5
    assert (
        list(find_wrong_arguments(failing("TypeError: f() missing 1 required positional argument: 'x'"), KNOWN)) == []
    )
