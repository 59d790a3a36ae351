"""Frames of tracebacks, as Python, notebooks, test runners and pretty printers write them."""

import re

from doctor.failure.facts import Frame

_PACKAGES = re.compile(r"(?:^|/)(?:site-packages|dist-packages)/(?P<rest>[^:]+)")
_FRAME = re.compile(
    r"\s*(?:> )?File \"?(?P<file>[^\"\n]{1,1000}?)\"?, line (?P<line>\d{1,9})(?:,? in (?P<function>.{1,300}))?\s*$"
)
_PYTHON = re.compile(
    r"\s*(?:> )?File \"(?P<file>[^\"\n]{1,1000})\", line (?P<line>\d{1,9})(?:,? in (?P<function>.{1,300}))?"
)
_NOTEBOOK = (
    re.compile(r"\s*File (?P<file>\S(?:[^\n]{0,500}\S)?):(?P<line>\d{1,9}),? in (?P<function>[^\n]{1,300})"),
    re.compile(r"\s*File (?P<file>\S(?:[^\n]{0,500}\S)?):(?P<line>\d{1,9})\s*$"),
    re.compile(
        r"\s*(?P<file>(?:Cell In|Input In|In) ?\[\d{1,6}\])(?:, line (?P<line>\d{1,9}))?(?:, in "
        r"(?P<function>[^\n]{1,300}))?\s*$"
    ),
    re.compile(r"\[?(?P<file><ipython-input-[\w\-]{1,80}>)\]?(?:\([^()\s]{1,200}\))? in (?P<function>[^\n]{1,300})"),
    re.compile(r"\[(?P<file>(?:/|~|[A-Za-z]:)[^\]\n]{1,500})\]\([^()\s]{1,300}\) in (?P<function>[^\n]{1,300})"),
    re.compile(
        r"(?P<file>(?:/|~[/\\]|[A-Za-z]:[/\\]|\.{1,3}[/\\])[^\n:*?\"<>|]{1,500}\.(?:pyx?|"
        r"pyc|so|pxd|pxi)) in (?P<function>[^\n]{1,300})"
    ),
)
_PYTEST = re.compile(
    r"(?P<file>[^\s:]{1,500}\.py):(?P<line>\d{1,9}): (?:in (?P<function>[\w<>.]{1,200})|(?P<raised>[A-Z]\w{2,80}))\s*$"
)
_RICH = re.compile(
    r"[│|] (?P<file>(?:/|~|[A-Za-z]:)[^\n│|]{1,500}?):(?P<line>\d{1,9}) in (?P<function>[\w<>.]{1,200})\s*[│|]?\s*$"
)
ARROW = re.compile(r"\s*-{1,8}> ?(?P<line>\d{1,9})(?: (?P<code>.*))?$")


def read_frame(line: str, *, notebook: bool = False) -> Frame | None:
    """Return the frame that a line tells of, without its code; None where it is no such line.

    Args:
        line: the line.
        notebook: whether it stands in a notebook's traceback, whose frames are less strictly written.
    """
    found = None
    if "File" in line:
        found = _PYTHON.match(line) or _FRAME.match(line)
    if not found and notebook:
        found = next((one for pattern in _NOTEBOOK if (one := pattern.match(line))), None)
    if not found and (".py:" in line or "│" in line):
        found = _PYTEST.match(line) or _RICH.match(line)
    if not found:
        return None
    parts = found.groupdict()
    return frame(
        parts["file"], int(parts["line"]) if parts.get("line") else None, (parts.get("function") or "").strip()
    )


def raised_at(line: str) -> tuple[Frame, str] | None:
    """Return the frame and the type of an exception that a test runner names below it: "x.py:2: ImportError"."""
    found = _PYTEST.match(line)
    return (frame(found["file"], int(found["line"])), found["raised"]) if found and found["raised"] else None


def frame(file: str, line: int | None, function: str = "", code: str = "") -> Frame:
    """Return a frame, with the package that its file belongs to."""
    file = file.strip().replace("\\\\", "\\").replace("\\", "/")
    return Frame(file, line, function, code, module_of(file, function))


def module_of(file: str, function: str = "") -> str | None:
    """Return the top-level module of a file under a folder of packages.

    Args:
        file: path with forward slashes: whole, abbreviated, in an egg or a zip, or of Cython ("pandas/_libs/x.pyx").
        function: name of the function; Cython's has the module before it.

    Returns:
        Such as "transformers"; None for other files.
    """
    found = None
    for found in _PACKAGES.finditer(file):  # noqa: B007 the last one counts
        pass
    if found is None:
        if file.endswith((".pyx", ".pxd", ".pxi")) and not file.startswith(("/", "~", ".")):
            return file.split("/")[0] if "/" in file else None
        return None
    parts = found["rest"].split("/")
    while len(parts) > 1 and parts[0].endswith((".egg", ".zip", ".whl")):
        parts.pop(0)
    if parts[0].startswith("__editable__"):
        name = re.match(r"__editable___?(\w+?)_\d", parts[0])
        return name[1] if name else None
    top = (
        parts[0]
        if len(parts) > 1
        else re.sub(r"(?:\.(?:py|pyc|pyx|so|pyd|abi3|c?py(?:thon)?-?\d[\w\-]*))+$", "", parts[0])
    )
    top = re.sub(r"\.(?:cpython|cp\d|abi3|pypy)[\w.\-]*$", "", top)
    return top if re.fullmatch(r"\w+", top) else None
