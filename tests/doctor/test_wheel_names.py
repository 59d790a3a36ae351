"""Refused wheels: which tag doesn't fit."""

import pytest

from doctor.diagnosis.wheel_names import find_wrong_wheel
from tests.doctor.pasted import only, pasted, said

REFUSED = "ERROR: {} is not a supported wheel on this platform."


@pytest.mark.parametrize(
    "wheel, python, system, fault",
    [
        (
            "flash_attn-2.7.2.post1+cu12torch2.5cxx11abiFALSE-cp310-cp310-linux_x86_64.whl",
            "3.12",
            "linux",
            "it is for Python 3.10, and this is Python 3.12",
        ),
        ("x-1.0-py311-cp311-win_amd64.whl", "3.11", "win32", "no interpreter has the pair py311-cp311"),
        ("x-1.0-cp311-cp311-linux_x86_64.whl", "3.11", "win32", "it is for Linux, and this is Windows"),
        ("x-1.0-cp311-cp311-linx86.whl", "3.11", "linux", "its platform tag linx86 is not a valid one"),
        ("x-1.0.whl", "3.11", "linux", "its name is not that of a wheel"),
        ("x-1.0-cp313-cp313t-linux_x86_64.whl", "3.13", "linux", "free-threaded"),
        ("x-1.0-cp311-cp311-manylinux_2_34_x86_64.whl", "3.11", "linux", "it needs glibc 2.34"),
        ("x-1.0-cp39-abi3-win_amd64.whl", "3.8", "win32", "it is for Python 3.9, and this is Python 3.8"),
    ],
)
def test_the_tag_at_fault_is_named(wheel, python, system, fault):
    found = only(find_wrong_wheel, pasted(REFUSED.format(wheel), python=python, system=system))
    assert found.branch == "build/wrong_wheel" and fault in found.verdict


def test_uv_says_it_in_its_own_way():
    text = "error: A path dependency is incompatible with the current platform: x-1.0-cp310-cp310-linux_x86_64.whl"
    assert "Python 3.10" in only(find_wrong_wheel, pasted(text, python="3.12", system="linux")).verdict


def test_the_torch_of_the_name_is_compared_too():
    wheel = "flash_attn-2.8.3+cu12torch2.6cxx11abiFALSE-cp310-cp310-linux_x86_64.whl"
    found = only(find_wrong_wheel, pasted(REFUSED.format(wheel), python="3.11", system="linux", torch="2.8.0"))
    assert "It is also built for torch 2.6, not 2.8." in found.verdict


def test_a_wheel_that_is_only_named_says_nothing():
    assert said(find_wrong_wheel, pasted("Downloading x-1.0-cp311-cp311-linux_x86_64.whl")) == []
