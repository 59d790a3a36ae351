"""Installed extensions that don't fit the torch, the NumPy or the system, seen before they fail."""

from dataclasses import replace

from doctor.case import Case
from doctor.diagnosis.installed_binaries import find_installed_binaries
from doctor.environment.facts import Environment, Installed, Interpreter
from tests.doctor.elf_files import write_elf
from tests.doctor.known import knowing
from tests.doctor.pasted import only, requirements, said

OLD = (
    "_ZN3c104cuda9SetDeviceEi",
    "_ZN5torch3jit17parseSchemaOrNameERKSsb",
    "_ZN3c106detail14torchCheckFailEPKcS2_jRKSs",
)
ANY = "_ZN3c1010TensorImpl17set_autograd_metaESt10unique_ptrINS_21AutogradMetaInterfaceESt14default_deleteIS2_EE"
KNOWN = knowing(flash_attn={"2.7.4.post1": (), "2.8.3": ()})


def install(tmp_path, name: str, version: str, files: dict[str, dict]) -> Installed:
    """Install a distribution of compiled files."""
    folder = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir()
    for path, content in files.items():
        write_elf(tmp_path / path, **content)
    (folder / "RECORD").write_text("".join(f"{path},,\n" for path in files))
    return Installed(name, version, str(folder), str(tmp_path))


def here(*installed: Installed) -> Case:
    return Case(
        Environment("v", Interpreter("python", "3.11.7", libc="glibc 2.36"), installed=installed, complete=True)
    )


def torch_of(tmp_path, version: str, *, defined=()) -> Installed:
    return install(tmp_path, "torch", version, {"torch/lib/libc10.so": {"defined": defined}})


def test_an_extension_of_another_torch_is_seen_in_its_file(tmp_path):
    flash = install(
        tmp_path,
        "flash-attn",
        "2.7.4.post1",
        {
            "flash_attn_2_cuda.so": {
                "undefined": (
                    *OLD[1:],
                    ANY,
                    "_ZN3c106detail23torchInternalAssertFailEPKcS2_jS2_RKSs",
                    "_ZN3c105ErrorC2ENS_14SourceLocationESs",
                )
            }
        },
    )
    found = only(find_installed_binaries, here(torch_of(tmp_path, "2.8.0", defined=(ANY,)), flash), KNOWN)
    assert found.id == "installed-extension-of-another-torch" and found.level == "error"
    assert requirements(found) == [("flash-attn==2.8.3",), ("torch==2.6.*",)]
    assert found.evidence[0].startswith("flash_attn_2_cuda.so asks for 4 symbols")


def test_what_the_installed_torch_does_offer_is_no_fault(tmp_path):
    files = {"flash_attn_2_cuda.so": {"undefined": OLD}}
    flash = install(tmp_path, "flash-attn", "2.7.4.post1", files)
    assert said(find_installed_binaries, here(torch_of(tmp_path, "2.8.0", defined=OLD), flash), KNOWN) == []


def test_an_extension_that_fits_is_told_as_read(tmp_path):
    flash = install(
        tmp_path, "flash-attn", "2.8.3", {"flash_attn_2_cuda.so": {"undefined": (ANY,), "needed": ("libc.so.6",)}}
    )
    told = list(find_installed_binaries(here(torch_of(tmp_path, "2.8.0"), flash), KNOWN))
    assert told == ["Compiled code read and found to fit torch and the system: flash-attn 2.8.3."]


def test_a_system_library_that_is_not_there_is_told(tmp_path):
    kernel = install(tmp_path, "sgl-kernel", "0.3.5", {"sgl_kernel/common_ops.so": {"needed": ("libespeak-ng.so.1",)}})
    found = only(find_installed_binaries, here(kernel), KNOWN)
    assert (
        found.level == "warning" and "libespeak-ng.so.1" in found.verdict and "apt-get" in found.changes[0].commands[0]
    )
    (tmp_path / "sgl_kernel" / "libespeak-ng.so.1").touch()
    assert said(find_installed_binaries, here(kernel), KNOWN) == []


def test_a_build_of_a_newer_system_is_told(tmp_path):
    files = {"causal_conv1d_cuda.so": {"versions": (("libc.so.6", "GLIBC_2.4"), ("libc.so.6", "GLIBC_2.38"))}}
    found = only(find_installed_binaries, here(install(tmp_path, "causal-conv1d", "1.4.0", files)), KNOWN)
    assert "glibc 2.38" in found.verdict and found.branch == "import/system_library"


def test_a_build_for_numpy_1_is_seen_beside_numpy_2(tmp_path):
    arrow = install(tmp_path, "pyarrow", "14.0.2", {"pyarrow/lib.so": {"defined": ("numpy.core.multiarray",)}})
    found = only(find_installed_binaries, here(Installed("numpy", "2.2.6"), arrow), KNOWN)
    assert found.id == "installed-for-numpy-1" and requirements(found) == [("numpy<2",), ("pyarrow>=16",)]
    assert said(find_installed_binaries, here(Installed("numpy", "1.26.4"), arrow), KNOWN) == []
    newer = replace(arrow, version="16.1.0")
    assert said(find_installed_binaries, here(Installed("numpy", "2.2.6"), newer), KNOWN) == []


def test_a_text_is_not_looked_for_on_this_machine():
    assert list(find_installed_binaries(Case(Environment("the text")), KNOWN)) == []
