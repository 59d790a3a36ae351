"""Files of two releases or projects mixed, empty namespaces and stale caches, as the text of a failure shows them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, signs
from doctor.finding import Change, Finding

_NAMED = re.compile(r"(?:from (?:partially initialized module )?|module )'(?P<module>\w+)[\w.]*'")
_DUNDER = re.compile(r"module '(?P<module>\w+)' has no attribute '__(?:version|file|spec|all)__'")
_USER_SITE = r"(?:user[- ]site|per-user|user'?s? site[- ]packages|\.local/lib/python|AppData[/\\]Roaming[/\\]Python)"
_OTHER_COPY = re.compile(
    rf"\b(?:old(?:er)?|another|second|other|previous|stale)\b[^\n]{{0,40}}\b(?:cop(?:y|ies)|version|release|install\w*)\b"
    rf"[^\n]{{0,40}}{_USER_SITE}|{_USER_SITE}[^\n]{{0,40}}\b(?:old(?:er)?|another|second|other|stale)\b",
    re.IGNORECASE,
)


def find_mixed_files(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find what the text of a failure shows of mixed, foreign, empty or stale files of a package."""
    for part in (find_two_owners, find_empty_namespaces, find_told_copies, find_stale_files):
        yield from part(case, knowledge)


def find_two_owners(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find a module that fails and that two of the told distributions install: a fork and its original."""
    seen = set()
    text = case.failure.text if case.failure else ""
    for line, _ in signs(case):
        for found in _NAMED.finditer(line):
            module = found["module"]
            owners = knowledge.metadata.owners(module)
            if module in seen or len(owners) < 2:
                continue
            seen.add(module)
            told = [one for one in owners if _is_told(case, one, text)]
            if len(told) < 2:
                continue
            kept = next((one for one in told if one.replace("-", "_") == module), told[0])
            rest = tuple(one for one in told if one != kept)
            version = case.environment.version(kept)
            yield Finding(
                "two-owners-of-a-module",
                "import/shadowed",
                "error",
                0.88,
                f"{' and '.join(told)} both install the module {module}, and have overwritten each other's files.",
                (line.strip(), *(f"{one} is told to be here" for one in told)),
                f"Whichever was unpacked last wins file by file; {module} is a mixture of the two, whatever pip lists.",
                (
                    Change(
                        "clean",
                        f"Remove both, and install {kept} alone.",
                        (f"{kept}=={version}" if version else kept,),
                        (*rest, kept),
                    ),
                ),
                not_this=f"Upgrade {kept}: the version that pip lists is not that of the files",
                check=f'python -c "import {module}"',
                culprits=(*rest, kept),
                source="table of what installs which module",
            )


def _is_told(case: Case, name: str, text: str) -> bool:
    declared = any(one.name == name for one in case.environment.declared)
    return declared or case.environment.find(name) is not None or bool(re.search(rf"(?<![\w-]){name}(?![\w-])", text))


def find_empty_namespaces(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find modules that lack what every module of a package has: a mere folder of that name was imported."""
    for line, _ in signs(case):
        found = _DUNDER.search(line)
        owners = knowledge.metadata.owners(found["module"]) if found else ()
        if found and owners:
            module = found["module"]
            yield Finding(
                "empty-namespace",
                "import/shadowed",
                "error",
                0.8,
                f"What was imported as {module} is an empty namespace, a folder of that name, not {owners[0]}.",
                (line.strip(), f"every release of {owners[0]} sets it"),
                f"Where {owners[0]} is not installed, a folder of that name beside the script can be imported and is"
                " empty; programs that ask whether it is there are told yes.",
                (
                    Change("rename", f"Rename the folder {module}/, or start the program from another one."),
                    Change("install", f"Install {owners[0]} if it is needed.", (owners[0],)),
                ),
                not_this=f"Upgrade or reinstall {owners[0]}: the folder is found, not the library",
                check=f'python -c "import {module}; assert {module}.__file__"',
                culprits=(owners[0],),
                source="https://docs.python.org/3/reference/import.html#namespace-packages",
            )
            return


def find_told_copies(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find where a text says itself that another copy, in the user's folder of packages, is the one that runs."""
    text = case.failure.text if case.failure else ""
    found = _OTHER_COPY.search(text)
    if not found:
        return
    line = text[text.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
    names = [
        one.name for one in case.environment.declared if re.search(rf"(?<![\w-]){one.name}(?![\w-])", line.lower())
    ]
    what = names[0] if names else "the package"
    yield Finding(
        "copy-in-user-site",
        "import/shadowed",
        "error",
        0.78,
        f"{what} is imported from the per-user folder of packages, not from where it was installed last.",
        (line,),
        "A Python that sees that folder takes the copy there first, whatever pip has put elsewhere.",
        (
            Change(
                "environment", "Leave the per-user folder out: PYTHONNOUSERSITE=1, or python -s.",
                environment=(("PYTHONNOUSERSITE", "1"),),
            ),
            Change("uninstall", f"Or remove {what} there: leave one copy on the path.", remove=tuple(names[:1])),
        ),
        not_this="Change the files that it reads, or install once more: the other copy runs",
        check="python -c \"import site, sys; assert site.getusersitepackages() not in sys.path\"",
        culprits=tuple(names),
        source="the text",
    )  # fmt: skip


@dataclass(frozen=True)
class _Stale:
    """A kind of stale or broken file.

    Args:
        id: of the finding.
        pattern: what a line of the failure says of it; the groups `what` and `path` are used where they are.
        confidence: how often that is the cause.
        verdict: {what} and {path} are filled in.
        why: how it comes about.
        text: what to do.
        commands: shell commands for it.
        install: whether `what` is a distribution to install again.
        not_this: the obvious answer that is wrong.
    """

    id: str
    pattern: re.Pattern[str]
    confidence: float
    verdict: str
    why: str
    text: str
    commands: tuple[str, ...] = ()
    install: bool = False
    not_this: str | None = None


_CLEAR = ("find . -name __pycache__ -type d -prune -exec rm -r {} +",)
_STALE = (
    _Stale(
        "compiled-cache-of-another-release",
        re.compile(
            r"Unsloth: Could not build the patched (?P<what>[\w.]+)"
            r"|(?:(?:Import|Name|Attribute|Syntax|Indentation)Error)[^\n]*unsloth_compiled_cache"
            r"|unsloth_compiled_cache[^\n]*(?:\n[^\n]*){0,3}\n(?:Import|Name|Syntax|Indentation)Error"
        ),
        0.85,
        "The generated code in unsloth_compiled_cache was written for other releases than those that are installed.",
        "unsloth imports trainers that it has written into that folder before, and keeps them where"
        " UNSLOTH_COMPILE_OVERWRITE=0 is set.",
        "Delete the folder unsloth_compiled_cache beside the script, and let UNSLOTH_COMPILE_OVERWRITE be.",
        ("rm -r unsloth_compiled_cache",),
        not_this="Change the versions of trl or unsloth: they fit, the written code is older",
    ),
    _Stale(
        "bytecode-of-another-python",
        re.compile(r"bad magic number in '(?P<what>[\w.]+)'|marshal data too short|bad marshal data"),
        0.9,
        "A compiled Python file (.pyc) is of another Python, or was cut short.",
        "Python reads the .pyc beside a module, or in place of one whose source is gone, and stops at a foreign one.",
        "Delete the compiled files; Python writes them again. Of a package, install it again.",
        _CLEAR,
        not_this="Change the version of the package: its source is not what fails",
    ),
    _Stale(
        "file-with-null-bytes",
        re.compile(r"source code (?:string )?cannot contain null bytes"),
        0.85,
        "A Python file holds null bytes: it was cut short while it was written, on a full disk or by a crash.",
        "The file has its size and not its content.",
        "Find the file by the last frame, and install its package again over itself (--force-reinstall, no cache).",
        not_this="Another version of the package or of Python: the file on disk is broken",
    ),
    _Stale(
        "metadata-cut",
        re.compile(
            r"No such file or directory: '?(?P<path>[^'\n]*?(?P<what>[\w.]+)-\d[^/\\'\n]*\.dist-info)[/\\]+METADATA"
        ),
        0.9,
        "The metadata folder of {what} has no METADATA: what is left of an interrupted change.",
        "pip reads the metadata of all that is installed, and stops at a folder without.",
        "Delete that dist-info folder, and install {what} again.",
        ("rm -r {path}",),
        install=True,
    ),
    _Stale(
        "version-is-none",
        re.compile(r"Unable to compare versions for (?P<what>[\w.-]+?)[<>=!~][^\n]*found=None"),
        0.88,
        "The metadata of {what} states no version: its dist-info folder is cut, or there are two.",
        "An interrupted upgrade leaves a dist-info folder without METADATA, and its version is None.",
        "Delete every {what}-*.dist-info folder in site-packages, and install {what} again.",
        install=True,
        not_this="Move {what} to another version: the version that is here can't be read",
    ),
    _Stale(
        "built-extension-stale",
        re.compile(
            r"(?P<path>[^\s:']*torch_extensions[/\\][\w.]+[/\\](?P<what>\w+))[/\\][^\s:]*\.(?:so|pyd)"
            r"[^\n]*undefined symbol"
        ),
        0.85,
        "The extension {what} in torch_extensions was built for another torch than the one that is here.",
        "Extensions that are built at run time are kept by Python and CUDA version, and not by torch's.",
        "Delete that folder; it is built again.",
        ("rm -r {path}",),
        not_this="Reinstall torch: the extension beside it is older",
    ),
)  # fmt: skip


def find_stale_files(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find caches and files that are of another release, or cut short, and that the failure names."""
    failure = case.failure
    if failure is None:
        return
    text = "\n".join(dict.fromkeys((*(raised.line for raised in failure.raised), *failure.lines, failure.text)))
    for kind in _STALE:
        found = kind.pattern.search(text)
        if not found:
            continue
        groups = {key: value for key, value in found.groupdict().items() if value}
        what = groups.get("what", "")
        line = text[text.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
        told = {"what": what, "path": groups.get("path", "")}
        name = what.replace("_", "-").lower() if kind.install else ""
        known = case.environment.version(name) if name else None
        yield Finding(
            kind.id,
            "import/stale_or_partial",
            "error",
            kind.confidence,
            kind.verdict.format(**told),
            (line,),
            kind.why,
            (
                Change(
                    "clean",
                    kind.text.format(**told),
                    ((f"{name}=={known}" if known else name),) if name else (),
                    commands=kind.commands if kind.commands == _CLEAR else tuple(
                        command.format(**told) for command in kind.commands
                    ),
                ),
            ),
            not_this=kind.not_this.format(**told) if kind.not_this else None,
            culprits=(name,) if name else (),
            source="what the message means",
        )  # fmt: skip
