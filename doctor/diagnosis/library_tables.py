"""Shared libraries and what brings them, as a table.

Sources: packages.debian.org and packages.fedoraproject.org (file lists), conda-forge, the nvidia-* wheels' contents.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """What brings a library.

    Args:
        pattern: expression for its name, without ".so.N".
        what: what it is, in a few words.
        apt: packages of Debian and Ubuntu.
        dnf: packages of Fedora and Red Hat.
        conda: packages of conda-forge.
        note: what else one should know.
    """

    pattern: str
    what: str
    apt: str
    dnf: str
    conda: str = ""
    note: str = ""


LIBRARIES: tuple[Source, ...] = (
    Source(r"libnuma", "NUMA placement", "libnuma1", "numactl-libs", "libnuma"),
    Source(
        r"libGL|libGLX\w*|libGLdispatch|libOpenGL",
        "OpenGL",
        "libgl1",
        "mesa-libGL",
        "libgl",
        "opencv-python-headless needs none of it",
    ),
    Source(r"libEGL", "OpenGL without a window", "libegl1", "mesa-libEGL", "libegl"),
    Source(r"libOSMesa", "OpenGL in software", "libosmesa6", "mesa-libOSMesa", "mesalib"),
    Source(
        r"libglib-2\.0|libgthread-2\.0|libgobject-2\.0",
        "GLib",
        "libglib2.0-0",
        "glib2",
        "glib",
        "opencv-python-headless needs none of it",
    ),
    Source(
        r"libSM|libICE|libXext|libXrender|libX11\w*|libXtst|libXi|libXrandr|libxcb[\w-]*",
        "the X window system",
        "libsm6 libxext6 libxrender1",
        "libSM libXext libXrender",
        "xorg-libsm xorg-libxext xorg-libxrender",
    ),
    Source(r"libgomp\w*", "GCC's OpenMP", "libgomp1", "libgomp", "libgomp"),
    Source(r"libomp", "LLVM's OpenMP", "libomp5", "libomp", "llvm-openmp"),
    Source(r"libiomp5", "Intel's OpenMP", "libiomp5", "libomp", "intel-openmp"),
    Source(r"libsndfile", "sound files", "libsndfile1", "libsndfile", "libsndfile"),
    Source(r"libpoppler\S*", "Poppler, which reads PDF", "poppler-utils", "poppler-utils", "poppler"),
    Source(
        r"libtesseract|liblept(onica)?",
        "Tesseract, reading of images",
        "tesseract-ocr",
        "tesseract",
        "tesseract",
    ),
    Source(r"libsox", "SoX", "libsox-dev", "sox", "sox"),
    Source(r"libportaudio", "PortAudio", "libportaudio2", "portaudio", "portaudio"),
    Source(r"libasound", "ALSA", "libasound2", "alsa-lib", "alsa-lib"),
    Source(
        r"libav\w+|libsw\w+|libpostproc",
        "FFmpeg",
        "ffmpeg",
        "ffmpeg-free",
        "ffmpeg",
        "torchcodec takes FFmpeg 4 to 7; its own error lists every version that it tried",
    ),
    Source(r"libmpi\w*|libopen-(rte|pal)", "Open MPI", "libopenmpi3", "openmpi", "openmpi"),
    Source(r"libaio", "asynchronous files", "libaio1", "libaio", "libaio"),
    Source(
        r"libibverbs|librdmacm|libmlx\d", "InfiniBand", "libibverbs1 librdmacm1", "libibverbs librdmacm", "rdma-core"
    ),
    Source(r"libfabric", "libfabric", "libfabric1", "libfabric", "libfabric"),
    Source(r"libcrypt", "the old libcrypt", "libcrypt1", "libxcrypt-compat", "libxcrypt"),
    Source(r"libtbb\w*", "Intel TBB", "libtbb12", "tbb", "tbb"),
    Source(r"libmkl_\w+", "Intel MKL", "libmkl-rt", "", "mkl", "pip: mkl"),
    Source(r"libopenblas\w*|libblas|libcblas|liblapack\w*", "BLAS", "libopenblas0", "openblas", "openblas"),
    Source(r"libgfortran|libquadmath", "GCC's Fortran", "libgfortran5", "libgfortran", "libgfortran5"),
    Source(r"libstdc\+\+", "GCC's C++", "libstdc++6", "libstdc++", "libstdcxx-ng"),
    Source(r"libc\+\+(abi)?", "LLVM's C++", "libc++1 libc++abi1", "libcxx libcxxabi", "libcxx"),
    Source(r"libgcc_s|libatomic", "GCC's own", "libgcc-s1 libatomic1", "libgcc libatomic", "libgcc-ng"),
    Source(
        r"libssl|libcrypto",
        "OpenSSL",
        "libssl3",
        "openssl-libs",
        "openssl",
        "libssl.so.1.1 is of OpenSSL 1.1, which today's distributions no longer have",
    ),
    Source(
        r"libffi",
        "libffi",
        "libffi8",
        "libffi",
        "libffi",
        "each distribution has one version of it; a Python that was built on another misses it",
    ),
    Source(r"libsqlite3", "SQLite", "libsqlite3-0", "sqlite-libs", "libsqlite"),
    Source(
        r"libbz2|liblzma|libz|libzstd|libsnappy|liblz4",
        "compression",
        "libbz2-1.0 liblzma5 zlib1g libzstd1 libsnappy1v5",
        "bzip2-libs xz-libs zlib libzstd snappy",
        "bzip2 xz zlib zstd snappy",
    ),
    Source(
        r"libreadline|libncurses\w*|libtinfo\w*",
        "the terminal",
        "libreadline8 libncurses6 libtinfo6",
        "readline ncurses-libs",
        "readline ncurses",
    ),
    Source(
        r"libjpeg|libpng\w*|libtiff|libwebp\w*",
        "images",
        "libjpeg62-turbo libpng16-16 libtiff6 libwebp7",
        "libjpeg-turbo libpng libtiff libwebp",
        "jpeg libpng libtiff libwebp",
    ),
    Source(r"libxml2|libxslt", "XML", "libxml2 libxslt1.1", "libxml2 libxslt", "libxml2 libxslt"),
    Source(r"libcurl", "curl", "libcurl4", "libcurl", "libcurl"),
    Source(r"libhdf5\w*|libnetcdf", "HDF5", "libhdf5-103-1", "hdf5", "hdf5"),
    Source(
        r"libgdal|libgeos\w*|libproj|libspatialindex\w*",
        "maps",
        "libgdal-dev libgeos-c1v5 libspatialindex6",
        "gdal geos spatialindex",
        "gdal geos libspatialindex",
    ),
    Source(r"libespeak(-ng)?", "eSpeak", "libespeak-ng1", "espeak-ng", "espeak-ng"),
    Source(r"libmagic", "file types", "libmagic1", "file-libs", "libmagic"),
    Source(
        r"libpq|libmysqlclient\w*|libmariadb|libodbc",
        "databases",
        "libpq5 libmariadb3 unixodbc",
        "libpq mariadb-connector-c unixODBC",
        "libpq",
    ),
    Source(
        r"libcairo|libpango\w*|libgdk\w*|libgtk\w*|libharfbuzz",
        "drawing of text",
        "libcairo2 libpango-1.0-0 libpangoft2-1.0-0",
        "cairo pango",
        "cairo pango",
    ),
    Source(r"libgraphviz|libcgraph|libgvc", "Graphviz", "graphviz", "graphviz", "graphviz"),
    Source(r"libvulkan", "Vulkan", "libvulkan1", "vulkan-loader", "libvulkan-loader"),
    Source(r"libOpenCL", "OpenCL", "ocl-icd-libopencl1", "ocl-icd", "ocl-icd"),
    Source(
        r"libze_loader|libsycl|libur_loader",
        "Intel's GPU runtime",
        "libze1",
        "oneapi-level-zero",
        "",
        "pip: torch's XPU wheels bring their own; their oneAPI must not be mixed with the system's",
    ),
    Source(r"libuv", "libuv", "libuv1", "libuv", "libuv"),
    Source(r"libyaml\S*", "YAML", "libyaml-0-2", "libyaml", "yaml"),
    Source(r"libpcre\w*", "PCRE", "libpcre3", "pcre", "pcre"),
    Source(r"libusb\S*", "USB", "libusb-1.0-0", "libusb1", "libusb"),
    Source(
        r"libunwind|libgoogle_perftools\w*|libtcmalloc\w*|libjemalloc",
        "allocators",
        "libgoogle-perftools4 libjemalloc2 libunwind8",
        "gperftools-libs jemalloc libunwind",
        "gperftools jemalloc",
    ),
)

# CUDA's libraries: pattern, wheel for a CUDA major {major}, whether its number after .so. is CUDA's major version.
CUDA_LIBRARIES: tuple[tuple[str, str, bool], ...] = (
    (r"libcudart", "nvidia-cuda-runtime-cu{major}", True),
    (r"libcublas(Lt)?", "nvidia-cublas-cu{major}", True),
    (r"libcusparseLt", "nvidia-cusparselt-cu{major}", False),
    (r"libcusparse", "nvidia-cusparse-cu{major}", True),
    (r"libcusolver(Mg)?", "nvidia-cusolver-cu{major}", False),
    (r"libcufft", "nvidia-cufft-cu{major}", False),
    (r"libcufile", "nvidia-cufile-cu{major}", False),
    (r"libcurand", "nvidia-curand-cu{major}", False),
    (r"libcudnn\w*", "nvidia-cudnn-cu{major}", False),
    (r"libnccl", "nvidia-nccl-cu{major}", False),
    (r"libnvrtc(-builtins)?", "nvidia-cuda-nvrtc-cu{major}", True),
    (r"libnvToolsExt|libnvtx3\w*", "nvidia-nvtx-cu{major}", False),
    (r"libnvJitLink", "nvidia-nvjitlink-cu{major}", True),
    (r"libnvshmem\w*", "nvidia-nvshmem-cu{major}", False),
    (r"libcupti", "nvidia-cuda-cupti-cu{major}", True),
    (r"libnpp\w+", "nvidia-npp-cu{major}", True),
    (r"libnvjpeg", "nvidia-nvjpeg-cu{major}", True),
    (r"libnvinfer\w*|libnvonnxparser\w*", "tensorrt", False),
)
# cuDNN's number -> what still asks for it.
CUDNN = {
    "7": "CUDA 10",
    "8": "torch up to 2.3, TensorFlow up to 2.17, ctranslate2 up to 4.4, onnxruntime-gpu up to 1.18",
    "9": "torch 2.4 or newer, ctranslate2 4.5 or newer, onnxruntime-gpu 1.19 or newer",
}
# What PyPI's wheels of a project are built for: the first release -> CUDA's major version, oldest first.
BUILT_FOR: dict[str, tuple[tuple[str, int], ...]] = {
    "onnxruntime-gpu": (("1.7", 11), ("1.19", 12), ("1.27", 13)),
    "ctranslate2": (("2.0", 11), ("4.0", 12)),
    "tensorflow": (("2.4", 11), ("2.15", 12)),
}
# The first release of a project whose ready wheels need a newer glibc than those before: version, glibc.
GLIBC_OF: dict[str, tuple[str, str]] = {"flash-attn": ("2.8", "2.32")}


def releases_for_cuda(project: str, major: int) -> str | None:
    """Return the requirement of a project's releases whose wheels are built for a CUDA version.

    Args:
        project: a distribution, "onnxruntime-gpu".
        major: CUDA's major version.

    Returns:
        "onnxruntime-gpu>=1.19,<1.27"; None where the table has none.
    """
    spans = BUILT_FOR.get(project, ())
    for place, (first, cuda) in enumerate(spans):
        if cuda == major:
            return f"{project}>={first}" + (f",<{spans[place + 1][0]}" if place + 1 < len(spans) else "")
    return None
