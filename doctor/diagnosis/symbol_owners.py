"""Whose a symbol is that is not torch's (CUDA's, Python's, the C++ library's, ...), and what its absence means."""

import re

from doctor.diagnosis.mangled import Name
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import distribution_of
from doctor.finding import Change, Finding

_BRANCH = "import/binary_abi"
_UNSET = Change(
    "environment",
    "Take the system's CUDA folders out of LD_LIBRARY_PATH, so that torch finds the "
    "libraries that it brought (nvidia-* wheels).",
    commands=("unset LD_LIBRARY_PATH",),
    environment=(("LD_LIBRARY_PATH", ""),),
)
# Symbols of CUDA's libraries: pattern, library, the wheel that brings it ({major}: of CUDA).
_CUDA = (
    (r"_*nvJitLink", "libnvJitLink", "nvidia-nvjitlink-cu{major}"),
    (r"cusparseLt", "libcusparseLt", "nvidia-cusparselt-cu{major}"),
    (r"cusparse", "libcusparse", "nvidia-cusparse-cu{major}"),
    (r"cublas", "libcublas", "nvidia-cublas-cu{major}"),
    (r"cusolver", "libcusolver", "nvidia-cusolver-cu{major}"),
    (r"cufft", "libcufft", "nvidia-cufft-cu{major}"),
    (r"curand", "libcurand", "nvidia-curand-cu{major}"),
    (r"cudnn", "libcudnn", "nvidia-cudnn-cu{major}"),
    (r"p?nccl", "libnccl", "nvidia-nccl-cu{major}"),
    (r"nvshmem", "libnvshmem", "nvidia-nvshmem-cu{major}"),
    (r"nvrtc", "libnvrtc", "nvidia-cuda-nvrtc-cu{major}"),
    (r"_*cupti", "libcupti", "nvidia-cuda-cupti-cu{major}"),
    (r"_*cuda[A-Z]", "libcudart", "nvidia-cuda-runtime-cu{major}"),
)
# Symbols that Python itself lost or gained: pattern, what it says.
_PYTHON_NOTES = (
    (r"_PyGen_Send|_PyUnicode_Ready|PyUnicode_GET_SIZE|PyUnicode_FromUnicode|_PyObject_GC_Malloc", "an older Python"),
    (r"Py_FullVersion|PyUnicodeUCS[24]", "Python 2"),
    (
        r"Py_GetConstantBorrowed|PyType_GetBaseByToken|PyUnicodeWriter|PyDict_GetItemStringRef"
        r"|PyMutex|PyObject_GetOptionalAttr",
        "Python 3.13 or newer",
    ),
)


def owner_of(told: Told, symbol: str, name: Name | None, file: str, line: str) -> Finding:
    """Return the finding about a missing symbol that is not torch's.

    Args:
        told: the case.
        symbol: as the linker prints it.
        name: the same, read as a C++ name.
        file: the file that asks for it; empty where not told.
        line: the line of the text.

    Returns:
        A finding.
    """
    project = distribution_of(file)
    stem = file.split("/")[-1] or "a compiled file"
    for pattern, library, wheel in _CUDA:
        if re.match(pattern, symbol):
            return _of_cuda(told, symbol, library, wheel, stem, line)
    if (
        re.match(
            r"c[a-z0-9]*_?(get_col_row_stats|dequantize|quantize|adam|lion|gemm|igemm|prefetch"
            r"|get_managed_ptr|get_context)\w*|cint8_\w+|cadam\w+",
            symbol,
        )
        and "bitsandbytes" in told.text
    ):
        return Finding(
            "bitsandbytes-cpu-library",
            "cuda/not_found",
            "error",
            0.9,
            "bitsandbytes loaded its library for CPUs, because it found no CUDA, and that lacks the GPU's functions.",
            (line,),
            f"{symbol} is only in the CUDA builds of the library: torch is a CPU build, no GPU is "
            f"visible, or there is no build for this CUDA version.",
            (
                Change(
                    "install",
                    "Make torch see the GPU first: a CUDA build of torch, a driver, a GPU in the container.",
                    commands=("python -c 'import torch; print(torch.version.cuda, torch.cuda.is_available())'",),
                ),
                Change(
                    "pin",
                    "With CUDA there, take a bitsandbytes that has libraries for its version.",
                    ("bitsandbytes>=0.45",),
                ),
            ),
            "reinstalling bitsandbytes: the library is whole, but the wrong one of its several",
            "python -m bitsandbytes",
            ("torch", "bitsandbytes"),
            gpu=True,
            source="https://huggingface.co/docs/bitsandbytes/main/en/installation",
        )
    if re.match(r"iJIT_", symbol):
        return Finding(
            "mkl-without-itt",
            _BRANCH,
            "error",
            0.93,
            "The MKL that conda installed (2024.1 or newer) lacks a symbol that this build of torch takes from it.",
            (line,),
            "libtorch_cpu of conda's pytorch before 2.4 expects iJIT_* in MKL; MKL 2024.1 moved them out.",
            (
                Change(
                    "pin",
                    "Hold MKL below 2024.1 in the conda environment.",
                    ("mkl<2024.1",),
                    commands=("conda install 'mkl<2024.1'",),
                ),
                Change("install", "Or install torch by pip: its wheels bring MKL inside."),
            ),
            "reinstalling torch from the same channel: MKL would be the same",
            culprits=("mkl", "torch"),
            source="https://github.com/pytorch/pytorch/issues/123097",
        )
    if re.match(r"_?Py[A-Z_]|PyInit_|_Py_", symbol):
        return _of_python(symbol, project, stem, line)
    if re.match(
        r"ffi_|g_\w+|EVP_|SSL_|OPENSSL_|CRYPTO_|X509|BIO_|sqlite3_|XML_|archive_|curl_|jpeg_"
        r"|png_|TIFF|inflate|deflate|gz",
        symbol,
    ):
        return Finding(
            "two-copies-of-a-library",
            "import/system_library",
            "error",
            0.75,
            f"{stem} was linked with a newer or older copy of a system library than the one that is loaded first.",
            (line,),
            f"{symbol} is in the system's library; conda's (or LD_LIBRARY_PATH's, LD_PRELOAD's) "
            f"copy of another version hides it.",
            (
                Change(
                    "environment",
                    "Start without LD_LIBRARY_PATH and LD_PRELOAD; in conda, update the library there or "
                    "don't mix the system's and conda's.",
                    environment=(("LD_LIBRARY_PATH", ""), ("LD_PRELOAD", "")),
                ),
            ),
            source="ld.so(8)",
        )
    if (name is not None and name.parts[0] == "std") or re.match(r"__cxa_|_ZNSt|_ZNKSt|_ZSt|__gxx|_ZTINSt", symbol):
        return Finding(
            "libstdcxx-too-old",
            "import/system_library",
            "error",
            0.85,
            f"{stem} was compiled with a newer GCC than the libstdc++ that is loaded.",
            (line,),
            f"{symbol} is of the C++ standard library; an older copy (the system's, or conda's) is found first.",
            (
                Change(
                    "system",
                    "Use a newer libstdc++: in conda `conda install -c conda-forge libstdcxx-ng`, else a "
                    "newer distribution or image.",
                    commands=("conda install -c conda-forge 'libstdcxx-ng>=12'",),
                ),
                Change(
                    "environment",
                    "Or load the newer one first.",
                    environment=(("LD_PRELOAD", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6"),),
                ),
            ),
            source="https://gcc.gnu.org/onlinedocs/libstdc++/manual/abi.html",
        )
    if re.match(r"__kmp|omp_|GOMP_|kmp_", symbol):
        return Finding(
            "openmp-runtimes-mixed",
            _BRANCH,
            "error",
            0.8,
            f"{stem} expects another OpenMP runtime than the one that was loaded first (libgomp, libiomp5, libomp).",
            (line,),
            "Several packages bring their own OpenMP library; the first that is loaded serves all.",
            (
                Change(
                    "environment",
                    "Take LD_PRELOAD out, or name in it the runtime that the failing library needs.",
                    environment=(("LD_PRELOAD", ""),),
                ),
                Change("install", "Or install all of torch, numpy and MKL from one source (pip or conda)."),
            ),
            source="https://github.com/joblib/threadpoolctl/blob/master/multiple_openmp.md",
        )
    who = project or stem
    if name is not None and len(name.parts) == 1 and "2at6Tensor" in symbol:
        return Finding(
            "kernel-not-compiled-in",
            _BRANCH,
            "error",
            0.75,
            f"{who} lacks a kernel of its own, {name.text}: it was compiled without it, or half "
            f"of an older build is left.",
            (line,),
            "Kernels are compiled in by GPU architecture and CUDA version; the part that calls "
            "them is compiled always.",
            (
                Change(
                    "clean",
                    f"Build {who} again from a clean tree (remove build folders and old .so files), with "
                    f"TORCH_CUDA_ARCH_LIST of this GPU and a CUDA toolkit that knows it.",
                ),
                Change("install", f"Or take {who}'s published wheel."),
            ),
            "another torch: the missing name is not torch's",
            culprits=(project,) if project else (),
            source="ld.so(8)",
        )
    space = f" (namespace {name.parts[0]})" if name is not None and len(name.parts) > 1 else ""
    change = Change(
        "install",
        f"Reinstall {who} with its companions from one source, of releases that belong "
        f"together (--force-reinstall --no-cache-dir), or build it against what is here.",
        commands=(f"pip install --force-reinstall --no-cache-dir {project}",) if project else (),
    )
    return Finding(
        "library-of-another-build",
        _BRANCH,
        "error",
        0.62,
        f"{who} was compiled against another version of a library than the one that is "
        f"loaded: {name.text if name else symbol}{space} is missing.",
        (line,),
        "Two builds that don't belong together, or an older copy of the library comes first on the search path.",
        (change,),
        "installing what the last line names as a Python package: the name is a function of a compiled library",
        culprits=(project,) if project else (),
        source="ld.so(8)",
    )


def _of_cuda(told: Told, symbol: str, library: str, wheel: str, stem: str, line: str) -> Finding:
    """Return the finding about a symbol of CUDA's libraries."""
    stated = re.search(r"(?:version |_)(?:lib\w+\.so\.)?(1[0-9])(?:[_.]\d+)?\b", line)
    cuda = told.torch_cuda or ""
    major = stated[1] if stated else cuda.split(".")[0] or "12"
    package = wheel.format(major=major)
    by_torch = bool(re.search(r"torch|libc10", stem)) or "torch" in line
    changes = [
        _UNSET,
        Change(
            "install",
            f"Install the CUDA libraries that torch pins again, all of one release ({package} and "
            f"its neighbours): reinstall torch without the cache.",
            commands=("pip install --force-reinstall --no-cache-dir torch",),
            disturbs=("torch's whole set of nvidia-* wheels is downloaded again (2-3 GB).",),
        ),
    ]
    if (
        told.case.environment.variables.get("LD_LIBRARY_PATH") is None
        and re.search(r"LD_LIBRARY_PATH", told.text) is None
        and told.version(package)
    ):
        changes.reverse()
    return Finding(
        "cuda-libraries-mixed",
        "cuda/version_mismatch",
        "error",
        0.9 if by_torch else 0.82,
        f"{stem} found a {library} of another CUDA release than the one it was built with.",
        (line, f"{symbol} is a function of {library}"),
        f"LD_LIBRARY_PATH (or a toolkit in /usr/local/cuda, a module, conda) puts another "
        f"{library} before that of the wheel {package}, or another package moved that wheel "
        f"to another release.",
        tuple(changes),
        "another torch: its own libraries are the right ones, if only they were found",
        "python -c 'import torch'",
        (package, "torch"),
        "https://github.com/pytorch/pytorch/issues/111469",
    )


def _of_python(symbol: str, project: str | None, stem: str, line: str) -> Finding:
    """Return the finding about a symbol of Python itself."""
    tag = re.search(r"cpython-(\d)(\d+)|\.cp(\d)(\d+)-", stem)
    named = next((note for pattern, note in _PYTHON_NOTES if re.match(pattern, symbol)), None)
    version = f"Python {tag[1] or tag[3]}.{tag[2] or tag[4]}" if tag else named or "another Python"
    who = project or stem
    return Finding(
        "extension-of-another-python",
        _BRANCH,
        "error",
        0.85,
        f"{who} was compiled for {version}, not for the interpreter that loads it.",
        (line, f"{symbol} is a function of Python's C interface"),
        "Compiled modules belong to one minor version of Python (and to its kind: debug, free-threaded, PyPy).",
        (
            Change(
                "install",
                f"Install {who} again with this interpreter, without cached wheels.",
                commands=(f"python -m pip install --force-reinstall --no-cache-dir {project or '<its distribution>'}",),
            ),
            Change(
                "clean",
                "If the files are of another environment, take that folder out of PYTHONPATH or make "
                "a new environment.",
            ),
        ),
        culprits=(project,) if project else (),
        source="https://docs.python.org/3/c-api/stable.html",
    )
