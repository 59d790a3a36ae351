"""The machine around an interpreter, with a fake nvidia-smi on PATH and fake /proc, /sys and /dev."""

from pathlib import Path

from patients import fake_nvidia_smi, fake_program

from doctor.environment.facts import Gpu, Machine
from doctor.environment.machine import read_machine

GIB = 2**30


def read(root: Path, *path: Path, timeout: float = 20, **variables: str) -> Machine:
    told = {"PATH": ":".join(map(str, [*path, "/usr/bin", "/bin"])), **variables}
    return read_machine(near=str(root), variables=told, root=str(root), timeout=timeout)


def write(root: Path, place: str, text: str) -> None:
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    (root / place).write_text(text)


def test_a_machine_without_a_gpu(tmp_path):
    here = read(tmp_path)
    assert here.gpus == () and here.driver is None and here.gpu_fault is None
    assert here.container is None and here.shared_memory is None and here.disk_free > 0


def test_processors_are_read_from_nvidia_smi(tmp_path):
    rows = ("Tesla T4, 15360, 550.54.15, 7.5", "NVIDIA A100-SXM4-80GB, 81920, 550.54.15, 8.0")
    fake_nvidia_smi(tmp_path / "bin", *rows, cuda="12.4")
    here = read(tmp_path, tmp_path / "bin")
    assert here.gpus == (Gpu("Tesla T4", 15 * GIB, (7, 5)), Gpu("NVIDIA A100-SXM4-80GB", 80 * GIB, (8, 0)))
    assert (here.driver, here.driver_cuda) == ("550.54.15", "12.4")


def test_an_old_nvidia_smi_does_not_know_capabilities(tmp_path):
    fake_nvidia_smi(tmp_path / "bin", "Tesla V100-SXM2-32GB, 32768, 450.51.06", cuda="11.0", capability=False)
    here = read(tmp_path, tmp_path / "bin")
    assert here.gpus == (Gpu("Tesla V100-SXM2-32GB", 32 * GIB, None),) and here.driver == "450.51.06"


def test_an_nvidia_smi_that_fails_is_told_not_taken_for_no_gpu(tmp_path):
    fake_program(
        tmp_path / "bin", "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18"
    )
    write(
        tmp_path, "proc/driver/nvidia/version", "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug\n"
    )
    here = read(tmp_path, tmp_path / "bin")
    assert here.gpus is None and "version mismatch" in here.gpu_fault and here.driver == "535.104.05"
    fake_program(tmp_path / "bin", "nvidia-smi", "echo 'No devices were found'; exit 6")
    assert read(tmp_path, tmp_path / "bin").gpus == ()
    fake_program(tmp_path / "bin", "nvidia-smi", "exec sleep 60")
    here = read(tmp_path, tmp_path / "bin", timeout=0.2)
    assert here.gpus is None and "did not answer" in here.gpu_fault


def test_a_device_file_without_nvidia_smi_means_that_nobody_can_tell(tmp_path):
    write(tmp_path, "dev/nvidia0", "")
    assert read(tmp_path).gpus is None


def test_the_toolkit_is_the_one_that_a_build_would_take(tmp_path):
    write(tmp_path, "cuda-11.8/version.json", '{"cuda" : {"name" : "CUDA SDK", "version" : "11.8.20220929"}}')
    write(tmp_path, "cuda-12.4/include/cuda.h", "#define CUDA_VERSION 12040\n")
    fake_program(tmp_path / "cuda-12.4" / "bin", "nvcc", "echo 'Cuda compilation tools, release 12.5, V12.5.40'")
    here = read(tmp_path, tmp_path / "cuda-12.4" / "bin")
    assert (here.toolkit, here.cuda_home) == ("12.4", str(tmp_path / "cuda-12.4"))
    assert here.compilers["nvcc"] == "12.5"
    here = read(tmp_path, tmp_path / "cuda-12.4" / "bin", CUDA_HOME=str(tmp_path / "cuda-11.8"))
    assert here.toolkit == "11.8" and here.compilers["nvcc"] == "12.5"


def test_compilers_are_those_on_path(tmp_path):
    fake_program(tmp_path / "bin", "gcc", "echo 'gcc (Debian 12.2.0-14) 12.2.0'")
    fake_program(tmp_path / "bin", "cmake", "echo 'cmake version 3.25.1'; pwd")
    fake_program(tmp_path / "bin", "rustc", "echo 'error: no toolchain' >&2; exit 1")
    told = {"PATH": str(tmp_path / "bin")}
    here = read_machine(near=str(tmp_path), variables=told, root=str(tmp_path))
    assert here.compilers == {"cc": "12.2.0", "cmake": "3.25.1"}


def test_memory_is_what_the_container_allows(tmp_path):
    write(tmp_path, "proc/meminfo", "MemTotal:       65536000 kB\nMemAvailable:   32768000 kB\n")
    here = read(tmp_path)
    assert (here.memory, here.memory_free) == (65536000 * 1024, 32768000 * 1024)
    write(tmp_path, "proc/self/cgroup", "0::/jobs/step\n")
    write(tmp_path, "sys/fs/cgroup/jobs/memory.max", f"{8 * GIB}\n")
    write(tmp_path, "sys/fs/cgroup/jobs/memory.current", f"{6 * GIB}\n")
    write(tmp_path, "sys/fs/cgroup/jobs/memory.stat", f"anon 1\ninactive_file {1 * GIB}\n")
    write(tmp_path, "sys/fs/cgroup/jobs/step/memory.max", "max\n")
    here = read(tmp_path)
    assert (here.memory, here.memory_free) == (8 * GIB, 3 * GIB)
    write(tmp_path, "proc/self/cgroup", "5:memory:/docker/ab\n3:cpu:/x\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.limit_in_bytes", f"{4 * GIB}\n")
    write(tmp_path, "sys/fs/cgroup/memory/memory.usage_in_bytes", f"{1 * GIB}\n")
    here = read(tmp_path)
    assert (here.memory, here.memory_free) == (4 * GIB, 3 * GIB)


def test_the_kind_of_container(tmp_path):
    assert read(tmp_path, COLAB_RELEASE_TAG="release").container == "colab"
    assert read(tmp_path, KAGGLE_KERNEL_RUN_TYPE="Interactive").container == "kaggle"
    assert read(tmp_path, KUBERNETES_SERVICE_HOST="10.0.0.1").container == "kubernetes"
    write(tmp_path, "proc/version", "Linux version 5.15 (Microsoft@Microsoft.com) WSL2\n")
    assert read(tmp_path).container == "wsl"
    write(tmp_path, ".dockerenv", "")
    assert read(tmp_path).container == "docker"
