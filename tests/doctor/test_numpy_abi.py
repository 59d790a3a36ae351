"""NumPy's binary interface: which side is old, and when a restart is all."""

import pytest

from doctor.diagnosis.numpy_abi import find_numpy_abi
from tests.doctor.pasted import only, pasted, requirements, said

DTYPE = (
    "ValueError: numpy.dtype size changed, may indicate binary incompatibility. Expected "
    "{} from C header, got {} from PyObject"
)
BOTH = (
    "A module that was compiled using NumPy 1.x cannot be run in\nNumPy 2.2.6 as it may crash.\n"
    "AttributeError: _ARRAY_API not found\nImportError: numpy.core.multiarray failed to import"
)


def test_an_old_build_meets_numpy_2():
    found = only(find_numpy_abi, pasted(BOTH, numpy="2.2.6", pyarrow="14.0.2"))
    assert (
        found.branch == "import/binary_abi"
        and "Pyarrow 14.0.2 was built for NumPy 1 and meets NumPy 2.2.6" in found.verdict
    )
    assert requirements(found) == [("numpy<2",), ("pyarrow>=16",)]


def test_the_old_build_is_found_by_its_frame():
    text = '  File "/v/lib/python3.11/site-packages/sklearn/__init__.py", line 3, in <module>\n' + DTYPE.format(96, 88)
    found = only(find_numpy_abi, pasted(text, numpy="2.0.2"))
    assert found.culprits == ("numpy", "scikit-learn") and "96 bytes are of NumPy 1" in found.evidence[1]


def test_in_a_live_kernel_a_restart_comes_first():
    found = only(find_numpy_abi, pasted(DTYPE.format(96, 88), place="colab"))
    assert found.branch == "import/stale_or_partial" and found.changes[0].kind == "restart"


@pytest.mark.parametrize(
    "text, numpy",
    [
        (DTYPE.format(88, 96), "numpy>=2.0"),
        ("RuntimeError: module compiled against API version 0x10 but this version of numpy is 0xf", "numpy>=1.23"),
        ("RuntimeError: module compiled against ABI version 0xe but this version of numpy is 0xd", "numpy>=1.20"),
        (DTYPE.format(88, 80).replace("dtype", "ndarray"), "numpy>=1.20"),
    ],
)
def test_where_the_build_is_newer_numpy_is_raised(text, numpy):
    found = only(find_numpy_abi, pasted(text))
    assert found.id == "numpy-older-than-build" and requirements(found) == [(numpy,)]


def test_another_numpy_error_says_nothing():
    assert said(find_numpy_abi, pasted("AttributeError: module 'numpy' has no attribute 'float'")) == []
