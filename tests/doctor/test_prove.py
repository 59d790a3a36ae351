"""A change is tried in a scratch environment, from wheels made on the spot."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_wheels import make_tools, needs_uv, only_index

from doctor.finding import Change
from doctor.proof.broken_set import BrokenSet
from doctor.proof.log_folder import digest_of
from doctor.proof.outcome import DISPROVED, NOT_PROVABLE, NOT_REPRODUCED, NOT_TRIED, PROVED, Budget
from doctor.proof.prove import Consent, prove

pytestmark = needs_uv
ERROR = "ImportError: cannot import name 'old_name' from 'base'"
BROKEN = ("tool==1.0", "base==2.0")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    folder = tmp_path_factory.mktemp("index")
    make_tools(folder)
    return folder


@pytest.fixture
def proofs(index, tmp_path, monkeypatch):
    only_index(monkeypatch, index, tmp_path / "cache")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    yield tmp_path / "proofs"
    assert list((tmp_path / "tmp").iterdir()) == []  # the scratch environment is gone


def pin(*requirements, **more):
    return Change("pin", "Hold it.", requirements=requirements, **more)


def tried(proofs, changes, code="import tool", broken=BROKEN, **more):
    return prove(code, broken, changes, sys.executable, folder=proofs, **more)


def test_it_fails_then_passes_and_the_log_says_how(proofs):
    proof = tried(proofs, pin("base<2"), expected=[ERROR])
    assert (proof.state, proof.change.requirements) == (PROVED, ("base<2",))
    assert proof.before.errors[0].startswith(ERROR) and not proof.before.passed and proof.after.passed
    assert proof.broken == ("base==2.0", "tool==1.0") and proof.resolved == ("base==1.1", "tool==1.0")
    assert proof.breaks == () and 0 < proof.seconds < 60 and "Python 3." in proof.platform
    log = Path(proof.folder)
    assert log.parent == proofs
    whole = json.loads((log / "proof.json").read_text())
    assert whole["state"] == PROVED and whole["tool"].startswith("uv ")
    codes = {step["file"].split("-", 1)[1]: step["exit code"] for step in whole["steps"]}
    assert codes["before.txt"] == 1 and codes["after-1.txt"] == 0
    assert (log / "broken.txt").read_text() == "base==2.0\ntool==1.0\n"
    assert (log / "mended.txt").read_text() == "base==1.1\ntool==1.0\n"
    assert "tmp" not in proof.before.text and "doctor-proof" not in (log / "proof.json").read_text()
    before = digest_of(log)
    (log / "mended.txt").write_text("other\n")
    assert len(before) == 16 and digest_of(log) != before


def test_the_first_change_that_mends_and_breaks_nothing_is_taken(proofs):
    broken = (*BROKEN, "guard==1.0")
    proof = tried(proofs, [pin("tool<1.1"), pin("base<2"), pin("tool>=2")], broken=broken)
    assert [trial.mends for trial in proof.trials] == [False, True, True]  # and not yet a pair
    assert proof.trials[1].breaks == ("The package `guard` requires `base>=2`, but `1.1` is installed",)
    assert (proof.state, proof.change.requirements) == (PROVED, ("tool>=2",))
    assert proof.resolved == ("base==2.0", "guard==1.0", "tool==2.0")  # the one before was taken back


def test_whose_needs_it_breaks_is_moved_along(proofs):
    proof = tried(proofs, pin("base<2"), broken=(*BROKEN, "guard==1.0"))
    assert proof.state == PROVED and proof.breaks == ()
    assert proof.change.requirements == ("base<2", "guard==0.9") and "guard" in proof.change.text
    assert proof.resolved == ("base==1.1", "guard==0.9", "tool==1.0")


def test_what_a_bare_name_moves_is_what_the_change_is(proofs):
    code = "import base\nassert base.__version__ < '2'"
    proof = tried(proofs, pin("strict"), code, ("strict==1.0", "base==2.0"))  # strict declares base<2, and stays
    assert proof.state == PROVED and proof.change.requirements == ("base==1.1",)
    assert proof.resolved == ("base==1.1", "strict==1.0")


def test_what_only_breaks_something_is_told(proofs):
    proof = tried(proofs, pin("base==1.0"), broken=(*BROKEN, "stubborn==1.0"))
    assert (proof.state, proof.change.requirements) == (PROVED, ("base==1.0",))
    assert len(proof.breaks) == 1 and "stubborn" in proof.text


def test_nothing_mends_it(proofs):
    proof = tried(proofs, [pin("base==2.0"), pin("nowhere>=1")])
    assert (proof.state, proof.change, proof.after) == (DISPROVED, None, None)
    assert ERROR in proof.text and "nowhere" in proof.trials[1].text


def test_a_set_that_its_own_declarations_forbid_is_built_as_it_is(proofs):
    proof = tried(proofs, pin("base>=2"), "import strict", ("strict==1.0", "base==1.0"))
    assert proof.before.errors == ("AssertionError",)
    assert proof.state == PROVED and any("strict" in line for line in proof.breaks)


@pytest.mark.parametrize(
    "code, expected, told",
    [("import base", (), "it passes"), ("import tool", ["ImportError: cannot import name 'new' from 'base'"], ERROR),
     ("while True: pass", (), "stopped for time"), ("import os\nos.kill(os.getpid(), 9)", ["OSError: x"], "signal 9")],
)  # fmt: skip
def test_what_does_not_fail_in_the_same_way_proves_nothing(proofs, code, expected, told):
    proof = tried(proofs, pin("base<2"), code, expected=expected, budget=Budget(run=0.5 if "while" in code else 60))
    assert (proof.state, proof.change) == (NOT_REPRODUCED, None)
    assert told in proof.text and all(line in proof.text for line in map(repr, expected))


def test_a_larger_set_is_built_where_a_module_is_missing(proofs):
    asked = []

    def wider(modules):
        asked.append(modules)
        return BrokenSet(("rider==1.0", "base==2.0", "extra==1.0"), frozenset())

    proof = tried(proofs, pin("base<2"), "import rider", ("rider==1.0", "base==2.0"), expected=[ERROR], wider=wider)
    assert (proof.state, asked) == (PROVED, [("extra",)])
    assert "extra==1.0" in proof.broken


def test_what_is_not_to_be_had_is_left_out_unless_it_is_needed(proofs):
    proof = tried(proofs, pin("base<2"), broken=BrokenSet((*BROKEN, "private==1"), frozenset({"tool", "base"})))
    assert proof.state == PROVED and proof.left_out == ("private 1 is left out: it is not to be had here.",)
    proof = tried(proofs, pin("base<2"), broken=("tool==1.0", "base==9.0"))
    assert proof.state == NOT_TRIED and "there is no version of base==9.0" in proof.text


def test_a_variable_and_a_removal_are_tried_too(proofs):
    code = "import os\nassert os.environ.get('SAFE') == '1'"
    assert tried(proofs, Change("environment", "Set SAFE.", environment=(("SAFE", "1"),)), code).state == PROVED
    code = "import importlib.util\nassert importlib.util.find_spec('base') is None"
    proof = tried(proofs, Change("uninstall", "Remove base.", remove=("base",)), code)
    assert proof.state == PROVED and proof.resolved == ("tool==1.0",)


def test_code_sees_nothing_of_the_users(proofs, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("MY_API_KEY", "sk-1234567890abcdefghij")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.chdir(home)
    code = f"""
import os, sys, pathlib, urllib.request
assert "MY_API_KEY" not in os.environ and {str(tmp_path)!r} not in sys.path
assert os.listdir() == [] and pathlib.Path.home() != pathlib.Path({str(home)!r})
(pathlib.Path.home() / "left").write_text("x"); open("left", "w").write("x")
print("hf_abcdefghijABCDEFGHIJ1234")
try:
    urllib.request.urlopen("http://example.org", timeout=5)
except OSError as error:
    assert "refused" in str(error)
import tool
"""
    proof = tried(proofs, pin("base<2"), code, expected=[ERROR])
    assert proof.state == PROVED, proof.before.text
    assert list(home.rglob("*")) == []  # the cache of uv is elsewhere here
    logs = "".join(path.read_text() for path in Path(proof.folder).iterdir())
    assert "hf_abcdef" not in logs and "hf_abcdef" not in proof.before.text and "sk-12345" not in logs


def test_nothing_runs_without_consent(proofs):
    asked = []

    def answer(question):
        asked.append(question)
        return "yes" in asked

    told = {mode: tried(proofs, pin("base<2"), consent=Consent(mode, None)) for mode in ("never", "ask")}
    assert {proof.state for proof in told.values()} == {NOT_TRIED}
    assert all("--proof always" in proof.text and "MB" in proof.text for proof in told.values())
    assert tried(proofs, pin("base<2"), consent=Consent("ask", answer)).text == "It was declined."
    assert "about 2 MB to download" in asked[0] and not proofs.exists()
    assert "1 MB are allowed" in tried(proofs, pin("base<2"), budget=Budget(download=10**6)).text
    assert not proofs.exists()
    asked.append("yes")
    assert tried(proofs, pin("base<2"), consent=Consent("ask", answer)).state == PROVED
    tried(proofs, pin("base<2"), broken=(*BROKEN, "private==1"), consent=Consent("ask", answer))
    assert "(nothing to download" in asked[-1]


def test_what_cannot_be_tried(proofs):
    assert tried(proofs, Change("rename", "Rename x.py.")).state == NOT_PROVABLE
    proof = prove("import tool", BROKEN, pin("base<2"), "3.99", folder=proofs)
    assert proof.state == NOT_TRIED and "3.99" in proof.text and not proofs.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="signals and named pipes of POSIX")
def test_an_interrupted_proof_leaves_nothing(proofs, tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    code = f"import os\nopen({str(pipe)!r}, 'w').write(str(os.getpid()))\nwhile True: pass"
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from doctor.finding import Change\nfrom doctor.proof.prove import prove\n"
        f"prove({code!r}, {BROKEN!r}, Change('pin', 'x', requirements=('base<2',)), sys.executable,"
        f" folder=Path({str(proofs)!r}))"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stderr=subprocess.PIPE, text=True)
    child = int(pipe.read_text())  # waits until the code runs
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert "KeyboardInterrupt" in said
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:  # until its parent has let it go
        assert "Z" in Path(f"/proc/{child}/stat").read_text().split(")")[-1]
