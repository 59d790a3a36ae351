"""Releases that are old because newer ones have no wheel for the platform."""

from datetime import date
from types import SimpleNamespace

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.old_by_platform import find_old_by_platform
from doctor.environment.facts import Environment, Installed, Interpreter
from doctor.knowledge.metadata import Release


def release(version: str, day: date, *wheels: str, python: str = "", sdist: bool = False) -> Release:
    return Release(Version(version), day, (), python, False, wheels, sdist)


def found(*releases: Release, installed: str = "0.5.10") -> list[str]:
    tags = tuple(f"cp311-abi3-manylinux_2_{minor}_x86_64" for minor in range(28, 4, -1))
    interpreter = Interpreter("/v/bin/python", "3.11.7", libc="glibc 2.28", tags=tags)
    here = Environment("v", interpreter, installed=(Installed("sglang", installed),), complete=True)
    metadata = SimpleNamespace(
        projects={"sglang"}, releases=lambda name: releases, date="2026-11-28", date_of=lambda name: "2026-11-28"
    )
    return [one.verdict for one in find_old_by_platform(Case(here), SimpleNamespace(metadata=metadata))]


OLD = release("0.5.10", date(2026, 2, 1), "cp311-abi3-manylinux_2_28_x86_64")
NEW = release("0.5.23", date(2026, 11, 1), "cp311-abi3-manylinux_2_34_x86_64.manylinux_2_35_x86_64")


def test_the_newest_that_fits_is_long_behind():
    assert found(OLD, NEW) == [
        "sglang 0.5.10 of 2026-02-01 is the newest with a wheel for this platform; 0.5.23 of 2026-11-01 is there."
    ]


def test_what_could_be_newer_is_no_matter_of_the_platform():
    middle = release("0.5.15", date(2026, 5, 1), "cp311-abi3-manylinux_2_17_x86_64")
    assert found(OLD, middle, NEW) == []
    assert found(OLD, release("0.5.23", date(2026, 11, 1), *NEW.wheels, sdist=True)) == []
    assert found(OLD, release("0.5.23", date(2026, 11, 1), *NEW.wheels, python=">=3.12")) == []
    assert found(OLD, release("0.5.11", date(2026, 3, 1), *NEW.wheels)) == []
    assert found(OLD, NEW, installed="0.5.9") == []
