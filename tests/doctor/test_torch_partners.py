"""torchvision's missing operators: which release belongs to the torch that a text names."""

import pytest

from doctor.diagnosis.torch_partners import find_missing_operators
from tests.doctor.pasted import only, pasted, requirements, said

MISSING = "RuntimeError: operator torchvision::nms does not exist"


@pytest.mark.parametrize(
    "stated, wanted",
    [
        ({"torch": "2.4.0+cu121", "torchvision": "0.20.1+cu124"}, [("torchvision==0.19.*",), ("torch==2.5.*",)]),
        ({"torch": "2.2.1+cpu"}, [("torchvision==0.17.*",)]),
        ({"torch": "2.6.0", "torchvision": "0.21.0"}, [("torchvision==0.21.*",)]),
        ({"torch": "1.13.1"}, [("torchvision==0.14.*",)]),
        ({}, [("torchvision",)]),
    ],
)
def test_the_partner_of_a_told_torch(stated, wanted):
    found = only(find_missing_operators, pasted(MISSING, **stated))
    assert found.branch == "import/binary_abi" and requirements(found) == wanted
    assert found.culprits == ("torchvision", "torch")


def test_the_index_of_the_build_is_told():
    found = only(find_missing_operators, pasted(MISSING, torch="2.2.1+cpu"))
    assert "torch's own index (cpu)" in found.changes[0].text


def test_another_missing_operator_says_nothing():
    assert not said(find_missing_operators, pasted("RuntimeError: operator aten::x does not exist"))
