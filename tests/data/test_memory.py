from pathlib import Path

import pytest
import torch

from data.memory import _free_host_bytes, free_bytes, readable_bytes

GB = 1024**3


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


@pytest.fixture
def roots(tmp_path):
    write(tmp_path / "proc" / "meminfo", f"MemTotal: 1 kB\nMemAvailable:    {8 * GB // 1024} kB\n")
    return tmp_path / "proc", tmp_path / "cgroup"


def test_host_memory_is_what_the_system_has_available(roots):
    assert _free_host_bytes(*roots) == 8 * GB


def test_version_2_groups_limit_memory_at_every_level(roots):
    proc, groups = roots
    write(proc / "self" / "cgroup", "0::/job/step\n")
    write(groups / "job" / "step" / "memory.max", "max\n")
    write(groups / "job" / "step" / "memory.current", f"{GB}\n")
    assert _free_host_bytes(*roots) == 8 * GB, "no limit"
    write(groups / "job" / "memory.max", f"{4 * GB}\n")
    write(groups / "job" / "memory.current", f"{3 * GB}\n")
    write(groups / "job" / "memory.stat", f"anon 5\ninactive_file {GB}\n")
    assert _free_host_bytes(*roots) == 2 * GB, "cached files can be dropped"
    write(groups / "job" / "memory.current", f"{6 * GB}\n")
    assert _free_host_bytes(*roots) == 0


def test_version_1_groups_limit_memory_and_a_container_sees_its_own_at_the_mount(roots):
    proc, groups = roots
    write(proc / "self" / "cgroup", "5:cpu:/docker/abc\n4:hugetlb,memory:/docker/abc\n")
    write(groups / "memory" / "memory.limit_in_bytes", f"{3 * GB}\n")
    write(groups / "memory" / "memory.usage_in_bytes", f"{GB}\n")
    write(groups / "memory" / "memory.stat", "total_inactive_file 0\n")
    assert _free_host_bytes(*roots) == 2 * GB


def test_unknown_is_none(tmp_path):
    assert _free_host_bytes(tmp_path, tmp_path) is None
    assert free_bytes("meta") is None


@pytest.mark.gpu
def test_cuda_counts_what_the_allocator_holds_unused():
    held = torch.empty(64 * 2**20, dtype=torch.uint8, device="cuda")
    before = free_bytes("cuda")
    del held
    assert free_bytes("cuda") >= before + 32 * 2**20


def test_sizes_are_readable():
    assert [readable_bytes(size) for size in (0, 999, 1900, 2.5e9, 3e15)] == [
        "0 bytes", "999 bytes", "1.9 kB", "2.5 GB", "3000.0 TB",
    ]  # fmt: skip
