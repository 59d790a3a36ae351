"""Libraries that the loader doesn't find: what brings each."""

import pytest

from doctor.diagnosis.shared_libraries import find_shared_library
from tests.doctor.pasted import only, pasted, requirements, said

NOT_FOUND = "ImportError: {}: cannot open shared object file: No such file or directory"


@pytest.mark.parametrize(
    "library, package",
    [
        ("libGL.so.1", "libgl1"),
        ("libnuma.so.1", "libnuma1"),
        ("libsndfile.so.1", "libsndfile1"),
        ("libaio.so.1", "libaio1"),
        ("libgomp.so.1", "libgomp1"),
        ("libgthread-2.0.so.0", "libglib2.0-0"),
        ("libSM.so.6", "libsm6"),
        ("libssl.so.1.1", "libssl3"),
    ],
)
def test_a_system_library_has_a_package(library, package):
    found = only(find_shared_library, pasted(NOT_FOUND.format(library)))
    assert found.branch == "import/system_library" and found.changes[0].kind == "system"
    assert package in found.changes[0].commands[0] and library in found.verdict


def test_opencv_may_do_without_windows():
    found = only(find_shared_library, pasted(NOT_FOUND.format("libGL.so.1") + "\nimport cv2"))
    assert found.changes[1].requirements == ("opencv-python-headless",)


@pytest.mark.parametrize(
    "text, id, branch",
    [
        (NOT_FOUND.format("libcuda.so.1"), "driver-library-missing", "cuda/not_found"),
        (NOT_FOUND.format("libtorch_cuda_cu.so"), "torch-library-missing", "import/binary_abi"),
        (NOT_FOUND.format("libc10.so"), "torch-library-missing", "import/binary_abi"),
        (NOT_FOUND.format("libpython3.10.so.1.0"), "libpython-missing", "import/system_library"),
        (NOT_FOUND.format("libc.musl-x86_64.so.1"), "wheel-of-another-libc", "import/system_library"),
        (NOT_FOUND.format("libopenblas64_p-r0-15028c96.3.21.so"), "wheel-library-missing", "import/stale_or_partial"),
        (NOT_FOUND.format("libodd.so.3"), "library-not-found", "import/system_library"),
        ("Could not load library libcudnn_ops_infer.so.8. Error: x", "cuda-library-missing", "import/system_library"),
        ("/usr/bin/ld: cannot find -laio", "system-library-missing", "import/system_library"),
    ],
)
def test_each_kind_of_library_has_its_answer(text, id, branch):
    found = only(find_shared_library, pasted(text))
    assert (found.id, found.branch) == (id, branch) and found.changes


def test_a_cuda_library_is_named_by_its_wheel_and_compared_with_torchs_cuda():
    text = "ImportError: /v/site-packages/vllm/_C.abi3.so: libcudart.so.12: cannot open shared object file"
    found = only(find_shared_library, pasted(text, torch="2.11.0+cu130"))
    assert found.branch == "cuda/version_mismatch" and found.culprits == ("vllm",) and "13.0" in found.verdict
    alone = only(find_shared_library, pasted(NOT_FOUND.format("libcublasLt.so.11")))
    assert alone.changes[0].requirements == ("nvidia-cublas-cu11",)
    whisper = only(find_shared_library, pasted(NOT_FOUND.format("libcudnn.so.8"), ctranslate2="4.4.0"))
    assert whisper.changes[0].requirements == ("nvidia-cudnn-cu12==8.*",) or "8" in whisper.verdict


def test_a_file_of_data_is_no_library():
    assert said(find_shared_library, pasted("OSError: model.bin: cannot open file")) == []


def test_a_release_for_the_newer_cuda_comes_before_old_libraries():
    text = (
        f"Failed to load library libonnxruntime_providers_cuda.so with error: {NOT_FOUND.format('libcublasLt.so.11')}"
    )
    found = only(find_shared_library, pasted(text, onnxruntime_gpu="1.17.0"))
    assert requirements(found)[0] == ("onnxruntime-gpu>=1.19,<1.27",) and found.culprits == ("onnxruntime-gpu",)
    found = only(find_shared_library, pasted(text.replace(".11", ".12"), torch="2.12.0+cu130"))
    assert requirements(found)[0] == ("onnxruntime-gpu>=1.27",)


def test_a_library_that_was_found_is_not_missing():
    text = "Could not load library libcudnn_ops.so.8. Error: /x/libcudnn_ops.so.8: undefined symbol: _ZN5cudnnE"
    assert not said(find_shared_library, pasted(text))


@pytest.mark.parametrize(
    "text, package",
    [
        ("OSError: sndfile library not found", "libsndfile1"),
        ("OSError: PortAudio library not found", "libportaudio2"),
        ("OSError: ctypes.util.find_library() did not manage to locate a library called 'sndfile'", "libsndfile1"),
        ("RuntimeError: espeak not installed on your system", "libespeak-ng1"),
        ("TesseractNotFoundError: tesseract is not installed or it's not in your PATH", "tesseract-ocr"),
        ("PDFInfoNotInstalledError: Unable to get page count. Is poppler installed and in PATH?", "poppler-utils"),
    ],
)
def test_a_library_that_a_package_names_without_its_file(text, package):
    found = only(find_shared_library, pasted(text))
    assert found.id == "system-library-missing" and package in found.changes[0].commands[0]


@pytest.mark.parametrize("text", ["uv is not installed", "OSError: my own library not found", "ld: cannot find -lcuda"])
def test_other_things_that_are_not_found(text):
    assert not said(find_shared_library, pasted(text))
