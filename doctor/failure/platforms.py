"""Where a text was written: the operating system, Python, the place, processors and their driver."""

import re
from collections.abc import Sequence

from doctor.environment.facts import Gpu
from doctor.failure.facts import Platform, Raised

GIB = 1 << 30
# Names of processors as texts write them, with compute capability and memory in GiB where there is one size only.
_GPUS: tuple[tuple[str, tuple[int, int], int | None], ...] = (
    ("GB300|B300", (10, 3), 288),
    ("GB200|B200", (10, 0), 192),
    ("GB10|DGX Spark", (12, 1), 128),
    ("Jetson AGX Thor|Thor", (11, 0), 128),
    ("GH200|H200", (9, 0), 141),
    ("H100", (9, 0), 80),
    ("H800", (9, 0), 80),
    ("H20", (9, 0), 96),
    ("A100", (8, 0), None),
    ("A800", (8, 0), 80),
    ("A30", (8, 0), 24),
    ("RTX PRO 6000", (12, 0), 96),
    ("RTX 6000 Ada", (8, 9), 48),
    ("RTX A6000", (8, 6), 48),
    ("RTX A5000", (8, 6), 24),
    ("RTX A4000", (8, 6), 16),
    ("RTX A2000", (8, 6), None),
    ("RTX 5090", (12, 0), 32),
    ("RTX 5080", (12, 0), 16),
    ("RTX 5070 ?Ti", (12, 0), 16),
    ("RTX 5070", (12, 0), 12),
    ("RTX 50[56]0(?: ?Ti)?", (12, 0), None),
    ("RTX 50(?: series|xx)|50[- ]series", (12, 0), None),
    ("RTX 4090", (8, 9), 24),
    ("RTX 4080(?: Super)?", (8, 9), 16),
    ("RTX 4070 ?Ti(?: Super)?", (8, 9), None),
    ("RTX 40[567]0(?: ?Ti)?", (8, 9), None),
    ("RTX 40(?: series|xx)|40[- ]series", (8, 9), None),
    ("RTX 3090(?: ?Ti)?", (8, 6), 24),
    ("RTX 3080(?: ?Ti)?", (8, 6), None),
    ("RTX 30[567]0(?: ?Ti)?", (8, 6), None),
    ("RTX 30(?: series|xx)|30[- ]series", (8, 6), None),
    ("RTX 20[678]0(?: ?(?:Ti|Super))?", (7, 5), None),
    ("RTX 20(?: series|xx)", (7, 5), None),
    ("TITAN RTX", (7, 5), 24),
    ("Quadro RTX [4568]000", (7, 5), None),
    ("GTX 16[56]0(?: ?(?:Ti|Super))?", (7, 5), None),
    ("GTX 10[5678]0(?: ?Ti)?", (6, 1), None),
    ("TITAN V", (7, 0), 12),
    ("TITAN Xp?", (6, 1), 12),
    ("L40S?", (8, 9), 48),
    ("L4", (8, 9), 24),
    ("L20", (8, 9), 48),
    ("A10G?", (8, 6), 24),
    ("A40", (8, 6), 48),
    ("A16", (8, 6), 16),
    ("A2", (8, 6), 16),
    ("T4", (7, 5), 16),
    ("V100S?", (7, 0), None),
    ("P100", (6, 0), 16),
    ("P40", (6, 1), 24),
    ("P4", (6, 1), 8),
    ("M60", (5, 2), 8),
    ("K80", (3, 7), 12),
    ("K40", (3, 5), 12),
    ("Orin", (8, 7), None),
    ("Xavier", (7, 2), None),
)


def _spelt(name: str) -> str:
    """Return the expression of a name as people shorten it: "Nvidia 4090", "RTX4090", "3080ti"."""
    return name.replace("Ti", "[Tt]i").replace("RTX ", r"(?:RTX ?|(?<=NVIDIA )|(?<=[Nn]vidia )|(?<=GeForce ))")


_NAMES = tuple(
    (
        re.compile(
            rf"(?<![\w.\-/])(?:NVIDIA |[Nn]vidia )?(?:Tesla |GeForce |Quadro )?(?:{_spelt(name)})(?:-[A-Z0-9]+)*(?!\w|"
            rf"\.\d)"
        ),
        capability,
        memory,
    )
    for name, capability, memory in _GPUS
)
_CLEAR = re.compile(
    r"NVIDIA|[Nn]vidia|Tesla|GeForce|RTX|GTX|GPU|gpu|[Pp]latform|DGX|card|V100|"
    r"A100|H[128]00|P100|T4|B[23]00|GH200|Jetson"
)
_GPU_LINE = re.compile(r"[A-Z]\d{1,3}|[Nn]vidia \d|NVIDIA \d|RTX|GTX|TITAN|Orin|Xavier|Thor|Spark|series")
_MEMORY = re.compile(
    r"total capacity of ([\d.]{1,9}) GiB|\b([\d.]{1,9}) GiB total capacity|\b\d{1,7}MiB\s{0,9}/\s{0,9}(\d{1,7})MiB|"
    r"Max memory: ([\d.]{1,9}) GB|\b(\d{1,4}) ?GB card|[- ](\d{1,4}) ?GB\b"
)
_CAPABILITY = re.compile(
    r"(?:compute capability|CUDA capability|Compute Capability):? ?(?:sm_)?(\d{1,2})\.?(\d)\b|\bsm_?(\d{1,2})(\d)a?\b",
    re.IGNORECASE,
)

_SYSTEMS = {
    "win32": re.compile(
        r"\b[A-Za-z]:[/\\]{1,2}\w|\.dll\b|\.pyd\b|win_amd64|win32|\bWindows\b|\bMSVC\b|"
        r"\.exe\b|AppData|PowerShell"
    ),
    "darwin": re.compile(
        r"(?<![:\w])/Users/\w|\.dylib\b|macosx_|\bDarwin\b|\bmacOS\b|\bMac ?OS\b|\bdlopen\(|"
        r"Apple M\d|\bMPS backend|darwin\.so"
    ),
    "linux": re.compile(
        r"(?<![\w:])/(?:home|root|usr|opt|workspace|content|kaggle|mnt|data|dev|"
        r"proc)/|\.so\b|manylinux|\bLinux\b|\bUbuntu\b|\bDebian\b|\bRHEL\b|\bCentOS\b|"
        r"glibc|GLIBC|\bWSL"
    ),
}
_SAID = re.compile(
    r"^[\s>*\-`#|]{0,12}(?:Platform|platform|OS|Operating [Ss]ystem|System)[`*]{0,3}(?: \w+)?\s{0,4}[:=]"
    r"\s{0,4}(.{1,200})",
    re.MULTILINE,
)
_PLACES = (
    ("colab", re.compile(r"\bColab\b|google\.colab|(?<![\w.])/content/|https://localhost:8080/#|\bCOLAB_")),
    ("kaggle", re.compile(r"\bKaggle\b|(?<![\w.])/kaggle/|KAGGLE_")),
    ("wsl", re.compile(r"\bWSL2?\b|microsoft-standard|/mnt/[cd]/Users")),
    (
        "kubernetes",
        re.compile(
            r"\bkubectl\b|\bKubernetes\b|/var/run/secrets/kubernetes|\bOOMKilled\b|CrashLoopBackOff|"
            r"^\[pod/",
            re.MULTILINE,
        ),
    ),
    ("docker", re.compile(r"\b[Dd]ocker\b|\bdockerenv\b|\bnvcr\.io\b|\bcontainer\b|Dockerfile|\bpodman\b")),
    ("slurm", re.compile(r"\bSLURM|\bslurm|\bsrun\b|\bsbatch\b")),
    (
        "conda",
        re.compile(
            r"(?:mini|ana|micro|mamba|miniforge|mambaforge)\w*conda\d?|\bminiforge|\bmambaforge|"
            r"\bconda\b|/envs/[\w.\-]+/lib/|\\envs\\"
        ),
    ),
    (
        "notebook",
        re.compile(
            r"<ipython-input-|\bCell In ?\[|\bInput In ?\[|^In \[\d+\]|\bnotebook\b|"
            r"\bJupyter\b|ipykernel",
            re.MULTILINE,
        ),
    ),
)
_PYTHON_SAID = (
    re.compile(
        r"(?:^|[\s(>*`\-])[Pp]ython[`*]{0,3}(?: [Vv]ersion)?[`*]{0,3}\s{0,4}[:=]{0,2}\s{0,30}"
        r"v?(3\.\d{1,2}(?:\.\d{1,2})?)(?![\d.]*[\w]*/)",
        re.MULTILINE,
    ),
    re.compile(r"\b(3\.\d{1,2}\.\d{1,2})\+? \((?:main|default|tags|heads)|\bCPython (3\.\d{1,2}(?:\.\d{1,2})?)"),
)
_PYTHON_PATH = (
    re.compile(
        r"[Ll]ib[/\\]{1,2}python(3\.\d{1,2})t?[/\\]|[Pp]ython[/\\]?(3)(\d{1,2})[/\\]|"
        r"versions[/\\](3\.\d{1,2}\.\d{1,2})[/\\]|cpython-(3\.\d{1,2}\.\d{1,2})-"
    ),
    re.compile(r"\.cpython-(3)(\d{1,2})-[\w\-]+\.(?:so|dylib)|\.cp(3)(\d{1,2})-win\w+\.pyd"),
    re.compile(r"\bpython(3\.\d{1,2})\b"),
)
_DRIVER = re.compile(
    r"(?:[Dd]river(?: [Vv]ersion)?|NVIDIA-SMI)[`*]{0,2}\s{0,3}[:=]?\s{0,10}(\d{3}\.\d{1,3}(?:\.\d{1,3})?)\b"
)
_CUDA = (
    re.compile(
        r"CUDA used to build PyTorch[: ]+(\d{1,2}\.\d{1,2})|torch was compiled with (\d{1,2}\.\d)|"
        r"torch[^\n]{0,30}?\d[\w.]{1,30}\+cu(\d{2,3})\b"
    ),
    re.compile(r"torch[^\n]{0,40}?\bcu(\d{3})\b|torch[^\n]{0,20}?CUDA (\d{1,2}\.\d{1,2})"),
    re.compile(
        r"\bCUDA(?: [Vv]ersion| [Rr]untime| [Tt]oolkit)?[`*]{0,2}\s{0,3}[:=]?\s{0,10}(\d{1,2}\.\d{1,2})\b|"
        r"\bcuda[-_ ](\d{1,2}\.\d{1,2})\b|\+?\bcu(\d{3})\b|release (\d{1,2}\.\d), V\d"
    ),
)
_USER_SITE = re.compile(
    r"\.local[/\\]lib[/\\]python3|AppData[/\\]{1,2}Roaming[/\\]{1,2}Python|/Library/Python/3\.\d+/|"
    r"per-user site|user site"
)


def read_platform(text: str, raised: Sequence[Raised]) -> Platform:
    """Return what a text tells of where it was written.

    Args:
        text: the text, without colours.
        raised: the errors in it, whose frames tell the most.

    Returns:
        The platform; None in it where nothing is told.
    """
    text = "\n".join(line for line in text.split("\n") if "- [ ]" not in line[:12])  # not ticked in a form
    said = "\n".join(found[1] for found in _SAID.finditer(text))
    files = "\n".join(frame.file for one in raised for frame in one.frames)
    place = _place(said) or _place(text)
    return Platform(
        _system(said, files, text),
        _python(said, files, text),
        place,
        _gpus(text),
        _first(_DRIVER, text),
        _cuda(text),
        bool(_USER_SITE.search(text)),
    )


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return next((group for group in found.groups() if group), None) if found else None


def _place(text: str) -> str | None:
    return next((name for name, pattern in _PLACES if pattern.search(text)), None)


def _system(said: str, files: str, text: str) -> str | None:
    """Return the operating system that is said, else that of the frames' paths, else that of most of the text."""
    for part in (said, files, text):
        counts = {name: len(pattern.findall(part)) for name, pattern in _SYSTEMS.items()}
        best = max(counts, key=lambda name: counts[name])
        if counts[best] and list(counts.values()).count(counts[best]) == 1:
            return best
        if any(counts.values()) and part == said:
            return None  # said to be seen on several
    place = _place(text)
    return "linux" if place in ("colab", "kaggle", "docker", "kubernetes", "slurm", "wsl") else None


def _python(said: str, files: str, text: str) -> str | None:
    """Return the version of Python that is said, else that paths tell."""
    text = "\n".join(line for line in text.splitlines() if ".whl" not in line and "requires-python" not in line.lower())
    for part in (said, text):
        for pattern in _PYTHON_SAID:
            found = _first(pattern, part)
            if found:
                return found
    for pattern in _PYTHON_PATH:
        for part in (files, text):
            match = pattern.search(part)
            if match:
                groups = [group for group in match.groups() if group]
                return groups[0] if "." in groups[0] else ".".join(groups[:2])
    return None


def _cuda(text: str) -> str | None:
    """Return the version of CUDA that torch was built for, else one that is named."""
    for pattern in _CUDA:
        found = _first(pattern, text)
        if found:
            return found if "." in found else f"{found[:-1]}.{found[-1]}"
    return None


def _gpus(text: str) -> tuple[Gpu, ...]:
    """Return the processors that a text names, each once."""
    found: dict[str, Gpu] = {}
    memory, capability = _memory(text), _capability(text)
    for line in text.splitlines():
        if not _GPU_LINE.search(line) or not _CLEAR.search(line) or 'File "' in line:
            continue
        line = line[:400]
        for pattern, of_name, size in _NAMES:
            match = pattern.search(line)
            if match:
                name = match[0].strip()
                stated = re.search(r"-(\d{2,3})GB", match[0])
                size = None if "aptop" in line[match.end() : match.end() + 12] else size  # the same name, less memory
                known = int(stated[1]) * GIB if stated else size * GIB if size else None
                found.setdefault(
                    re.sub(r"NVIDIA |Nvidia |Tesla |GeForce |Quadro |-.*", "", name), Gpu(name, known, of_name)
                )
                break
        if len(found) > 8:
            break
    if not found and (memory or capability):
        return (Gpu("", memory, capability),)
    if len(found) == 1:
        only = next(iter(found.values()))
        return (Gpu(only.name, memory or only.memory, capability or only.capability),)
    return tuple(found.values())


def _memory(text: str) -> int | None:
    found = _MEMORY.search(text)
    if not found:
        return None
    total, of, smi, most, card, _ = found.groups()
    if smi:
        return int(smi) << 20
    size = total or of or most or card
    return int(float(size) * GIB) if size and size.strip(".") and size.count(".") < 2 else None


def _capability(text: str) -> tuple[int, int] | None:
    """Return the capability that a text says a processor has; one that an error asks for doesn't count."""
    for found in _CAPABILITY.finditer(text):
        before = text[max(0, found.start() - 40) : found.start()]
        if re.search(r"at least|supports|requires|minimum|arch|supported", before) or re.match(
            r"[ \w,]*(?:sm_|or )", text[found.end() : found.end() + 8]
        ):
            continue
        major, minor = (found[1], found[2]) if found[1] else (found[3], found[4])
        if 3 <= int(major) <= 13:
            return int(major), int(minor)
    return None
