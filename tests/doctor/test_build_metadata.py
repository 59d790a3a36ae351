"""The snapshot of releases as it is built from an index, refreshed and read."""

import json
import logging
import random
from datetime import date

import pytest
from local_index import LocalIndex, serving, source, wheel
from packaging.version import Version

from doctor.knowledge import build_metadata
from doctor.knowledge.build_metadata import build, look_up, main, refresh
from doctor.knowledge.index import DEFAULT, Index, IndexProblem, address
from doctor.knowledge.metadata import Metadata
from doctor.knowledge.packed import Packed

TODAY = date(2026, 11, 28)


@pytest.fixture
def index(monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL", "SSL_CERT_FILE", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    made = LocalIndex()
    made.add(
        "Tool_Box-1.0-py3-none-any.whl",
        wheel("Tool_Box", "1.0", {"toolbox/__init__.py": ""}, ("numpy<2", 'rich>=1; extra == "shown"')),
        upload_time="2022-05-06T00:00:00Z",
        requires_python=">=3.7,<3.11",
    )
    made.add(
        "Tool_Box-1.10-cp311-cp311-manylinux_2_28_x86_64.whl",
        wheel("Tool_Box", "1.10", {"toolbox/__init__.py": ""}, ("numpy",)),
        upload_time="2024-05-06T00:00:00Z",
        requires_python=">=3.9",
    )
    made.add("Tool_Box-1.10-cp311-cp311-win_amd64.whl", wheel("Tool_Box", "1.10", {}, ("colorama",)))
    made.add("Tool_Box-1.9-py3-none-any.whl", wheel("Tool_Box", "1.9", {}), upload_time="2023-01-01", yanked="broken")
    made.add("Tool_Box-2.0rc1-py3-none-any.whl", wheel("Tool_Box", "2.0rc1", {}), upload_time="2025-01-01")
    made.add("early-0.1b2-py3-none-any.whl", wheel("early", "0.1b2", {}))
    made.add(
        "built-3.0.tar.gz",
        source(
            "built",
            "3.0",
            {
                "PKG-INFO": "Metadata-Version: 2.1\nName: built\nVersion: 3.0\n\n",
                "built.egg-info/requires.txt": "torch\n\n[dev]\npytest\n\n[:python_version < '3.8']\ndataclasses\n",
            },
        ),
    )
    made.add("built-2.0-py3-none-any.whl", b"this is no wheel")
    with serving(made):
        yield made


@pytest.fixture
def snapshot(index, tmp_path):
    path = tmp_path / "metadata.zip"
    assert build(path, ["tool.box", "early", "built"], Index(index.url), tmp_path / "kept", TODAY) == ()
    return Metadata(path)


def test_a_release_says_what_the_index_and_its_wheel_say(snapshot):
    first, withdrawn, newest = snapshot.releases("Tool.Box")
    assert (str(first.version), first.uploaded, first.requires_python) == ("1.0", date(2022, 5, 6), ">=3.7,<3.11")
    assert first.requires == ("numpy<2", 'rich>=1; extra == "shown"')
    assert first.wheels == ("py3-none-any",) and not first.sdist and not first.yanked
    assert withdrawn.yanked and str(withdrawn.version) == "1.9"
    assert newest.requires == ("numpy",), "the wheel for Linux stands for the release"
    assert newest.wheels == ("cp311-cp311-manylinux_2_28_x86_64", "cp311-cp311-win_amd64")
    assert newest.uploaded == date(2024, 1, 2), "the day of the first file"
    assert snapshot.date == "2026-11-28" and snapshot.projects == {"tool-box", "early", "built"}


def test_prereleases_are_counted_and_kept_only_where_there_is_nothing_else(snapshot):
    assert snapshot.prereleases("tool-box") == 1
    assert [str(one.version) for one in snapshot.releases("early")] == ["0.1b2"]
    assert snapshot.newest("early") is None


def test_a_withdrawn_release_is_nothing_else(index):
    index.add("early-0.0.1-py3-none-any.whl", wheel("early", "0.0.1", {}), yanked=True)
    assert [entry[0] for entry in look_up("early", Index(index.url))["releases"]] == ["0.0.1", "0.1b2"]


def test_owners_of_modules_by_table_by_the_newest_wheel_and_by_name(snapshot):
    assert snapshot.owners("toolbox") == ("tool-box",) and snapshot.owners("toolbox.sub.deeper") == ("tool-box",)
    assert snapshot.owners("cv2")[0] == "opencv-python" and snapshot.owners("PIL") == ("pillow",)
    assert snapshot.owners("google.protobuf.message") == ("protobuf",) and snapshot.owners("google") == ()
    assert snapshot.owners("pkg_resources") == ("setuptools",) and snapshot.owners("llama_cpp") == ("llama-cpp-python",)
    assert snapshot.owners("built") == ("built",), "of its name, where nothing says more"
    assert snapshot.owners("my_own_script") == ()


def test_what_a_source_requires_is_read_and_what_cannot_be_read_says_so(snapshot):
    unread, read = snapshot.releases("built")
    assert unread.unread and unread.requires == ()
    assert read.requires == ("torch", 'pytest ; extra == "dev"', "dataclasses ; python_version < '3.8'")
    assert read.sdist and read.wheels == () and not read.unread


def test_newest_is_neither_withdrawn_nor_too_new_nor_for_another_python(snapshot):
    def version(**wanted):
        found = snapshot.newest("tool-box", **wanted)
        return found and str(found.version)

    assert version() == "1.10"
    assert version(python="3.8") == "1.0", "1.10 needs 3.9"
    assert version(python="3.6") is None
    assert version(before=date(2024, 1, 2)) == "1.0" and version(before=date(2024, 1, 3)) == "1.10"
    assert version(specifier="<1.10") == "1.0"
    assert snapshot.newest("unknown") is None and snapshot.releases("unknown") == ()


def test_only_parts_of_a_wheel_are_fetched(index, tmp_path):
    noise = random.Random(0).randbytes(3 << 20).hex()
    index.add("large-1.0-py3-none-any.whl", wheel("large", "1.0", {"large/data.py": noise}, ("torch",)))
    before = index.sent
    assert look_up("large", Index(index.url))["lines"] == ["torch"]
    assert index.sent - before < 200_000, "of more than three million"
    index.parts = False
    assert look_up("large", Index(index.url))["lines"] == ["torch"], "a server that sends the whole will do"


def test_an_interrupted_build_goes_on_where_it_was(index, tmp_path):
    path, kept = tmp_path / "metadata.zip", tmp_path / "kept"
    build(path, ["tool-box"], Index(index.url), kept, TODAY)
    asked = len(index.asked)
    problems = build(path, ["tool-box", "early", "missing"], Index(index.url), kept, TODAY)
    assert not [place for place, _ in index.asked[asked:] if "tool" in place.lower()]
    assert len(problems) == 1 and "no project missing" in problems[0]
    assert Metadata(path).projects == {"tool-box", "early"}
    same = path.read_bytes()
    build(path, ["tool-box", "early"], Index(index.url), kept, TODAY)
    assert path.read_bytes() == same, "the same contents are the same bytes"


def test_releases_of_long_ago_are_left_out_but_for_the_newest(index, tmp_path):
    kept = tmp_path / "kept"
    build(tmp_path / "a.zip", ["tool-box"], Index(index.url), kept, TODAY, years=3)
    assert [str(one.version) for one in Metadata(tmp_path / "a.zip").releases("tool-box")] == ["1.10"]
    build(tmp_path / "a.zip", ["tool-box"], Index(index.url), kept, TODAY, years=0.5, again=True)
    assert [str(one.version) for one in Metadata(tmp_path / "a.zip").releases("tool-box")] == ["1.10"]


def test_a_refresh_adds_what_is_new_and_reads_nothing_twice(index, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped.zip"
    build(shipped, ["tool-box", "early"], Index(index.url), tmp_path / "kept", date(2025, 1, 1))
    monkeypatch.setattr(build_metadata, "SHIPPED", shipped)
    index.add("Tool_Box-1.11-py3-none-any.whl", wheel("Tool_Box", "1.11", {}, ("scipy",)), requires_python=">=3.9")
    index.about["Tool_Box-1.0-py3-none-any.whl"]["yanked"] = True
    asked = len(index.asked)
    changes = refresh(tmp_path / "own", index_url=index.url, today=TODAY)
    assert changes.added == {"tool-box": ("1.11",)} and changes.yanked == {"tool-box": ("1.0",)}
    assert changes.problems == ()
    wheels = {place.rpartition("/")[2] for place, _ in index.asked[asked:] if place.endswith(".whl")}
    assert wheels == {"Tool_Box-1.11-py3-none-any.whl"}
    known = Metadata(shipped, tmp_path / "own" / "metadata.zip")
    assert str(known.newest("tool-box").version) == "1.11" and known.date == "2026-11-28"
    assert known.releases("tool-box")[0].requires == ("numpy<2", 'rich>=1; extra == "shown"')

    asked = len(index.asked)
    changes = refresh(tmp_path / "own", ["Tool.Box"], index_url=index.url, today=TODAY)
    assert not changes.added and not changes.yanked
    (page, headers), *rest = index.asked[asked:]
    assert page == "/simple/tool-box/" and "If-None-Match" in headers and not rest


def test_a_refresh_of_some_projects_leaves_the_date_of_the_others(index, tmp_path, monkeypatch):
    shipped = tmp_path / "shipped.zip"
    build(shipped, ["tool-box", "early"], Index(index.url), tmp_path / "kept", date(2025, 1, 1))
    monkeypatch.setattr(build_metadata, "SHIPPED", shipped)
    refresh(tmp_path / "own", ["early"], index_url=index.url, today=TODAY)
    known = Metadata(shipped, tmp_path / "own" / "metadata.zip")
    assert (known.date_of("early"), known.date_of("tool-box"), known.date) == ("2026-11-28", "2025-01-01", "2025-01-01")


def test_without_an_index_a_clear_word_and_no_credentials(tmp_path, monkeypatch):
    shipped = tmp_path / "shipped.zip"
    monkeypatch.setattr(build_metadata, "SHIPPED", shipped)
    with pytest.raises(IndexProblem) as raised:
        refresh(tmp_path, ["torch"], index_url="http://user:hidden@127.0.0.1:9/simple")
    assert "127.0.0.1:9/simple/torch/" in str(raised.value) and "network" in str(raised.value)
    assert "hidden" not in str(raised.value) and "user" not in str(raised.value)
    assert not (tmp_path / "metadata.zip").exists()


def test_credentials_of_the_address_go_to_the_index_and_nowhere_else(index, tmp_path):
    named = index.url.replace("http://", "http://user:hid%20den@")
    Index(named, tmp_path / "cache").files("early")
    place, headers = index.asked[-1]
    assert headers["Authorization"] == "Basic dXNlcjpoaWQgZGVu"
    kept = (tmp_path / "cache" / "early.json").read_text()
    assert "hid" not in kept and "user" not in kept
    assert not list(tmp_path.glob("**/*hid*")) and place == "/simple/early/"


def test_an_answer_that_is_no_json_is_named(index, monkeypatch):
    monkeypatch.setattr(index, "page", lambda project: ["<html>"])
    with pytest.raises(IndexProblem, match=r"PEP 691.*--index-url"):
        Index(index.url).files("early")


def test_the_index_is_what_uv_and_pip_use(monkeypatch):
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    assert address() == DEFAULT == "https://pypi.org/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "https://pip.example/simple/")
    assert address() == "https://pip.example/simple"
    monkeypatch.setenv("UV_INDEX_URL", "https://uv.example/simple")
    assert address() == "https://uv.example/simple"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "named=https://default.example/simple?a=b")
    assert address() == "https://default.example/simple?a=b"
    assert address("https://given.example/s") == "https://given.example/s"


def test_the_command_says_what_it_made(index, tmp_path):
    said = []
    output = tmp_path / "made.zip"
    words = ["--index-url", index.url, "--projects", "early", "missing", "--output", str(output)]
    assert main([*words, "--kept", str(tmp_path / "kept")], said.append) == 1
    assert any("no project missing" in line for line in said) and "MB" in said[-1]
    assert main([*words[:4], *words[5:], "--kept", str(tmp_path / "kept")], said.append) == 0


def test_a_broken_or_missing_snapshot_is_an_empty_one(tmp_path):
    broken = tmp_path / "broken.zip"
    broken.write_bytes(b"PK\x03\x04 cut off")
    known = Metadata(broken, tmp_path / "missing.zip")
    assert known.projects == frozenset() and known.date == "" and known.releases("torch") == ()
    assert Packed(broken).read("torch.json") == {} and known.newest("torch") is None


def test_versions_are_ordered_as_versions(snapshot):
    versions = [one.version for one in snapshot.releases("tool-box")]
    assert versions == sorted(versions) == [Version("1.0"), Version("1.9"), Version("1.10")]


def test_what_was_kept_is_plain_json(index, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    build(tmp_path / "metadata.zip", ["early"], Index(index.url), tmp_path / "kept", TODAY)
    assert json.loads((tmp_path / "kept" / "early.json").read_text())["day"] == "2026-11-28"
    assert "early: 1 releases" in caplog.text
