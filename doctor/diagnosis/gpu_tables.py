"""What is known of NVIDIA's processors and CUDA versions, as tables.

Sources: developer.nvidia.com/cuda-gpus (capabilities), docs.nvidia.com/cuda/cuda-toolkit-release-notes (drivers),
docs.nvidia.com/deploy/cuda-compatibility, pytorch.org/get-started/previous-versions and the release notes of torch
(builds, architectures), the wheels themselves (read 2026-11-28).
"""

TORCH_INDEX = "https://download.pytorch.org/whl"
"""Index of torch's builds: `/cu126`, `/cpu` and so on follow."""

# A name as texts write it, its short name, compute capability, gigabytes of memory (0: several sizes).
GPUS: tuple[tuple[str, str, tuple[int, int], int], ...] = (
    (r"\bK80\b", "Tesla K80", (3, 7), 12),
    (r"\bK40[cm]?\b", "Tesla K40", (3, 5), 12),
    (r"\bM(40|60)\b|GTX 9[5678]0|GTX TITAN X\b", "Maxwell GPU", (5, 2), 0),
    (r"\bGTX 750", "GTX 750", (5, 0), 2),
    (r"\bP100\b", "Tesla P100", (6, 0), 16),
    (r"\bP40\b", "Tesla P40", (6, 1), 24),
    (r"\bP4\b(?!,)", "Tesla P4", (6, 1), 8),
    (r"GTX ?10[5678]0|TITAN Xp\b|Quadro P\d", "Pascal GPU", (6, 1), 0),
    (r"\bV100S?\b", "V100", (7, 0), 0),
    (r"TITAN V\b", "TITAN V", (7, 0), 12),
    (r"\bT4G?\b|Tesla T4", "T4", (7, 5), 16),
    (r"RTX ?20[6-8]0|GTX ?16[56]0|TITAN RTX|Quadro RTX|\bT10\b", "Turing GPU", (7, 5), 0),
    (r"\bA100\b", "A100", (8, 0), 0),
    (r"\bA30\b", "A30", (8, 0), 24),
    (r"\bA10G?\b", "A10", (8, 6), 24),
    (r"\bA40\b|RTX A6000|\bA6000\b", "A40/A6000", (8, 6), 48),
    (r"RTX ?30[5-9]0|RTX A[245]\d00\b|\bA16\b|\bA2\b", "Ampere GPU", (8, 6), 0),
    (r"\bOrin\b", "Jetson Orin", (8, 7), 0),
    (r"\bL4\b", "L4", (8, 9), 24),
    (r"\bL40S?\b", "L40", (8, 9), 48),
    (r"RTX ?40[5-9]0|RTX 6000 Ada|Ada Generation", "Ada GPU", (8, 9), 0),
    (r"\bH100\b|\bH800\b|\bGH200\b", "H100", (9, 0), 80),
    (r"\bH200\b|\bH20\b", "H200", (9, 0), 0),
    (r"\bG?B200\b", "B200", (10, 0), 180),
    (r"\bG?B300\b", "B300", (10, 3), 288),
    (r"Jetson (AGX )?Thor\b", "Jetson Thor", (11, 0), 128),
    (r"RTX ?50[5-9]0|RTX PRO \d000 Blackwell|RTX PRO 6000", "Blackwell GPU (RTX 50)", (12, 0), 0),
    (r"\bGB10\b|DGX Spark", "DGX Spark (GB10)", (12, 1), 128),
)

# Capability: the first CUDA that compiles for it, the last one; the first torch whose wheels run on it.
ARCHITECTURES: dict[tuple[int, int], tuple[str, str, str]] = {
    (3, 5): ("5.0", "11.8", "0.4"),
    (3, 7): ("6.5", "11.8", "0.4"),
    (5, 0): ("6.5", "12.9", "0.4"),
    (5, 2): ("6.5", "12.9", "0.4"),
    (6, 0): ("8.0", "12.9", "0.4"),
    (6, 1): ("8.0", "12.9", "0.4"),
    (7, 0): ("9.0", "12.9", "0.4"),
    (7, 5): ("10.0", "", "1.1"),
    (8, 0): ("11.0", "", "1.7"),
    (8, 6): ("11.1", "", "1.8"),
    (8, 7): ("11.4", "", "1.8"),
    (8, 9): ("11.8", "", "1.8"),
    (9, 0): ("11.8", "", "2.0"),
    (10, 0): ("12.8", "", "2.7"),
    (10, 3): ("12.9", "", "2.8"),
    (11, 0): ("13.0", "", "2.9"),
    (12, 0): ("12.8", "", "2.7"),
    (12, 1): ("12.9", "", "2.8"),
}
# Capability -> the first triton whose own ptxas knows it (2.1 brought that of CUDA 12.1, 3.3 12.8, 3.6 12.9, 3.7 13.1).
TRITON_FOR: dict[tuple[int, int], str] = {
    (8, 9): "2.1", (9, 0): "2.1", (10, 0): "3.3", (12, 0): "3.3", (10, 3): "3.6", (12, 1): "3.6", (11, 0): "3.7",
}  # fmt: skip
# Generations that published wheels of torch dropped: below this capability, from this build on, what still has them.
DROPPED: tuple[tuple[tuple[int, int], str, str, str], ...] = (
    ((5, 0), "torch 2.1", "torch<2.1", "a build of torch before 2.1 (with CUDA 11)"),
    ((7, 0), "the CUDA 12.8 builds of torch, and 2.8 on PyPI", "torch<2.8", "a cu126 build of torch"),
    ((7, 5), "the CUDA 13 builds of torch, and 2.11 on PyPI", "torch<2.11", "a cu126 build of torch"),
)
NAMES: dict[tuple[int, int], str] = {
    (3, 5): "Kepler", (3, 7): "Kepler", (5, 0): "Maxwell", (5, 2): "Maxwell", (6, 0): "Pascal", (6, 1): "Pascal",
    (7, 0): "Volta", (7, 5): "Turing", (8, 0): "Ampere", (8, 6): "Ampere", (8, 7): "Ampere", (8, 9): "Ada",
    (9, 0): "Hopper", (10, 0): "Blackwell", (10, 3): "Blackwell", (11, 0): "Blackwell", (12, 0): "Blackwell",
    (12, 1): "Blackwell",
}  # fmt: skip

# The oldest Linux driver that a CUDA version came with; the oldest that runs all of a major version.
DRIVERS: dict[str, str] = {
    "10.0": "410.48", "10.1": "418.39", "10.2": "440.33", "11.0": "450.51", "11.1": "455.32", "11.2": "460.32",
    "11.3": "465.19", "11.4": "470.57", "11.5": "495.29", "11.6": "510.47", "11.7": "515.48", "11.8": "520.61",
    "12.0": "525.85", "12.1": "530.30", "12.2": "535.54", "12.3": "545.23", "12.4": "550.54", "12.5": "555.42",
    "12.6": "560.28", "12.8": "570.26", "12.9": "575.51", "13.0": "580.65", "13.1": "590.44",
}  # fmt: skip
MAJOR_DRIVERS: dict[int, str] = {11: "450.80", 12: "525.60", 13: "580.65"}

# Of each minor version of torch: the CUDA of its wheel on PyPI, then those of download.pytorch.org.
TORCH_CUDA: dict[str, tuple[str, ...]] = {
    "1.8": ("10.2", "11.1"), "1.9": ("10.2", "11.1"), "1.10": ("10.2", "11.1", "11.3"),
    "1.11": ("10.2", "11.3", "11.5"), "1.12": ("10.2", "11.3", "11.6"), "1.13": ("11.7", "11.6"),
    "2.0": ("11.7", "11.8"), "2.1": ("12.1", "11.8"), "2.2": ("12.1", "11.8"),
    "2.3": ("12.1", "11.8"), "2.4": ("12.1", "11.8", "12.4"), "2.5": ("12.4", "11.8", "12.1"),
    "2.6": ("12.4", "11.8", "12.6"), "2.7": ("12.6", "11.8", "12.8"), "2.8": ("12.8", "12.6", "12.9"),
    "2.9": ("12.8", "12.6", "13.0"), "2.10": ("12.8", "12.6", "13.0"), "2.11": ("13.0", "12.6", "12.8"),
}  # fmt: skip


def torch_for_cuda(cuda: str) -> list[str]:
    """Return the minor versions of torch that were published for a CUDA version, oldest first."""
    return [torch for torch, builds in TORCH_CUDA.items() if cuda in builds]


def cuda_of_driver(driver: str) -> str | None:
    """Return the newest CUDA that a Linux driver came with, "12.4" for "550.90"; None for an older one than all."""
    number = _numbers(driver)
    known = [cuda for cuda, oldest in DRIVERS.items() if _numbers(oldest) <= number]
    return max(known, key=_numbers) if known else None


def _numbers(version: str) -> tuple[int, ...]:
    """Return a version as numbers that compare."""
    return tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
