"""A glibc that is too old: whose file asks for more, and what fits."""

from doctor.diagnosis.old_glibc import find_old_glibc
from tests.doctor.pasted import only, pasted, requirements, said

OLD = (
    "ImportError: /lib/x86_64-linux-gnu/libc.so.6: version `GLIBC_2.32' not found (required by "
    "/env/lib/python3.10/site-packages/{}.cpython-310-x86_64-linux-gnu.so)"
)


def test_a_release_whose_wheels_need_less_comes_first():
    found = only(find_old_glibc, pasted(OLD.format("flash_attn_2_cuda"), flash_attn="2.8.2"))
    assert found.branch == "import/system_library" and "flash-attn" in found.verdict and "GLIBC_2.32" in found.verdict
    assert requirements(found) == [("flash-attn<2.8",)] and found.culprits == ("flash-attn",)
    assert "--no-binary flash-attn" in found.changes[1].commands[0]


def test_what_is_older_already_or_not_known_is_built_here():
    for text, stated in ((OLD.format("flash_attn_2_cuda"), {"flash_attn": "2.7.4"}), (OLD.format("mine"), {})):
        found = only(find_old_glibc, pasted(text, **stated))
        assert not requirements(found) and found.changes[0].text.startswith("Build ")
    assert not said(find_old_glibc, pasted("ImportError: libstdc++.so.6: version `GLIBCXX_3.4.29' not found"))
