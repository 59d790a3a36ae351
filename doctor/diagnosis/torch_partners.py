"""Packages beside torch that are built for one minor version of it: torchvision, torchaudio, torchtext."""

from collections.abc import Iterator
from typing import Any

from packaging.version import InvalidVersion, Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.needs import needs
from doctor.diagnosis.relevance import confidence_for
from doctor.diagnosis.told import Told
from doctor.environment.torch_build import TorchBuild
from doctor.finding import Change, Finding


def partner_of(torch: Version, name: str) -> str | None:
    """Return the minor version of a package beside torch that belongs to a torch, "0.21" of torchvision to 2.6.

    Args:
        torch: version of torch.
        name: "torchvision", "torchaudio" or "torchtext".

    Returns:
        Such as "0.21"; None where no rule is known.
    """
    major, minor = torch.release[0], torch.release[1] if len(torch.release) > 1 else 0
    if name == "torchvision":
        return f"0.{minor + 15}" if major == 2 else f"0.{minor + 1}" if (major, minor) >= (1, 2) else None
    if name == "torchaudio":
        return (
            f"{major}.{minor}"
            if major == 2 and minor < 10
            else f"0.{minor}"
            if (major, minor) >= (1, 7) and major == 1
            else None
        )
    if name == "torchtext":
        return (
            f"0.{minor + 15}"
            if major == 2 and minor < 4
            else f"0.{minor + 1}"
            if (major, minor) >= (1, 8) and major == 1
            else None
        )
    return None


def find_partners(case: Case, build: TorchBuild) -> Iterator[Finding]:
    """Find packages beside torch that are built for another release of it, where no declared need says so."""
    declared = {need.teller.name for need in needs(case.environment) if need.need.name == "torch" and not need.met}
    try:
        torch = Version(build.version)
    except InvalidVersion:
        return
    if torch.is_prerelease or torch.is_devrelease or build.hip:
        return
    for name in ("torchvision", "torchaudio", "torchtext"):
        found, wanted = case.environment.version(name), partner_of(torch, name)
        if found is None or wanted is None or name in declared or found.is_prerelease:
            continue
        here = ".".join(map(str, found.release[:2]))
        if here == wanted:
            yield from _variants(case, name, torch, found)
            continue
        pin = f"{name}=={wanted}.*"
        yield Finding(
            "partner-of-another-torch",
            "import/binary_abi",
            "error",
            confidence_for(case, 0.9, name, "torchvision", "nms"),
            f"{name} {found} is built for another torch than {torch}: its partner is {name} {wanted}.",
            (f"torch {torch} goes with torchvision {partner_of(torch, 'torchvision')}", build.told),
            "Its compiled part is tied to one minor version of torch: operators are missing, or symbols are undefined.",
            (Change("pin", f"Install {name} {wanted}.", (pin,), holds=(f"torch=={torch.public}",)),),
            not_this="Reinstall torch: the pair must fit, whichever of them moves",
            check=f'python -c "import {name}"',
            culprits=(name, "torch"),
            source="https://pytorch.org/get-started/previous-versions/",
            provable=f"import {name}",
        )


_OPERATORS = (
    r"operator torchvision::nms does not exist|No such operator torchvision::nms|Couldn't load custom C\+\+ ops"
    r"|partially initialized module 'torchvision' has no attribute '(?:extension|_C)'"
    r"|torchvision::nms[^\n]*(?:CUDA|does not exist)"
    r"|Could not run 'torchvision::nms' with arguments from the 'CUDA' backend"
)


def find_missing_operators(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which torchvision belongs to the torch that a text names, where torchvision's operators are missing.

    Args:
        case: what is diagnosed.
        knowledge: not needed.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = told.search(_OPERATORS)
    if match is None:
        return
    torch, vision = told.version("torch"), told.version("torchvision")
    wanted = partner_of(torch, "torchvision") if torch else None
    index = f"from torch's own index ({torch.local})" if torch and torch.local else "from the same index as torch"
    if torch and wanted:
        text = f"Install torchvision {wanted}, the one of torch {torch}, {index}."
        changes = [Change("pin", text, (f"torchvision=={wanted}.*",), holds=(f"torch=={torch.public}",))]
    else:
        text = f"Install torchvision again for the torch that is here (0.N goes with 2.(N-15)), {index}."
        changes = [Change("install", text, ("torchvision",))]
    if torch and vision and vision.major == 0 and vision.minor >= 15 and torch.release[:2] != (2, vision.minor - 15):
        text = f"Or install torch 2.{vision.minor - 15}, the one of this torchvision."
        pin = f"torch==2.{vision.minor - 15}.*"
        changes.append(Change("pin", text, (pin,), holds=(f"torchvision=={vision.public}",)))
    yield Finding(
        "torchvision-of-another-torch",
        "import/binary_abi",
        "error",
        0.95,
        f"torchvision{f' {vision}' if vision else ''} is built for another torch than "
        f"{f'torch {torch}' if torch else 'the one that is here'} (or for the CPU only): its operators are not there.",
        (told.line(match), *((f"torch {torch} goes with torchvision {wanted}",) if wanted else ())),
        "torchvision's compiled part belongs to one minor release of torch, and to the same index (CUDA or CPU).",
        tuple(changes),
        "another transformers or diffusers: it only imports torchvision",
        'python -c "import torchvision; torchvision.ops.nms"',
        ("torchvision", "torch"),
        "https://github.com/pytorch/vision#installation",
        provable="import torchvision",
    )


def _variants(case: Case, name: str, torch: Version, found: Version) -> Iterator[Finding]:
    """Of one release, builds for different CUDA versions: the local parts of their versions tell."""
    if not torch.local or not found.local or torch.local == found.local:
        return
    yield Finding(
        "partner-of-another-build",
        "import/binary_abi",
        "warning",
        confidence_for(case, 0.75, name, "torchvision", "nms"),
        f"{name} {found} and torch {torch} are of different builds.",
        (f"torch {torch}", f"{name} {found}"),
        "An operator that is compiled for CUDA is missing in a build for CPU, and libraries of two CUDA versions meet.",
        (Change("install", f"Install {name} of torch's build.", (f"{name}=={found.public}+{torch.local}",), (name,)),),
        check=f'python -c "import {name}"',
        culprits=(name, "torch"),
        source="installed files",
    )  # fmt: skip
