"""Builds from source that fail: a tool that isn't there, isolation, or versions that don't go together."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.build_tables import GCC_OF_CUDA, HEADERS, PYTHON_HEADERS, TOOLS
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_TOOL, _ISOLATION, _INCOMPATIBLE = "build/missing_tool", "build/isolation", "build/incompatible"
# What a text of a build says, of pip, uv, setuptools and others.
_BUILDING = (
    r"subprocess-exited-with-error|metadata-generation-failed"
    r"|[Gg]etting requirements to build (wheel|editable)|[Pp]reparing metadata"
    r"|setup\.py (egg_info|bdist_wheel|install|develop)"
    r"|[Bb]uild backend returned an error|Failed to build|prepare_metadata_for_build"
    r"|get_requires_for_build|build_wheel|building wheel|Building wheel|pip-build-env"
    r"|/builds-v\d|Failed building wheel|declare it as a build dependency"
    r"|build dependency|Could not build wheels|legacy-install-failure|pip subprocess"
    r"|error in \S+ setup command|build-system\.requires|ERROR: Failed to build"
)
# What setup files import beside setuptools: their own run-time packages.
_AT_BUILD = {
    "torch",
    "numpy",
    "packaging",
    "psutil",
    "ninja",
    "wheel",
    "Cython",
    "cython",
    "pybind11",
    "scipy",
    "setuptools_scm",
    "cmake",
    "triton",
    "einops",
    "tqdm",
    "yaml",
    "requests",
    "torchvision",
    "jax",
    "tensorflow",
    "mpi4py",
    "skbuild",
    "setuptools_rust",
    "semantic_version",
    "nvidia",
    "expecttest",
    "toml",
    "tomli",
    "six",
}
_UV = "uv: in pyproject.toml, [tool.uv.extra-build-dependencies] {name} = [{needs}] (or no-build-isolation-package)"


def find_build_failure(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell why a build from source failed.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        Findings of the text's statements.
    """
    told = Told(case)
    yield from _isolation(told)
    yield from _tools(told)
    yield from _headers(told)
    yield from _host_compiler(told)


def _package(told: Told) -> str | None:
    """Return the package that was being built; None where the text doesn't tell."""
    for pattern in (
        r"Failed (?:to build|building wheel for) [`'\"]?([A-Za-z][\w.-]*?)(?:==[\w.+]+)?[`'\"]?(?:\s|$)",
        r"pip install (?:-\S+ )*([A-Za-z][\w.-]*)",
        r"╰─> ([A-Za-z][\w.-]*)(?:\s|$)",
        r"Collecting ([A-Za-z][\w.-]*)(?:[=<>~! \[][^\n]*)?\n(?![\s\S]*Collecting)",
        r"[`'\"]([A-Za-z][\w.-]*?)(?:==?@?[\w.+]+)?[`'\"][^\n]*depends on",
        r"error in ([A-Za-z][\w.-]*) setup command",
    ):
        found = told.search(pattern)
        if found and found[1].lower() not in ("the", "wheel", "from", "backend", "package", "installable"):
            return re.sub(r"[-_.]+", "-", found[1]).lower().strip("-.")
    stated = [*told.case.environment.declared, *(told.case.failure.stated if told.case.failure else ())]
    compiled = [one.name for one in stated if one.name in _FROM_SOURCE]
    return compiled[0] if compiled else None


_FROM_SOURCE = (
    "flash-attn",
    "deepspeed",
    "apex",
    "causal-conv1d",
    "mamba-ssm",
    "xformers",
    "auto-gptq",
    "gptqmodel",
    "autoawq",
    "llama-cpp-python",
    "vllm",
    "transformer-engine",
    "detectron2",
    "natten",
    "pytorch3d",
    "torch-scatter",
    "torch-sparse",
    "sageattention",
    "exllamav2",
    "grouped-gemm",
)


def _isolation(told: Told) -> Iterator[Said]:
    found = told.search(
        r"No module named ['\"]?(?P<module>\w+)|Cannot import '(?P<backend>[\w.]+)'"
        r"|depends on `(?P<hint>[\w-]+)`, but doesn'?t declare it as a build dependency"
        r"|invalid command 'bdist_wheel'|BackendUnavailable"
    )
    if found is None or not told.search(_BUILDING):
        return
    module = found["module"] or (found["backend"] or "").split(".")[0] or found["hint"] or "wheel"
    if module in ("pkg_resources", "distutils", "imp") and not found["backend"]:
        return  # a matter of versions: rules speak of them
    package = _package(told) or "the package"
    version = told.version(module.replace("_", "-"))
    unisolated = bool(told.search(r"no-build-isolation")) and not told.search(
        r"or `?--no-build-isolation|no-build-isolation-package"
    )
    backend = (
        module
        in (
            "setuptools",
            "hatchling",
            "poetry",
            "flit_core",
            "scikit_build_core",
            "maturin",
            "mesonpy",
            "pdm",
            "wheel",
            "setuptools_scm",
            "skbuild",
        )
        or found["backend"]
    )
    line = told.line(found)
    names = {
        "yaml": "pyyaml",
        "skbuild": "scikit-build",
        "cython": "Cython",
        "poetry": "poetry-core",
        "mesonpy": "meson-python",
        "flit_core": "flit-core",
        "scikit_build_core": "scikit-build-core",
    }
    needs = names.get(module, module.replace("_", "-"))
    if unisolated or (backend and not told.search("pip-build-env|builds-v")):
        yield Finding(
            "build-tools-not-installed",
            _ISOLATION,
            "error",
            0.85,
            f"{package} is built without isolation, and its build needs {needs}, which is not in this environment.",
            (line,),
            "With --no-build-isolation nothing is fetched for the build: its backend and all "
            "that its setup imports must be installed first.",
            (
                Change(
                    "install",
                    f"Install what the build needs first, then build: {needs}, setuptools, wheel, packaging, ninja.",
                    (needs, "setuptools", "wheel"),
                    commands=(f"pip install -U setuptools wheel packaging ninja {needs}",),
                ),
                Change(
                    "option",
                    "Or build with isolation (without --no-build-isolation), where the package declares what it needs.",
                ),
            ),
            None,
            f"python -c 'import {module}'",
            (package,),
            "https://pip.pypa.io/en/stable/reference/build-system/",
        )
        return
    if (
        module not in _AT_BUILD
        and not found["hint"]
        and not told.search(r"setup\.py|build_meta|get_requires_for_build")
    ):
        return
    first = (
        ["torch", "packaging", "ninja", "wheel", "setuptools"]
        if module in ("torch", "packaging", "ninja", "psutil", "wheel", "triton")
        else [needs, "wheel", "setuptools"]
    )
    if needs not in first:
        first.insert(0, needs)
    here = f" ({needs} {version} is installed, but the build can't see it)" if version else ""
    yield Finding(
        "build-isolated-from-import",
        _ISOLATION,
        "error",
        0.95,
        f"{package}'s setup imports {module}, which its isolated build environment does not have{here}.",
        (line,),
        "pip and uv build in a fresh environment with only what the package declares for its "
        "build; the setup imports more than that.",
        (
            Change(
                "option",
                f"Install {', '.join(first)} first, then {package} with --no-build-isolation. "
                f"{_UV.format(name=package, needs=repr(needs))}.",
                commands=(f"pip install {' '.join(first)}", f"pip install --no-build-isolation {package}"),
            ),
            Change(
                "install",
                f"Or take a prebuilt wheel of {package} for this Python, torch, CUDA and ABI, which needs no build.",
            ),
        ),
        f"pip install {needs}: it is "
        f"{'installed' if version else 'not looked for in this environment'}; the build runs "
        f"in another one",
        None,
        (package,),
        "https://docs.astral.sh/uv/concepts/projects/config/#build-isolation",
    )


def _tools(told: Told) -> Iterator[Said]:
    for tool in TOOLS:
        found = told.search(tool.pattern)
        if found is None:
            continue
        package = _package(told)
        mounted = tool.name.startswith("the CUDA") and told.search(
            "metadata-generation-failed|egg_info|Getting requirements|Preparing metadata"
        )
        asks = " Even asking for its metadata runs this check, so that resolving fails too." if mounted else ""
        yield Finding(
            "build-tool-missing",
            _TOOL,
            "error",
            0.93,
            f"{package or 'What is built or compiled here'} needs {tool.name}, which is not on "
            f"this machine or not on PATH.",
            (told.line(found),),
            f"It is no Python package's business: the build calls a program of the machine.{asks}",
            (
                Change("system", tool.how, commands=tool.commands),
                *(
                    (
                        Change(
                            "environment",
                            "For DeepSpeed alone: skip compiling at install time.",
                            environment=(("DS_BUILD_OPS", "0"),),
                        ),
                    )
                    if told.search("deepspeed") and mounted
                    else ()
                ),
            ),
            tool.wrong or None,
            tool.check or None,
            (package,) if package else (),
            "the tool's own installation guide",
        )
        return


def _headers(told: Told) -> Iterator[Said]:
    found = told.search(
        r"fatal error: ['\"]?(?P<header>[\w./+-]+\.(?:h|hpp|hh|cuh)"
        r"|[\w/]+/[\w.+-]+)['\"]?(?:: No such file| file not found)"
        r"|[Cc]annot open include file: ['\"](?P<msvc>[^'\"]+)['\"]"
        r"|(?P<bare>Python\.h)[^\n]{0,30}(?:not found|missing|No such file)"
    )
    if found is None:
        return
    header = found["header"] or found["msvc"] or found["bare"]
    line = told.line(found)
    if header.endswith("longintrepr.h"):
        return  # rules speak of it
    for pattern, name in PYTHON_HEADERS:
        if re.fullmatch(pattern, header):
            yield Finding(
                "header-of-python-package",
                _ISOLATION,
                "error",
                0.85,
                f"The build includes {header} of {name}, which is not visible to it.",
                (line,),
                "The header comes with the Python package (or a git submodule); an isolated build, "
                "or a build before that package, doesn't see it.",
                (
                    Change(
                        "option",
                        f"Install {name} first and build with --no-build-isolation.",
                        commands=(f"pip install {name}", "pip install --no-build-isolation <package>"),
                    )
                    if "submodule" not in name
                    else Change("clean", "Fetch the submodules: git submodule update --init --recursive."),
                ),
                "a system package of that name",
                source="the compiler's message",
            )
            return
    if re.match(r"THC?(?:C?U?NN)?/", header):
        return  # of torch before 1.11: no package has it
    what, debian = next(
        ((what, debian) for pattern, what, debian in HEADERS if re.fullmatch(pattern, header)),
        (f"the development files that have {header}", ""),
    )
    python = f"{told.python[0]}.{told.python[1]}" if told.python else "3"
    of_python = header in ("Python.h", "pyconfig.h", "patchlevel.h")
    if of_python:
        debian = f"python{python}-dev"
    run_time = told.search(r"triton|main\.c|cuda_utils\.c|/tmp/tmp\w+|torch\._inductor")
    why = (
        "Triton compiles a small launcher at run time, and needs the headers of exactly this interpreter."
        if of_python and run_time
        else f"The compiler needs {what}; run-time packages leave headers out."
    )
    changes = [
        Change(
            "system",
            f"Install the headers: {debian}." if debian else f"Install {what} (`apt-file search {header}`).",
            commands=(f"apt-get install -y {debian}",) if debian else (f"apt-file search {header}",),
        )
    ]
    if of_python:
        changes.append(
            Change(
                "system",
                "Or use an interpreter that brings its headers, such as uv's or conda's: uv venv --python "
                + python
                + ".",
                commands=(f"uv venv --python {python}",),
            )
        )
    yield Finding(
        "header-missing",
        _TOOL,
        "error",
        0.93,
        f"{header} is missing: {what} {'are' if what.endswith('s') else 'is'} not installed for the compiler.",
        (line,),
        why,
        tuple(changes),
        "reinstalling the Python package that compiles: it is whole" if of_python else None,
        "python -c \"import sysconfig, os; print(os.listdir(sysconfig.get_paths()['include']))\""
        if of_python
        else None,
        (),
        "packages.debian.org, file lists",
    )


def _host_compiler(told: Told) -> Iterator[Said]:
    found = told.search(
        r"unsupported GNU version! gcc versions later than (\d+) are not supported"
        r"|unsupported Microsoft Visual Studio version|Unsupported NVHPC compiler found|unsupported clang version"
        r"|__builtin_ia32_\w+\W+ is undefined|identifier \W?_Float(32|64"
        r"|128)\w?\W? is undefined"
        r"|(?:cospi|sinpi|rsqrt)\w*\W+[^\n]*exception specification"
        r"|error: parameter packs not expanded with"
        r"|The current installed version of \S*g\+\+ \((\d+)[\d.]*\) is greater than the"
        r" maximum required version by CUDA (\d+\.\d+)"
    )
    if found is None:
        return
    toolkit = told.search(r"cuda-(\d+\.\d+)|release (\d+\.\d+), V|CUDA (?:version |toolkit )?(\d+\.\d+)")
    cuda = next((one for one in toolkit.groups() if one), None) if toolkit else None
    newest = found[1] or (str(GCC_OF_CUDA[cuda]) if cuda in GCC_OF_CUDA else None)
    windows = "Visual Studio" in found[0]
    what = "Visual Studio" if windows else "GCC" if "clang" not in found[0] else "clang"
    yield Finding(
        "host-compiler-too-new",
        _INCOMPATIBLE,
        "error",
        0.92,
        f"{what} here is newer than what nvcc{f' of CUDA {cuda}' if cuda else ''} "
        f"accepts{f' (GCC {newest} at most)' if newest and not windows else ''}.",
        (told.line(found),),
        "Each CUDA release knows the host compilers of its time; newer ones' headers use "
        "what its front end can't read.",
        (
            Change(
                "system",
                f"Install an older compiler beside it and let the build use it: GCC {newest or 'of the CUDA release'}."
                if not windows
                else "Install the older Visual Studio tool set (2019 or 2022 17.x) and build from its prompt.",
                commands=(
                    f"apt-get install -y gcc-{newest} g++-{newest}",
                    f"export CC=gcc-{newest} CXX=g++-{newest} CUDAHOSTCXX=g++-{newest}",
                )
                if newest and not windows
                else (),
            ),
            Change("system", "Or use a newer CUDA toolkit (with the torch that is built for it)."),
        ),
        "-allow-unsupported-compiler: it only silences the check",
        "gcc --version; nvcc --version",
        source="https://docs.nvidia.com/cuda/cuda-installation-guide-linux/",
    )
