"""What an environment of facts answers about versions."""

import pytest

from doctor.environment.facts import Declared, Environment, Installed


def told(**ranges: str) -> Environment:
    return Environment("the text", declared=tuple(Declared(name, one) for name, one in ranges.items()))


@pytest.mark.parametrize(
    "declared, asked, answer",
    [("<4.43", ">=4.43", False), ("<4.43", "<4.40", None), ("<4.43", ">=4.40,<4.43", None), ("==4.40.2", "<4.43", True),
     ("==4.40.2", ">=4.43", False), (">=0.26", "<0.26", False), ("==2.6.*", ">=2.7", False), ("", ">=4", None),
     ("!=4.46.0,>=4.46", "==4.46.0", False), (">1.0,<2", "==1.5.*", None)],
)  # fmt: skip
def test_a_range_may_be(declared, asked, answer):
    assert told(transformers=declared).may_be("Transformers", asked) is answer


def test_of_two_copies_the_first_is_imported():
    here = Environment(
        "v", installed=(Installed("peft", "0.14.0"), Installed("peft", "0.13.0"), Installed("odd", "not.a.version")),
        complete=True,
    )  # fmt: skip
    assert here.may_be("peft", ">=0.14") is True
    assert here.may_be("absent", ">=0") is False
    assert here.version("odd") is None
    assert here.knows("absent") and not told(peft="").knows("absent")


def test_what_a_text_adds_never_overrules_what_is_installed():
    here = Environment("v", installed=(Installed("peft", "0.14.0"),))
    both = here.with_declared((Declared("peft", "==0.1"), Declared("trl", "==0.7.11")))
    assert str(both.version("peft")) == "0.14.0" and str(both.version("trl")) == "0.7.11"
