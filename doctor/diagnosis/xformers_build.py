"""What xFormers says of its own build when its kernels can't be loaded: for which torch, and which torch is here."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import release_for_torch
from doctor.finding import Change, Finding

_SOURCE = "https://github.com/facebookresearch/xformers#installing-xformers"


def find_xformers_build(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell what to install for xFormers' kernels to load.

    Args:
        case: what is diagnosed.
        knowledge: for the releases of xformers and the torch that each pins.

    Yields:
        One finding at most.
    """
    told = Told(case)
    sign = told.search(r"xFormers can.t load C\+\+/CUDA extensions|xFormers was built for")
    if sign is None:
        return
    found = told.search(
        r"PyTorch +(?P<built>\d+\.\d+(?:\.\d+)?)\S*"
        r"(?: with CUDA (?P<cuda>\d+))?[^\n]*\(you have (?P<here>[\d.]+)\+?(?P<local>\w*)"
    )
    if found is None:
        yield _unknown(told.line(sign))
        return
    line = told.line(found)
    if found["local"] == "cpu":
        yield Finding(
            "xformers-beside-cpu-torch",
            "cuda/not_found",
            "error",
            0.93,
            f"torch {found['here']} here is a build without CUDA, and xformers is one with it.",
            (line,),
            "xFormers' kernels need the CUDA libraries that only a CUDA build of torch loads.",
            (
                Change(
                    "install",
                    "Install a CUDA build of torch over the one that is here.",
                    (f"torch=={found['built']}",),
                    remove=("torch",),
                    commands=(
                        f"pip install --force-reinstall torch=={found['built']} torchvision --index-url "
                        f"https://download.pytorch.org/whl/cu{_index(found['cuda'])}",
                    ),
                ),
            ),
            "reinstalling xformers, as its message says: torch is the wrong one",
            "python -m xformers.info",
            ("torch", "xformers"),
            _SOURCE,
            True,
        )
        return
    minor = ".".join(found["here"].split(".")[:2])
    release = release_for_torch("xformers", minor, knowledge.metadata)
    changes = (
        [
            Change(
                "pin",
                f"Install the xformers that is built for torch {minor}.",
                (release,),
                holds=(f"torch=={minor}.*",),
            )
        ]
        if release
        else []
    )
    changes.append(
        Change(
            "pin",
            f"Or install the torch that this xformers is built for, {found['built']}.",
            (f"torch=={found['built']}",),
        )
    )
    changes.append(
        Change("uninstall", "Or do without it: PyTorch's own attention is as good for most.", remove=("xformers",))
    )
    yield Finding(
        "xformers-of-another-torch",
        "import/binary_abi",
        "error",
        0.93,
        f"xformers was built for torch {found['built']}, and torch {found['here']} is here.",
        (line,),
        "Each release of xformers is compiled for exactly one torch; pip moved one of them without the other.",
        tuple(changes),
        "pip install -U xformers alone: it takes the newest, and moves torch with it",
        "python -m xformers.info",
        ("xformers", "torch"),
        _SOURCE,
    )


def _unknown(line: str) -> Finding:
    """Return the finding where the versions are not told."""
    return Finding(
        "xformers-of-another-build",
        "import/binary_abi",
        "error",
        0.85,
        "xformers was built for another torch, CUDA or Python than what is here, so that its kernels don't load.",
        (line,),
        "Each release of xformers is compiled for exactly one torch; the lines under its warning say which.",
        (
            Change(
                "install",
                "Install the xformers that belongs to the torch that is here, without moving torch.",
                ("xformers",),
                commands=("python -m xformers.info", "pip install --force-reinstall --no-deps xformers"),
            ),
            Change("uninstall", "Or do without it: PyTorch's own attention is as good for most.", remove=("xformers",)),
        ),
        None,
        "python -m xformers.info",
        ("xformers", "torch"),
        _SOURCE,
    )


def _index(cuda: str | None) -> str:
    """Return the name of PyTorch's index for CUDA as xFormers writes it, "1201" -> "121"."""
    return re.sub(r"^(\d\d)0?(\d)$", r"\1\2", cuda) if cuda else "126"
