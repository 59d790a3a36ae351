"""What a file alone shows to be wrong, by metadata that a test names."""

import pytest
from told_knowledge import ToldMetadata, release

from doctor.case import Case
from doctor.diagnosis.declared_set import find_declared_faults
from doctor.environment.facts import Declared, Environment, Interpreter


class Dated(ToldMetadata):
    def date_of(self, name):
        return self.date


KNOWN = Dated(
    {
        "tool": [release("1.0", "2023-01-01"), release("2.0", "2025-01-01", python=">=3.11,<3.15")],
        "app": [release("1.0", "2023-01-01", "lib<2"), release("2.0", "2024-01-01", "lib>=2; python_version>'3'")],
        "lib": [release("1.5"), release("2.5")],
        "bin": [release("1.0", wheels=("cp311-cp311-manylinux_2_28_x86_64", "cp39-abi3-win_amd64"))],
        "pure": [release("1.0", wheels=("py3-none-any",))],
    }
)


class Known:
    metadata = KNOWN


def found(*requirements, python="3.11", system="linux", machine="x86_64"):
    declared = []
    for number, text in enumerate(requirements, start=1):
        name = text.rstrip("=<>!.0123456789*,")
        declared.append(Declared(name, text[len(name) :], f"r.txt:{number}", text))
    interpreter = Interpreter("", python, sys_platform=system, machine=machine)
    case = Case(Environment("r.txt", interpreter=interpreter, declared=tuple(declared)))
    return {one.id: one for one in find_declared_faults(case, Known())}


def test_pins_that_go_together_are_fine():
    assert found("app==1.0", "lib==1.5", "tool==2.0", "pure==1.0", "unknown==3") == {}


def test_a_conflict_of_declared_needs_names_both_lines_and_both_ways():
    one = found("app==2.0", "lib==1.5")["declared-conflict"]
    assert one.level == "error" and one.branch == "resolve/conflict" and one.culprits == ("lib", "app")
    assert one.evidence[:2] == ("r.txt:1: app==2.0", "r.txt:2: lib==1.5")
    assert [change.requirements for change in one.changes] == [("lib==2.5",), ("app==1.0",)]
    assert "declared-conflict" in found("app==1.0", "lib>=2")
    assert "declared-conflict" not in found("app==1.0", "lib>=1")


def test_one_name_twice_in_ranges_that_exclude_each_other():
    assert found("lib<2", "lib>=3")["declared-twice"].culprits == ("lib",)
    assert found("unknown<2", "unknown>=3")["declared-twice"].branch == "resolve/conflict"
    assert not found("lib<2", "lib>=1")


def test_releases_that_are_not_there_or_were_withdrawn():
    assert found("lib==1.7")["no-such-release"].level == "error"
    assert found("lib==9.0")["no-such-release"].level == "warning"  # perhaps newer than the snapshot
    assert not found("lib==2.5+cu124")


@pytest.mark.parametrize(
    "python, ids", [("3.11", []), ("3.15", ["pinned-for-other-python"]), ("3.10", ["pinned-for-other-python"])]
)
def test_a_pin_for_another_python(python, ids):
    assert list(found("tool==2.0", python=python)) == ids


def test_an_old_release_that_would_be_taken_silently():
    one = found("tool", python="3.10")["silently-old"]
    assert one.level == "warning" and one.branch == "resolve/silent_old"
    assert "tool 1.0 of 2023-01-01" in one.verdict and "2.0" in one.verdict
    assert not found("tool", python="3.12")
    assert found("tool>=2", python="3.10")["no-release-for-python"].level == "error"


def test_a_release_without_a_file_for_the_target():
    assert not found("bin==1.0") and not found("bin==1.0", system="win32", machine="AMD64", python="3.12")
    assert "Python 3.12 on Linux" in found("bin==1.0", python="3.12")["no-file-for-target"].verdict
    assert "macOS" in found("bin==1.0", system="darwin", machine="arm64")["no-file-for-target"].verdict


def test_what_is_installed_is_judged_elsewhere():
    case = Case(Environment("v", complete=True, declared=(Declared("lib", "==1.7"),)))
    assert list(find_declared_faults(case, Known())) == []
