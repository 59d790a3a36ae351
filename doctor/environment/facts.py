"""The facts of an environment, as the parts of the doctor hand them on. What could not be found out is None."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version


@dataclass(frozen=True)
class Interpreter:
    """A Python interpreter, as it says of itself without its site-packages.

    Args:
        executable: path of the interpreter; empty where only its version is known.
        version: such as "3.11.7"; "3.11" where a text tells no more.
        implementation: "cpython" or "pypy".
        sys_platform: "linux", "darwin" or "win32".
        machine: "x86_64", "aarch64", "arm64" or "AMD64".
        libc: "glibc 2.36" or "musl 1.2"; None off Linux.
        prefix: folder of the environment.
        base_prefix: folder of the interpreter that it was made with; the same where it is no virtual environment.
        system_site_packages: whether a virtual environment also sees the packages of its base.
        user_site: the per-user folder of packages.
        user_site_enabled: whether that folder is on the path.
        path: the folders that modules are looked for in, in order, as a script would see them, without its own folder.
        tags: wheel tags that it accepts, best first.
        headers: whether Python.h is there.
        externally_managed: whether its owner forbids pip (PEP 668).
        conda: whether it belongs to a conda environment.
        fault: why it could not be run, where only the files of its folder were read; None where it ran.
    """

    executable: str
    version: str
    implementation: str = "cpython"
    sys_platform: str = "linux"
    machine: str = "x86_64"
    libc: str | None = None
    prefix: str = ""
    base_prefix: str = ""
    system_site_packages: bool = False
    user_site: str | None = None
    user_site_enabled: bool = False
    path: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    headers: bool | None = None
    externally_managed: bool = False
    conda: bool = False
    fault: str | None = None


@dataclass(frozen=True)
class Installed:
    """A distribution as its dist-info (or egg-info) folder describes it.

    Args:
        name: normalised name, such as "huggingface-hub".
        version: its version, as text.
        folder: the dist-info folder.
        site: the folder of packages that it lies in.
        requires: Requires-Dist lines, as they stand.
        requires_python: its Requires-Python; empty where none.
        tags: wheel tags of its WHEEL file.
        modules: top-level names that it installs.
        installer: "pip", "uv", "conda", ...; empty where not told.
        editable: the source folder of an editable install.
        origin: where it came from, where not from an index: a URL without credentials, or a path.
    """

    name: str
    version: str
    folder: str = ""
    site: str = ""
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    tags: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    installer: str = ""
    editable: str | None = None
    origin: str | None = None


@dataclass(frozen=True)
class Gpu:
    """A graphics processor: its name, memory in bytes, and compute capability such as (8, 0)."""

    name: str
    memory: int | None = None
    capability: tuple[int, int] | None = None


@dataclass(frozen=True)
class Machine:
    """The machine around an interpreter.

    Args:
        gpus: its NVIDIA processors; empty where there are none, None where nobody could tell.
        driver: version of their driver.
        driver_cuda: newest CUDA that the driver runs, such as "12.8".
        toolkit: CUDA version of the toolkit whose nvcc would be used.
        cuda_home: folder of that toolkit.
        compilers: compilers and build tools on PATH with their versions: cc, c++, cmake, ninja, nvcc, rustc, git.
        memory: bytes of memory; `memory_free` what is free of it.
        disk_free: bytes that are free where the environment lies.
        shared_memory: bytes of /dev/shm.
        container: "docker", "kubernetes", "wsl", "colab", "kaggle" or None.
        gpu_fault: what nvidia-smi answered where it is there and failed; None where it worked or isn't there.
    """

    gpus: tuple[Gpu, ...] | None = None
    driver: str | None = None
    driver_cuda: str | None = None
    toolkit: str | None = None
    cuda_home: str | None = None
    compilers: Mapping[str, str] = field(default_factory=dict)
    memory: int | None = None
    memory_free: int | None = None
    disk_free: int | None = None
    shared_memory: int | None = None
    container: str | None = None
    gpu_fault: str | None = None


@dataclass(frozen=True)
class Declared:
    """A requirement as a file or a text states it.

    Args:
        name: normalised name.
        specifier: the versions that it allows; "==1.2" where it is pinned, "" where any.
        place: where it stands, "requirements.txt:3".
        text: the line as it stands, without credentials.
    """

    name: str
    specifier: str
    place: str = ""
    text: str = ""


@dataclass(frozen=True)
class Environment:
    """All that is known of an environment: read from its files, declared by a file, or told by a text.

    Args:
        source: what was read: a path, or "the text".
        interpreter: the interpreter.
        machine: the machine around it.
        installed: distributions in the order of the path, so that of two of a name the first is imported.
        declared: requirements of a file, or versions that a text states, for what is not installed here.
        variables: environment variables that change what is imported or run, without credentials.
        complete: whether what is not in `installed` is not installed; False for files and texts.
    """

    source: str
    interpreter: Interpreter | None = None
    machine: Machine | None = None
    installed: tuple[Installed, ...] = ()
    declared: tuple[Declared, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    complete: bool = False

    def find(self, name: str) -> Installed | None:
        """Return the distribution of a name that would be imported, None where none is known to be installed."""
        wanted = canonicalize_name(name)
        return next((one for one in self.installed if one.name == wanted), None)

    def version(self, name: str) -> Version | None:
        """Return the one version of a distribution that can be here, None where it is not known."""
        found = self.find(name)
        try:
            if found:
                return Version(found.version)
            for one in self.declared:
                if one.name == canonicalize_name(name):
                    for part in SpecifierSet(one.specifier):
                        if part.operator in ("==", "===") and not part.version.endswith(".*"):
                            return Version(part.version)
        except (InvalidVersion, InvalidSpecifier):
            pass
        return None

    def knows(self, name: str) -> bool:
        """Return whether anything is known of a distribution: a version, a range, or that it is not there."""
        wanted = canonicalize_name(name)
        return self.complete or self.find(name) is not None or any(one.name == wanted for one in self.declared)

    def may_be(self, name: str, specifier: str) -> bool | None:
        """Return whether a distribution has a version of a range.

        Args:
            name: its name.
            specifier: a range such as ">=0.14,<0.18".

        Returns:
            True or False where its version is known, or is known not to be there (False); where only a range is
            declared, False if no version of common sense is in both, else None; None where nothing is known.
        """
        version = self.version(name)
        if version is not None:
            return SpecifierSet(specifier).contains(version, prereleases=True)
        if self.complete:
            return False
        ranges = [one.specifier for one in self.declared if one.name == canonicalize_name(name)]
        if any(ranges) and not _may_meet(",".join(filter(None, [*ranges, specifier]))):
            return False
        return None

    def with_declared(self, more: tuple[Declared, ...]) -> "Environment":
        """Return the environment with further statements of a text; what is known of a name already stays."""
        known = {one.name for one in self.installed} | {one.name for one in self.declared}
        return replace(self, declared=(*self.declared, *(one for one in more if one.name not in known)))


def _may_meet(specifier: str) -> bool:
    """Return whether some version lies in a range: one of its own limits, or one just beside a limit."""
    try:
        whole = SpecifierSet(specifier)
    except InvalidSpecifier:
        return True
    limits = [Version(part.version.removesuffix(".*")) for part in whole if part.operator != "==="]
    tried = [*limits, Version("0"), Version("999999")]
    for limit in limits:
        tried.append(Version(f"{limit.base_version}.999999"))
        release = list(limit.release)
        for place in range(len(release) - 1, -1, -1):
            if release[place]:
                below = [*release[:place], release[place] - 1, 999999]
                tried.append(Version(".".join(map(str, below))))
                break
    return any(whole.contains(one, prereleases=True) for one in tried)
