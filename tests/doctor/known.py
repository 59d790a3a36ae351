"""Knowledge made on the spot: a few projects and their releases."""

from dataclasses import dataclass, field
from datetime import date

from packaging.specifiers import SpecifierSet
from packaging.version import Version

from doctor.environment.facts import Environment, Installed, Interpreter


@dataclass(frozen=True)
class Release:
    version: Version
    requires: tuple[str, ...] = ()
    requires_python: str = ""
    yanked: bool = False


@dataclass(frozen=True)
class Metadata:
    """Releases by project: {"peft": {"0.14.0": ("transformers",)}}; a key "0.14.0|>=3.10" also says Requires-Python."""

    known: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)

    def releases(self, name):
        made = []
        for key, requires in self.known.get(name, {}).items():
            version, _, python = key.partition("|")
            made.append(Release(Version(version), requires, python))
        return tuple(sorted(made, key=lambda one: one.version))

    def newest(self, name, *, before: date | None = None, python: str | None = None, specifier: str = ""):
        fit = [one for one in self.releases(name) if one.version in SpecifierSet(specifier)
               and (python is None or python in SpecifierSet(one.requires_python))]  # fmt: skip
        return fit[-1] if fit else None


@dataclass(frozen=True)
class Knowledge:
    metadata: Metadata


def knowing(**known) -> Knowledge:
    return Knowledge(Metadata({name.replace("_", "-"): of for name, of in known.items()}))


def environment(*installed: str, executable: str = "", python: str = "3.11.7", platform: str = "linux", **more):
    """An environment of distributions "peft==0.14.0 transformers accelerate>=0.21": a name, then what it declares."""
    made = []
    for one in installed:
        pinned, *requires = one.split()
        name, _, version = pinned.partition("==")
        made.append(Installed(name, version, requires=tuple(requires), modules=(name.replace("-", "_"),)))
    prefix = more.pop("prefix", "")
    interpreter = Interpreter(executable, python, sys_platform=platform, prefix=prefix)
    return Environment("v", interpreter=interpreter, installed=tuple(made), complete=True, **more)
