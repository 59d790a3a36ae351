"""Two of one: two dist-info of a project, copies in two folders of the path, two projects that write the same files."""

import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import combinations

from packaging.utils import canonicalize_name

from doctor.case import Case
from doctor.diagnosis.file_commands import delete_command
from doctor.diagnosis.mechanism import Known
from doctor.diagnosis.needs import needs, range_for
from doctor.diagnosis.relevance import confidence_for
from doctor.environment.facts import Environment, Installed
from doctor.environment.installed_files import recorded_sizes
from doctor.environment.module_path import python_path
from doctor.environment.version_text import version_text
from doctor.finding import Change, Finding
from doctor.remedy.quoting import for_bash

# Folders that many projects install beside their own by mistake: that two write them does no harm.
_LITTER = frozenset(
    [
        "benchmark",
        "benchmarks",
        "bin",
        "docs",
        "doc",
        "example",
        "examples",
        "lib",
        "licenses",
        "scripts",
        "test",
        "tests",
        "tools",
    ]
)
# Builds of one library for other surroundings, alike in what is imported: of one version they can stand together.
_ALIKE = ("opencv-",)


def find_two_dist_infos(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find projects with two dist-info folders in one folder of packages."""
    groups: dict[tuple[str, str], list[Installed]] = defaultdict(list)
    for one in case.environment.installed:
        if one.folder and not one.editable:
            groups[one.name, one.site].append(one)
    for (name, site), copies in groups.items():
        versions = sorted({one.version for one in copies})
        if len(copies) < 2 or len(versions) < 2:  # Debian has an egg-info and a dist-info of one version
            continue
        true = version_text(copies[0])
        stale = [one for one in copies if true is not None and one.version != true]
        if len(stale) == len(copies):
            stale, true = [], None
        again = Change(
            "clean", f"Remove {name} and install it once.", (f"{name}=={true or copies[0].version}",), (name,)
        )
        clean = Change(
            "clean",
            "Delete the metadata that is not of the files: "
            f"{', '.join(os.path.basename(one.folder) for one in stale)}.",
            commands=tuple(delete_command(case.environment, one.folder) for one in stale),
        )
        yield Finding(
            "two-dist-infos",
            "import/stale_or_partial",
            "warning",
            confidence_for(case, 0.9, name, *copies[0].modules[:3]),
            f"{name} has {len(copies)} dist-info folders in one place: {' and '.join(versions)}.",
            (
                *(one.folder for one in copies),
                f"the files themselves say {true}" if true else f"the files in {site} don't say which one they are of",
            ),
            "Which of them answers for the version depends on the order of the folder, so checks of versions may refuse"
            " a package that is right, and pip may uninstall only one of them.",
            (clean, again) if stale else (again,),
            not_this=f"Install the version of {name} that a check asks for: it may be the one that is imported already",
            check=f'python -c "import importlib.metadata as m; n = [d.version for d in m.distributions()'
            f" if (d.name or '').lower().replace('_', '-') == '{name}']; assert len(n) == 1, n\"",
            culprits=(name,),
            source="installed files",
        )


def foreign_sites(environment: Environment) -> frozenset[str]:
    """Return the folders of packages that are not an environment's own: of PYTHONPATH, and of the user where there is
    an environment at all (without one, the user's folder is where pip installs)."""
    interpreter = environment.interpreter
    sites = set(python_path(environment.variables))
    if interpreter and interpreter.user_site and (interpreter.prefix != interpreter.base_prefix or interpreter.conda):
        sites.add(interpreter.user_site)
    return frozenset(sites)


def find_other_copies(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find distributions of a foreign folder that are imported instead of the environment's own, or break a need."""
    environment = case.environment
    foreign = foreign_sites(environment)
    leaks: dict[str, dict[str, tuple[Installed, Installed | None]]] = defaultdict(dict)
    first: dict[str, Installed] = {}
    for one in environment.installed:
        winner = first.setdefault(one.name, one)
        if winner.site in foreign and one.site not in foreign and winner.version != one.version and not winner.editable:
            leaks[winner.site].setdefault(winner.name, (winner, one))
    broken: dict[str, list[str]] = defaultdict(list)
    for need in needs(environment):
        found = need.found
        if found and found.site in foreign and not need.met and need.teller.site not in foreign:
            leaks[found.site].setdefault(found.name, (found, None))
            broken[found.site].append(
                f"{need.teller.name} {need.teller.version} needs {need.need.name}{need.need.specifier},"
                f" and gets {found.version}"
            )
    for site, pairs in leaks.items():
        yield _leak(case, site, list(pairs.values()), broken[site])


def _leak(case: Case, site: str, pairs: list[tuple[Installed, Installed | None]], broken: list[str]) -> Finding:
    by_variable = site in python_path(case.environment.variables)
    whose = "a folder on PYTHONPATH" if by_variable else "the per-user folder of packages"
    pairs = sorted(pairs, key=lambda pair: not any(f"needs {pair[0].name}" in line for line in broken))
    names = [winner.name for winner, _ in pairs]
    shown = (f"{one.name} {one.version}{f' (here {own.version})' if own else ''}" for one, own in pairs[:4])
    more = f" and {len(pairs) - 4} more" if len(pairs) > 4 else ""
    variable = ("PYTHONPATH", "") if by_variable else ("PYTHONNOUSERSITE", "1")
    off = "Leave PYTHONPATH out." if by_variable else "Leave the per-user folder out: PYTHONNOUSERSITE=1, or python -s."
    changes = [Change("environment", off, environment=(variable,))]
    lacking = [winner for winner, own in pairs if own is None]
    if not by_variable and lacking and case.environment.interpreter and not case.environment.interpreter.conda:
        needed = tuple(f"{one.name}{range_for(case.environment, one.name)}" for one in lacking)
        own_folder = "Install it into the environment itself, whose folder comes before the user's."
        changes.insert(0, Change("install", own_folder, needed))
    if not by_variable:
        clean = (delete_command(case.environment, *(winner.folder for winner, _ in pairs)),) if len(pairs) < 3 else ()
        changes.append(Change("uninstall", f"Or remove the copies from {site}.", commands=clean))
    winner, own = pairs[0]
    return Finding(
        "leak-of-pythonpath" if by_variable else "leak-of-user-site",
        "import/shadowed",
        "error" if broken else "warning",
        confidence_for(case, 0.95 if broken else 0.8, *names, *(name for one, _ in pairs for name in one.modules[:2])),
        f"Packages of {whose} are imported instead of the environment's own: {', '.join(shown)}{more}.",
        (
            f"{site} is on the path" if lacking else f"{site} comes before the environment's own folder",
            *(f"{one.folder} is imported{f', not {other.folder}' if other else ''}" for one, other in pairs[:6]),
            *broken[:6],
        ),
        "Python takes the first copy on its path. pip and uv look at the environment's own folder only, and call it"
        " whole.",
        tuple(changes),
        not_this=f"pip install {winner.name}: what is installed here is not what is imported",
        check='python -c "import importlib.metadata as m; '
        f"assert m.version('{winner.name}') {f'== {own.version!r}' if own else f'!= {winner.version!r}'}\"",
        culprits=tuple(names),
        source="installed files",
    )


def find_overlaps(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find pairs of distributions that wrote the same files: a fork and its original, two builds of one library."""
    shared: dict[tuple[str, str], list[Installed]] = defaultdict(list)
    for one in case.environment.installed:
        for module in one.modules if one.folder.endswith(".dist-info") and not one.editable else ():
            if module not in _LITTER:
                shared[one.site, module].append(one)
    pairs: dict[tuple[str, str], tuple[Installed, Installed]] = {}
    for several in shared.values():
        for one, other in combinations({each.name: each for each in several}.values(), 2):
            pairs[one.name, other.name] = (one, other)
    files: dict[str, dict[str, tuple[str, int | None]]] = {}
    for one, other in pairs.values():
        for each in (one, other):
            if each.folder not in files:
                files[each.folder] = recorded_sizes(each.folder)
        yield from _overlap(case, one, other, files[one.folder], files[other.folder])


def _overlap(
    case: Case,
    one: Installed,
    other: Installed,
    ones: dict[str, tuple[str, int | None]],
    others: dict[str, tuple[str, int | None]],
) -> Iterator[Finding]:
    both = [path for path in ones.keys() & others.keys() if path.split("/")[0] not in _LITTER and "/" in path]
    unlike = sorted(path for path in both if ones[path][0] != others[path][0] and not path.endswith(".pyc"))
    real = [path for path in unlike if not path.endswith(("/__init__.py", "/py.typed"))]
    if not real:
        return
    # Whose files lie there now, by their sizes.
    wins: dict[str, int] = {one.name: 0, other.name: 0}
    for path in real:
        try:
            size = os.path.getsize(os.path.join(one.site, path))
        except OSError:
            continue
        for name, told in ((one.name, ones[path][1]), (other.name, others[path][1])):
            wins[name] += told == size and ones[path][1] != others[path][1]
    mixed = all(wins.values())
    alike = one.version == other.version and any(
        one.name.startswith(stem) and other.name.startswith(stem) for stem in _ALIKE
    )
    kept, dropped = _original(one, other, real[0].split("/")[0])
    module = real[0].split("/")[0]
    yield Finding(
        "two-write-one-module",
        "import/shadowed",
        "note" if alike and not mixed else "warning",
        confidence_for(case, 0.9, one.name, other.name, module),
        f"{one.name} {one.version} and {other.name} {other.version} both write {module}/.",
        (
            f"{len(real)} files are of both and differ, such as {os.path.join(one.site, real[0])}",
            f"of those that tell, {wins[one.name]} are of {one.name} and {wins[other.name]} of {other.name}",
        ),
        "Whichever was unpacked last has overwritten the other, and what only one of them has is still there: pip shows"
        " both as whole.",
        (
            Change(
                "clean",
                f"Remove both and install {kept.name} alone.",
                (f"{kept.name}=={kept.version}",),
                (dropped.name, kept.name),
                disturbs=(f"What {dropped.name} has of its own is gone.",),
            ),
        ),
        not_this=f"Upgrade {kept.name}: the version that pip lists is not that of the files",
        check=f'python -c "import {module}"',
        culprits=(dropped.name, kept.name),
        source="installed files",
    )


def _original(one: Installed, other: Installed, module: str) -> tuple[Installed, Installed]:
    """Return which of two projects to keep: the one called like the module, else the one with the shorter name."""
    ranked = sorted((one, other), key=lambda each: (each.name.replace("-", "_") != module, len(each.name), each.name))
    return ranked[0], ranked[1]


def find_conda_mixture(case: Case, knowledge: Known) -> Iterator[Finding]:
    """Find projects of a conda environment that pip has overwritten with another version."""
    interpreter = case.environment.interpreter
    if interpreter is None or not interpreter.conda:
        return
    try:
        records = os.listdir(os.path.join(interpreter.prefix, "conda-meta"))
    except OSError:
        return
    conda: dict[str, tuple[str, str]] = {}
    for record in records:
        if record.endswith(".json") and record.count("-") >= 2:
            name, version, _ = record.removesuffix(".json").rsplit("-", 2)
            conda[canonicalize_name(name)] = (version, record)
    for one in case.environment.installed:
        told = conda.get("pytorch" if one.name == "torch" and "torch" not in conda else one.name)
        if told and one.installer in ("pip", "uv") and told[0] != one.version.partition("+")[0]:
            yield Finding(
                "conda-and-pip",
                "import/stale_or_partial",
                "warning",
                confidence_for(case, 0.75, one.name),
                f"{one.installer} has put {one.name} {one.version} over conda's {told[0]}.",
                (f"{os.path.join(interpreter.prefix, 'conda-meta', told[1])}", one.folder),
                "conda still counts on its own files and libraries, and its next change may bring half of them back.",
                (Change("clean", f"Let one of them own {one.name}: remove conda's, and install it once by pip.",
                        commands=(for_bash("conda", "remove", "--force", one.name),
                                  for_bash("pip", "install", "--force-reinstall", f"{one.name}=={one.version}"))),),
                check=f'python -c "import {(one.modules or (one.name,))[0]}"',
                culprits=(one.name,),
                source="installed files",
            )  # fmt: skip
