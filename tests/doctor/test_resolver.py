"""What pip and uv say of requirements that can't be met together."""

from doctor.diagnosis.resolver import edges, find_conflicts
from tests.doctor.told_knowledge import failing, knowing, pins, release

PIP = """ERROR: Cannot install reader and shop==2.0 because these package versions have conflicting dependencies.
The conflict is caused by:
    reader[fast] 0.9 depends on books==1.1
    shop 2.0 depends on books>=2
"""
UV = """  x No solution found when resolving dependencies:
  ╰─▶ Because reader==0.9 depends on books==1.1 and shop==2.0 depends on
      books>=2, we can conclude that reader==0.9 and shop==2.0 are incompatible.
      And because you require reader==0.9 and shop==2.0, we can conclude that your
      requirements are unsatisfiable.
"""
KNOWN = knowing(
    {
        "books": [release(one) for one in ("1.0", "1.1", "2.0", "2.1")],
        "reader": [
            release("0.8", "2024-01-01", "books==1.0"),
            release("0.9", "2024-02-01", "books==1.1"),
            release("1.0", "2024-03-01", "books>=1.1"),
        ],
        "shop": [release("1.9", "2024-01-01", "books>=1"), release("2.0", "2024-02-01", "books>=2")],
    }
)


def test_pip_and_uv_are_read_alike():
    read = {(one.who, one.version, one.name, one.range) for one in edges(PIP)}
    assert read == {("reader", "0.9", "books", "==1.1"), ("shop", "2.0", "books", ">=2")}
    assert read <= {(one.who, one.version, one.name, one.range) for one in edges(UV)}


def test_the_release_nearest_by_that_goes_with_the_other_is_proposed():
    (one,) = find_conflicts(failing(PIP), KNOWN)
    assert one.branch == "resolve/conflict" and one.verdict.endswith("no release of books is both.")
    assert pins(one) == ["reader==1.0", "shop==1.9"]


def test_what_the_user_asked_for_stays_where_another_can_move():
    (one,) = find_conflicts(failing(PIP + "    The user requested reader==0.9\n"), KNOWN)
    assert pins(one) == ["shop==1.9", "reader==1.0"]


def test_the_users_own_limit_is_what_is_loosened():
    text = "ResolutionImpossible\n    The user requested books<2\n    shop 2.0 depends on books>=2\n"
    (one,) = find_conflicts(failing(text), KNOWN)
    assert pins(one) == ["shop==1.9", "books>=2"]


def test_words_without_a_conflict_say_nothing():
    assert list(find_conflicts(failing("reader 0.9 depends on books==1.1"), KNOWN)) == []


def test_all_that_uv_says_you_require_is_read():
    text = (
        "x No solution found\n Because reader==0.9 depends on books==1.1, we can conclude that reader>=0.9 depends on "
        "books==1.1. And because you require reader>=0.9 and books>=2, we can conclude that your requirements are "
        "unsatisfiable."
    )
    (one,) = find_conflicts(failing(text), KNOWN)
    assert one.verdict.startswith("reader 0.9 asks for books==1.1, and your request asks for books>=2")


def test_ranges_as_pip_and_poetry_write_them():
    pip = "ERROR: ResolutionImpossible\n    a 1.0 depends on books>=2.2\n    b 0.2 depends on books<2.0 and >=1.8"
    poetry = (
        "Because b (0.2) depends on books (>=1.8,<2.0)\n and a (1.0) requires books (>=2.2), a is incompatible with b."
    )
    for text in (pip, poetry):
        (one,) = find_conflicts(failing(text), knowing())
        assert one.branch == "resolve/conflict" and {"a", "b"} < set(one.culprits), text
    assert list(find_conflicts(failing(pip.replace("<2.0", "<3.0")), knowing())) == []
