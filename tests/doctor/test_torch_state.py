"""What is found of torch and the machine: real environments with a torch of text, a fake nvidia-smi, fake /dev/shm."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from packaging.version import Version
from patients import Patient, fake_nvidia_smi, fake_program

from doctor.case import Case
from doctor.diagnosis.machine_state import find_machine_state
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_partners import partner_of
from doctor.diagnosis.torch_state import find_torch_state, supports
from doctor.environment.facts import Environment, Installed, Interpreter, Machine
from doctor.environment.read import read_environment
from doctor.environment.torch_build import torch_build
from doctor.finding import Finding

KNOWN = SimpleNamespace(metadata=None)
T4 = "Tesla T4, 15360, 550.54.15, 7.5"


@pytest.fixture
def venv(tmp_path) -> Patient:
    return Patient(tmp_path / "venv")


def with_torch(venv: Patient, version: str, cuda: str | None) -> None:
    made = f"__all__ = ['cuda']\n__version__ = '{version}'\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = None\n"
    venv.install("torch", version, files={"torch/__init__.py": "", "torch/version.py": made})


def found(venv: Patient, root: Path, *gpus: str, cuda: str = "12.4", **variables: str) -> list[Finding]:
    told = {"PATH": str(root / "bin"), **variables}
    if gpus:
        fake_nvidia_smi(root / "bin", *gpus, cuda=cuda)
    here = read_environment(venv.python, variables=told, root=str(root))
    return list(find_torch_state(Case(here), KNOWN))


def only(findings: list[Finding]) -> Finding:
    assert len(findings) == 1, [one.verdict for one in findings]
    return findings[0]


@pytest.mark.parametrize("version, cuda, told", [
    ("2.6.0+cu124", "12.4", ("12.4", False)), ("2.6.0", "12.4", ("12.4", False)), ("2.6.0+cpu", None, (None, True)),
])  # fmt: skip
def test_the_build_is_read_from_text(venv, tmp_path, version, cuda, told):
    with_torch(venv, version, cuda)
    here = read_environment(venv.python, variables={}, machine=False)
    build = torch_build(here)
    assert Told(Case(here)).torch_cuda == (told[0] or "")
    assert (build.cuda, build.cpu_only) == told and build.version == version and build.file.endswith("version.py")
    declared = Environment("v", installed=(Installed("torch", version),))
    assert torch_build(declared).cuda == (told[0] if "+" in version else None)


def test_what_fits_gives_nothing(venv, tmp_path):
    with_torch(venv, "2.6.0+cu124", "12.4")
    venv.install("torchvision", "0.21.0+cu124", requires=("torch==2.6.0",))
    assert found(venv, tmp_path, T4) == [] and found(venv, tmp_path / "none") == []


def test_a_cpu_build_beside_a_gpu(venv, tmp_path):
    with_torch(venv, "2.6.0+cpu", None)
    assert found(venv, tmp_path / "none") == []
    finding = only(found(venv, tmp_path, T4))
    assert (finding.branch, finding.level, finding.gpu) == ("cuda/not_found", "warning", True)
    assert finding.changes[0].requirements == ("torch==2.6.0+cu126",) and finding.changes[0].remove == ("torch",)


def test_a_driver_that_is_too_old(venv, tmp_path):
    with_torch(venv, "2.6.0+cu124", "12.4")
    finding = only(found(venv, tmp_path, "Tesla T4, 15360, 470.82.01, 7.5", cuda="11.4"))
    assert (finding.id, finding.level) == ("driver-older-than-build", "error")
    assert finding.changes[0].requirements == ("torch==2.6.0+cu118",) and "525.60" in finding.changes[1].text


@pytest.mark.parametrize("gpu, version, cuda, build", [
    ("NVIDIA GeForce RTX 5090, 32607, 570.124.06, 12.0", "2.7.0+cu126", "12.6", "2.7.0+cu128"),
    ("Tesla P100-PCIE-16GB, 16384, 570.124.06, 6.0", "2.8.0+cu128", "12.8", "2.8.0+cu126"),
])  # fmt: skip
def test_a_gpu_that_the_build_has_no_code_for(venv, tmp_path, gpu, version, cuda, build):
    with_torch(venv, version, cuda)
    finding = only(found(venv, tmp_path, gpu, cuda="12.8"))
    assert (finding.branch, finding.level) == ("cuda/arch_unsupported", "error")
    assert finding.changes[0].requirements[0].endswith(build)


@pytest.mark.parametrize("capability, cuda, fits", [
    ((7, 5), "12.4", True), ((8, 9), "11.7", True), ((9, 0), "11.7", False), ((12, 1), "12.8", True),
    ((10, 3), "12.8", True), ((12, 0), "12.6", False), ((7, 0), "12.8", True), ((7, 0), "13.0", False),
    ((6, 1), "12.6", True), ((99, 0), "12.8", True),
])  # fmt: skip
def test_which_builds_have_code_for_a_gpu(capability, cuda, fits):
    assert (supports(capability, cuda) is None) is fits


@pytest.mark.parametrize("torch, partner", [
    ("1.13.1", "0.14 0.13 0.14"), ("2.0.1", "0.15 2.0 0.15"), ("2.6.0", "0.21 2.6 None"), ("2.9.0", "0.24 2.9 None"),
    ("1.7.1", "0.8 0.7 None"),
])  # fmt: skip
def test_partners_of_a_torch(torch, partner):
    names = ("torchvision", "torchaudio", "torchtext")
    assert " ".join(str(partner_of(Version(torch), name)) for name in names) == partner


def test_packages_beside_torch_of_another_release(venv, tmp_path):
    with_torch(venv, "2.6.0+cu124", "12.4")
    venv.install("torchvision", "0.20.1+cu124")
    finding = only(found(venv, tmp_path))
    assert (finding.branch, finding.level) == ("import/binary_abi", "error")
    assert finding.changes[0].requirements == ("torchvision==0.21.*",)
    venv.install("torchvision", "0.21.0+cpu")
    shutil.rmtree(venv.site / "torchvision-0.20.1+cu124.dist-info")
    assert only(found(venv, tmp_path)).id == "partner-of-another-build"


def test_another_toolkit_on_the_loaders_path(venv, tmp_path):
    with_torch(venv, "2.4.0+cu121", "12.1")
    venv.install("nvidia-nvjitlink-cu12", "12.1.105", files={"nvidia/nvjitlink/lib/libnvJitLink.so.12": ""})
    for version in ("12.0", "12.1"):
        folder = tmp_path / f"cuda-{version}" / "lib64"
        folder.mkdir(parents=True)
        (folder / "libnvJitLink.so.12").write_text("")
    driver = tmp_path / "nvidia"
    driver.mkdir()
    (driver / "libcuda.so.1").write_text("")
    finding = only(found(venv, tmp_path, LD_LIBRARY_PATH=f"{tmp_path / 'cuda-12.0' / 'lib64'}:/none"))
    assert (finding.branch, finding.level) == ("cuda/version_mismatch", "warning")
    assert finding.changes[0].environment == (("LD_LIBRARY_PATH", ""),)
    assert found(venv, tmp_path, LD_LIBRARY_PATH=f"{tmp_path / 'cuda-12.1' / 'lib64'}:{driver}") == []


def test_an_nvidia_smi_that_fails(venv, tmp_path):
    with_torch(venv, "2.4.0+cu121", "12.1")
    failed = "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    fake_program(tmp_path / "bin", "nvidia-smi", failed)
    finding = only(found(venv, tmp_path))
    assert finding.branch == "cuda/version_mismatch" and finding.changes[0].kind == "restart"


class TestMachineState:
    def state(self, folder: Path | None = None, variables: dict[str, str] | None = None, **machine: object) -> Finding:
        here = Environment(
            "v",
            Interpreter("/v/bin/python", "3.11.7", prefix="/v", base_prefix="/usr", fault=machine.pop("fault", None)),
            Machine(**machine),
            (Installed("trl", "1.9.2"), Installed("transformers", "4.57.6"), Installed("unsloth-zoo", "2026.8.1")),
            variables=variables or {},
            complete=True,
        )
        return only(list(find_machine_state(Case(here, folder=str(folder) if folder else None), KNOWN)))

    def test_an_interpreter_that_is_gone(self):
        finding = self.state(fault="/v/bin/python is a link to /usr/bin/python3.11, which is not there.")
        assert (finding.level, finding.branch) == ("error", "runtime/environment")
        assert finding.changes[0].commands[0] == "uv venv --clear --python 3.11 /v"
        assert "trl==1.9.2" in finding.changes[0].commands[1]

    def test_pythonhome_of_another_python(self):
        assert self.state(variables={"PYTHONHOME": "/none"}).level == "error"

    def test_a_full_disk(self):
        assert self.state(disk_free=200 * 2**20).verdict == "The disk of /v has 200 MB left."

    def test_small_shared_memory_beside_a_gpu(self):
        finding = self.state(shared_memory=64 * 2**20, gpus=("one",), container="kubernetes")
        assert finding.branch == "runtime/resources" and "emptyDir" in finding.changes[0].text

    @pytest.mark.parametrize("variables, level", [({}, "note"), ({"UNSLOTH_COMPILE_OVERWRITE": "0"}, "warning")])
    def test_code_that_was_written_for_other_releases(self, tmp_path, variables, level):
        cache = tmp_path / "unsloth_compiled_cache"
        cache.mkdir()
        (cache / "UnslothSFTTrainer.py").write_text('"""\n2026.8.1\n0\n4.57.6\n0.25.1\n__UNSLOTH_VERSIONING__\n"""\n')
        finding = self.state(tmp_path, variables)
        assert finding.level == level and finding.culprits == ("unsloth", "trl")
        assert "trl 0.25.1, and 1.9.2 is installed" in finding.verdict

    def test_a_sound_machine_gives_nothing(self, tmp_path):
        (tmp_path / "unsloth_compiled_cache").mkdir()
        written = '"""\n2026.8.1\n2026.8.1\n4.57.6\n1.9.2\n__UNSLOTH_VERSIONING__\n"""\n'
        (tmp_path / "unsloth_compiled_cache" / "a.py").write_text(written)
        with pytest.raises(AssertionError, match=r"\[\]"):
            self.state(tmp_path, shared_memory=2**30, gpus=("one",), disk_free=2**40)
