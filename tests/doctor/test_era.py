"""Distributions of different times: a proposal of the last resort."""

from doctor.diagnosis.era import find_other_eras
from tests.doctor.told_knowledge import failing, knowing, pins, release

KNOWN = knowing(
    {
        "reader": [release("1.0", "2023-01-10", "books>=1", "glue<2"), release("2.0", "2025-01-01", "books")],
        "books": [release("1.0", "2022-06-01"), release("1.1", "2023-01-20"), release("3.0", "2025-01-01")],
        "glue": [release("1.0", "2025-01-01")],
    }
)


def test_what_was_newest_then_is_tried():
    (one,) = find_other_eras(failing("TypeError: books went wrong", reader="1.0", books="3.0", glue="1.0"), KNOWN)
    assert one.branch == "runtime/api_change" and one.confidence < 0.5
    assert pins(one) == ["books<=1.1", "reader>1.0"]


def test_of_one_time_nothing_is_said():
    assert list(find_other_eras(failing("TypeError: x", reader="2.0", books="3.0"), KNOWN)) == []
    assert list(find_other_eras(failing("RuntimeError: x", reader="1.0", books="3.0"), KNOWN)) == []
