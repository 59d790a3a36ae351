"""CUDA that is not found or doesn't match, and the builds that do."""

import pytest

from doctor.diagnosis.cuda_builds import find_cuda_builds
from doctor.diagnosis.cuda_versions import find_cuda_versions
from doctor.diagnosis.gpu_tables import cuda_of_driver, torch_for_cuda
from tests.doctor.pasted import only, pasted, requirements, said

OLD_DRIVER = (
    "RuntimeError: The NVIDIA driver on your system is too old (found version {}). Please update your GPU driver"
)
ACCELERATE = (
    "ImportError: Using `bitsandbytes` 8-bit quantization requires Accelerate: `pip install accelerate` and the latest "
    "version of bitsandbytes: `pip install -U bitsandbytes`"
)


def find_cuda(case, knowledge):
    """All that is said of CUDA that is not found or does not match."""
    yield from find_cuda_builds(case, knowledge)
    yield from find_cuda_versions(case, knowledge)


def test_drivers_and_cuda():
    assert (
        cuda_of_driver("550.90.07") == "12.4"
        and cuda_of_driver("470.57.02") == "11.4"
        and cuda_of_driver("300.1") is None
    )
    assert torch_for_cuda("11.8")[-1] == "2.7" and torch_for_cuda("10.2")[-1] == "1.12"


def test_a_cpu_build_is_replaced_from_pytorchs_index():
    found = only(
        find_cuda, pasted("AssertionError: Torch not compiled with CUDA enabled", torch="2.6.0", system="win32")
    )
    assert found.id == "torch-without-cuda" and "On Windows" in found.why and found.changes[0].remove == ("torch",)
    assert "torch==2.6.0" in found.changes[0].commands[1] and "whl/cu126" in found.changes[0].commands[1]
    mac = only(find_cuda, pasted("AssertionError: Torch not compiled with CUDA enabled", system="darwin"))
    assert mac.changes[0].kind == "code" and "mps" in mac.changes[0].text


@pytest.mark.parametrize(
    "found_version, torch, wanted, index",
    [
        ("11040", "2.9.0", "torch<=2.7.99", "cu118"),
        ("12020", "2.11.0", "torch==2.11.0", "cu126"),
        ("10020", "2.0.1", "torch<=1.12.99", "cu102"),
    ],
)
def test_an_old_driver_gets_a_build_that_it_runs(found_version, torch, wanted, index):
    found = only(find_cuda, pasted(OLD_DRIVER.format(found_version), torch=torch))
    assert found.branch == "cuda/version_mismatch" and requirements(found)[0] == (wanted,)
    assert index in found.changes[0].commands[0] and found.changes[1].kind == "system"


def test_code_compiled_just_in_time_needs_the_driver_of_its_cuda():
    text = "RuntimeError: the provided PTX was compiled with an unsupported toolchain."
    found = only(find_cuda, pasted(text, torch="2.8.0+cu128"))
    assert "570.26" in found.changes[0].text and "PTX" in found.why


def test_a_message_that_blames_packages_is_about_the_gpu():
    found = only(find_cuda, pasted(f"{ACCELERATE}\ntorch.cuda.is_available() is False", accelerate="1.2.0"))
    assert found.branch == "cuda/not_found" and "as the message says" in found.not_this
    assert all("accelerate" not in one for one in requirements(found)) and "accelerate 1.2.0" in found.evidence[2]


def test_bitsandbytes_older_than_torchs_cuda_is_raised():
    text = "The installed version of bitsandbytes was compiled without GPU support."
    found = only(find_cuda, pasted(text, torch="2.7.0+cu128", bitsandbytes="0.44.1"))
    assert found.branch == "cuda/version_mismatch" and requirements(found) == [("bitsandbytes>=0.45.3",)]
    on_cpu = only(find_cuda, pasted(text, torch="2.7.0+cpu"))
    assert on_cpu.branch == "cuda/not_found"


@pytest.mark.parametrize(
    "text, id",
    [
        ("RuntimeError: No CUDA GPUs are available", "no-gpu-visible"),
        ("NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.", "no-gpu-visible"),
        ("Failed to initialize NVML: Driver/library version mismatch", "driver-halves-differ"),
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 804: forward "
            "compatibility was attempted on non supported HW",
            "cuda-system-not-ready",
        ),
        (
            "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 802: system not yet initialized",
            "cuda-system-not-ready",
        ),
        (
            "RuntimeError: cuDNN version incompatibility: PyTorch was compiled  against (9, 1, "
            "0) but found runtime version (8, 9, 7).",
            "cudnn-of-another-version",
        ),
        (
            "RuntimeError: Attempting to deserialize object on a CUDA device but torch.cuda.is_available() is False.",
            "checkpoint-of-gpu-on-cpu",
        ),
        (
            "RuntimeError: Detected that PyTorch and torchvision were compiled with different CUDA major versions.",
            "torch-and-companion-differ",
        ),
    ],
)
def test_each_message_has_its_kind(text, id):
    assert id in [one.id for one in said(find_cuda, pasted(text))]


def test_a_toolkit_that_is_not_torchs_is_told_with_both_versions():
    text = (
        "Exception: Installed CUDA version 11.7 does not match the version torch was "
        "compiled with 11.6, unable to compile "
        "cuda/cpp extensions without a matching cuda version.\n"
        "AttributeError: 'DeepSpeedCPUAdam' object has no attribute 'ds_opt_adam'"
    )
    found = only(find_cuda, pasted(text))
    assert found.branch == "build/incompatible" and "(11.7)" in found.verdict and "(11.6)" in found.verdict
    assert "ds_opt_adam" in found.not_this and found.changes[2].environment == (("DS_SKIP_CUDA_CHECK", "1"),)
    other = only(find_cuda, pasted(text.replace("11.7", "12.1")))
    assert all(change.kind != "environment" for change in other.changes)


def test_a_text_without_cuda_says_nothing():
    assert said(find_cuda, pasted("RuntimeError: shape mismatch")) == []


def test_a_jax_or_tensorflow_of_a_newer_cudnn_raises_it():
    text = "cuda_dnn.cc:427] Loaded runtime CuDNN library: {} but source was compiled with: {}.  CuDNN library needs"
    found = only(find_cuda_versions, pasted(text.format("8.5.0", "8.6.0")))
    assert (found.id, requirements(found)[0]) == ("cudnn-older-than-compiled", ("nvidia-cudnn-cu11>=8.6,<9",))
    found = only(find_cuda_versions, pasted("tensorflow " + text.format("9.1.0", "9.3.0")))
    assert requirements(found)[0] == ("nvidia-cudnn-cu12>=9.3,<10",) and "tensorflow" in found.culprits


def test_a_cudnn_of_two_builds_is_another_one_in_the_way():
    text = "Could not load library libcudnn_cnn_train.so.8. Error: /usr/local/cuda/lib64/libcudnn_cnn_train.so.8: undefined symbol: _ZN5cudnnE, version libcudnn_cnn_infer.so.8"  # noqa: E501
    found = only(find_cuda_versions, pasted(text))
    assert found.branch == "cuda/version_mismatch" and found.changes[0].environment == (("LD_LIBRARY_PATH", ""),)
