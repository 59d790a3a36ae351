"""A module that isn't there: never installed, gone or not yet come by version, or part of Python no more."""

import re
from collections.abc import Iterator
from dataclasses import replace

from packaging.version import Version

from doctor.case import Case
from doctor.diagnosis.mechanism import Known, Said, importer_of, signs
from doctor.diagnosis.missing_names import culprits, describe
from doctor.diagnosis.moves import into, known_names, may_be_in, out_of, python_of
from doctor.diagnosis.releases import chosen_by_resolver
from doctor.failure.facts import Raised
from doctor.finding import Change, Finding
from doctor.knowledge.symbols import Span, Use

_NO_MODULE = re.compile(
    r"No module named '?(?P<module>[A-Za-z_][\w.]*)'?(?P<package>; '(?P<parent>[\w.]+)' is not a package)?"
)
# Builds of source distributions without what they import are build/isolation, which is told elsewhere.
_BUILDING = re.compile(
    r"[Gg]etting requirements to build|build_wheel|prepare_metadata|setup\.py egg_info|build dependenc|build backend"
    r"|Failed to build|metadata-generation-failed"
)
# Modules of the standard library that Python dropped: the first version without them, and what stands in for them.
_LEFT_IN = {
    "3.10": ("formatter", "parser", "symbol", "macpath"),
    "3.11": ("binhex",),
    "3.12": ("distutils", "imp", "asyncore", "asynchat", "smtpd"),
    "3.13": ("aifc", "audioop", "cgi", "cgitb", "chunk", "crypt", "imghdr", "mailcap", "msilib", "nis", "nntplib",
             "ossaudiodev", "pipes", "sndhdr", "spwd", "sunau", "telnetlib", "uu", "xdrlib", "lib2to3"),
}  # fmt: skip
_DROPPED = {module: python for python, modules in _LEFT_IN.items() for module in modules}
_STAND_INS = {
    "distutils": "setuptools",
    "imp": "zombie-imp",
    "asyncore": "pyasyncore",
    "asynchat": "pyasynchat",
    "cgi": "legacy-cgi",
    "audioop": "audioop-lts",
    "crypt": "legacycrypt",
    **{name: f"standard-{name}" for name in ("imghdr", "pipes", "telnetlib", "sndhdr", "uu", "chunk", "aifc")},
}
# Modules of the standard library that a Python built without a system library lacks.
_SYSTEM = {
    "_ctypes": "libffi", "_bz2": "bzip2", "_lzma": "xz", "_sqlite3": "sqlite", "_tkinter": "tk", "_ssl": "openssl",
    "readline": "readline", "_curses": "ncurses", "_uuid": "libuuid", "_hashlib": "openssl", "tkinter": "tk",
}  # fmt: skip


def find_missing_modules(case: Case, knowledge: Known) -> Iterator[Said]:
    """Find modules that are not there, and why."""
    seen = set()
    for line, raised in signs(case):
        for found in _NO_MODULE.finditer(line):
            module = found["module"].rstrip(".")
            if module in seen:
                continue
            seen.add(module)
            sign = line[line.rfind("\n", 0, found.start()) + 1 :].splitlines()[0].strip()
            yield from _explain(case, knowledge, module, sign, raised, found["parent"])


def _explain(
    case: Case, knowledge: Known, module: str, sign: str, raised: Raised | None, parent: str | None
) -> Iterator[Said]:
    top = module.split(".")[0]
    text = case.failure.text if case.failure else ""
    if _BUILDING.search(text):
        return
    if parent:
        yield _no_package(knowledge, module, parent, sign)
        return
    if module in _DROPPED or top in _DROPPED:
        yield _dropped(case, module if module in _DROPPED else top, sign, raised)
        return
    if top in _SYSTEM:
        yield _no_system_library(top, sign)
        return
    if "." in module:
        project = knowledge.symbols.project_of(top)
        spans = knowledge.symbols.modules(project, module) if project else None
        if project and spans is not None:
            yield from _by_releases(case, knowledge, module, project, spans, sign, raised)
            return
        yield _other_release(case, knowledge, module, sign, raised)
        return
    yield from _not_installed(case, knowledge, module, sign, raised)


def _by_releases(
    case: Case, knowledge: Known, module: str, project: str, spans: tuple[Span, ...], sign: str, raised: Raised | None
) -> Iterator[Said]:
    version = case.environment.version(project)
    if not spans:
        yield f"no release of {project} that was read has the module {module}"
        other = _other_release(case, knowledge, module, sign, raised)
        yield replace(other, confidence=0.4)
        return
    if version and any(span.covers(version) for span in spans):
        yield f"{project} {version} has the module {module}: its version is not at fault"
        yield _not_whole(project, str(version), module, sign)
        return
    users = _users(case, knowledge, module, project, raised)
    moves = into(case, knowledge, project, spans, but=users[0].project if users else "")
    for use in users[:2]:
        moves += out_of(case, knowledge, use.project, use.spans, but=project)
    moves.sort(key=lambda one: one.cost)
    has = " and ".join(map(describe, spans))
    who = users[0].project if users else importer_of(raised) or "the importing code"
    yield Finding(
        "missing-module",
        "resolve/silent_old" if chosen_by_resolver(case, project) else "import/wrong_version",
        "error",
        0.9 if version else 0.7,
        f"{project}{f' {version}' if version else ''} has no module {module}, which {who} imports.",
        (sign, f"{project} has {module} {has} (symbols of {knowledge.symbols.date})",
         *(f"{use.project} imports it: {use.file}" for use in users[:3])),
        f"{module} is in {project} {has}.",
        tuple(move.change for move in moves),
        culprits=culprits(moves, project, users),
        source=f"symbols of {knowledge.symbols.date}",
        provable=f"import {module}",
    )  # fmt: skip


def _not_whole(project: str, version: str, module: str, sign: str) -> Finding:
    """Return what is likely where the release that is told to be here has the module all the same."""
    return Finding(
        "module-is-there",
        "import/stale_or_partial",
        "error",
        0.5,
        f"{project} {version} has {module}, so what was imported is another copy, or its files are not whole.",
        (sign, f"{project} {version} has the module (symbols of releases)"),
        "Python imports the first copy on its path; an interrupted upgrade leaves a part of the files.",
        (
            Change(
                "clean", f"Remove every copy of {project} and install it once.", (f"{project}=={version}",), (project,)
            ),
            Change("restart", "In a notebook, restart the kernel."),
        ),
        not_this=f"Move {project} to another release: this one has the module",
        check=f'python -c "import {module}"',
        culprits=(project,),
        source="symbols of releases",
    )


def _other_release(case: Case, knowledge: Known, module: str, sign: str, raised: Raised | None) -> Finding:
    """Return what is sure without a table: the package was found, as the message names what lies in it."""
    top, _, rest = module.partition(".")
    name = next(iter(knowledge.metadata.owners(top)), top)
    version, newest = case.environment.version(name), knowledge.metadata.newest(name)
    asks = importer_of(raised) or "the program"
    changes = []
    if version and newest and newest.version > version:
        changes.append(Change("pin", f"Raise {name}, if {module} is new.", (f"{name}>{version}",)))
    if version:
        changes.append(Change("pin", f"Lower {name}, if {module} is gone.", (f"{name}<{version}",)))
    return Finding(
        "module-of-another-release",
        "resolve/silent_old" if chosen_by_resolver(case, name) else "import/wrong_version",
        "error",
        0.6,
        f"{top} is here{f' ({name} {version})' if version else ''} and has no {rest}, which {asks} imports.",
        (sign,),
        f"The message names the submodule, so {top} itself was found: of another release than {asks} expects.",
        tuple(changes),
        not_this=f"pip install {top}: it is there",
        culprits=(name,),
        source="the message itself",
    )


def _users(case: Case, knowledge: Known, module: str, project: str, raised: Raised | None) -> list[Use]:
    parent, _, last = module.rpartition(".")
    uses = [*knowledge.symbols.importers(module, ""), *knowledge.symbols.importers(parent, last)]
    top = importer_of(raised)
    names = knowledge.metadata.owners(top) if top else known_names(case)
    return [
        use
        for use in uses
        if use.project != project and use.project in names and may_be_in(case, use.project, use.spans) is not False
    ]


def _not_installed(case: Case, knowledge: Known, module: str, sign: str, raised: Raised | None) -> Iterator[Said]:
    owners = knowledge.metadata.owners(module)
    top = module.split(".")[0]
    installed = next((name for name in owners if case.environment.find(name)), None)
    told = next((name for name in owners if case.environment.version(name)), None)
    text = case.failure.text if case.failure else ""
    if installed or (told and re.search(rf"[Rr]equirement already satisfied: {re.escape(told)}\b", text)):
        one = case.environment.find(installed) if installed else None
        lacks = one is not None and bool(one.modules) and top not in one.modules
        yield _other_interpreter(top, installed or told or top, sign, 0.4 if lacks else 0.75)
        return
    asks = importer_of(raised)
    extra = _extra(case, knowledge, owners, asks)
    what = owners[0] if owners else top
    version = case.environment.version(told) if told else None
    if told and "." not in module:
        yield f"{told} {version} is told to be installed, and {top} can't be imported: another interpreter ran, perhaps"
    changes = [Change("install", f"Install {what}.", (extra or what,))]
    if len(owners) > 1:
        changes += [Change("install", f"Or {one}, which brings the same module.", (one,)) for one in owners[1:3]]
    needed = f"{asks} imports it" if asks else "the program imports it"
    yield Finding(
        "not-installed",
        "import/not_installed",
        "error",
        (0.76 if owners else 0.4) - (0.3 if told else 0.0),
        f"{what} is not installed here ({needed}, and needs not declare it)." if owners
        else f"No module {module} is here, and no known distribution is called so: it may be the program's own.",
        (sign,),
        f"The module {top} comes with {' or '.join(owners)}." if owners else
        "A module of one's own is found only beside the started script or on PYTHONPATH.",
        tuple(changes) if owners else (
            Change("code", "Start the program from the folder that holds the module, or add that to PYTHONPATH."),),
        not_this=f"pip install {top}: the distribution is called {what}" if owners and top.lower() != what else None,
        check=f'python -c "import {top}"',
        culprits=(what,) if owners else (),
        source="table of modules and their distributions",
        provable=f"import {top}" if owners else None,
    )  # fmt: skip


def _extra(case: Case, knowledge: Known, owners: tuple[str, ...], asks: str | None) -> str | None:
    """Return "importer[extra]" where the module's distribution is of an extra of who imports it."""
    from packaging.requirements import InvalidRequirement, Requirement

    for name in knowledge.metadata.owners(asks) if asks else ():
        version = case.environment.version(name)
        release = next((one for one in knowledge.metadata.releases(name) if one.version == version), None)
        for line in release.requires if release else ():
            try:
                one = Requirement(line)
            except InvalidRequirement:
                continue
            extra = re.search(r"extra == ['\"]([\w.-]+)['\"]", str(one.marker or ""))
            if one.name in owners and not extra:
                return None
            if one.name in owners and extra and str(one.specifier):
                return f"{one.name}{one.specifier}"
    return None


def _dropped(case: Case, module: str, sign: str, raised: Raised | None) -> Finding:
    python, since = python_of(case), _DROPPED[module]
    stand_in = _STAND_INS.get(module)
    asks = importer_of(raised)
    older = python is not None and Version(python) < Version(since)
    changes = []
    if asks:
        changes.append(Change("pin", f"Raise what imports it: {asks}.", (asks.replace("_", "-"),)))
    if stand_in:
        changes.append(Change("install", f"Install {stand_in}, which brings {module} back.", (stand_in,)))
    changes.append(Change("system", f"Or use a Python before {since}.", commands=(f"uv venv --python '<{since}'",)))
    return Finding(
        "standard-module-dropped",
        # setuptools stands in for distutils, so that it is the package which lacks; for the others Python is too new.
        "import/not_installed" if module == "distutils" else "import/wrong_version",
        "error",
        0.4 if older else 0.85 if python else 0.8,
        f"Python{f' {python}' if python else ''} has no {module}: it left the standard library with {since}.",
        (sign, *([f"Python {python}"] if python else [])),
        f"{asks or 'Something here'} was written for an older Python and declares no upper limit.",
        tuple(changes),
        not_this=f"pip install {module}: what is called so on the index is something else",
        check=f'python -c "import {module}"',
        culprits=((asks.replace("_", "-"),) if asks else ()),
        source=f"https://docs.python.org/3/whatsnew/{since}.html",
    )


def _no_system_library(module: str, sign: str) -> Finding:
    library = _SYSTEM[module]
    return Finding(
        "python-built-without-library",
        "import/system_library",
        "error",
        0.8,
        f"This Python was built without {library}: its standard module {module} is not there.",
        (sign,),
        f"The interpreter was compiled without the headers of {library}, and then leaves such modules out silently.",
        (
            Change("system", "Use an interpreter that is whole, such as uv's.", commands=("uv venv --managed-python",)),
            Change("system", f"Or install the headers of {library} and build the interpreter again."),
        ),
        not_this=f"pip install {module.strip('_')}: it is a part of Python",
        check=f'python -c "import {module}"',
        source="https://devguide.python.org/getting-started/setup-building/",
    )


def _no_package(knowledge: Known, module: str, parent: str, sign: str) -> Finding:
    top = parent.split(".")[0]
    owned = knowledge.metadata.owners(top)
    return Finding(
        "file-hides-package",
        "import/shadowed",
        "error",
        0.85 if owned and "." not in parent else 0.5,
        f"A file {top}.py hides the package {top}: Python took the file, which holds no {module}.",
        (sign,),
        "The folder of the started script comes first on the path, so a file there wins over an installed package.",
        (Change("rename", f"Rename {top}.py (and remove __pycache__ beside it)."),),
        not_this=f"pip install {owned[0] if owned else top}: it may well be installed",
        check=f'python -c "import {top}; print({top}.__file__)"',
        culprits=owned[:1],
        source="https://docs.python.org/3/library/sys_path_init.html",
    )


def _other_interpreter(module: str, name: str, sign: str, confidence: float) -> Finding:
    return Finding(
        "other-interpreter",
        "import/not_installed",
        "error",
        confidence,
        f"{name} is installed, but not for the Python that ran: pip belongs to another interpreter.",
        (sign, f"{name} is told to be installed"),
        "pip and python on PATH can belong to different interpreters; a notebook's kernel is a third.",
        (
            Change("install", f"Install {name} with the Python that runs.", (name,)),
            Change("environment", "Or start the program by the environment's own python."),
        ),
        not_this=f"pip install {name} again: it goes to the same wrong place",
        check=f'python -c "import sys, {module}; print(sys.executable)"',
        culprits=(name,),
        source="observed: the index tool says satisfied, the import fails",
    )  # fmt: skip
