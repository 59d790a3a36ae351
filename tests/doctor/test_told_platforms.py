"""Where a text was written."""

from pathlib import Path

import pytest

from doctor.failure.read import read_failure

GIB = 1 << 30
FOLDER = Path(__file__).parent / "reports"


def told(text):
    return read_failure(text).platform


@pytest.mark.parametrize(
    ("text", "system", "python", "place"),
    [
        ("Platform: Linux, Python 3.10, conda", "linux", "3.10", "conda"),
        ("Platform: Windows 11, Python 3.12.1", "win32", "3.12.1", None),
        ("Platform: Windows/Linux", None, None, None),
        ("Platform: Kaggle notebook, Python 3.10", "linux", "3.10", "kaggle"),
        ("Platform: Docker slim image", "linux", None, "docker"),
        (
            '  File "C:\\Users\\me\\AppData\\Roaming\\Python\\Python310\\site-packages\\a\\b.py", line 1, in f\nE: x',
            "win32",
            "3.10",
            None,
        ),
        ('  File "/Users/me/venv/lib/python3.11/site-packages/a/b.py", line 1, in f', "darwin", "3.11", None),
        (
            '  File "/usr/local/lib/python3.11/dist-packages/a/b.py", line 1, in f\n  File "/content/x.py", '
            "line 1, in g",
            "linux",
            "3.11",
            "colab",
        ),
        (
            '  File "/home/me/miniconda3/envs/ml/lib/python3.9/site-packages/a.py", line 1, in f',
            "linux",
            "3.9",
            "conda",
        ),
        ("ImportError: /x/_C.cpython-38-x86_64-linux-gnu.so: undefined symbol: a", "linux", "3.8", None),
        ("ERROR: a-1.0-cp310-cp310-linux_x86_64.whl is not a supported wheel on this platform.", None, None, None),
        ("uname: 5.15.90.1-microsoft-standard-WSL2", "linux", None, "wsl"),
        ("slurmstepd: error: Detected 1 oom-kill event(s)", "linux", None, "slurm"),
    ],
)
def test_system_python_and_place(text, system, python, place):
    platform = told(text)
    assert (platform.sys_platform, platform.python, platform.place) == (system, python, place)


@pytest.mark.parametrize(
    ("text", "name", "capability", "memory"),
    [
        ("on a T4 GPU", "T4", (7, 5), 16),
        ("Your Tesla V100-SXM2-32GB GPU has compute capability 7.0.", "Tesla V100-SXM2-32GB", (7, 0), 32),
        ("GPU 0: NVIDIA A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", (8, 0), 80),
        (
            "NVIDIA GeForce RTX 5090 with CUDA capability sm_120 is not compatible",
            "NVIDIA GeForce RTX 5090",
            (12, 0),
            32,
        ),
        ("Platform: Windows, RTX 50 series", "RTX 50 series", (12, 0), None),
        ("GPU type: NVIDIA L40S", "NVIDIA L40S", (8, 9), 48),
        ("NVIDIA H100 80GB HBM3", "NVIDIA H100", (9, 0), 80),
        ("Platform: DGX Spark, aarch64, SM121", "DGX Spark", (12, 1), 128),
        ("GPU 0 has a total capacity of 8.00 GiB of which 0 bytes is free", "", None, 8),
    ],
)
def test_processors(text, name, capability, memory):
    (gpu,) = told(text).gpus
    assert (gpu.name, gpu.capability) == (name, capability)
    assert gpu.memory == (memory * GIB if memory else None)


@pytest.mark.parametrize(
    "text",
    ["GPT4 is nice", "Section A10 and L4", 'File "/x/T4.py", line 1, in f', "only for capability of at least 8.0"],
)
def test_what_is_no_processor(text):
    assert told(text).gpus == ()


def test_driver_and_cuda():
    report = told((FOLDER / "collect_env.txt").read_text())
    assert (report.driver, report.cuda, len(report.gpus)) == ("550.54.15", "12.4", 1)
    table = told((FOLDER / "smi.txt").read_text())
    assert (table.driver, table.cuda) == ("570.124.06", "12.8")
    text = "Installed CUDA version 11.7 does not match the version torch was compiled with 11.6, unable to compile"
    assert told(text).cuda == "11.6"
    assert told("torch: 2.5.1+cu121").cuda == "12.1"


def test_the_user_site_is_seen():
    assert told('  File "/home/me/.local/lib/python3.11/site-packages/a.py", line 1, in f').user_site
    assert not told('  File "/home/me/venv/lib/python3.11/site-packages/a.py", line 1, in f').user_site
