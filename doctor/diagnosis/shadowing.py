"""Modules that are found in the wrong place, and files of two releases mixed, as the text of a failure shows it.

What a text can show: the path in "cannot import name ... (path)", frames, the words "partially initialized", a live
notebook, a per-user folder of packages. What lies on this machine is read in installed_state.py.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import PurePosixPath

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.missing_names import Missing, missing, spans_of
from doctor.diagnosis.moves import may_be_in, python_for
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding

_FROM_FILE = re.compile(
    r"(?:cannot import name '[\w.]+' from )?(?:partially initialized )?(?:module )?'(?P<module>[\w.]+)'"
    r"(?: \(most likely[^()\n]*\))?[^\n(]*\((?P<path>[^()\n]*[/\\][^()\n]*|unknown location)\)"
)
_LEADING_FILE = re.compile(r"(?P<path>[^\s:'\"]*[/\\])(?P<stem>\w+)\.py[:,][^\n]*'(?P=stem)'")
_PACKAGES = re.compile(r"(?:site|dist)-packages", re.IGNORECASE)
_USER_SITE = re.compile(r"(?:/\.local/lib/python|[/\\]AppData[/\\]Roaming[/\\]Python|/Library/Python/)", re.IGNORECASE)
_LIVE = ("colab", "kaggle", "notebook")
# A module that is asked for something it lacks, and frames in files of the program.
_LACKS = re.compile(r"module '(?P<module>\w+)' has no attribute|cannot import name '\w+' from [^\n]*'(?P<other>\w+)'")
_ABOUT = re.compile(
    r"cannot import name '[\w.]+' from (?:partially initialized module )?'(?P<from>[\w.]+)'"
    r"|module '(?P<module>[\w.]+)' has no attribute|No module named '(?P<absent>[\w.]+)'"
)
_FILES = re.compile(r"(?P<path>(?:[\w~.:/\\ -]*[/\\])?\b(?P<stem>\w+)\.py)\b")
_CIRCULAR = re.compile(r"most likely due to a circular import|partially initialized module")


def find_shadowing_files(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find modules that the text shows to be taken from a file of the user's own."""
    seen = set()
    for line, raised in signs(case):
        for found in (*_FROM_FILE.finditer(line), *_LEADING_FILE.finditer(line)):
            groups = found.groupdict()
            module = (groups.get("module") or groups.get("stem") or "").split(".")[0]
            path = (groups.get("path") or "") + (f"{groups['stem']}.py" if groups.get("stem") else "")
            if module in seen or _PACKAGES.search(path) or path == "unknown location":
                continue
            if not _is_file_of(module, path) or "/lib/python" in path.replace("\\", "/"):
                continue
            seen.add(module)
            if not (path.endswith("__init__.py") and _is_explained(case, knowledge, module)):
                yield _shadowed(case, knowledge, module, path, line.splitlines()[0].strip())
        for found in _LACKS.finditer(line):
            module = found["module"] or found["other"]
            own = _own_file(case, module)
            if own and module not in seen:
                seen.add(module)
                yield _shadowed(case, knowledge, module, own, line.splitlines()[0].strip())
        for module, path in _standard_names(line, raised):
            if module not in seen:
                seen.add(module)
                yield _shadowed(case, knowledge, module, path, line.splitlines()[0].strip())


def _standard_names(line: str, raised: Raised | None) -> Iterator[tuple[str, str]]:
    """Yield modules of the standard library that a frame's own file is called like, where imports go in a circle."""
    for frame in raised.frames if raised and _CIRCULAR.search(line) else ():
        file = PurePosixPath(frame.file.replace("\\", "/"))
        if frame.module or file.suffix != ".py" or re.search(r"/lib(?:64)?/", str(file), re.IGNORECASE):
            continue
        if file.stem in sys.stdlib_module_names and file.stem not in ("test", "__main__"):
            yield file.stem, frame.file


def _is_explained(case: Case, knowledge: Known, module: str) -> bool:
    """Return whether the library's own release lacks the name, so that a folder elsewhere needs no other reason.

    Where no release is told, it does if no release that this Python can have is one that has the name.
    """
    for asked in missing(case, knowledge):
        spans = spans_of(asked, knowledge)
        if asked.module.split(".")[0] != module or not spans:
            continue
        if may_be_in(case, asked.project, spans) is False or any(python_for(case, knowledge, asked.project, spans)):
            return True
    return False


def _own_file(case: Case, module: str) -> str | None:
    """Return the path of a file of the program that has a module's name, where the text names one."""
    for found in _FILES.finditer(case.failure.text if case.failure else ""):
        path = found["path"].strip()
        if found["stem"] == module and not _PACKAGES.search(path) and "lib/python" not in path.replace("\\", "/"):
            return path
    return None


def _is_file_of(module: str, path: str) -> bool:
    plain = PurePosixPath(path.replace("\\", "/"))
    return plain.stem == module or (plain.name == "__init__.py" and plain.parent.name == module)


def _shadowed(case: Case, knowledge: Known, module: str, path: str, sign: str) -> Finding:
    owners = knowledge.metadata.owners(module)
    file = PurePosixPath(path.replace("\\", "/"))
    is_package = file.name == "__init__.py"
    what = f"the folder {module}/" if is_package else f"the file {file.name}"
    return Finding(
        "shadowed-by-file",
        "import/shadowed",
        "error",
        0.9 if owners or module in sys.stdlib_module_names else 0.75,
        f"Python imported {what} of the program instead of the {'library' if owners else 'module'} {module}.",
        (sign, f"{module} was taken from {path}"),
        "The folder of the started script comes first on the path, so a file there wins over an installed package.",
        (Change("rename", f"Rename {what} to a name that no library has, and remove __pycache__ beside it."),),
        not_this=f"pip install {owners[0] if owners else module}: what is installed is not what is imported",
        check=f'python -c "import {module}; print({module}.__file__)"',
        culprits=owners[:1],
        source="https://docs.python.org/3/library/sys_path_init.html",
    )


def find_wrong_copies(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find names that the release that is told to be here has, and yet are not found: another copy was imported."""
    for asked in missing(case, knowledge):
        spans = spans_of(asked, knowledge)
        version = case.environment.version(asked.project)
        always = bool(spans) and all(span.from_start and span.end is None for span in spans or ())
        if not spans and importer_of(asked.raised) == asked.module.split(".")[0]:
            yield _mixed(asked)
            continue
        circular = spans is None and bool(_CIRCULAR.search(asked.line)) and not _PACKAGES.search(asked.line)
        if not circular and (not spans or not (always if version is None else may_be_in(case, asked.project, spans))):
            continue
        if any(
            said.branch == "import/shadowed"
            for said in find_shadowing_files(case, knowledge)
            if not isinstance(said, str)
        ):
            continue
        yield _copy(case, asked, str(version) if version else "")


def _mixed(asked: Missing) -> Finding:
    """Return what is likely where a library asks itself for a name: its files are of two releases."""
    top = asked.module.split(".")[0]
    return Finding(
        "library-lacks-its-own-name",
        "import/stale_or_partial",
        "error",
        0.58,
        f"{asked.project} does not find {asked.name} in its own {asked.module}: files of two releases are mixed.",
        (asked.line,),
        "An interrupted upgrade, two installers (pip and conda), or a process that imported it before it was replaced.",
        (
            Change(
                "clean",
                f"Remove every copy of {asked.project} and install it once.",
                (asked.project,),
                (asked.project,),
            ),
            Change("restart", "In a notebook, restart the kernel."),
        ),
        not_this=f"Move what imports {top}: it is {top} itself that is not whole",
        check=f'python -c "import {asked.module}"',
        culprits=(asked.project,),
        source="the frames of the failure",
    )


def _copy(case: Case, asked: Missing, version: str) -> Finding:
    failure = case.failure
    text = failure.text if failure else ""
    place = failure.platform.place if failure else None
    by_user = bool(failure and failure.platform.user_site) or bool(_USER_SITE.search(text))
    circular = bool(_CIRCULAR.search(asked.line)) and not _PACKAGES.search(asked.line)
    whole = f"{asked.module}.{asked.name}"
    top = asked.module.split(".")[0]
    have = f"{asked.project} {version} has" if version else f"All releases of {asked.project} have"
    verdict = f"{have} {whole}, so what was imported as {top} is none of them: "
    wanted = f"{asked.project}=={version}" if version else asked.project
    clean = Change("clean", f"Remove every copy of {asked.project} and install it once.", (wanted,), (asked.project,))
    if by_user:
        branch, rest = "import/shadowed", "the paths show the per-user folder of packages."
        changes = (
            Change("environment", "Leave the per-user folder out.", environment=(("PYTHONNOUSERSITE", "1"),)),
            Change("uninstall", f"Or remove {asked.project} from it.", remove=(asked.project,)),
        )
        confidence = 0.85
    elif place in _LIVE:
        branch, rest = "import/stale_or_partial", "the running kernel still holds the release of before."
        changes = (Change("restart", "Restart the runtime after installing."), clean)
        confidence = 0.8
    elif circular or (not version and not _PACKAGES.search(asked.line)):
        branch, rest = "import/shadowed", f"a file of the program called {top}.py, or a circular import of its own."
        changes = (Change("rename", f"Rename the program's {top}.py, or break the circle of imports."), clean)
        confidence = 0.6
    else:
        branch, rest = "import/stale_or_partial", "an older copy on the path, or files of two releases mixed."
        changes = (clean, Change("restart", "In a notebook, restart the kernel."))
        confidence = 0.6
    return Finding(
        "name-is-there",
        branch,
        "error",
        confidence,
        verdict + rest,
        (asked.line, f"{have} it (symbols of releases)"),
        "Python imports the first copy on its path, and a process keeps what it imported first.",
        changes,
        not_this=f"Move {asked.project} to another release: this one has the name",
        check=f'python -c "import {top}; print({top}.__version__, {top}.__file__)"',
        culprits=(asked.project,),
        source="symbols of releases",
    )


def find_two_owners(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find distributions that write the same folder, where the failure is about a module of it."""
    text = case.failure.text if case.failure else ""
    seen = set()
    for line, _ in signs(case):
        for found in _ABOUT.finditer(line):
            top = (found["from"] or found["module"] or found["absent"]).split(".")[0]
            owners = [one for one in knowledge.metadata.owners(top) if _is_named(case, text, one)]
            if top in seen or len(owners) < 2:
                continue
            seen.add(top)
            yield _two(case, top, owners, line.splitlines()[0].strip())


def _is_named(case: Case, text: str, name: str) -> bool:
    if case.environment.complete:
        return case.environment.find(name) is not None
    spelt = re.escape(name).replace(r"\-", "[-_]")
    return case.environment.knows(name) or bool(re.search(rf"(?<![\w/.-]){spelt}(?![\w-])(?:: installed|==)", text))


def _two(case: Case, top: str, owners: list[str], sign: str) -> Finding:
    main, *others = owners
    names = " and ".join(owners)
    return Finding(
        "two-distributions-one-folder",
        "import/shadowed",
        "error",
        0.88,
        f"{names} both install the folder {top}: what was unpacked last wins, and removing one leaves a mixture.",
        (sign, f"{names} are told to be installed"),
        "Neither declares that it does not go with the other, and installers do not look at files.",
        (
            Change("clean", f"Remove both, then install {main} alone.", (main,), tuple(owners)),
            Change("clean", f"Or install {others[0]} alone, if that is what is wanted.", (others[0],), tuple(owners)),
        ),
        not_this=f"Move {main} to another release: its files are mixed with others",
        check=f'python -c "import {top}; print({top}.__file__)"',
        culprits=tuple(owners),
        source="table of modules and their distributions",
    )
