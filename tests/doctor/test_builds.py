"""Builds from source: tools, isolation, host compilers."""

import pytest

from doctor.diagnosis.builds import find_build_failure
from tests.doctor.pasted import only, pasted, requirements, said

ISOLATED = (
    "ModuleNotFoundError: No module named '{}'\nerror: subprocess-exited-with-error\n"
    "Getting requirements to build wheel did not run successfully."
)


@pytest.mark.parametrize("module", ["torch", "numpy", "packaging", "psutil"])
def test_a_setup_that_imports_more_than_it_declares(module):
    found = only(find_build_failure, pasted(ISOLATED.format(module), flash_attn="2.7.4", torch="2.6.0"))
    assert (
        found.branch == "build/isolation" and f"imports {module}" in found.verdict and found.culprits == ("flash-attn",)
    )
    assert "--no-build-isolation flash-attn" in found.changes[0].commands[1]
    assert f"pip install {module}" in found.not_this


def test_without_isolation_the_tools_must_be_there():
    text = (
        "error: invalid command 'bdist_wheel'\nERROR: Failed building wheel for "
        "flash-attn\npip install flash-attn --no-build-isolation"
    )
    found = only(find_build_failure, pasted(text))
    assert found.id == "build-tools-not-installed" and requirements(found)[0] == ("wheel", "setuptools", "wheel")


def test_an_import_outside_a_build_is_not_isolation():
    assert said(find_build_failure, pasted("ModuleNotFoundError: No module named 'torch'")) == []
    removed = ISOLATED.format("pkg_resources")
    assert said(find_build_failure, pasted(removed)) == []


@pytest.mark.parametrize(
    "text, tool",
    [
        ("OSError: CUDA_HOME environment variable is not set.", "the CUDA toolkit"),
        ("/bin/sh: 1: nvcc: not found", "the CUDA toolkit"),
        ("CMake Error: CMAKE_C_COMPILER not set, after EnableLanguage", "a C/C++ compiler"),
        ("error: command 'gcc' failed: No such file or directory", "a C/C++ compiler"),
        ("RuntimeError: Failed to find C compiler. Please specify via CC environment variable", "a C/C++ compiler"),
        ("error: Microsoft Visual C++ 14.0 or greater is required.", "Microsoft's C++ compiler"),
        ("error: can't find Rust compiler", "Rust"),
        ("RuntimeError: CMake must be installed to build the following extensions", "CMake"),
        ("RuntimeError: Ninja is required to load C++ extensions", "Ninja"),
        ("ERROR: Cannot find command 'git' - do you have 'git' installed and in your PATH?", "git"),
        ("Error: pg_config executable not found.", "PostgreSQL's client library"),
        ("error: command 'swig' failed: No such file or directory", "SWIG"),
    ],
)
def test_a_missing_tool_is_named_with_what_installs_it(text, tool):
    found = only(find_build_failure, pasted(text))
    assert found.branch == "build/missing_tool" and tool in found.verdict and found.changes[0].commands


@pytest.mark.parametrize(
    "text, sign",
    [
        ("/tmp/tmpx/main.c:5:10: fatal error: Python.h: No such file or directory\nPython 3.12", "python3.12-dev"),
        ("fatal error: 'cuda_runtime.h' file not found", "cuda-toolkit"),
        ("fatal error: libaio.h: No such file or directory", "libaio-dev"),
        ("error C1083: Cannot open include file: 'portaudio.h': No such file or directory", "portaudio19-dev"),
        ("fatal error: strange.h: No such file or directory", "apt-file search strange.h"),
    ],
)
def test_a_missing_header_has_a_package(text, sign):
    found = only(find_build_failure, pasted(text))
    assert found.branch == "build/missing_tool" and sign in found.changes[0].commands[0]


def test_a_header_of_a_python_package_is_a_matter_of_isolation():
    found = only(find_build_failure, pasted("fatal error: numpy/arrayobject.h: No such file or directory"))
    assert found.branch == "build/isolation" and "--no-build-isolation" in found.changes[0].text


def test_a_host_compiler_that_is_too_new():
    text = (
        "/usr/local/cuda-12.1/include/crt/host_config.h:132:2: error: #error -- unsupported "
        "GNU version! gcc versions later than 12 are not supported!"
    )
    found = only(find_build_failure, pasted(text))
    assert found.branch == "build/incompatible" and "gcc-12" in found.changes[0].commands[0] and "12.1" in found.verdict
