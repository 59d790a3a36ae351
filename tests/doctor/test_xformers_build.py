"""xFormers says for which torch it was built; what follows from that."""

from doctor.diagnosis.xformers_build import find_xformers_build
from tests.doctor.known import knowing
from tests.doctor.pasted import only, pasted, requirements, said

WARNING = (
    "WARNING[XFORMERS]: xFormers can't load C++/CUDA extensions. xFormers was built "
    "for:\n    PyTorch {} with CUDA 1201 (you have {})"
)
KNOWN = knowing(
    xformers={"0.0.22": ("torch==2.0.1",), "0.0.22.post7": ("torch==2.1.0",), "0.0.23.post1": ("torch==2.1.2",)}
)


def test_the_release_for_the_torch_that_is_here():
    found = only(find_xformers_build, pasted(WARNING.format("2.1.0+cu121", "2.0.1+cu118")), KNOWN)
    assert found.branch == "import/binary_abi" and requirements(found) == [("xformers==0.0.22",), ("torch==2.1.0",)]


def test_beside_a_cpu_build_torch_is_at_fault():
    found = only(find_xformers_build, pasted(WARNING.format("2.1.2+cu121", "2.1.2+cpu")), KNOWN)
    assert found.branch == "cuda/not_found" and "whl/cu121" in found.changes[0].commands[0]
    assert "reinstalling xformers" in found.not_this


def test_without_versions_the_kind_is_told():
    assert only(find_xformers_build, pasted("xFormers can't load C++/CUDA extensions."), KNOWN).confidence == 0.85
    assert said(find_xformers_build, pasted("xformers is here"), KNOWN) == []
