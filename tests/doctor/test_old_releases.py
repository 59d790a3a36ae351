"""Old releases that an installer chose without a word."""

from dataclasses import replace

import pytest

from doctor.diagnosis.old_releases import find_silently_old, glibc_of, needs_glibc
from tests.doctor.told_knowledge import failing, knowing, pins, release

WHEELS = ("cp311-cp311-manylinux_2_34_x86_64",)
KNOWN = knowing(
    {
        "books": [release("1.0", "2023-01-01", python=">=3.7"), release("2.0", "2024-06-01", python=">=3.10")],
        "glass": [release("1.0", "2023-01-01"), release("2.0", "2024-06-01", wheels=WHEELS)],
    }
)


def silent(text: str, **told):
    case = failing(text, **told)
    return replace(case, failure=replace(case.failure, kind="silent", raised=()))


def test_an_old_release_is_told_where_python_forbids_the_new_one():
    (one,) = find_silently_old(failing("pip installs books 1.0", python="3.9", books="1.0"), KNOWN)
    assert one.branch == "resolve/silent_old" and "ask for Python >=3.10" in one.why


def test_an_old_release_that_the_resolver_chose_gets_a_lower_bound():
    (one,) = find_silently_old(failing("books: 1.0 chosen by uv for '>=1.0'", books="1.0"), KNOWN)
    assert pins(one) == ["books>=2.0"]


def test_an_old_release_that_nobody_complains_of_is_left_alone():
    assert list(find_silently_old(failing("TypeError: x", books="1.0"), KNOWN)) == []


def test_what_stops_newer_releases_is_named_and_the_wanted_one_is_asked_for():
    known = knowing(
        {
            "books": [
                release("1.0", "2023-01-01"),
                release("1.5", "2024-01-01", "beta>=4.0b1"),
                release("2.0", "2024-06-01", "beta>=4.0b1"),
            ],
            "beta": [release("4.0b1", "2024-05-01")],
        }
    )
    (one,) = find_silently_old(failing("books: 1.0 instead of 1.5", books="1.0"), known)
    assert "Newer releases ask for beta>=4.0b1" in one.why and pins(one) == ["books>=1.5"]


def test_a_bare_release_is_what_somebody_got():
    (one,) = find_silently_old(silent("glass==1.0", glass="1.0"), KNOWN)
    assert one.level == "error" and one.branch == "resolve/silent_old"


def test_wheels_for_a_newer_glibc_are_passed_over():
    (one,) = find_silently_old(silent("Platform: Rocky Linux 8", glass="1.0"), KNOWN)
    assert "glibc 2.34" in one.why and one.changes[0].kind == "system"
    assert list(find_silently_old(silent("Platform: Ubuntu 22.04", glass="1.0"), KNOWN)) == []


@pytest.mark.parametrize("text, glibc", [("glibc 2.28", (2, 28)), ("Debian GNU/Linux 11", (2, 31)), ("Windows", None)])
def test_glibc_of_a_text(text, glibc):
    assert glibc_of(failing(text)) == glibc


def test_a_source_or_a_wheel_for_any_system_needs_no_glibc():
    assert needs_glibc(release("1.0")) == (0, 0)
    assert needs_glibc(release("1.0", wheels=("py3-none-any", *WHEELS))) == (0, 0)
    assert needs_glibc(release("1.0", wheels=("cp38-abi3-manylinux2014_x86_64", *WHEELS))) == (2, 17)


def test_a_chosen_release_of_a_project_that_is_not_in_the_snapshot():
    (one,) = find_silently_old(failing("stranger: 0.1 chosen by pip for Python 3.14", stranger="0.1"), KNOWN)
    assert one.branch == "resolve/silent_old" and one.confidence < 0.6 and pins(one) == ["stranger>0.1"]
