"""Findings about packages of different times: what they say, what they propose, and when they keep silent."""

import re
from dataclasses import dataclass, field
from datetime import date, timedelta

import pytest
from known import Metadata
from packaging.version import Version
from test_link import here, imports, put

from doctor.case import Case
from doctor.diagnosis.unlinked_names import find_unlinked_names
from doctor.failure.facts import Failure, Raised
from doctor.finding import Finding
from doctor.knowledge.metadata import Release
from doctor.knowledge.symbols import Span, Use


class Dated(Metadata):
    """Releases ten days apart, 1.0 to 9.0 of each project, on the days that `first` says."""

    date = "2026-11-28"

    def releases(self, name):
        start = {"target": 0, "asker": 5}.get(name)
        if start is None:
            return ()
        days = (date(2024, 1, 1) + timedelta(days=start + 10 * number) for number in range(9))
        return tuple(Release(Version(f"{number + 1}.0"), day, (), "") for number, day in enumerate(days))

    def owners(self, module):
        return ("toolbox",) if module == "old_tools" else ()


@dataclass
class Table:
    date: str = "2026-11-28"
    has: tuple | None = None
    uses: tuple = ()
    takes: tuple | None = None
    asked: list = field(default_factory=list)

    def names(self, project, module, name):
        self.asked.append((project, module, name))
        return self.has

    def modules(self, project, module):
        return self.has

    def parameters(self, project, function, parameter):
        return self.takes

    def importers(self, module, name):
        return self.uses

    def callers(self, function, keyword):
        return self.uses


class Knowledge:
    def __init__(self, **table):
        self.metadata, self.symbols, self.rules = Dated(), Table(**table), ()


@pytest.fixture(autouse=True)
def no_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("doctor.diagnosis.unlinked_names.CACHE", tmp_path / "cache")


def diagnose(site, failure=None, **table):
    said = list(find_unlinked_names(Case(here(site), failure), Knowledge(**table)))
    return [one for one in said if isinstance(one, Finding)]


def spans(first, end=None, start=False):
    return (Span(Version(first), Version(end) if end else None, start),)


def pins(finding):
    return [change.requirements[0] for change in finding.changes if change.requirements]


@pytest.fixture
def pair(tmp_path):
    site = tmp_path / "site-packages"
    put(site, "target", "4.0", _init_="x = 1")
    put(site, "asker", "6.0", requires=("target",), _init_="from target import New")
    return site


def test_both_sides_are_proposed_by_the_tables(pair):
    uses = (Use("asker", spans("5.0"), True, "asker/__init__.py"),)
    (found,) = diagnose(pair, has=spans("5.0"), uses=uses)
    assert (found.level, found.branch) == ("error", "import/wrong_version")
    assert found.verdict == "asker 6.0 asks for target.New, which target 4.0 does not have."
    assert sorted(pins(found)) == ["asker<5.0", "target>=5.0"]
    assert found.culprits[0] == pins(found)[0].partition("<")[0].partition(">")[0] and found.provable == "import asker"
    assert "asker/__init__.py:1" in found.evidence[0]
    assert imports(pair, found.provable).returncode, "what is provable fails"


def test_without_tables_the_days_of_the_releases_tell(pair):
    """asker 6.0 is younger than target 4.0: that one is raised, or asker lowered to its days."""
    (found,) = diagnose(pair)
    assert sorted(pins(found)) == ["asker<=3.0", "target>4.0"]


def test_an_old_asker_is_raised_or_the_target_lowered(tmp_path):
    site = tmp_path / "site-packages"
    put(site, "target", "8.0", _init_="x = 1")
    put(site, "asker", "3.0", _init_="import target\nclass A(target.Old): pass")
    (found,) = diagnose(site)
    assert sorted(pins(found)) == ["asker>3.0", "target<=3.0"]


def test_of_a_failure_the_line_is_the_first_evidence(pair):
    line = "cannot import name 'New' from 'target' (/x/target/__init__.py)"
    failure = Failure("python", (Raised("ImportError", line),), text=line)
    (found,) = diagnose(pair, failure)
    assert found.evidence[0] == f"ImportError: {line}" and found.confidence > 0.9
    other = Failure("python", (Raised("ValueError", "a number"),), text="a number")
    (aside,) = diagnose(pair, other)
    assert aside.confidence < 0.6, "it is there, but it did not make this failure"


def test_a_module_that_its_distribution_lost(tmp_path):
    """As pkg_resources of setuptools: the distribution is here, so that installing it changes nothing."""
    site = tmp_path / "site-packages"
    put(site, "toolbox", "9.0", _init_="")
    put(site, "asker", "3.0", requires=("toolbox",), _init_="import old_tools")
    uses = (Use("asker", spans("1.0", "7.0", start=True), True, "asker/__init__.py"),)
    (found,) = diagnose(site, has=spans("1.0", "8.0", start=True), uses=uses)
    assert "asker>=7.0" in pins(found)
    assert (found.branch, found.level) == ("import/not_installed", "error")
    assert found.culprits[0] == "toolbox" and "no longer has" in found.verdict and "installed" in found.not_this


def test_a_missing_distribution_is_told_once(tmp_path):
    """A declared one is the metadata's business, one of an extra is optional; one that nobody declares is told here."""
    site = tmp_path / "site-packages"
    put(site, "asker", requires=("declared", "optional; extra == 'all'"), _init_="import declared, optional")
    assert not diagnose(site)
    put(site, "asker", _init_="import nowhere_to_be_found")
    (found,) = diagnose(site)
    assert found.id == "undeclared-import" and found.level == "error"
    put(site, "asker", _init_="def f():\n    import nowhere_to_be_found")
    assert not diagnose(site)


def test_keywords_count_where_another_release_took_them(tmp_path):
    site = tmp_path / "site-packages"
    put(site, "target", "8.0", _init_="def make(a=1): pass")
    put(site, "asker", "3.0", _init_="import target\ndef run():\n    target.make(old=1)")
    assert not diagnose(site, takes=()), "no release took it: nobody's versions"
    (found,) = diagnose(site, takes=spans("1.0", "6.0", start=True))
    assert (found.level, found.branch) == ("warning", "runtime/api_change")
    assert "target<6.0" in pins(found)
    assert re.search(r"make\(old=\.\.\.\)", found.verdict)


@pytest.mark.parametrize(
    "library, numpy, told",
    [(b"..numpy.core._multiarray_umath..", "2.1.0", True), (b"..numpy.core._multiarray_umath..", "1.26.4", False),
     (b"numpy._core._multiarray_umath numpy.core._multiarray_umath", "2.1.0", False), (b"nothing", "2.1.0", False)],
)  # fmt: skip
def test_modules_compiled_for_numpy_1(tmp_path, library, numpy, told):
    site = tmp_path / "site-packages"
    put(site, "numpy", numpy)
    put(site, "asker", requires=("numpy",), _init_="from asker import fast")
    (site / "asker" / "fast.cpython-311-x86_64-linux-gnu.so").write_bytes(library)
    found = [one for one in diagnose(site) if one.branch == "import/binary_abi"]
    assert bool(found) is told
    if told:
        assert pins(found[0])[0] == "numpy<2" and found[0].provable == "import asker"


OLD = "_NODE = _descriptor.FieldDescriptor(\n  name='x')"
CHECK = "v.ValidateProtobufRuntimeVersion(\n    v.Domain.PUBLIC,\n    6,\n    31,\n    1,\n '')"


@pytest.mark.parametrize(
    "text, protobuf, pin",
    [(OLD, "5.29.5", "protobuf<3.21"), (OLD, "3.20.3", None), (CHECK, "5.29.5", "protobuf>=6.31.1"),
     (CHECK, "6.31.1", None)],
)  # fmt: skip
def test_modules_generated_by_another_protobuf(tmp_path, text, protobuf, pin):
    site = tmp_path / "site-packages"
    put(site, "protobuf", protobuf)
    put(site, "asker", _init_="from . import model_pb2", model_pb2=text)
    found = [one for one in diagnose(site) if "protobuf" in one.culprits]
    assert [pins(one)[0] for one in found] == ([pin] if pin else [])
    assert all(one.level == "error" and one.provable == "import asker" for one in found)


def test_a_text_without_files_is_not_read():
    from doctor.environment.facts import Environment

    assert not list(find_unlinked_names(Case(Environment("the text")), Knowledge()))
