"""What interrupted or foreign changes left of a package: renamed folders, missing files, files of another release."""

import base64
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.file_commands import delete_command
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.relevance import confidence_for
from doctor.environment.facts import Installed
from doctor.environment.installed_files import missing_paths, recorded_paths, recorded_sizes
from doctor.environment.version_text import stated_version
from doctor.finding import Change, Finding
from doctor.remedy.quoting import for_bash

# Files without which an import may fail; images of containers often leave out tests and compiled Python files.
_NEEDED = re.compile(
    r"^(?!.*(^|/)(tests?|testing|examples?|benchmarks?|docs?)/)[^.].*\.(py|so|pyd|dylib|dll)$|\.so\.\d"
)


def find_renamed_folders(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find what pip leaves when a change is interrupted: folders whose first letter became "~" or "-"."""
    for site in _sites(case):
        names = [name for name in _listed(site) if re.match(r"[~-][A-Za-z0-9_.~-]*$", name)]
        if not names:
            continue
        hurt = sorted({_guess(name, case) for name in names} - {""})
        paths = [os.path.join(site, name) for name in names]
        again = tuple(f"{name}=={found.version}" for name in hurt if (found := case.environment.find(name)))
        yield Finding(
            "interrupted-change",
            "import/stale_or_partial",
            "warning",
            max(confidence_for(case, 0.85, *hurt, *names), 0.9 if _warned(case) else 0),
            f"An interrupted install or uninstall left {', '.join(sorted(names)[:4])} in the folder of packages.",
            (*_warned(case), *paths[:6]),
            "pip renames a package's folders before it replaces them and deletes them at the end; here it didn't come"
            " so far, so the package may be half old and half new.",
            (
                Change(
                    "clean",
                    f"Delete these folders, and install {', '.join(hurt) or 'what they were'} again.",
                    again,
                    tuple(hurt) if again else (),
                    commands=(delete_command(case.environment, *paths),),
                ),
            ),
            not_this="Ignore it as a mere warning: names that can't be imported come from it later",
            check=f"! ls -d {for_bash(site)}/[~-]*",
            culprits=tuple(hurt),
            source="installed files",
        )


def _sites(case: Case) -> list[str]:
    """Return the folders of packages of an environment that was read from files."""
    interpreter = case.environment.interpreter
    if not case.environment.complete or interpreter is None:
        return []
    # Not those of the base that a virtual environment sees; it may lie inside the base's folder itself.
    own, base = interpreter.prefix + os.sep, interpreter.base_prefix + os.sep
    sites = (entry for entry in interpreter.path if entry.endswith(("site-packages", "dist-packages")))
    return [entry for entry in sites if entry.startswith(own) or own == base or not entry.startswith(base)]


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def _warned(case: Case) -> tuple[str, ...]:
    """Return the lines of a failure in which pip speaks of such a folder."""
    failure = case.failure
    lines = (*failure.lines, *failure.text.splitlines()) if failure else ()
    return tuple(dict.fromkeys(line.strip() for line in lines if "gnoring invalid distribution" in line))[:1]


def _guess(renamed: str, case: Case) -> str:
    """Return the project that a renamed folder was of: its name lacks the first letter."""
    rest = re.sub(r"-\d.*|\.(dist|egg)-info$", "", renamed[1:]).lower().replace("_", "-").lstrip("~")
    names = [one.name for one in case.environment.installed]
    modules = {name.lower(): one.name for one in case.environment.installed for name in one.modules}
    for name, project in (*((name, name) for name in names), *modules.items()):
        if rest and name[1:].replace("_", "-") == rest:
            return project
    return ""


def find_missing_files(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find distributions that pip lists and whose files are not there, and dist-info folders that are cut."""
    sites = set(_sites(case))
    counts = Counter(one.name for one in case.environment.installed)
    for one in case.environment.installed:
        if one.site not in sites or not one.folder.endswith(".dist-info") or one.editable or counts[one.name] > 1:
            continue
        if not os.path.isfile(os.path.join(one.folder, "METADATA")):
            yield _cut(case, one)
            continue
        if not os.path.isfile(os.path.join(one.folder, "RECORD")) and one.installer in ("pip", "uv"):
            yield _unrecorded(case, one)
            continue
        gone = list(missing_paths(one, _NEEDED))
        if gone:
            yield _gone(case, one, gone, len(recorded_paths(one.folder)))


def _cut(case: Case, one: Installed) -> Finding:
    return Finding(
        "dist-info-without-metadata",
        "import/stale_or_partial",
        "warning",
        confidence_for(case, 0.9, one.name, *one.modules[:3]),
        f"{os.path.basename(one.folder)} has no METADATA, so the version of {one.name} can't be asked.",
        (f"{os.path.join(one.folder, 'METADATA')} is not there",),
        "importlib.metadata.version answers None for it, at which checks of versions stop.",
        (Change("clean", f"Delete the folder and install {one.name} again.", (f"{one.name}=={one.version}",),
                commands=(delete_command(case.environment, one.folder),)),),
        check=f"python -c \"import importlib.metadata as m; assert m.version('{one.name}')\"",
        culprits=(one.name,),
        source="installed files",
    )  # fmt: skip


def _unrecorded(case: Case, one: Installed) -> Finding:
    return Finding(
        "dist-info-without-record",
        "import/stale_or_partial",
        "note",
        confidence_for(case, 0.7, one.name, *one.modules[:3]),
        f"{os.path.basename(one.folder)} has no RECORD, so {one.name} can't be uninstalled or checked.",
        (f"{os.path.join(one.folder, 'RECORD')} is not there",),
        "pip and uv know a package's files by that list only; without it an upgrade leaves the old ones.",
        (
            Change(
                "option",
                "Delete the folder, and install it again over what is there.",
                commands=(
                    delete_command(case.environment, one.folder),
                    for_bash("pip", "install", "--ignore-installed", "--no-deps", f"{one.name}=={one.version}"),
                ),
            ),
        ),
        check=f"test -f {for_bash(os.path.join(one.folder, 'RECORD'))}",
        culprits=(one.name,),
        source="installed files",
    )


def _gone(case: Case, one: Installed, gone: list[str], count: int) -> Finding:
    tops = {path.split("/")[0].removesuffix(".py") for path in gone if path.count("/") == 0 or _is_first(path)}
    broken = sorted(tops & set(one.modules))
    what = f"{len(gone)} of its {count} files" if len(gone) > 1 else gone[0]
    return Finding(
        "files-missing",
        "import/stale_or_partial",
        "error" if broken else "warning",
        confidence_for(case, 0.97 if broken else 0.8, one.name, *one.modules[:3]),
        f"{one.name} {one.version} is listed as installed, and {what} {'are' if len(gone) > 1 else 'is'} not there.",
        (*(os.path.join(one.site, path) for path in gone[:5]), f"listed in {os.path.join(one.folder, 'RECORD')}"),
        "A half removed or half written package: another one that shared the folder was uninstalled, the disk was full,"
        " or files were deleted by hand.",
        (_again(one),),
        not_this=f"pip install {one.name}: pip finds it installed and does nothing",
        check=f'python -c "import {(broken or list(one.modules) or [one.name])[0]}"',
        culprits=(one.name,),
        source="installed files",
        provable=f"import {broken[0]}" if broken else None,
    )  # fmt: skip


def _again(one: Installed) -> Change:
    wanted = f"{one.name}=={one.version}"
    return Change(
        "clean",
        f"Install {one.name} {one.version} again over itself.",
        (wanted,),
        (one.name,),
    )


def _is_first(path: str) -> bool:
    return path.count("/") == 1 and path.endswith("/__init__.py")


def find_files_of_another_release(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find packages whose own version text isn't that of their dist-info, in files that are not as installed."""
    sites = set(_sites(case))
    counts = Counter(one.name for one in case.environment.installed)
    writers = Counter(name for one in case.environment.installed for name in one.modules)
    for one in case.environment.installed:
        if one.site not in sites or one.editable or not one.folder.endswith(".dist-info") or counts[one.name] > 1:
            continue  # two dist-info folders are told as such
        if any(writers[name] > 1 for name in one.modules):  # two that write one module: see copies.py
            continue
        stated = stated_version(one)
        if stated is None or _same(stated[0], one.version):
            continue
        version, file = stated
        told = recorded_sizes(one.folder).get(os.path.relpath(file, one.site).replace(os.sep, "/"))
        if told is None or not told[0] or _digest(file) == told[0]:  # a project that forgot to raise its text
            continue
        yield Finding(
            "files-of-another-release",
            "import/stale_or_partial",
            "warning",
            confidence_for(case, 0.85, one.name, *one.modules[:3]),
            f"The files of {one.name} are of {version}, its dist-info says {one.version}.",
            (f"{file} states {version}", f"{one.folder} states {one.version}, and lists another hash of that file"),
            "Something wrote over the package after it was installed: pip shows one release and Python runs another.",
            (_again(one),),
            not_this=f"Change the version of {one.name} as pip shows it: that isn't what runs",
            check=f'python -c "import {one.modules[0]} as m; assert m.__version__ == {one.version!r}"',
            culprits=(one.name,),
            source="installed files",
        )  # fmt: skip


def _same(text: str, version: str) -> bool:
    plain, other = (re.sub(r"\+.*|[-_.]", "", one.lower()) for one in (text, version))
    return plain == other


def _digest(file: str) -> str:
    try:
        with open(file, "rb") as stream:
            digest = hashlib.sha256(stream.read()).digest()
    except OSError:
        return ""
    return "sha256=" + base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def find_empty_folders(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find folders of packages that no distribution claims and that hold no Python file any more."""
    claimed = {name for one in case.environment.installed for name in one.modules}
    for site in _sites(case):
        for name in _listed(site):
            folder = os.path.join(site, name)
            if not name.isidentifier() or name in claimed or name == "__pycache__" or not os.path.isdir(folder):
                continue
            owners = [one for one in knowledge.metadata.owners(name) if not case.environment.find(one)]
            if not owners or _holds_modules(folder):
                continue
            about = confidence_for(case, 0.9, name, owners[0])
            yield Finding(
                "folder-left-behind",
                "import/stale_or_partial",
                "warning" if case.failure and about > 0.6 else "note",
                about,
                f"{folder} is what an uninstall left of {owners[0]}: it can be imported, and is empty.",
                (f"{folder} holds no .py file and no compiled module", f"{owners[0]} is not installed"),
                f"A folder without __init__.py is a namespace package: `import {name}` passes, and has no names.",
                (Change("clean", "Delete the folder.", commands=(delete_command(case.environment, folder),)),
                 Change("install", f"Or install {owners[0]}, if it is needed.", (owners[0],))),
                check=f'python -c "import {name}; assert {name}.__file__"',
                culprits=(owners[0],),
                source="installed files",
            )  # fmt: skip


def _holds_modules(folder: str) -> bool:
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if name != "__pycache__"]
        if any(name.endswith((".py", ".so", ".pyd")) for name in files):
            return True
    return False
