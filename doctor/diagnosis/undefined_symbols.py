"""`undefined symbol: ...`: compiled code that asks for what a library doesn't offer, and which of the two is wrong."""

import re
from collections.abc import Iterator
from typing import Any

from doctor.case import Case
from doctor.diagnosis.mangled import Name, read_name
from doctor.diagnosis.mechanism import Said
from doctor.diagnosis.symbol_owners import owner_of
from doctor.diagnosis.told import Told
from doctor.diagnosis.torch_extensions import (
    BUILDS,
    HOSTS,
    WRONGLY_NAMED,
    distribution_of,
    release_for_torch,
    torch_built_for,
    torch_of_wheel,
)
from doctor.finding import Change, Finding
from doctor.knowledge.torch_symbols import torch_versions, torch_with

_BRANCH = "import/binary_abi"
# Linux, macOS and Windows say it in their own ways. Groups: symbol.
_MISSING = (
    r"undefined symbol: ?['\"]?(?P<linux>[\w.$~:]+(?:\([^)\n]*\))?)",
    r"Symbol not found: ?\(?_?(?P<mac>\w+)",
    r"symbol lookup error: [^\n]*: (?P<lookup>\w+)",
    r"undefined reference to [`'\"](?P<link>[^'`\"\n]+)",
)
_FILE = r"(?P<file>[\w./\\~+-]*?(?P<stem>[\w.+-]+\.(?:so|pyd|dylib)(?:\.\d+)*))"


def find_undefined_symbol(case: Case, knowledge: Any) -> Iterator[Said]:
    """Tell which build a missing symbol belongs to, and what to install.

    Args:
        case: what is diagnosed.
        knowledge: for releases and what they pin.

    Yields:
        One finding at most.
    """
    told = Told(case)
    match = next(filter(None, map(told.search, _MISSING)), None)
    if match is None:
        return
    symbol = next(one for one in match.groupdict().values() if one).rstrip(".")
    line = told.line(match)
    before = told.text[max(0, match.start() - 400) : match.start()].split("\n")[-1]
    files = list(re.finditer(_FILE, before)) or list(re.finditer(_FILE, told.text[match.end() : match.end() + 400]))
    file = files[-1]["file"] if files else ""
    name = read_name(symbol)
    if name is not None and name.parts[0] in ("c10", "at", "torch", "caffe2", "c10d", "executorch"):
        yield _of_torch(told, knowledge, symbol, name, file, line)
        return
    if re.match(r"THP|aoti_torch_|torch_", symbol):
        yield _of_torch(told, knowledge, symbol, Name((symbol,)), file, line)
        return
    yield owner_of(told, symbol, name, file, line)


def _of_torch(told: Told, knowledge: Any, symbol: str, name: Name, file: str, line: str) -> Finding:
    """Return the finding about an extension that was built for another torch."""
    here = told.minor("torch")
    project = distribution_of(file) or _project_told(told)
    offered = torch_with(symbol) or _by_marks(symbol)
    version = told.version(project) if project else None
    told_of = told.search(
        r"(?:built|compiled) (?:for|against|with) (?:py)?torch[ =:v]*(\d+\.\d+)"
        r"|(\d+\.\d+)\S* (?:that )?it was (?:built|compiled)"
    )
    wheel = torch_of_wheel(told.text) or (told_of[1] or told_of[2] if told_of else None)
    built: tuple[str, ...] = (wheel,) if wheel and project else ()
    if not built and project and version:
        built = torch_built_for(project, version, knowledge.metadata)
    # What both agree on; of a table of several builds those that have the symbol.
    wanted = [one for one in built if not offered or one in offered] or list(built) or offered
    who = (
        f"{project} {version}"
        if project and version
        else project or (f"the extension {file.split('/')[-1]}" if file else "a compiled extension")
    )
    installed = told.version("torch") or here
    verdict = (
        f"{who} was built for {_torches(wanted)}, not for the torch that is "
        f"installed{f' ({installed})' if here else ''}."
    )
    evidence = [
        line,
        f"{symbol} is {name.text}" + (f", which PyTorch's wheels offer in {_torches(offered)}" if offered else ""),
    ]
    why = (
        "Compiled extensions work with the release of torch that they were compiled with: "
        "its C++ names change between minor versions."
    )
    if name.new_strings is not None:
        evidence.append(
            f"its strings are of the {'new (C++11)' if name.new_strings else 'old (before C++11)'} ABI: "
            f"PyTorch's wheels for Linux have the new one from 2.7 on (and 2.6 for CUDA 12.6)"
        )
    lies = (
        project in WRONGLY_NAMED
        and version is not None
        and version in WRONGLY_NAMED[project]
        and name.new_strings is True
        and here in (None, "2.6")
    )
    if lies:
        verdict = (
            f"{who}'s wheels want torch's new C++ ABI, also those named cxx11abiFALSE; torch "
            f"{here or '2.6'} from PyPI has the old one."
        )
    changes: list[Change] = []
    if project and here and version and here in built and not lies:
        # There is a build of this release for the torch that is here: another one of its wheels was installed.
        text = f"Install {project} {version} again without its cached wheel, so that it takes the one for torch {here}."
        line_of = f"pip install --force-reinstall --no-deps --no-cache-dir --no-build-isolation {project}=={version}"
        changes.append(Change("install", text, holds=(f"torch=={here}.*",), commands=(line_of,)))
        wanted = [one for one in wanted if one != here]
    elif project and here:
        other = release_for_torch(project, here, knowledge.metadata)
        if other and not (version and other.endswith(f"=={version}")):
            changes.append(
                Change(
                    "pin", f"Take the {project} that is built for torch {here}.", (other,), holds=(f"torch=={here}.*",)
                )
            )
    if wanted and here not in wanted:
        newest = wanted[-1]
        mates = tuple(
            f"{mate}==0.{int(newest.split('.')[1]) + 15}.*" if mate == "torchvision" else f"{mate}=={newest}.*"
            for mate in ("torchvision", "torchaudio")
            if newest.startswith("2.") and told.version(mate)
        )
        held = (f"{project}=={version}",) if project and version else ()
        # Of 2.6 there are builds of both ABIs: those for CUDA 12.4 and 11.8 have the old one.
        exact = f"torch=={newest}.0+cu124" if newest == "2.6" and name.new_strings is False else f"torch=={newest}.*"
        changes.append(
            Change(
                "pin",
                f"Install torch {newest}, which {who} is built "
                f"for{' (with torchvision and torchaudio of the same release)' if mates else ''}.",
                (exact, *mates),
                holds=held,
                disturbs=(
                    "Everything else that is compiled for the present torch: vllm, xformers, torchvision, torchaudio.",
                ),
            )
        )
    if project in BUILDS and project not in HOSTS and not here and name.new_strings is False and built:
        for specifier, builds in reversed(BUILDS[project]):
            if builds[-1] not in built and builds[-1] >= "2.7":
                text = f"Or take a newer {project}, built for torch {builds[-1]} and its new C++ ABI."
                changes.append(Change("pin", text, (f"{project}{specifier}",), holds=("torch>=2.7",)))
                break
    # What a host pins with its torch (sgl-kernel by sglang) stays, unless another one pins the torch here.
    if project in HOSTS and len(changes) == 2 and len(built) == 1 and not _pinned(told, knowledge.metadata, here):
        changes.reverse()
    if project and project not in ("torchvision", "torchaudio", "vllm"):
        changes.append(
            Change(
                "install",
                f"Or build it against the torch that is here: {project} from its source, without "
                f"isolation and without a cached wheel.",
                commands=(
                    f"pip install --no-build-isolation --no-cache-dir --no-binary {project} "
                    f"--force-reinstall --no-deps {project}",
                ),
            )
        )
    if _is_between(told):
        # NVIDIA's images have a torch between two releases: no published wheel is for it.
        changes.sort(key=lambda one: one.kind != "install")
    if not changes:
        changes.append(
            Change(
                "install",
                "Install the build of the extension that is made for the torch that is here (its "
                "file name or release notes say which), or rebuild it from source with "
                "--no-build-isolation.",
            )
        )
    obvious = "reinstalling the same wheel, or a wheel for another GPU: the file is complete, its torch is another"
    confidence = 0.92 if wanted and project else 0.85 if project or offered else 0.75
    module = re.sub(r"\..*", "", file.split("/")[-1])
    return Finding(
        "extension-of-another-torch",
        _BRANCH,
        "error",
        confidence,
        verdict,
        tuple(evidence),
        why,
        tuple(changes),
        obvious,
        f"python -c 'import torch, {module}'" if module and project else None,
        (project, "torch") if project else ("torch",),
        f"symbols of torch's wheels {torch_versions()[0]} to {torch_versions()[-1]}, read 2026-11-28",
    )


def _is_between(told: Told) -> bool:
    """Return whether the torch that is here is one of a source tree or of NVIDIA's images, such as 2.2.0a0+81ea7a4."""
    version = told.version("torch")
    return version is not None and version.is_prerelease


# What parts of a name tell of its torch, for names that are cut off or unknown: pattern, first and last version.
_MARKS = (
    (r"N3c108optional", "", "2.1"),  # std::optional since 2.2
    (r"St8optional", "2.2", ""),
    (r"St17basic_string_view", "2.6", ""),
    (r"__cxx11", "2.7", ""),
)


def _by_marks(symbol: str) -> list[str]:
    """Return the versions of torch that the types of a name speak for; empty where they don't speak."""
    versions = torch_versions()
    first, last = 0, len(versions) - 1
    seen = False
    for pattern, oldest, newest in _MARKS:
        if re.search(pattern, symbol):
            seen = True
            first = max(first, versions.index(oldest)) if oldest else first
            last = min(last, versions.index(newest)) if newest else last
    return versions[first : last + 1] if seen else []


def _pinned(told: Told, metadata: Any, torch: str | None) -> bool:
    """Return whether something that is here, by its version, pins the minor version of torch."""
    failure = told.case.failure
    known = {one.name for one in (*told.case.environment.declared, *(failure.stated if failure else ()))}
    for name in ("vllm", "sglang", "xformers", "torchvision", "torchaudio"):
        version = told.version(name) if name in known or told.case.environment.installed else None
        if version is not None and torch in torch_built_for(name, version, metadata):
            return True
    return False


def _project_told(told: Told) -> str | None:
    """Return the one extension of torch that the text's frames, names or versions speak of."""
    found: list[str] = []
    failure = told.case.failure
    for raised in failure.raised if failure else ():
        found += [name for frame in reversed(raised.frames) if frame.module and (name := distribution_of(frame.module))]
    stated = [*told.case.environment.declared, *(failure.stated if failure else ())]
    found += [one.name for one in stated if distribution_of(one.name.replace("-", "_")) == one.name]
    found += [
        name
        for word in re.findall(r"\b[a-z]\w*[-_]?\w*(?=[:= ])", told.text)
        if (name := distribution_of(word.replace("-", "_")))
    ]
    return next(
        (one for one in found if one not in ("torchvision", "torchaudio", "deepspeed", "vllm")), next(iter(found), None)
    )


def _torches(versions: list[str]) -> str:
    """Return versions of torch as a phrase: "torch 2.4 to 2.6"."""
    if not versions:
        return "another torch"
    if len(versions) == 1:
        return f"torch {versions[0]}"
    newest = torch_versions()[-1]
    if versions[-1] == newest and len(versions) > 2:
        return f"torch {versions[0]} or newer"
    return f"torch {versions[0]} to {versions[-1]}"
