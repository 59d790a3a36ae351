"""A shared library that the loader doesn't find, or finds in the wrong version: which one and what brings it."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.library_tables import CUDA_LIBRARIES, CUDNN, LIBRARIES, Source, releases_for_cuda
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import distribution_of
from doctor.finding import Change, Finding

_SYSTEM = "import/system_library"
_ABI = "import/binary_abi"
_NAME = r"(?P<name>lib[\w.+-]*?|ld-[\w-]*)(?P<ending>\.so(?:\.[\w.-]+)*|\.dylib)"
_MISSING = (
    rf"{_NAME}['\"]?: cannot open shared object file",
    rf"(?:cannot|can't|could not|couldn't|unable to|failed to) (?:load|find|open|locate)\b[^\n]{{0,40}}?['\"/ ]{_NAME}",
    rf"Could not load library {_NAME}",
    rf"Library not loaded: [^\n]*?{_NAME}",
    rf"error while loading shared libraries: {_NAME}",
    rf"Could not load dynamic library '{_NAME}'",
    r"cannot find -l(?P<short>(?!cuda\b)\w+)",
)
# Libraries and programs that a package names by itself; they count where the table knows the name.
_NAMED = (
    r"\b(?P<short>\w+) library not found",
    r"did not manage to locate a library called ['`\"]?(?P<short>[\w.-]+)",
    r"\b(?P<short>espeak(?:-ng)?|tesseract|poppler|graphviz|portaudio|sndfile|sox)(?: is)? not installed\b",
    r"\bIs (?P<short>\w+) installed and in PATH",
)
_FOREIGN_LIBC = re.compile(r"libc\.musl|ld-musl|libc\.so$")


def find_shared_library(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell what brings a library that was not found, and where the search for it goes wrong.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    for pattern in _MISSING:
        match = told.search(pattern)
        if match is not None:
            break
    else:
        match = next((one for one in map(told.search, _NAMED) if one and _known(f"lib{one['short']}")), None)
        if match is None:
            return
    groups = match.groupdict()
    name = groups.get("name") or f"lib{groups['short']}"
    ending = groups.get("ending") or ".so"
    line = told.line(match)
    if "undefined symbol" in line:
        return  # it was found: what it is linked with is of another build
    # auditwheel puts a hash into the names of libraries that it brings into a wheel: then the wheel itself is damaged.
    hashed = re.search(r"-(?:r\d-)?[0-9a-f]{8}(?:\.[\d.]+)?$", name)
    if "musl" in name or "ld-linux" in name:
        yield _of_other_libc(told, name, line)
    elif hashed:
        yield _of_damaged_wheel(told, name + ending, line)
    elif re.match(r"lib(cuda|nvidia-ml|nvcuvid|nvidia-encode)$", name):
        yield _of_driver(told, name + ending, line)
    elif re.match(r"lib(c10|torch|shm|aoti)(_\w+)?$", name):
        yield _of_torch(told, name + ending, line)
    elif re.match(r"libpython", name):
        yield _of_python(told, name + ending, line)
    elif any(re.fullmatch(pattern, name) for pattern, _, _ in CUDA_LIBRARIES):
        yield _of_cuda(told, name, ending, line)
    else:
        yield _of_system(told, name, ending, line)


def _known(base: str) -> Source | None:
    """Return what the table has of a library, by its name without ".so"."""
    return next((one for one in LIBRARIES if re.fullmatch(one.pattern, base, re.IGNORECASE)), None)


def _of_system(told: Told, name: str, ending: str, line: str) -> Finding:
    """Return the finding about a library of the operating system."""
    base = re.sub(r"\.so.*", "", name)
    known = _known(base)
    whole = name + ending
    if known is None:
        return Finding(
            "library-not-found",
            _SYSTEM,
            "error",
            0.7,
            f"The shared library {whole} is not on this machine, or not where the loader looks.",
            (line,),
            "It belongs to the operating system or to another package, which pip does not install.",
            (
                Change(
                    "system",
                    f"Find the package that has it (`apt-file search {whole}`, `dnf provides "
                    f"'*/{whole}'`) and install that; if it is there, name its folder in LD_LIBRARY_PATH.",
                    commands=(f"apt-file search {whole}",),
                ),
            ),
            "pip install of the library's name: it is no Python package",
            f"ldconfig -p | grep {name}",
            source="ld.so(8)",
        )
    commands = tuple(
        one
        for one in (
            f"apt-get install -y {known.apt}" if known.apt else "",
            f"dnf install -y {known.dnf}" if known.dnf else "",
            f"conda install -c conda-forge {known.conda}" if known.conda else "",
        )
        if one
    )
    changes = [
        Change(
            "system",
            f"Install {whole} ({known.what}) with the system's packages: apt {known.apt}; dnf "
            f"{known.dnf or '-'}; conda {known.conda or '-'}.",
            commands=commands,
        )
    ]
    if told.search(r"opencv|\bcv2\b") and "headless" in known.note:
        changes.append(
            Change(
                "install",
                "Or, on a server, use the OpenCV without windows.",
                ("opencv-python-headless",),
                remove=("opencv-python", "opencv-contrib-python"),
            )
        )
    what_failed = distribution_of(told.case.failure.importer or "") if told.case.failure else None
    note = f" ({known.note})" if known.note else ""
    blamed = "reinstalling the Python package, even where its own message asks for it" + (
        f" ({what_failed})" if what_failed else ""
    )
    return Finding(
        "system-library-missing",
        _SYSTEM,
        "error",
        0.93,
        f"The system library {whole} ({known.what}) is missing.",
        (line,),
        f"The Python package is whole; it loads {whole}, which is no part of it and which slim images leave out{note}.",
        tuple(changes),
        f"{blamed}: the file is not in the package",
        f"ldconfig -p | grep {base}",
        source="packages.debian.org, file lists",
    )


def _of_cuda(told: Told, name: str, ending: str, line: str) -> Finding:
    """Return the finding about one of CUDA's libraries."""
    wheel, counts = next((wheel, counts) for pattern, wheel, counts in CUDA_LIBRARIES if re.fullmatch(pattern, name))
    number = re.search(r"\.so\.(\d+)(?:\.(\d+))?", ending) or re.search(r"\.(\d+)", ending)
    wanted = number[1] if number else ""
    here = told.torch_cuda
    major = (
        wanted
        if counts and wanted
        else _CUDA_OF.get((re.sub(r"(Lt|_\w+)$", "", name), wanted)) or (here or "12").split(".")[0]
    )
    package = (
        wheel.format(major=major)
        if int(major) < 13 or "cudnn" in wheel or "nccl" in wheel or "nvshmem" in wheel or "lt" in wheel
        else wheel.replace("-cu{major}", "")
    )
    asker = _asker(told)
    about = f" ({CUDNN[wanted]} ask for it)" if "cudnn" in name and wanted in CUDNN else ""
    other = here and here.split(".")[0] != major and counts
    verdict = f"{asker or 'Compiled code'} asks for {name}{ending}, a library of CUDA {major}" + (
        f", but torch here is built for CUDA {here}."
        if other
        else ", which is not there or not where the loader looks."
    )
    project = asker if asker and re.fullmatch(r"[a-z0-9-]+", asker) else None
    changes = []
    # CUDA 11 is what old builds ask for: a machine without it has a newer one.
    target = int((here or "0").split(".")[0]) if other else 12 if counts and major == "11" else 0
    built = releases_for_cuda(project, target) if project else None
    if built:
        changes.append(Change("pin", f"Take a release of {asker} whose wheels are built for CUDA {target}.", (built,)))
    elif project and (other or not here):
        changes.append(
            Change(
                "install",
                f"Install a build of {asker} for the CUDA that torch here uses{f' ({here})' if here else ''}.",
                commands=("python -c 'import torch; print(torch.version.cuda)'",),
            )
        )
    version = f"=={wanted}.*" if "cudnn" in name and wanted else ""
    changes.append(
        Change(
            "install",
            f"Install the library as a wheel, {package}{version}, and load torch first or name "
            f"its folder in LD_LIBRARY_PATH.",
            (f"{package}{version}",),
            disturbs=("torch pins its own version of this wheel; a second one for the same CUDA replaces it.",)
            if not other
            else (),
        )
    )
    changes.append(Change("system", f"Or install the CUDA {major} toolkit and put its lib64 on LD_LIBRARY_PATH."))
    return Finding(
        "cuda-library-missing",
        "cuda/version_mismatch" if other else _SYSTEM,
        "error",
        0.85,
        verdict,
        (line, *((f"torch's CUDA: {here}",) if here else ())),
        f"A program linked with CUDA {major} loads only libraries of that major version{about}.",
        tuple(changes),
        "linking the file that is there to the name that is asked for: another major version has another ABI",
        "python -c 'import torch; print(torch.version.cuda)'",
        (project or package,),
        "contents of the nvidia-* wheels",
    )


# Numbers of libraries that don't count like CUDA: which CUDA major they came with.
_CUDA_OF = {
    ("libcusolver", "10"): "10",
    ("libcusolver", "11"): "12",
    ("libcufft", "10"): "11",
    ("libcufft", "11"): "12",
    ("libcufft", "12"): "13",
    ("libcusolver", "12"): "13",
    ("libcudnn", "7"): "10",
    ("libcudnn", "8"): "12",
}


def _asker(told: Told) -> str | None:
    """Return the distribution that asks for a library: by frames, files or names of the text."""
    if told.search(r"onnxruntime_providers_(cuda|tensorrt)"):
        return "onnxruntime-gpu"
    failure = told.case.failure
    for raised in failure.raised if failure else ():
        for frame in reversed(raised.frames):
            found = distribution_of(frame.module or "")
            if found:
                return found
            if frame.module:
                return frame.module.replace("_", "-").lower()
    for found_file in re.finditer(r"[\w./-]*(?:site|dist)-packages/[\w./-]+", told.text):
        found = distribution_of(found_file[0])
        if found:
            return found
    stated = [*told.case.environment.declared, *(failure.stated if failure else ())]
    return next((one.name for one in stated if distribution_of(one.name.replace("-", "_"))), None)


def _of_driver(told: Told, whole: str, line: str) -> Finding:
    """Return the finding about a library of the driver."""
    return Finding(
        "driver-library-missing",
        "cuda/not_found",
        "error",
        0.9,
        f"{whole} belongs to the NVIDIA driver, and no driver is visible here.",
        (line,),
        "The driver's libraries come from the host: a container gets them only with --gpus "
        "all (NVIDIA container toolkit), and a machine without a driver has none.",
        (
            Change(
                "system",
                "Start the container with the GPU (docker run --gpus all), or install the driver; on "
                "WSL put /usr/lib/wsl/lib on LD_LIBRARY_PATH.",
                commands=("nvidia-smi",),
            ),
        ),
        "installing the CUDA toolkit or a Python package: neither has the driver's library",
        "nvidia-smi",
        gpu=True,
        source="https://docs.nvidia.com/datacenter/cloud-native/container-toolkit/",
    )


def _of_torch(told: Told, whole: str, line: str) -> Finding:
    """Return the finding about a library of torch that an extension doesn't find."""
    project = _asker(told)
    split = re.match(r"libtorch_cuda_(cu|cpp)", whole)
    here = told.torch_cuda
    if split:
        reason, pin = "torch had it from 1.10 to 1.13 only: the extension was built for such a release.", "torch<2"
    elif "cuda" in whole:
        reason, pin = (
            "Only CUDA builds of torch have it: the torch that is here is a build for CPUs"
            + ("." if here == "" else ", or the extension is of another torch."),
            "",
        )
    else:
        reason, pin = (
            "It lies in torch/lib: the loader finds it only after `import torch`, or not at all "
            "where the extension is of another torch.",
            "",
        )
    changes = []
    if "cuda" in whole and not split:
        changes.append(
            Change(
                "install",
                "Install a CUDA build of torch, of the release that the extension is made for.",
                ("torch",),
                commands=("pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cu126",),
            )
        )
    elif pin:
        changes.append(
            Change(
                "install",
                f"Install a build of {project or 'the extension'} for the torch that is here, or "
                f"rebuild it with --no-build-isolation.",
            )
        )
    else:
        changes.append(Change("code", f"Import torch before {project or 'the extension'}."))
        changes.append(
            Change(
                "install",
                f"Otherwise rebuild {project or 'the extension'} for the torch that is here "
                f"(--no-build-isolation --no-cache-dir).",
            )
        )
    return Finding(
        "torch-library-missing",
        _ABI,
        "error",
        0.83,
        f"{project or 'A compiled extension'} asks for {whole} of torch, which the torch here doesn't offer.",
        (line,),
        reason,
        tuple(changes),
        "looking for a system package: the file is torch's",
        "python -c 'import torch'",
        (project, "torch") if project else ("torch",),
        "torch's wheels, read 2026-11-28",
    )


def _of_python(told: Told, whole: str, line: str) -> Finding:
    """Return the finding about libpython."""
    version = re.search(r"(\d\.\d+)", whole)
    number = version[1] if version else "3"
    return Finding(
        "libpython-missing",
        _SYSTEM,
        "error",
        0.88,
        f"A program was built for Python {number} as a shared library ({whole}), which the loader doesn't find.",
        (line,),
        "Conda's and uv's Pythons have it inside their own lib folder; Debian's is in a "
        "package of its own. Or the program was built for another Python.",
        (
            Change(
                "system",
                f"Install libpython{number} (apt), or put the lib folder of the Python {number} that "
                f"built it on LD_LIBRARY_PATH.",
                commands=(f"apt-get install -y libpython{number}",),
            ),
            Change("install", "Or install the program again with the Python that runs it."),
        ),
        "reinstalling Python packages",
        f"ldconfig -p | grep libpython{number}",
        source="packages.debian.org, file lists",
    )


def _of_other_libc(told: Told, name: str, line: str) -> Finding:
    """Return the finding about a binary of another C library."""
    musl = "musl" in name
    project = _asker(told)
    who = project or "The package"
    built, needs = ("musl (Alpine)", "glibc") if musl else ("glibc", "musl (Alpine)")
    first = (
        Change(
            "install",
            f"Build {project or 'it'} from its source on this machine.",
            commands=(
                f"pip install --no-binary {project or ':all:'} --no-cache-dir --force-reinstall "
                f"{project or '<package>'}",
            ),
        )
        if musl
        else Change(
            "system",
            "Use an image with glibc (Debian, Ubuntu: python:3.x-slim), or install gcompat on Alpine.",
            commands=("apk add gcompat",),
        )
    )
    return Finding(
        "wheel-of-another-libc",
        _SYSTEM,
        "error",
        0.92,
        f"{who}'s compiled library was built on {built} and cannot run on a machine with {needs}.",
        (line,),
        "A wheel whose tag says only `linux` promises nothing about the C library; this one's is another.",
        (
            first,
            Change("install", f"Or take a wheel whose tag names your system: {'manylinux' if musl else 'musllinux'}."),
        ),
        f"trusting the tag because the wheel installed; or installing "
        f"{'musl' if musl else 'glibc'} beside: two C libraries don't go into one process",
        culprits=(project,) if project else (),
        source="PEP 600, PEP 656",
    )


def _of_damaged_wheel(told: Told, whole: str, line: str) -> Finding:
    """Return the finding about a library that a wheel brings in its .libs folder."""
    project = _asker(told)
    return Finding(
        "wheel-library-missing",
        "import/stale_or_partial",
        "error",
        0.75,
        f"{whole} is a part of {project or 'the wheel'} itself and is not there: the installation is damaged or mixed.",
        (line,),
        "The hash in its name says that the wheel brought it (folder *.libs); two versions "
        "on top of each other, or an interrupted install, lose it.",
        (
            Change(
                "clean",
                f"Reinstall {project or 'the package'} without the cache.",
                commands=(f"pip install --force-reinstall --no-cache-dir {project or '<package>'}",),
            ),
        ),
        "a system package: no system has a file of this name",
        culprits=(project,) if project else (),
        source="auditwheel",
    )
