"""The modules that an interpreter would find, and what they offer, from their files."""

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from doctor.environment.facts import Environment
from doctor.linking.module_text import ModuleText, Use, quick_uses, read_module
from doctor.linking.text_cache import TextCache

# Modules of the standard library that a Python no longer has, and that it has from a version on.
_GONE = {
    (3, 9): "dummy_threading _dummy_threading",
    (3, 10): "formatter parser symbol",
    (3, 11): "binhex",
    (3, 12): "asynchat asyncore distutils imp smtpd",
    (
        3,
        13,
    ): "aifc audioop cgi cgitb chunk crypt imghdr lib2to3 mailcap msilib nis nntplib ossaudiodev pipes sndhdr spwd "
    "sunau telnetlib uu xdrlib",
}
_CAME = {(3, 9): "zoneinfo graphlib", (3, 11): "tomllib", (3, 14): "annotationlib compression"}
GONE_MODULES = frozenset(" ".join([*_GONE.values(), *_CAME.values()]).split())
_COMPILED = re.compile(r"^(\w+)(?:\.[\w-]+)*\.(?:so|pyd)$")
_PATHS = re.compile(r"__path__|sys\.meta_path|sys\.modules\[|extend_path|declare_namespace")
_VENDORED = re.compile(r"_?(vendor|vendored|vendors|extern|external|third_?party\w*|libs?|compat)")
# Modules of a package that are looked through for what makes names.
_ASKED = 40
_STRING = re.compile(r"[\"'](\w+)[\"']")


@dataclass(frozen=True)
class Found:
    """Where a module is.

    Args:
        kind: "package", "module", "compiled", "namespace", "missing" or "unknown" (it can't be told).
        path: its file; the folder of a namespace.
    """

    kind: str
    path: str = ""

    @property
    def there(self) -> bool:
        """Whether it is known to be there."""
        return self.kind not in ("missing", "unknown")


class InstalledModules:
    """What an interpreter would find.

    Args:
        environment: its facts; the path of its interpreter, or the folders of what is installed.
        texts: keeps what was read.
    """

    def __init__(self, environment: Environment, texts: TextCache | None = None) -> None:
        self.environment = environment
        interpreter = environment.interpreter
        sites = dict.fromkeys(one.site for one in environment.installed if one.site)
        path = interpreter.path if interpreter and interpreter.path else ()
        editable = [one.editable for one in environment.installed if one.editable]
        sources = [str(Path(one) / part) for one in editable for part in ("", "src", "python")]
        self.path = list(dict.fromkeys([*path, *sites, *sources]))
        self.python = _numbers(interpreter.version if interpreter else "")
        self.texts = texts or TextCache(None)
        self._listed: dict[str, frozenset[str]] = {}
        self._found: dict[str, Found] = {"__main__": Found("unknown")}
        self._sources: dict[str, str] = {}
        self._makes: dict[str, bool] = {}
        self._adds: dict[str, bool] = {}
        self._read: dict[str, ModuleText | None] = {}
        self.distutils = environment.find("setuptools") is not None
        self._hidden = self._mapped()

    def _mapped(self) -> frozenset[str]:
        """Return top-level modules that a finder of an editable install knows, and no folder of the path."""
        names: set[str] = set()
        for site in self.path:
            for name in self._names(site):
                if name.startswith("__editable__") and name.endswith("finder.py"):
                    text = self.source(os.path.join(site, name)) or ""
                    names.update(_STRING.findall(text[:4000]))
        return frozenset(names)

    def _names(self, folder: str) -> frozenset[str]:
        if folder not in self._listed:
            try:
                self._listed[folder] = frozenset(os.listdir(folder))
            except OSError:
                self._listed[folder] = frozenset()
        return self._listed[folder]

    def looked_at(self) -> list[str]:
        """Return the files and folders that what was found rests on."""
        files = (found.path for found in self._found.values() if found.path)
        infos = (one.folder for one in self.environment.installed if one.folder)
        return sorted({*self._listed, *files, *infos})

    def find(self, module: str) -> Found:
        """Return where a module is.

        Args:
            module: its full name.
        """
        if module not in self._found:
            parent, _, name = module.rpartition(".")
            self._found[module] = self._inside(parent, name) if parent else self._top(name)
        return self._found[module]

    def _top(self, name: str) -> Found:
        space = None
        for folder in self.path:
            found = self._in_folder(folder, name)
            if found and found.kind != "namespace":
                return found
            space = space or found
        if space:
            return space
        if name in self._hidden:
            return Found("unknown")
        if name in sys.stdlib_module_names or name in sys.builtin_module_names:
            return Found("unknown") if self._has(name) else Found("missing")
        return Found("missing" if self.environment.complete else "unknown")

    def vendors(self, module: str, name: str) -> bool:
        """Return whether a package may carry a copy of a top-level module, which it puts on the path itself.

        Args:
            module: a module of the package.
            name: the top-level module.
        """
        path = self.find(module.split(".")[0]).path
        if "sys.path." in (self.source(path) or ""):
            return True
        inner = self._names(os.path.dirname(path))
        folders = [one for one in inner if _VENDORED.fullmatch(one)]
        return any({name, f"{name}.py"} & self._names(os.path.join(os.path.dirname(path), one)) for one in folders)

    def _has(self, name: str) -> bool:
        """Return whether the interpreter's standard library has a module, as far as is known."""
        if name == "distutils" and self.distutils:
            return True
        gone = any(self.python >= since and name in names.split() for since, names in _GONE.items())
        come = any(self.python < since and name in names.split() for since, names in _CAME.items())
        return not (self.python and (gone or come))

    def _in_folder(self, folder: str, name: str) -> Found | None:
        names = self._names(folder)
        if name in names:
            package = os.path.join(folder, name)
            inner = self._names(package)
            if "__init__.py" in inner:
                return Found("package", os.path.join(package, "__init__.py"))
            if any(_COMPILED.match(one) and one.startswith("__init__.") for one in inner):
                return Found("compiled", package)
            if f"{name}.py" not in names and inner:
                return Found("namespace", package)
        if f"{name}.py" in names:
            return Found("module", os.path.join(folder, f"{name}.py"))
        for one in _compiled(names).get(name, ()):
            return Found("compiled", os.path.join(folder, one))
        return None

    def _inside(self, parent: str, name: str) -> Found:
        outer = self.find(parent)
        if outer.kind == "namespace":
            folders = [os.path.join(one, *parent.split(".")) for one in self.path]
            found = next((one for one in (self._in_folder(folder, name) for folder in folders) if one), None)
            return found or Found("unknown")
        if outer.kind == "package":
            found = self._in_folder(os.path.dirname(outer.path), name)
            if found:
                return found
        if outer.kind in ("package", "module"):
            return Found("unknown" if self._adds_modules(parent, outer) else "missing")
        return Found(outer.kind if outer.kind == "missing" else "unknown")

    def _adds_modules(self, module: str, found: Found) -> bool:
        """Return whether a module may have submodules that no folder shows."""
        if module not in self._adds:
            self._adds[module] = False  # while it is looked for
            text = self.source(found.path)
            elsewhere = found.kind == "package" and self._made_elsewhere(module)
            self._adds[module] = text is None or bool(_PATHS.search(text)) or elsewhere
        return self._adds[module]

    @staticmethod
    def source(path: str) -> str | None:
        """Return the text of a source file, None where it can't be read."""
        try:
            return Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError, ValueError):
            return None

    @staticmethod
    def size(path: str) -> int:
        """Return the size of a file in bytes, 0 where it can't be read."""
        try:
            return os.stat(path).st_size
        except OSError:
            return 0

    def text(self, module: str) -> ModuleText | None:
        """Return what a module's source says, None where it has none that can be read.

        Args:
            module: its full name.
        """
        if module not in self._read:
            found = self.find(module)
            self._read[module] = None
            if found.kind in ("package", "module"):
                package, top = found.kind == "package", module.split(".")[0]
                self._read[module] = self.texts.get(found.path, lambda path: self._fresh(path, package, top))
        return self._read[module]

    def _fresh(self, path: str, package: bool, top: str) -> ModuleText | None:
        source = self._sources.get(path) or self.source(path)
        try:
            return read_module(source, package, top) if source is not None else None
        except RecursionError:  # an expression as long as a table, which no Python-written reader can walk
            return None

    def quick(self, module: str) -> tuple[Use, ...] | None:
        """Return what a module imports where that is only its own package and what the standard library surely has.

        Args:
            module: its full name.

        Returns:
            Its imports; None where it must be read whole.
        """
        found = self.find(module)
        if module in self._read or found.kind != "module" or self.texts.knows(found.path):
            return None
        source = self.source(found.path)
        if source is None:
            return None
        top = module.split(".")[0]
        uses = quick_uses(source, top)
        for use in uses or ():
            if use.module.startswith(".") or use.module.split(".")[0] == top:
                continue
            if not self.find(use.module).there or not all(self.offers(use.module, name) for name in use.names):
                return None
        return uses

    def absolute(self, module: str, asked: str) -> str:
        """Return the full name of what a module asks for.

        Args:
            module: the module that asks.
            asked: with leading dots where it is relative.
        """
        level = len(asked) - len(asked.lstrip("."))
        if not level:
            return asked
        parts = module.split(".")
        up = level - 1 if self.find(module).kind == "package" else level
        base = parts[: len(parts) - up] if up else parts
        return ".".join([*base, asked.lstrip(".")]).strip(".")

    def offers(self, module: str, name: str, seen: frozenset[str] = frozenset()) -> bool | None:
        """Return whether `from module import name` works, None where it can't be told.

        Args:
            module: a module that is there.
            name: the name.
            seen: modules that were looked through before, of those that take all names of one another.
        """
        found = self.find(module)
        if name.startswith("__") and name.endswith("__"):
            return True
        if found.kind in ("package", "namespace"):
            inner = self.find(f"{module}.{name}")
            if inner.there:
                return True
            if inner.kind == "unknown" and found.kind == "namespace":
                return None
        if module not in self._read and self._defines(found, name):
            return True
        text = self.text(module)
        if text is None:
            return None
        if name in text.names:
            return True
        if text.lazy:
            lazily = self._lazily(module, text, name)
            if lazily is not False:
                return lazily
        if name in text.refused:
            return False
        answer: bool | None = None if text.open else False
        for star in text.stars:
            other = self.absolute(module, star)
            if other in seen or other == module:
                continue
            from_star = self._by_star(other, name, seen | {module})
            if from_star:
                return True
            answer = None if from_star is None else answer
        closed = text.lazy is not None and text.lazy.closed
        return None if answer is False and not closed and self._made_elsewhere(module) else answer

    def _made_elsewhere(self, module: str) -> bool:
        """Return whether a module, or one of its own that it imports, makes names that no text shows."""
        if module not in self._makes:
            self._makes[module] = False  # while it is looked for
            self._makes[module] = self._looks_made(module)
        return self._makes[module]

    def _looks_made(self, module: str) -> bool:
        own = module.split(".")[0]
        text = self.text(module) or ModuleText()
        named = f"sys\\.modules|{module.rpartition('.')[2]}|{own}"
        makes = re.compile(rf"sys\.meta_path|sys\.modules\[[\"']{own}|\bsetattr\(\s*(?:{named})\b")
        asked = []
        for use in text.uses:
            whole = self.absolute(module, use.module)
            if whole.split(".")[0] == own:
                asked += [whole, *(f"{whole}.{name}" for name in use.names)]
        for one in [module, *dict.fromkeys(asked)][:_ASKED]:
            found = self.find(one)
            source = self.source(found.path) if found.kind in ("module", "package") else None
            if source and makes.search(source):
                return True
        return False

    def _defines(self, found: Found, name: str) -> bool:
        """Return whether a module plainly defines a name: what saves parsing most of the standard library."""
        if found.kind not in ("package", "module"):
            return False
        if found.path not in self._sources:
            self._sources[found.path] = "\n" + (self.source(found.path) or "")
        text = self._sources[found.path]
        begins = (f"def {name}(", f"class {name}(", f"class {name}:", f"{name} = ", f"{name}:", f"{name}=")
        return any(f"\n{one}" in text for one in begins)

    def _by_star(self, module: str, name: str, seen: frozenset[str]) -> bool | None:
        if not self.find(module).there:
            return None
        return self.offers(module, name, seen)

    def _lazily(self, module: str, text: ModuleText, name: str) -> bool | None:
        if text.lazy is None:
            return False
        if name in dict(text.lazy.names):
            return True
        path = self.find(module).path
        if text.lazy.stub:
            stub = self.source(path + "i") or ""
            return bool(re.search(rf"\b{re.escape(name)}\b", stub)) if stub else None
        for folder in text.lazy.folders:
            place = (
                os.path.join(os.path.dirname(path), *folder.strip(".").split("/")) if folder else os.path.dirname(path)
            )
            if name in self.texts.names_of(place, lambda one: tuple(sorted(_exported(one)))):
                return True
        return False


@cache
def _compiled(names: frozenset[str]) -> Mapping[str, list[str]]:
    """Return extension modules among the names of a folder, by the names that they are imported by."""
    found: dict[str, list[str]] = {}
    for one in sorted(names):
        match = _COMPILED.match(one)
        if match:
            found.setdefault(match[1], []).append(one)
    return found


def _exported(folder: str) -> set[str]:
    """Return the names that the files below a folder say that they export: thousands of files, so no parsing."""
    names: set[str] = set()
    for inner, _, files in os.walk(folder):
        for file in files:
            text = InstalledModules.source(os.path.join(inner, file)) if file.endswith(".py") else None
            if not text:
                continue
            start = text.find("\n__all__")
            while start >= 0:
                end = text.find("]", start)
                names.update(_STRING.findall(text, start, end if end > 0 else len(text)))
                start = text.find("\n__all__", start + 1)
            if "@export" in text or "@requires" in text:
                names.update(re.findall(r"^(?:class|def) (\w+)", text, re.MULTILINE))
    return names


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])
