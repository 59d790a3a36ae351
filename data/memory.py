"""How much memory a device has left."""

import re
from pathlib import Path

import torch

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def free_bytes(device: torch.device | str) -> int | None:
    """Tell how many bytes this process can still take on a device.

    Args:
        device: `cpu`: what the system has available, less where a control group (cgroup v1 or v2: containers, SLURM)
            allows less. `cuda`: what the driver has free, and what PyTorch's allocator holds without using it.

    Returns:
        Bytes, at least 0; None where it can't be told (MPS, or no /proc, as on macOS).
    """
    device = torch.device(device)
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return _free_host_bytes() if device.type == "cpu" else None


def readable_bytes(count: float) -> str:
    """Write a number of bytes for people: `512 bytes`, `1.9 MB`."""
    for unit in _UNITS:
        if count < 1000 or unit == _UNITS[-1]:
            return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def _free_host_bytes(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    available = re.search(r"^MemAvailable:\s*(\d+) kB", _read(proc / "meminfo"), re.MULTILINE)
    found = [int(available[1]) * 1024] if available else []
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            found += _group_room(groups, path, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            found += _group_room(groups / "memory", path, *names)
    return max(0, min(found)) if found else None


def _group_room(mount: Path, path: str, limit_name: str, usage_name: str, cache_name: str) -> list[int]:
    """What a control group and each that it lies in leave; a container sees its own group at the mount itself."""
    rooms = []
    parts = [part for part in path.split("/") if part]
    for depth in range(len(parts), -1, -1):
        folder = mount.joinpath(*parts[:depth])
        limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
        if limit.isdigit() and usage.isdigit():  # "max" is no limit
            # Files that were read count as used, but the kernel drops them when memory is asked for.
            cache = re.search(rf"^{cache_name} (\d+)$", _read(folder / "memory.stat"), re.MULTILINE)
            rooms.append(int(limit) - int(usage) + (int(cache[1]) if cache else 0))
    return rooms


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
