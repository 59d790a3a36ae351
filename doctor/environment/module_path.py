"""The folders that a script's modules are looked for in, in order, worked out without running any .pth file."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """Folders that an interpreter knows before its site module runs.

    Args:
        standard: the standard library's folders.
        sites: site-packages of the environment.
        base_sites: site-packages of its base, where it sees them; empty where not.
        user_site: the per-user folder of packages.
        user_site_enabled: whether a script would see it if it exists.
    """

    standard: tuple[str, ...]
    sites: tuple[str, ...]
    base_sites: tuple[str, ...] = ()
    user_site: str | None = None
    user_site_enabled: bool = False


def module_path(layout: Layout, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return sys.path of a script without the script's own folder, in the order that the site module makes.

    Args:
        layout: what the interpreter knows.
        variables: environment variables; PYTHONPATH is read.

    Returns:
        Folders (and zip files) that exist, each once.
    """
    path: dict[str, None] = {}
    for entry in (*python_path(variables), *layout.standard):
        path.setdefault(entry)
    # A virtual environment that sees its base looks into its own folder first, then the user's, then the base's;
    # without a base of its own, the user's folder comes before the interpreter's.
    own, base = (layout.sites, layout.base_sites) if layout.base_sites else ((), layout.sites)
    user = (layout.user_site,) if layout.user_site and layout.user_site_enabled else ()
    for site in (*own, *user, *base):
        if os.path.isdir(site) and site not in path:
            path.setdefault(site)
            for entry in path_file_entries(site):
                path.setdefault(entry)
    return tuple(entry for entry in path if os.path.exists(entry))


def python_path(variables: Mapping[str, str]) -> tuple[str, ...]:
    """Return the folders of PYTHONPATH as absolute paths; an empty entry is the folder that a script runs in."""
    value = variables.get("PYTHONPATH", "")
    return tuple(os.path.abspath(entry or ".") for entry in value.split(os.pathsep)) if value else ()


def path_file_entries(site: str) -> Iterator[str]:
    """Yield the folders that the .pth files of a folder of packages add, in order; their import lines are not run."""
    for _, line in path_file_lines(site):
        if not line.startswith(("import ", "import\t")):
            entry = os.path.normpath(os.path.join(site, line))
            if os.path.exists(entry):
                yield entry


def path_file_lines(site: str) -> Iterator[tuple[str, str]]:
    """Yield each line that tells something of each .pth file of a folder, with the file's path."""
    try:
        names = sorted(name for name in os.listdir(site) if name.endswith(".pth") and not name.startswith("."))
    except OSError:
        return
    for name in names:
        file = os.path.join(site, name)
        try:
            with open(file, encoding="utf-8-sig", errors="replace") as lines:
                for line in lines:
                    stripped = line.strip()
                    if stripped and not stripped.startswith("#"):
                        yield file, stripped
        except OSError:
            continue
