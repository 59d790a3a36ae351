"""The link check says what the interpreter would: each case is imported for real, and read."""

import subprocess
import sys
import sysconfig
import textwrap
from dataclasses import replace

import pytest
from patients import install_into

from doctor.environment.distributions import read_distributions
from doctor.environment.facts import Environment, Interpreter
from doctor.linking.kept_links import links_of
from doctor.linking.link import Linker


def here(site, python=None):
    """Return the environment of a folder of packages and this Python's standard library."""
    version = python or ".".join(map(str, sys.version_info[:3]))
    path = (sysconfig.get_path("stdlib"), str(site))
    return Environment("here", Interpreter(sys.executable, version, sys_platform=sys.platform, path=path),
                       installed=read_distributions((str(site),)), complete=True)  # fmt: skip


def put(site, name, version="1.0", requires=(), _init_="", **files):
    """Install a distribution: its __init__, and further modules by name."""
    texts = {"__init__": _init_, **files}
    made = {f"{name}/{module}.py": textwrap.dedent(text) for module, text in texts.items()}
    install_into(site, name, version, requires=requires, files=made)


def imports(site, statement):
    """Return whether a statement works."""
    code = f"import sys; sys.path.insert(0, {str(site)!r})\n{statement}"
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)


TARGET = """
    import sys
    from .inner import *
    from .deep import helper
    if sys.version_info >= (3, 0):
        Cache = 1
    else:
        OldCache = 1
    try:
        import numpy as optional
    except ImportError:
        optional = None
    def function(a, b=1): pass
    def set_later():
        global made_later
        made_later = 1
"""
FILES = {"_init_": TARGET, "inner": "__all__ = ['starred']\nstarred = 1\nhidden = 1", "deep": "def helper(): pass"}

# What `asker` has in its __init__, and the names of `target` that are not there.
FAILS = {
    "from target import Gone": ["Gone"],
    "from target.deep import helper, gone": ["gone"],
    "import target.nowhere": [""],
    "from target.nowhere import x": [""],
    "import target as t\nclass A(t.Base): pass": ["Base"],
    "import target\ndef f(x=target.default): pass": ["default"],
    "import target\n@target.decorate\ndef f(): pass": ["decorate"],
    "import target\nclass A:\n    def f(self, x: target.Annotation): pass": ["Annotation"]
    if sys.version_info < (3, 14) else [],
    "import target.deep\nx = target.deep.gone": ["gone"],
    "import sys\nif sys.version_info >= (3, 6):\n    from target import Gone": ["Gone"],
    "import sys\nif sys.platform != 'amiga' and not sys.version_info < (3,):\n    from target import Gone": ["Gone"],
    "try:\n    from target import Gone\nexcept ImportError as e:\n    raise ImportError('no') from e": ["Gone"],
    "try:\n    pass\nfinally:\n    from target import Gone": ["Gone"],
    "class A:\n    from target import Gone": ["Gone"],
    "with open(__file__):\n    from target import Gone": ["Gone"],
    "from collections import Mapping": ["Mapping"],
    "from .second import x": ["Gone"],
}  # fmt: skip
WORKS = [
    "from target import Cache, starred, helper, function, optional, inner, deep",
    "from target.inner import hidden",
    "try:\n    from target import Gone\nexcept ImportError:\n    Gone = None",
    "try:\n    from target import Gone\nexcept (AttributeError, ImportError):\n    Gone = None",
    "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from target import Gone",
    "import typing\nif typing.TYPE_CHECKING:\n    from target import Gone",
    "def f():\n    from target import Gone",
    "import sys\nif sys.version_info < (3, 5):\n    from target import Gone",
    "import sys\nif sys.platform == 'amiga':\n    from target import Gone\nelse:\n    from target import Cache",
    "import os\nif os.environ.get('NEVER_SET_HERE'):\n    from target import Gone",
    "import contextlib\nwith contextlib.suppress(ImportError):\n    from target import Gone",
    "import target\nx = getattr(target, 'Gone', None)",
    "import target\nif hasattr(target, 'Gone'):\n    x = target.Gone",
    "import target\nx = target.Gone if hasattr(target, 'Gone') else None",
    "import target\nx = hasattr(target, 'Gone') and target.Gone",
    "from __future__ import annotations\nimport target\ndef f(x: target.Gone): pass",
    "import target\nf = lambda: target.Gone",
    "try:\n    import target\nexcept ImportError:\n    target = None\nelse:\n    x = 1",
    "try:\n    import json as target\nexcept ImportError:\n    import target\nx = target.loads",
    "import re, signal, socket\nx = re.IGNORECASE, signal.SIGTERM, socket.AF_INET",
    '"""A docstring.\n\nfrom target import Gone\n"""',
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lib") / "site-packages"
    put(folder, "target", "2.0", **FILES)
    return folder


def link(site, code, second="from target import Gone as x"):
    put(site, "asker", requires=("target",), _init_=code, second=second)
    return Linker(here(site)).link()


@pytest.mark.parametrize("code", FAILS)
def test_what_cannot_be_imported_is_found(site, code):
    found = link(site, code)
    answer = imports(site, "import asker")
    stopped = [one for one in found if one.importer == "asker" and one.reached == "import"]
    assert [one.name for one in stopped] == FAILS[code], answer.stderr
    if FAILS[code]:
        assert answer.returncode, "the interpreter fails too"
        assert stopped[0].by == "import asker" and stopped[0].place.startswith("asker/")


@pytest.mark.parametrize("code", WORKS)
def test_what_can_be_imported_is_never_found(site, code):
    found = link(site, code)
    assert imports(site, "import asker").returncode == 0, "the interpreter takes it"
    assert not found


OPEN = [
    "globals()['Made'] = 1",
    "import sys\nsetattr(sys.modules[__name__], 'Made', 1)",
    "def __getattr__(name):\n    return 1",
    "def __getattr__(name):\n    if name == 'Made':\n        return 1\n    raise AttributeError(name)",
    "exec('Made = 1')",
    "from .other import *",
    "_import_structure = {'other': ['Made']}\n_import_structure['other'].append('More')\nclass _LazyModule:\n"
    "    def __init__(self, table): pass\n_LazyModule(_import_structure)\nfrom .other import Made",
]


@pytest.mark.parametrize("text", OPEN)
def test_names_that_are_made_when_a_module_runs_are_never_missed(tmp_path, text):
    put(tmp_path, "target", _init_=text, other="Made = 1")
    assert not link(tmp_path, "from target import Made", second="")
    assert imports(tmp_path, "import asker").returncode == 0


@pytest.mark.parametrize(
    "text",
    [
        "_import_structure = {'other': ['Kept']}\nclass _LazyModule: pass\nimport sys\n"
        "sys.modules[__name__].__class__ = type(sys)\n_LazyModule()",
        "_SUBMOD_ATTRS = {'other': ['Kept']}\ndef _attach(name, submod_attrs):\n    return None, None, []\n"
        "_a, _b, __all__ = _attach(__name__, submod_attrs=_SUBMOD_ATTRS)",
        "def __getattr__(name):\n    if name in {'Kept'}:\n        return 1\n    raise AttributeError(name)",
        "_gone = {'Gone'}\ndef __getattr__(name):\n    if name in _gone:\n        raise KeyError\n    return 1",
    ],
)  # fmt: skip
def test_a_table_of_lazy_names_says_which_there_are(tmp_path, text):
    put(tmp_path, "target", _init_=text, other="Kept = 1")
    found = link(tmp_path, "from target import Gone", second="")
    assert [(one.target, one.module, one.name) for one in found] == [("target", "target", "Gone")]
    assert not link(tmp_path, "import target", second="")


def test_what_a_package_loads_when_asked_is_no_error(tmp_path):
    """`import asker` works; `from asker import Trainer` does not."""
    put(tmp_path, "target", _init_="")
    lazy = """
        _import_structure = {"second": ["Trainer"]}
        def _attach(name, table): return None, None, None
        def __getattr__(name):
            import importlib
            return getattr(importlib.import_module("asker.second"), name)
        _attach(__name__, _import_structure)
    """
    found = link(tmp_path, textwrap.dedent(lazy), second="from target import Gone\nTrainer = 1")
    assert [(one.reached, one.by) for one in found] == [("lazy", "from asker import Trainer")]
    assert imports(tmp_path, "import asker").returncode == 0
    assert "cannot import name 'Gone'" in imports(tmp_path, "from asker import Trainer").stderr


def test_modules_of_older_pythons_are_missed_by_version(tmp_path):
    put(tmp_path, "asker", _init_="import imp\nimport asyncore\nfrom distutils import version")
    environment = here(tmp_path)
    bare = replace(environment.interpreter, path=(str(tmp_path),))
    for python, gone in (("3.11.7", []), ("3.12.1", ["imp", "asyncore", "distutils"])):
        linker = Linker(replace(environment, interpreter=replace(bare, version=python)))
        assert [one.module for one in linker.link()] == gone


def test_conditions_on_versions_of_what_is_installed(site):
    code = """
        import target
        from packaging import version
        NEW = version.parse(target.__version__) >= version.parse("2.0")
        if version.parse(target.__version__) < version.parse("2"):
            from target import Old
        if is_target_version(">=", "3"):
            from target import Newer
        if not NEW:
            from target import Older
        if NEW:
            from target import Gone
        if is_target_available():
            from target import Likely
    """
    found = link(site, textwrap.dedent(code), second="")
    told = [(one.name, one.reached) for one in found if one.target]
    assert told == [("Gone", "import"), ("Likely", "likely")]


def test_keywords_that_a_class_of_another_package_lost(tmp_path):
    put(tmp_path, "target", _init_="from .client import Client", client="""
        class Client:
            def __init__(self, *, timeout=None): pass
        class Open:
            def __init__(self, **kwargs): pass
    """)  # fmt: skip
    code = """
        import target
        from target.client import Open
        class Wrapper(target.Client):
            def __init__(self, **kwargs):
                kwargs.setdefault("timeout", 1)
                super().__init__(**kwargs)
        class Mine(Wrapper): pass
        class Taking(target.Client):
            def __init__(self, **kwargs):
                kwargs.pop("proxies", None)
                super().__init__(**kwargs)
        def make():
            Taking(proxies=1), Open(proxies=1), Mine(timeout=1)
            if hasattr(target, "old"):
                return target.Client(proxies=1)
            try:
                return target.Client(proxies=1)
            except TypeError:
                return target.Client()
        class API:
            def __init__(self):
                self.client = Mine(proxies=1)
    """
    put(tmp_path, "asker", _init_=textwrap.dedent(code))
    linker = Linker(here(tmp_path))
    assert not linker.link()
    assert [(one.target, one.name, one.by) for one in linker.keyword_calls()] == [
        ("target", "Client(proxies)", "API.__init__")
    ]
    assert "'proxies'" in imports(tmp_path, "import asker; asker.API()").stderr
    assert imports(tmp_path, "import asker; asker.make()").returncode == 0


def test_what_was_read_is_kept_and_a_changed_file_is_read_again(tmp_path):
    site, cache = tmp_path / "site-packages", tmp_path / "cache"
    put(site, "target", _init_="x = 1")
    put(site, "asker", _init_="from target import x, gone")
    first = Linker(here(site), cache).link()
    assert [one.name for one in first] == ["gone"]
    second = Linker(here(site), cache)
    assert second.link() == first
    assert list(cache.iterdir())
    (site / "target" / "__init__.py").write_text("x = 1\ngone = 2\n")
    assert not Linker(here(site), cache).link()
    for file in cache.iterdir():
        file.write_text("{half")
    assert not Linker(here(site), cache).link()


def test_links_are_kept_as_long_as_no_file_and_no_folder_changes(tmp_path, monkeypatch):
    site, cache = tmp_path / "site-packages", tmp_path / "cache"
    put(site, "target", _init_="x = 1")
    put(site, "asker", _init_="from target import x, gone\nimport target.late")
    first = links_of(here(site), cache)
    assert {one.name or one.module for one in first.unlinked} == {"gone", "target.late"}
    with monkeypatch.context() as patch:
        patch.setattr(Linker, "link", lambda self: pytest.fail("nothing changed, and it was linked again"))
        again = links_of(here(site), cache)
    assert (again.unlinked, again.calls) == (first.unlinked, first.calls)
    assert (again.linker.visited, again.linker.read) == (first.linker.visited, first.linker.read)
    (site / "target" / "late.py").write_text("")  # a folder has another entry
    assert [one.name for one in links_of(here(site), cache).unlinked] == ["gone"]
    (site / "target" / "__init__.py").write_text("x = 1\ngone = 2\n")
    assert not links_of(here(site), cache).unlinked
    for file in cache.iterdir():
        file.write_text("{half")
    assert not links_of(here(site), cache).unlinked
