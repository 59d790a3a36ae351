"""A Python interpreter asked for its paths and settings, without its site-packages; where it can't run, its files."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from doctor.environment.facts import Interpreter
from doctor.environment.locate import EnvironmentUnreadable, Place, find_place
from doctor.environment.module_path import Layout, module_path
from doctor.environment.wheel_tags import accepted_tags

_MARK = "doctor-facts:"
_SAID = ("PYTHONUSERBASE", "HOME", "APPDATA", "USERPROFILE", "__PYVENV_LAUNCHER__")
# Runs in the target, any Python from 3.6 on, isolated and without site: no package of it is imported.
_QUESTIONS = """
import json, os, site, sys, sysconfig
here = os.path.dirname(os.path.abspath(sys.executable))
venv = next((f for f in (here, os.path.dirname(here)) if os.path.isfile(os.path.join(f, "pyvenv.cfg"))), None)
try:
    libc = os.confstr("CS_GNU_LIBC_VERSION")
except (AttributeError, OSError, ValueError):
    libc = None
variable = sysconfig.get_config_var
try:
    user_site = site.getusersitepackages()
except Exception:
    user_site = None
same = all(not hasattr(os, "get" + k) or getattr(os, "get" + k)() == getattr(os, "gete" + k)() for k in ("uid", "gid"))
mac = ""
if sys.platform == "darwin":
    import platform
    mac = platform.mac_ver()[0]
print("doctor-facts:" + json.dumps({
    "executable": sys.executable, "version": sys.version_info[:3], "level": sys.version_info[3:],
    "implementation": sys.implementation.name, "sys_platform": sys.platform, "platform": sysconfig.get_platform(),
    "libc": libc, "multiarch": [variable("MULTIARCH"), variable("HOST_GNU_TYPE")], "mac": mac,
    "soabi": variable("SOABI"), "threaded": bool(variable("Py_GIL_DISABLED")),
    "debug": hasattr(sys, "gettotalrefcount"), "pymalloc": variable("WITH_PYMALLOC"),
    "prefix": venv or sys.prefix, "base_prefix": sys.base_prefix, "venv": venv, "path": sys.path,
    "own_sites": site.getsitepackages([venv or sys.prefix]),
    "base_sites": site.getsitepackages([sys.base_prefix, sys.base_exec_prefix]),
    "user_site": user_site, "same_user": same,
    "include": sysconfig.get_paths().get("include"), "stdlib": sysconfig.get_paths().get("stdlib"),
}))
"""


def read_interpreter(
    python: str | None = None, *, variables: Mapping[str, str] | None = None, timeout: float = 20.0
) -> Interpreter:
    """Return what an interpreter says of itself, and the path that a script would see with it.

    Args:
        python: an interpreter, the folder of a virtual environment, or the prefix of a conda environment; the running
            interpreter if None.
        variables: environment variables that a script would be started with; those of this process if None.
        timeout: seconds after which an interpreter that doesn't answer is taken as one that can't run.

    Returns:
        The interpreter. `fault` is set where only the files of a virtual environment could be read.

    Raises:
        EnvironmentUnreadable: with a sentence for the user, where there is nothing to read.
    """
    told = os.environ if variables is None else variables
    place = find_place(python if python is not None else sys.executable)
    fault = place.fault
    if fault is None:
        answer, fault = _ask(place.executable, told, timeout)
        if answer is not None:
            return _from_answer(answer, told)
    if place.folder is None:
        raise EnvironmentUnreadable(fault or f"{place.executable} can't be run.")
    return _from_files(place, fault or "", told)


def _ask(executable: str, variables: Mapping[str, str], timeout: float) -> tuple[dict | None, str | None]:
    """Run the questions in an interpreter: its answers, or why there are none."""
    # Of what a script is started with only these have a say in the answers; the others may be needed to start at all.
    surroundings = {name: value for name, value in os.environ.items() if name not in _SAID}
    surroundings |= {name: variables[name] for name in _SAID if name in variables}
    try:
        done = subprocess.run(
            [executable, "-I", "-S", "-c", _QUESTIONS],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            env=surroundings,
        )
    except subprocess.TimeoutExpired:
        return None, f"{executable} did not answer within {timeout:.0f} seconds."
    except PermissionError:
        return None, f"{executable} is there but may not be executed: chmod +x it, or name another interpreter."
    except OSError as error:
        return None, f"{executable} can't be run: {error.strerror or error}."
    line = next((line for line in done.stdout.splitlines() if line.startswith(_MARK)), None)
    if line is not None:
        return json.loads(line.removeprefix(_MARK)), None
    said = (done.stderr or done.stdout).strip()
    if "Unknown option: -I" in said or "Unknown option -I" in said:
        raise EnvironmentUnreadable(f"{executable} is Python 2. The doctor reads environments of Python 3.7 and newer.")
    last = said.splitlines()[-1][:300] if said else f"exit code {done.returncode}"
    return None, f"{executable} does not start: {last}"


def _from_answer(answer: dict, variables: Mapping[str, str]) -> Interpreter:
    version = ".".join(map(str, answer["version"]))
    kind, serial = answer["level"]
    if kind != "final":
        version += {"alpha": "a", "beta": "b", "candidate": "rc"}.get(kind, "") + str(serial)
    system = answer["platform"]
    machine = re.sub(r"^(linux|macosx-[\d.]+|win|mingw_)[-_]?", "", system) or system
    venv = answer["venv"]
    system_sites = bool(venv) and _venv_settings(Path(venv)).get("include-system-site-packages", "").lower() == "true"
    layout = Layout(
        standard=tuple(answer["path"]),
        sites=tuple(answer["own_sites"]),
        base_sites=tuple(answer["base_sites"]) if system_sites else (),
        user_site=answer["user_site"],
        user_site_enabled=bool(
            answer["user_site"]
            and answer["same_user"]
            and (not venv or system_sites)
            and not variables.get("PYTHONNOUSERSITE")
        ),
    )
    interpreter = Interpreter(
        executable=answer["executable"],
        version=version,
        implementation=answer["implementation"],
        sys_platform=answer["sys_platform"],
        machine={"amd64": "AMD64", "win32": "x86"}.get(machine, machine),
        libc=_libc(answer),
        prefix=answer["prefix"],
        base_prefix=answer["base_prefix"],
        system_site_packages=system_sites,
        user_site=answer["user_site"],
        user_site_enabled=layout.user_site_enabled,
        path=module_path(layout, variables),
        headers=os.path.isfile(os.path.join(answer["include"] or "", "Python.h")),
        externally_managed=not venv and os.path.isfile(os.path.join(answer["stdlib"] or "", "EXTERNALLY-MANAGED")),
        conda=os.path.isdir(os.path.join(answer["prefix"], "conda-meta")),
    )
    debug = "d" if answer["debug"] else ""
    malloc = "m" if answer["version"][:2] < [3, 8] and answer["pymalloc"] else ""
    abi = "t" if answer["threaded"] else ""
    return replace(interpreter, tags=accepted_tags(interpreter, abi + debug + malloc, answer["soabi"], answer["mac"]))


def _libc(answer: dict) -> str | None:
    if answer["sys_platform"] != "linux":
        return None
    if answer["libc"]:
        return answer["libc"]
    if any("musl" in (one or "") for one in answer["multiarch"]):
        return "musl 1.2"
    return None


def _venv_settings(folder: Path) -> dict[str, str]:
    try:
        text = (folder / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip().lower(): value.strip() for key, _, value in pairs}


def _from_files(place: Place, fault: str, variables: Mapping[str, str]) -> Interpreter:
    """Return what the files of a virtual environment or a prefix tell of its interpreter, which can't be run."""
    assert place.folder is not None
    folder = Path(place.folder)
    settings = _venv_settings(folder)
    # Three folders of one name: what Windows, Linux and 64-bit Red Hat call the same.
    sites = [*folder.glob("lib/python3*/site-packages"), *folder.glob("lib64/python3*/site-packages")]
    sites = [site for site in sites if not site.parent.parent.is_symlink()]
    windows = folder / "Lib" / "site-packages"
    if not sites and windows.is_dir():
        sites = [windows]
    version = settings.get("version_info") or settings.get("version") or ""
    numbers = re.match(r"\d+(\.\d+){1,2}", version)
    named = re.search(r"python(3\.\d+)", str(sites[0])) if sites else None
    known = numbers.group() if numbers else named.group(1) if named else ""
    if not known and not sites:
        raise EnvironmentUnreadable(f"{fault} Nothing else in {folder} tells what was installed in it.")
    home = settings.get("home", "")
    layout = Layout(standard=(), sites=tuple(map(str, sites)))
    libc = os.confstr("CS_GNU_LIBC_VERSION") if sys.platform == "linux" and _has_glibc() else None
    interpreter = Interpreter(
        executable=place.executable,
        version=known or "3",
        sys_platform=sys.platform,
        machine=os.uname().machine if hasattr(os, "uname") else "AMD64",
        libc=libc,
        prefix=str(folder),
        base_prefix=str(Path(home).parent) if home else str(folder),
        system_site_packages=settings.get("include-system-site-packages", "").lower() == "true",
        path=module_path(layout, variables),
        conda=(folder / "conda-meta").is_dir(),
        fault=fault,
    )
    return replace(interpreter, tags=accepted_tags(interpreter, "", None, "")) if known else interpreter


def _has_glibc() -> bool:
    try:
        return bool(os.confstr("CS_GNU_LIBC_VERSION"))
    except (OSError, ValueError):
        return False
