"""Errors of programs that are not Python: compilers, linkers, loaders, installers, other languages."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from doctor.failure.cleaning import Line


@dataclass(frozen=True)
class ToolError:
    """An error line of a program.

    Args:
        number: number of its first line.
        end: number of the line after its last.
        message: its text, all lines of it.
        tool: "pip", "uv", "build", "loader", "conda", "poetry", "crash", "program"; "python" for its own without type.
        strong: whether such a line is an error wherever it stands; others are taken where nothing else is said.
        wrapper: whether it only reports that something inside failed, which may be printed after it.
        process: what is said of its process.
    """

    number: int
    end: int
    message: str
    tool: str
    strong: bool = True
    wrapper: bool = False
    process: str | None = None


def _table(*rows: tuple[str, str]) -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((tool, re.compile(pattern)) for tool, pattern in rows)


CONDA_ERRORS = (
    "UnsatisfiableError",
    "LibMambaUnsatisfiableError",
    "PackagesNotFoundError",
    "ResolvePackageNotFound",
    "CondaHTTPError",
)
_LIBRARY = (
    r"undefined symbol: \S|cannot open shared object file|version [`']?(?:GLIBC|"
    r"GLIBCXX|CXXABI|GCC)_[\d.]+'? not found|DLL load failed|"
    r"Symbol not found: |Library not loaded: |image not found|symbol lookup error|"
    r"wrong ELF class|incompatible architecture \(have|"
    r"error while loading shared libraries|is not a valid Win32 application|"
    r"The specified (?:module|procedure) could not be found"
)
# What stands at the beginning of a line that says what failed.
_STRONG = _table(
    ("uv", r"\u00d7 No solution found"),
    ("uv", r"(?:cause: )?(?:And b|B|So, b)ecause .*(?:you require|we can conclude|your project)"),
    (
        "uv",
        r"error: (?:No solution|Distribution `|Requirements contain conflicting|"
        r"Because |Failed to (?:fetch|download|parse|prepare|install)|Request failed)",
    ),
    ("uv", r"(?:\u00d7 )?Failed to (?:fetch|download|parse|resolve|read)\b.*`"),
    (
        "pip",
        r"ERROR: (?:Could not find a version that satisfies|No matching distribution found|"
        r"Cannot install |ResolutionImpossible|Package '.*' requires a different Python|"
        r".*is not a supported wheel on this platform|Could not install packages|"
        r"Invalid requirement|.*is not a valid wheel filename|THESE PACKAGES DO NOT MATCH|"
        r"Could not open requirements file|Directory '.*' is not installable|Could not build wheels|"
        r"Failed to build installable|Can not perform a '--user'|"
        r"Wheel '.*' .*is invalid|.*from https?://.* has inconsistent|"
        r"Operation cancelled|Exception:)",
    ),
    ("pip", r"error: externally-managed-environment|\u00d7 This environment is externally managed"),
    (
        "pip",
        r"pip\._internal\.exceptions|(?:Could not find a version that satisfies the requirement|"
        r"No matching distribution found for) ",
    ),
    (
        "poetry",
        r"(?:(?:So, )?[Bb]ecause .*(?:depends on|requires|no versions of|is forbidden)|.*version solving failed\.?$|"
        r"The current project's (?:supported )?Python requirement)",
    ),
    (
        "conda",
        r"(?:\w+\.)*(?:UnsatisfiableError|LibMambaUnsatisfiableError|PackagesNotFoundError|"
        r"ResolvePackageNotFound|CondaHTTPError|EnvironmentLocationNotFound)",
    ),
    (
        "conda",
        r"(?:error {4}libmamba|critical libmamba|Could not solve for environment specs|"
        r"Encountered problems while solving)",
    ),
    ("build", r"CMake Error\b"),
    ("build", r"nvcc fatal\b|nvcc (?:error|warning : The 'compute)"),
    ("build", r"(?:[A-Za-z]:)?[^\s:()]{1,400}(?:[:(]\d{1,7}){1,2}\)?: ?(?:fatal )?error(?: [A-Z]{1,4}\d{1,6})?: "),
    (
        "build",
        r"(?:[\w/.\-]*/)?ld(?:\.(?:lld|gold|bfd))?: (?!.*: in function)|\S{1,300}: undefined reference to|"
        r"collect2: |LINK : fatal error|LINK : error|clang(?:\+\+)?: error: linker",
    ),
    ("build", r"(?:g?cc|g\+\+|cc1plus|clang(?:\+\+)?|cl|cc1|c\+\+|x86_64-linux-gnu-g\S+): (?:fatal )?error: "),
    (
        "build",
        r"error: (?:command '?\S+|Microsoft Visual C\+\+|can't find Rust compiler|"
        r"linker `|could not compile|invalid command 'bdist_wheel'|"
        r"legacy-install-failure|can't copy|no Python interpreter|Unable to find|"
        r"failed to run custom build|option --)",
    ),
    ("build", r"error\[E\d{4}\]: "),
    (
        "build",
        r"(?:\*\*\* )?(?:CMake|meson|scikit-build).{0,40}(?:configuration|build) failed|"
        r".*meson\.build:\d+:\d+: ERROR: ",
    ),
    (
        "build",
        r"(?:make|gmake|ninja)(?:\[\d+\])?: (?:\*\*\*|error:|build stopped)|FAILED: (?:\[code|"
        r"\S+\.(?:o|obj|so|cu|cpp|dir))",
    ),
    (
        "build",
        r"(?:/bin/)?(?:ba|z|da)?sh: (?:line \d+: |\d+: |command not found: )?\S*(?:nvcc|"
        r"gcc|g\+\+|cmake|ninja|cc|make|git|cargo|rustc)(?:: (?:command )?not found|"
        r"$)",
    ),
    ("build", r"(?:unable to execute|Could not find) '?\S*(?:gcc|g\+\+|cl\.exe|nvcc|cc|ninja|cmake)"),
    ("loader", rf"(?:\S{{1,400}}: )?(?:.{{0,300}}(?:{_LIBRARY}))"),
    (
        "crash",
        r"terminate called (?:after|without|recursively)|libc\+\+abi: terminating|"
        r"thread '.{1,120}' (?:\(\d+\) )?panicked at|"
        r"panic: |fatal error: (?:all goroutines|runtime|concurrent|unexpected signal)|Fatal Python error: |"
        r"(?:.{0,80}: line \d+: +\d+ )?(?:Segmentation fault|Bus error|Illegal instruction|"
        r"Floating point exception|Aborted|Killed)(?: +\(core dumped\))?\b.{0,200}$|"
        r"(?:zsh|fish|bash): (?:killed|segmentation fault|illegal|bus error|abort)|"
        r".{0,80}Out of memory: Killed process|oom-kill|OOMKilled|"
        r"\*\*\* (?:Process received signal|Error in `|buffer overflow detected|"
        r"stack smashing)|free\(\): |double free|malloc\(\): |corrupted |munmap_chunk|"
        r"slurmstepd: error: |srun: error: |Exited with exit code 137|.{0,60}unexpected bus error|"
        r"Unhandled exception",
    ),
    (
        "crash",
        r"Exception in thread \"|Caused by: (?:[a-z]\w*\.){1,8}\w+|Unhandled(?:PromiseRejection|"
        r" rejection)|Uncaught (?:\w+)?Error|"
        r"npm (?:ERR!|error) ",
    ),
    (
        "program",
        r"nccl\w{3,40}(?:Error|Timeout): |docker: Error response|Error response from daemon|"
        r"nvidia-container-cli: |NVIDIA-SMI has failed|Failed to initialize NVML",
    ),
    (
        "program",
        r"\w+: (?:error|failed to) load|.{0,60}error loading model|llama_model_load\w*: error|"
        r"ggml_\w+: (?:error|failed)|gguf_\w+: (?:failed|error)|"
        r"error loading model: |\w{1,40}\.py: error: |.{0,80}\.cpp:\d+: (?:GGML_ASSERT|.*failed)",
    ),
    (
        "program",
        r"\[sgl_kernel\] CRITICAL|CUDA error(?: \d+)?[: ]|CUDA out of memory|(?:.{0,40} )?Tried "
        r"to allocate [\d.]+ [KMG]iB|"
        r".{0,400}Assertion `.{1,400}` failed|Unsloth: |.{0,120}data did not match any variant",
    ),
    (
        "python",
        r"(?:\S{1,300}: )?(?:cannot import name '|No module named '|numpy\.dtype size changed|"
        r"module '[\w.]+' has no attribute|'\w+' object has no attribute '|"
        r"\S{1,80}\(\) got an unexpected keyword argument|name '\w+' is not defined)",
    ),
)
_WRAPPER = re.compile(
    r"error: (?:subprocess-exited-with-error|metadata-generation-failed|legacy-install-failure|"
    r"command '?\S+|could not compile|failed to run custom build|"
    r"Failed to build)|\u00d7 (?:Getting requirements|Preparing metadata|Building wheel|"
    r"Building editable|Encountered error|Failed to build|python setup\.py|pip subprocess|"
    r"Running setup\.py|Installing build dependencies)|(?:ERROR: )?Failed building (?:wheel|editable)|"
    r"ERROR: (?:Could not build wheels|Failed to build installable|Failed to build|"
    r"Command errored out|.*ResolutionImpossible)|"
    r"(?:make|gmake|ninja)(?:\[\d+\])?: |FAILED: |collect2: error|\*\*\* CMake|"
    r"ninja: build stopped|(?:clang(?:\+\+)?|g?cc|c\+\+): error: linker|"
    r"(?:The build backend returned|Call to `)|npm (?:ERR!|error) "
)
_WEAK = re.compile(
    r"(?:.{0,60}\b)?(?:ERROR|FATAL|CRITICAL|Error|error|FAILED|Fatal|fatal)\b[: \]|"
    r"].{3,}|[Ff]ailed to |[Cc]ould not |[Cc]annot |[Cc]an't |Unable to |"
    r".{0,200}\b(?:not (?:compatible|supported|found|installed)|without GPU support|"
    r"out of memory|does not (?:exist|match|support)|"
    r"is not (?:a |available|recognized)|conflict|incompatible|mismatch|was compiled (?:with|"
    r"without|using))\b|AssertionError|错误|エラー|Erreur|Fehler|ошибка"
)
_WARNING = re.compile(
    r"\S{0,300}(?:^|\b|:)\w*(?:Warning|WARNING|warning)\b|WARNING: Ignoring invalid distribution|"
    r".{0,100}(?:deprecated|falling back|Fallback)|"
    r"A module that was compiled using NumPy|(?:note|hint): |ERROR: (?:pip's dependency resolver|"
    r"Ignored the following versions)|"
    r"\S+ \S+ requires \S+.*, but you have "
)
# What a report of an environment says, which is no error: "- Jax version: not installed".
_ANSWER = re.compile(r"[-*\w` ()/?]{2,60}: {1,8}(?:[Nn]ot |NA\b|N/A|No\b|None|Could not collect)")
_OF_JAVA = re.compile(
    r"\s+at [\w$.<>/]+\(|\s+\.\.\. \d+ more|\s{2,}at |\s+\d+: 0x|goroutine \d+|"
    r"\s+what\(\):"
)
_NODE = re.compile(r"\s{2,8}at .{1,300}(?::\d+:\d+\)?|\([^)]*\)|<anonymous>\)?)$")


def read_tool_errors(lines: Sequence[Line], taken: frozenset[int]) -> list[ToolError]:
    """Return the errors of programs in lines of a text, without what tracebacks hold.

    Args:
        lines: the lines without prefixes, of all processes.
        taken: numbers of lines that belong to tracebacks.

    Returns:
        Errors in order; of a run of equal ones the first.
    """
    errors: list[ToolError] = []
    seen: set[str] = set()
    skip = -1
    for at, line in enumerate(lines):
        text = line.text.strip()
        if len(text) < 5 or line.number in taken or at < skip or text in seen:
            continue
        text = text.lstrip("│├╰─▶> ").strip() if text[0] in "│├╰" else text
        if _WRAPPER.match(text):
            tool = "pip" if text.startswith("ERROR: Resol") else "build"
            end = _end_of(lines, at, tool, taken)
            errors.append(_made(lines, at, end, tool, wrapper=True))
            seen.add(text)
            continue
        tool = next((name for name, pattern in _STRONG if pattern.match(text)), "")
        if (
            tool == ""
            and at + 1 < len(lines)
            and _NODE.match(lines[at + 1].text)
            and re.match(r"(?:\w+: )?\w*Error\b", text)
        ):
            tool = "crash"
        if tool:
            end = _end_of(lines, at, tool, taken)
            errors.append(_made(lines, at, end, tool))
            skip = end
            seen.add(text)
        elif _WEAK.match(text) and not _WARNING.match(text) and not _ANSWER.match(text):
            errors.append(
                ToolError(line.number, line.number + 1, text[:2000], "program", strong=False, process=line.process)
            )
            seen.add(text)
        if len(errors) > 400:
            errors = errors[:200] + errors[-150:]
    return errors


def read_warnings(lines: Sequence[Line], taken: frozenset[int]) -> list[tuple[int, str]]:
    """Return the warnings and hints of a text with the numbers of their lines, each once."""
    found: dict[str, int] = {}
    for line in lines:
        text = line.text.strip()
        if line.number not in taken and len(text) > 5 and _WARNING.match(text[:600]):
            found.setdefault(text[:1000], line.number)
            if len(found) > 300:
                break
    return [(number, text) for text, number in found.items()]


def _made(lines: Sequence[Line], at: int, end: int, tool: str, wrapper: bool = False) -> ToolError:
    texts = [line.text.strip() for line in lines[at:end]]
    texts[0] = texts[0].lstrip("│├╰─▶> ") if texts[0][:1] in "│├╰" else texts[0]
    return ToolError(
        lines[at].number, lines[end - 1].number + 1, "\n".join(texts).strip(), tool, True, wrapper, lines[at].process
    )


def _end_of(lines: Sequence[Line], at: int, tool: str, taken: frozenset[int]) -> int:
    """Return the place after the last line of an error: what is indented below it, or promised by it."""
    first = lines[at]
    text = first.text.strip()
    base = len(first.text) - len(first.text.lstrip())
    end = at + 1
    if tool == "poetry":
        while end < len(lines) and lines[end].text.strip() and end - at < 60:
            end += 1
        return end
    derivation = tool in ("uv", "conda", "poetry") or "Cannot install" in text or "DLL load" in text
    while end < len(lines) and end - at < 60:
        line = lines[end]
        plain = line.text
        if line.number in taken or line.process != first.process:
            break
        if not plain.strip():
            following = lines[end + 1].text if end + 1 < len(lines) else ""
            goes_on = (
                (text.startswith("CMake Error") and following.startswith("  ") and end - at < 20)
                or (
                    derivation
                    and following.strip().startswith(
                        ("The conflict", "hint:", "╰", "├", "And because", "So, because", "Because", "-", "└")
                    )
                )
                or (text.startswith("panic:") and end == at + 1 and False)
            )
            if not goes_on:
                break
        else:
            deeper = len(plain) - len(plain.lstrip()) > base
            wanted = (
                (
                    derivation
                    and (
                        deeper
                        or plain.strip()[:1] in "╰├│└-"
                        or plain.strip().startswith(("The conflict", "And because", "So, because", "Because", "hint:"))
                    )
                )
                or (text.startswith(("CMake Error", "terminate called")) and deeper)
                or (tool == "crash" and bool(_OF_JAVA.match(plain)) and end - at < 12)
                or (
                    ("panicked at" in text and end == at + 1 and text.endswith(":"))
                    or ("panicked at" in text and end == at + 1 and bool(re.search(r":\d+$", text)))
                )
                or text == "Last error:"
            )
            if not wanted:
                break
        end += 1
    while end > at + 1 and not lines[end - 1].text.strip():
        end -= 1
    return end
