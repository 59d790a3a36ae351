"""Compiled code that was built for another NumPy than the one it meets: a live kernel, or really another build."""

import re
from collections.abc import Iterator
from typing import Any

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.finding import Change, Finding

_BRANCH = "import/binary_abi"
_SOURCE = "https://numpy.org/doc/stable/numpy_2_0_migration_guide.html, NumPy's headers (sizes, API versions)"
_SIGNS = (
    r"A module that was compiled using NumPy 1\.x cannot be run in"
    r"|_ARRAY_API not found"
    r"|numpy\.(?P<kind>dtype|ndarray|ufunc|broadcast"
    r"|flatiter)\w* size changed(?:[^\n]*?Expected (?P<want>\d+)[^\n]*?got (?P<got>\d+))?"
    r"|module compiled against (?:A[BP]I) version (?P<api>0x[0-9a-fA-F]+) but this version of"
    r" numpy is (?P<here>0x[0-9a-fA-F]+)"
    r"|numpy\.core\.(?:multiarray|umath) failed to import|numpy\._core\.multiarray failed to import"
    r"|RuntimeError: Numpy is not available|Numpy is not available"
)
# Version of NumPy's C interface -> the first NumPy that has it.
_API = {
    0xA: "1.10",
    0xB: "1.12",
    0xC: "1.14",
    0xD: "1.16",
    0xE: "1.20",
    0xF: "1.22",
    0x10: "1.23",
    0x11: "1.25",
    0x12: "2.0",
    0x13: "2.1",
    0x14: "2.3",
    0x15: "2.4",
}
# The first release whose wheels are built for NumPy 2 (they run with NumPy 1 too).
FOR_NUMPY_2: dict[str, str] = {
    "pandas": "2.2.2",
    "scipy": "1.13",
    "scikit-learn": "1.4.2",
    "matplotlib": "3.9",
    "pyarrow": "16",
    "torch": "2.3",
    "torchvision": "0.18",
    "torchaudio": "2.3",
    "h5py": "3.11",
    "numba": "0.60",
    "opencv-python": "4.10.0.84",
    "opencv-python-headless": "4.10.0.84",
    "opencv-contrib-python": "4.10.0.84",
    "onnxruntime": "1.19",
    "onnxruntime-gpu": "1.19",
    "tensorflow": "2.18",
    "faiss-cpu": "1.9",
    "spacy": "3.8",
    "thinc": "8.3",
    "blis": "1",
    "scikit-image": "0.24",
    "contourpy": "1.2.1",
    "shapely": "2.0.4",
    "numexpr": "2.10",
    "bottleneck": "1.4",
    "pywavelets": "1.6",
    "netcdf4": "1.7",
    "astropy": "6.1",
    "cupy": "13.2",
    "soxr": "0.4",
    "gensim": "4.4",
    "ml-dtypes": "0.4",
    "pycocotools": "2.0.8",
    "jaxlib": "0.4.26",
    "onnx": "1.17",
    "statsmodels": "0.14.2",
    "sentencepiece": "0",
    "tables": "3.10",
    "zarr": "2.18",
    "numcodecs": "0.13",
    "fasttext-wheel": "999",
    "pymilvus": "0",
    "hdbscan": "0.8.38",
    "implicit": "0.7.3",
    "lightfm": "999",
    "pyworld": "0.3.5",
    "rasterio": "1.4",
}
_MODULES = {
    "sklearn": "scikit-learn",
    "cv2": "opencv-python",
    "skimage": "scikit-image",
    "faiss": "faiss-cpu",
    "pywt": "pywavelets",
    "netCDF4": "netcdf4",
    "fasttext": "fasttext-wheel",
    "ml_dtypes": "ml-dtypes",
    "bottleneck": "bottleneck",
}
_LIVE = ("colab", "kaggle", "notebook")


def find_numpy_abi(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which side of NumPy's binary interface is old, and whether a restart is all.

    Args:
        case: what is diagnosed.
        knowledge: for the newest releases.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = told.search(_SIGNS)
    if match is None:
        return
    # Of several signs the one with numbers says most.
    for one in re.finditer(_SIGNS, told.text):
        if one["want"] or one["api"]:
            match = one
            break
    line = told.line(match)
    numpy = told.version("numpy")
    older = _running_is_older(match, told)
    packages = _built_here(told)
    named = (
        ", ".join(f"{name} {told.version(name) or ''}".strip() for name in packages)
        or "a compiled package (torch, scipy, pandas, ...)"
    )
    here = f"NumPy {numpy}" if numpy else "the NumPy that is loaded"
    evidence = (
        line,
        *(
            (f"{match['want']} bytes are of {_era(match['want'])}, {match['got']} of {_era(match['got'])}",)
            if match["want"] and match["kind"] == "dtype"
            else ()
        ),
    )
    if (
        told.place in _LIVE
        and (match["want"] or match["api"] or "failed to import" in match[0])
        and not told.search("cannot be run in")
    ):
        yield Finding(
            "numpy-of-live-kernel",
            "import/stale_or_partial",
            "error",
            0.88,
            "The kernel still has the NumPy in memory that it started with, while packages on "
            "disk were changed for another one.",
            evidence,
            "A cell that installs or moves numpy doesn't change what is already imported; what "
            "is imported after it finds two versions mixed.",
            (
                Change(
                    "restart",
                    "Restart the kernel (Runtime > Restart session), then import again without installing again.",
                ),
                Change(
                    "pin",
                    "If it comes back after a restart: hold numpy at the major version that the image came with.",
                    ("numpy<2",),
                ),
            ),
            "another numpy: what is on disk may be right already",
            "python -c 'import numpy, pandas'",
            ("numpy",),
            _SOURCE,
        )
        return
    if older:
        need = (
            _API.get(int(match["api"], 16))
            if match["api"]
            else "2.0"
            if match["want"] == "88" and match["kind"] == "dtype"
            else "1.20"
        )
        yield Finding(
            "numpy-older-than-build",
            _BRANCH,
            "error",
            0.88,
            f"{named[0].upper()}{named[1:]} was built for NumPy {need or 'newer'} or newer; {here} is older.",
            evidence,
            "Compiled code runs with the NumPy that it was built for and later ones, not with earlier ones.",
            (
                Change("pin", f"Raise numpy to {need} or newer.", (f"numpy>={need}",)),
                Change(
                    "clean",
                    "If numpy is new enough: an older copy comes first on the path (user site, conda, "
                    "PYTHONPATH); remove it.",
                ),
            ),
            "pinning numpy lower",
            "python -c 'import numpy; print(numpy.__version__, numpy.__file__)'",
            ("numpy",),
            _SOURCE,
        )
        return
    newer = tuple(f"{name}>={FOR_NUMPY_2[name]}" for name in packages if FOR_NUMPY_2.get(name, "0") not in ("0", "999"))
    changes = [
        Change(
            "pin",
            "Hold numpy below 2 while these builds stay.",
            ("numpy<2",),
            disturbs=("Packages that need NumPy 2 are moved back too.",),
        )
    ]
    if newer:
        raised = Change("pin", "Or take the releases that are built for NumPy 2: " + ", ".join(newer) + ".", newer)
        changes.append(raised)
    else:
        changes.append(Change("install", "Or make a new environment with current releases of everything compiled."))
    if told.place in _LIVE:
        changes.append(Change("restart", "Then restart the kernel."))
    yield Finding(
        "built-for-numpy-1",
        _BRANCH,
        "error",
        0.93,
        f"{named[0].upper()}{named[1:]} was built for NumPy 1 and meets {here}{'' if numpy else ' (2 or newer)'}.",
        evidence,
        "NumPy 2 changed its binary interface: code compiled against NumPy 1 can't run with "
        "it (the other way round it can).",
        tuple(changes),
        "reinstalling what failed to import in the last line: it is only where the old build was met",
        f"python -c 'import {_module_of(packages[0]) if packages else 'numpy'}'",
        ("numpy", *packages),
        _SOURCE,
    )


def _era(size: str) -> str:
    """Return which NumPy has a dtype of a size."""
    return {"96": "NumPy 1", "88": "NumPy 2"}.get(size, "another NumPy")


def _running_is_older(match: re.Match[str], told: Told) -> bool:
    """Return whether the NumPy that runs is older than what the code was built for."""
    if match["api"]:
        want, here = int(match["api"], 16), int(match["here"], 16)
        return here < want and here < 0x1000000
    if match["want"]:
        want, got = int(match["want"]), int(match["got"])
        return got > want if match["kind"] == "dtype" and {want, got} == {88, 96} else got < want
    version = told.version("numpy")
    return bool(
        "failed to import" in match[0]
        and version is not None
        and version < Version("2")
        and not told.search("_ARRAY_API|compiled using NumPy 1")
    )


def _module_of(name: str) -> str:
    return next((module for module, owner in _MODULES.items() if owner == name), name.replace("-", "_"))


def _built_here(told: Told) -> tuple[str, ...]:
    """Return the packages whose builds are too old for NumPy 2, the one that failed first."""
    found: list[str] = []
    failure = told.case.failure
    modules = (
        [frame.module for raised in failure.raised for frame in reversed(raised.frames) if frame.module]
        if failure
        else []
    )
    modules += re.findall(r"(?:site|dist)-packages[/\\](\w+)", told.text)[::-1]
    for module in modules:
        name = _MODULES.get(module, module.replace("_", "-").lower())
        version = told.version(name)
        if (
            name in FOR_NUMPY_2
            and name not in found
            and FOR_NUMPY_2[name] != "0"
            and (version is None or version < Version(FOR_NUMPY_2[name]))
        ):
            found.append(name)
            break
    for name, first in FOR_NUMPY_2.items():
        version = told.version(name)
        if version is not None and first != "0" and version < Version(first) and name not in found:
            found.append(name)
    return tuple(found[:4])
