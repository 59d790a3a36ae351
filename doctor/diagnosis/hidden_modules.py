"""Files and folders that Python finds before the module that was meant: in the script's folder or on PYTHONPATH."""

import os
import sys
from collections.abc import Iterator

from doctor.case import Case
from doctor.diagnosis.file_commands import rename_command
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.module_names import EARLY, GENERIC, HARMLESS, USED
from doctor.diagnosis.relevance import confidence_for
from doctor.environment.facts import Environment, Installed
from doctor.environment.module_path import path_file_lines, python_path
from doctor.finding import Change, Finding
from doctor.remedy.quoting import for_bash


def find_hidden_modules(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find files and folders of the program's own that Python imports instead of a library."""
    environment = case.environment
    if not environment.complete or environment.interpreter is None:
        return
    told = python_path(environment.variables)
    folders = [folder for folder in dict.fromkeys((case.folder or "", *told)) if folder and os.path.isdir(folder)]
    owners = _owners(environment, folders)
    for folder in folders:
        where = "PYTHONPATH" if folder in told and folder != case.folder else "the script's folder"
        copies = {name for one in environment.installed if one.site == folder for name in one.modules}
        for name, path, kind in _modules_in(folder):
            if name in copies:  # of a distribution that lies there: see copies.py
                continue
            if kind != "folder" and name in sys.stdlib_module_names and name not in HARMLESS:
                if not _is_library(path, environment.interpreter.base_prefix):
                    yield _hides_standard(case, name, path, where)
            elif name in owners and kind != "folder":  # a mere folder never comes before an installed package
                yield from _hides_installed(case, name, path, kind, where, owners[name])
            elif name not in owners and kind == "folder":
                yield from _stands_for_missing(case, knowledge, name, path)


def _owners(environment: Environment, folders: list[str]) -> dict[str, Installed]:
    """Return the distribution that installs each top-level module, without those that lie in the folders asked."""
    found: dict[str, Installed] = {}
    for one in environment.installed:
        for name in one.modules:
            if one.site not in folders:
                found.setdefault(name, one)
    return found


def _modules_in(folder: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, path and kind ("file", "package" or "folder" without __init__.py) of what a folder lets import."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        stem, suffix = os.path.splitext(entry.name)
        if suffix == ".py" and stem.isidentifier():
            yield stem, entry.path, "file"
        elif not suffix and entry.name.isidentifier() and entry.is_dir():
            init = os.path.join(entry.path, "__init__.py")
            yield entry.name, entry.path, "package" if os.path.isfile(init) else "folder"


def _is_library(path: str, prefix: str) -> bool:
    """Return whether a file is of the interpreter itself, whose folder somebody put on PYTHONPATH."""
    return os.path.realpath(path).startswith(os.path.realpath(os.path.join(prefix, "lib")) + os.sep)


def _listed(folder: str) -> tuple[str, ...]:
    try:
        return tuple(os.listdir(folder))
    except OSError:
        return ()


def _hides_standard(case: Case, name: str, path: str, where: str) -> Finding:
    interpreter = case.environment.interpreter
    sites = [entry for entry in (interpreter.path if interpreter else ()) if entry.endswith("-packages")]
    loaded = name in EARLY and any(line.startswith("import") for site in sites for _, line in path_file_lines(site))
    used = name in USED and not loaded
    return Finding(
        "hides-standard-library",
        "import/shadowed",
        "error" if used else "warning",
        confidence_for(case, 0.95 if used else 0.7, name, os.path.basename(path)),
        f"{path} hides the module {name} of Python's standard library.",
        (f"{path} lies in {where}, which is searched before the standard library",),
        f"Every `import {name}` gets this file, also in torch, numpy and other libraries, which expect Python's own.",
        (_rename(case.environment, path),),
        not_this="Reinstall the library that fails: it is whole, and gets the wrong module",
        check=_check(name, path),
        source="files read",
    )


def _check(name: str, path: str) -> str:
    folder = for_bash(os.path.dirname(path))
    return f'cd {folder} && python -c "import {name}; assert {path!r} not in str({name}.__file__)"'


def _rename(environment: Environment, path: str) -> Change:
    folder, base = os.path.split(path)
    new = os.path.join(folder, f"my_{base}")
    return Change(
        "rename",
        f"Rename {base}{'/' if os.path.isdir(path) else ''}, say to my_{base}, and import it by that name.",
        commands=(rename_command(environment, path, new),),
        disturbs=(f"Lines of the program that import {os.path.splitext(base)[0]} and mean this file must be changed.",),
    )


def _hides_installed(case: Case, name: str, path: str, kind: str, where: str, owner: Installed) -> Iterator[Finding]:
    folder = os.path.dirname(path)
    if _is_source_of(folder, owner):
        if kind == "package" and not owner.editable and owner.version:
            yield _hides_build(case, name, path, owner)
        return
    if name in GENERIC and name.replace("_", "-") != owner.name:
        return
    needed = [one.name for one in case.environment.installed if _requires(one, owner.name)]
    own = name.replace("_", "-") == owner.name
    what = "folder" if kind != "file" else "file"
    yield Finding(
        "hides-installed-module",
        "import/shadowed",
        "error" if needed or own else "warning",
        confidence_for(case, 0.95 if own or needed else 0.7, name, owner.name),
        f"The {what} {path} hides {name} of {owner.name} {owner.version}.",
        (
            f"{path} lies in {where}, which is searched first",
            f"{owner.name} {owner.version} installs {name} in {owner.site}",
            *((f"{', '.join(needed[:4])} need {owner.name}",) if needed else ()),
        ),
        f"`import {name}` gets the {what} of that name, not the library.",
        (_rename(case.environment, path),),
        not_this=f"Reinstall {owner.name}: it is installed, and would be hidden again",
        check=_check(name, path),
        culprits=(owner.name,),
        source="installed files",
    )


def _requires(one: Installed, name: str) -> bool:
    """Return whether a distribution needs another without being asked for an extra."""
    wanted = name.replace("-", "")
    for line in one.requires:
        if "extra ==" not in line:
            head = line.split(";")[0].strip().lower()
            stem = "".join(letter if letter.isalnum() or letter in "-_." else " " for letter in head).split(" ")[0]
            if stem.replace("-", "").replace("_", "").replace(".", "") == wanted:
                return True
    return False


def _is_source_of(folder: str, owner: Installed) -> bool:
    """Return whether a folder holds the sources of a distribution: it is imported from there on purpose."""
    real = os.path.realpath(folder)
    for told in (owner.editable, owner.origin):
        if told and os.path.isabs(told) and (real + os.sep).startswith(os.path.realpath(told) + os.sep):
            return True
    for place in (folder, os.path.dirname(folder)):
        for name in ("pyproject.toml", "setup.cfg", "setup.py"):
            try:
                with open(os.path.join(place, name), encoding="utf-8", errors="replace") as stream:
                    text = stream.read(200_000).lower().replace("_", "-")
            except OSError:
                continue
            if f'name = "{owner.name}"' in text or f"name = {owner.name}\n" in text or f'name="{owner.name}"' in text:
                return True
    return False


def _hides_build(case: Case, name: str, path: str, owner: Installed) -> Finding:
    installed = os.path.join(owner.site, name)
    unbuilt = _built(installed) and not _built(path)
    return Finding(
        "sources-hide-build",
        "import/shadowed",
        "warning" if unbuilt else "note",
        confidence_for(case, 0.85 if unbuilt else 0.7, name, owner.name),
        f"The sources {path} are imported, not the installed {owner.name} {owner.version}.",
        (f"{path} lies in the folder that is searched first",
         f"{installed} has compiled modules, the sources have none" if unbuilt else f"{installed} is what pip shows"),
        f"Started in the folder of its sources, `import {name}` gets files without the compiled parts." if unbuilt
        else "The version that pip shows and the files that run are two things.",
        (
            Change("environment", "Start from another folder, such as the one above.", commands=("cd ..",)),
            Change("option", f"Or build {owner.name} in its sources.", commands=("pip install -e .",)),
        ),
        not_this=f"Reinstall {owner.name}: it is whole where it lies",
        check=f'python -c "import {name}; assert {path!r} not in str({name}.__file__)"',
        culprits=(owner.name,),
        source="installed files",
    )  # fmt: skip


def _built(path: str) -> bool:
    return any(entry.endswith((".so", ".pyd")) for entry in _listed(path))


def _stands_for_missing(case: Case, knowledge: Known, name: str, path: str) -> Iterator[Finding]:
    """A mere folder named like a library that isn't installed can be imported, and is empty."""
    owners = knowledge.metadata.owners(name) if name not in GENERIC else ()
    if not owners or any(case.environment.find(one) for one in owners):
        return
    about = confidence_for(case, 0.9, name)
    optional = [
        one.name for one in case.environment.installed if any(owners[0] in line.lower() for line in one.requires)
    ]
    if (case.failure is None and not optional) or (case.failure is not None and about < 0.6):
        return
    yield Finding(
        "folder-stands-for-library",
        "import/shadowed",
        "warning",
        about if case.failure else 0.6,
        f"{owners[0]} is not installed, and the folder {path} lets `import {name}` pass as an empty module.",
        (f"{path} has no __init__.py, so it is a namespace package",
         f"{owners[0]} is in no folder of packages",
         *((f"{', '.join(optional[:3])} can use {owners[0]}, and may ask whether it is there",) if optional else ())),
        f"Programs that ask whether {name} can be imported are told yes, and find nothing in it.",
        (_rename(case.environment, path),
         Change("install", f"Install {owners[0]} if it is meant: it wins over a mere folder.", (owners[0],))),
        not_this=f"Upgrade {owners[0]}: it isn't installed",
        check=f'cd {for_bash(os.path.dirname(path))} && python -c "import {name}; assert {name}.__file__"',
        culprits=(owners[0],),
        source="installed files",
    )  # fmt: skip
