"""The table of symbols as it is built from an index of wheels, and what it says."""

from datetime import date

import pytest
from local_index import LocalIndex, serving, source, wheel
from packaging.version import Version

from doctor.knowledge.build_symbols import chosen, main
from doctor.knowledge.index import Index
from doctor.knowledge.symbols import Span, Symbols, covers

TODAY = date(2026, 11, 28)
# A library that moves names and keywords about, and one that uses them.
BASE = {
    "1.0": {
        "base/__init__.py": "from .core import old, moved\nfrom . import gone\ndef load(path, token=None): pass",
        "base/core.py": "from typing import Any\nold = moved = always = _private = _dropped = 1",
        "base/gone.py": "",
        "base/models/auto/configuration_auto.py": 'CONFIG_MAPPING_NAMES = {"bert": "B"}',
    },
    "1.1": {
        "base/__init__.py": "from .core import old, new\ndef load(path, token=None, fast=False): pass",
        "base/core.py": "from typing import Any\nold = new = always = _private = 1",
        "base/runtime.py": "globals().update(made)",
        "base/models/auto/configuration_auto.py": 'CONFIG_MAPPING_NAMES = {"bert": "B", "llama": "L"}',
    },
    "2.0": {
        "base/__init__.py": "from .core import new, moved\ndef load(path, fast=False): pass\ndef free(**rest): pass",
        "base/core.py": "from typing import Any\nnew = moved = always = _private = 1",
        "base/runtime.py": "globals().update(made)",
        "base/models/auto/configuration_auto.py": 'CONFIG_MAPPING_NAMES = {"llama": "L"}',
    },
}
USER = {
    "0.1": {
        "user/__init__.py": "from .deep import x",
        "user/deep.py": "from base import old\nfrom base.core import always\nx = 1",
    },
    "0.2": {
        "user/__init__.py": "import base.core as b\nvalue = b.old\ndef f():\n    base.load('x', token=1)",
        "user/tool.py": "from base import gone\nfrom base import load\nload('x', path=1, token=2)",
    },
    "0.3": {"user/__init__.py": "from base import new\nfrom numpy import nothing"},
}


@pytest.fixture(scope="module")
def index():
    made = LocalIndex()
    for project, releases in (("base", BASE), ("user", USER)):
        for version, files in releases.items():
            made.add(f"{project}-{version}-py3-none-any.whl", wheel(project, version, files))
    made.add("base-3.0rc1-py3-none-any.whl", wheel("base", "3.0rc1", {"base/__init__.py": ""}))
    with serving(made):
        yield made


@pytest.fixture(scope="module")
def built(index, tmp_path_factory):
    folder = tmp_path_factory.mktemp("symbols")
    words = ["--index-url", index.url, "--kept", str(folder / "kept"), "--output", str(folder / "symbols.zip")]
    assert main([*words, "--projects", "base", "user"], lambda line: None) == 0
    return folder


@pytest.fixture
def symbols(built):
    return Symbols(built / "symbols.zip")


def ranges(spans):
    return None if spans is None else [span.specifier for span in spans]


@pytest.mark.parametrize(
    ("module", "name", "spans"),
    [
        ("base", "old", ["<2.0"]),
        ("base", "moved", ["<1.1", ">=2.0"]),
        ("base", "new", [">=1.1"]),
        ("base.core", "always", [""]),
        ("base", "core", [""]),
        ("base", "gone", ["<1.1"]),
        ("base", "never", []),
        ("base.core", "Any", None),
        ("base.core", "_private", None),
        ("base.core", "_dropped", ["<1.1"]),
        ("base.nothing", "never", None),
        ("base.runtime", "anything", None),
    ],
)
def test_in_which_releases_a_name_can_be_imported(symbols, module, name, spans):
    assert ranges(symbols.names("base", module, name)) == spans


def test_what_was_not_read_is_not_known(symbols):
    assert symbols.names("other", "other", "x") is None and symbols.modules("other", "other") is None
    assert symbols.parameters("base", "nothing", "x") is None and symbols.model_types("user", "bert") is None
    assert symbols.importers("other", "x") == () and symbols.callers("nothing", "x") == ()


def test_modules_and_model_types(symbols):
    assert ranges(symbols.modules("base", "base.gone")) == ["<1.1"]
    assert ranges(symbols.modules("base", "base.never")) == []
    assert ranges(symbols.model_types("base", "llama")) == [">=1.1"]
    assert ranges(symbols.model_types("base", "bert")) == ["<2.0"] and symbols.model_types("base", "gpt") == ()


def test_parameters_of_releases(symbols):
    assert ranges(symbols.parameters("base", "load", "token")) == ["<2.0"]
    assert ranges(symbols.parameters("base", "base.load", "fast")) == [">=1.1"]
    assert symbols.parameters("base", "load", "never") == ()
    assert ranges(symbols.parameters("base", "free", "whatever")) == [">=2.0"], "it takes **rest"


def test_who_imports_a_name(symbols):
    (use,) = symbols.importers("base", "old")
    assert (use.project, ranges(use.spans), use.at_import, use.file) == ("user", ["<0.2"], True, "user/deep.py")
    (use,) = symbols.importers("base.core", "old")
    assert (ranges(use.spans), use.at_import, use.in_file) == ([">=0.2,<0.3"], True, True), "b.old at the top"
    (use,) = symbols.importers("base", "gone")
    assert (use.at_import, use.in_file, use.file) == (False, True, "user/tool.py")
    assert [use.project for use in symbols.importers("base", "new")] == ["user"]
    assert symbols.importers("base.core", "always") == (), "of what every release has nobody asks"


def test_who_calls_with_a_keyword(symbols):
    uses = symbols.callers("load", "token")
    found = [(use.project, ranges(use.spans), use.file) for use in uses]
    assert found == [("user", [">=0.2,<0.3"], "user/__init__.py"), ("user", [">=0.2,<0.3"], "user/tool.py")]
    assert symbols.callers("base.load", "token") == uses and symbols.callers("load", "path") == ()


def test_the_index_of_the_table(symbols):
    assert symbols.projects == {"base", "user"} and symbols.project_of("base.core") == "base"
    assert symbols.versions("base") == (Version("1.0"), Version("1.1"), Version("2.0")) and symbols.date


def test_spans_know_where_they_begin_and_end():
    early, late = Span(Version("1.0"), Version("2.0"), from_start=True), Span(Version("3.0"))
    assert [early.specifier, late.specifier] == ["<2.0", ">=3.0"]
    assert covers((early, late), Version("0.1")) and covers((early, late), Version("99"))
    assert not covers((early, late), Version("2.0")) and not covers((early, late), Version("2.9"))


def test_an_interrupted_run_reads_nothing_twice_and_only_new_files(index, built, tmp_path):
    asked = len(index.asked)
    words = ["--index-url", index.url, "--kept", str(built / "kept"), "--projects", "base", "user"]
    assert main([*words, "--output", str(tmp_path / "again.zip")], lambda line: None) == 0
    assert {place for place, _ in index.asked[asked:]} == {"/simple/base/", "/simple/user/"}
    assert (tmp_path / "again.zip").read_bytes() == (built / "symbols.zip").read_bytes()

    large = {f"base/large_{number}.py": f"x = {number}\n" + f"# {number}" * 50_000 for number in range(3)}
    index.add("base-2.1-py3-none-any.whl", wheel("base", "2.1", {**BASE["2.0"], **large}))
    index.add("base-2.2-py3-none-any.whl", wheel("base", "2.2", {**large, "base/__init__.py": "last = 1"}))
    try:
        assert main([*words, "--output", str(tmp_path / "more.zip")], lambda line: None) == 0
    finally:
        for version in ("2.1", "2.2"):
            del index.files["base"][f"base-{version}-py3-none-any.whl"]
    found = Symbols(tmp_path / "more.zip")
    assert ranges(found.names("base", "base", "last")) == [">=2.2"]
    assert ranges(found.names("base", "base.large_1", "x")) == [">=2.1"]


def test_a_wheel_that_cannot_be_read_is_left_out_with_a_word(index, built, tmp_path, caplog):
    index.add("base-2.5-py3-none-any.whl", b"cut off")
    words = ["--index-url", index.url, "--kept", str(built / "kept"), "--projects", "base", "missing"]
    said = []
    try:
        assert main([*words, "--output", str(tmp_path / "made.zip")], said.append) == 1
    finally:
        del index.files["base"]["base-2.5-py3-none-any.whl"]
    assert "base 2.5 could not be read" in caplog.text and any("no project missing" in line for line in said)
    assert Version("2.5") not in Symbols(tmp_path / "made.zip").versions("base")


def test_sources_are_read_where_there_is_no_wheel(tmp_path):
    made = LocalIndex()
    files = {"setup.py": "import x", "src/only/__init__.py": "here = 1", "tests/test_it.py": "", "PKG-INFO": ""}
    made.add("only-1.0.tar.gz", source("only", "1.0", files))
    with serving(made):
        words = ["--index-url", made.url, "--kept", str(tmp_path / "kept"), "--output", str(tmp_path / "made.zip")]
        assert main([*words, "--projects", "only"], lambda line: None) == 0
    found = Symbols(tmp_path / "made.zip")
    assert ranges(found.names("only", "only", "here")) == [""] and found.modules("only", "setup") == ()


def test_of_many_releases_the_ends_of_each_minor_are_read():
    made = LocalIndex()
    for minor in range(45):
        for patch in range(3):
            made.add(f"many-1.{minor}.{patch}-py3-none-any.whl", b"", upload_time="2026-01-01T00:00:00Z")
    made.add("many-0.1-py3-none-any.whl", b"", upload_time="2015-01-01T00:00:00Z")
    with serving(made):
        found = chosen(Index(made.url).files("many"), TODAY)
    assert list(map(str, found)) == [f"1.{minor}.{patch}" for minor in range(45) for patch in (0, 2)]


def test_of_few_minors_with_many_releases_some_between_are_read():
    made = LocalIndex()
    for patch in range(200):
        made.add(f"slow-0.{patch // 100}.{patch % 100}-py3-none-any.whl", b"", upload_time="2026-01-01T00:00:00Z")
    with serving(made):
        found = list(map(str, chosen(Index(made.url).files("slow"), TODAY, many=80)))
    assert len(found) == 80 and {"0.0.0", "0.0.99", "0.1.0", "0.1.99"} <= set(found)


def test_of_very_many_minors_the_first_of_each_and_the_newest_are_read():
    made = LocalIndex()
    for minor in range(90):
        for patch in range(2):
            made.add(f"more-1.{minor}.{patch}-py3-none-any.whl", b"", upload_time="2026-01-01T00:00:00Z")
    with serving(made):
        found = chosen(Index(made.url).files("more"), TODAY)
        fewer = chosen(Index(made.url).files("more"), TODAY, many=30)
    assert list(map(str, found)) == [*(f"1.{minor}.0" for minor in range(90)), "1.89.1"]
    assert len(fewer) == 31 and Version("1.89.1") in fewer and all(one.micro == 0 for one in list(fewer)[:-1])


def test_no_table_knows_nothing(tmp_path):
    empty = Symbols(tmp_path / "missing.zip")
    assert empty.date == "" and empty.projects == frozenset() and empty.names("torch", "torch", "x") is None
