"""A finding is proved against an environment on the disk, which stays as it is."""

import hashlib
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from known import environment, knowing
from small_wheels import UV, make_tools, needs_uv, only_index

from doctor.case import Case
from doctor.environment.facts import Declared, Environment, Interpreter
from doctor.failure.facts import Failure, Frame, Raised
from doctor.finding import Change, Finding
from doctor.proof.broken_set import broken_set, imported_modules
from doctor.proof.outcome import NOT_PROVABLE, NOT_REPRODUCED, PROVED
from doctor.proof.prove import Consent
from doctor.proof.prove_finding import prove_finding

KNOWN = knowing(base={"1.0": (), "1.1": (), "2.0": ()}, tool={"1.0": (), "2.0": ()})
ERROR = Raised("ImportError", "cannot import name 'old_name' from 'base' (/v/base.py)", (Frame("/v/tool.py", 2),))
CHANGES = (Change("rename", "Rename x."), Change("pin", "Raise tool.", requirements=("tool>=2",)),
           Change("pin", "Hold base.", requirements=("base<2",)))  # fmt: skip


def finding(**more):
    given = {"changes": CHANGES, "culprits": ("base",), "provable": "import tool"} | more
    return Finding("missing-name", "import/wrong_version", "error", 0.9, "tool needs base<2", **given)


def installed(*others, **more):
    return environment("tool==1.0 base", "base==2.0", *others, executable=sys.executable, **more)


@pytest.fixture
def proofs(tmp_path, monkeypatch):
    make_tools(tmp_path / "index")
    only_index(monkeypatch, tmp_path / "index", tmp_path / "cache")
    return tmp_path / "proofs"


def digest(folder: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        whole.update(f"{path} {path.lstat().st_mtime_ns}".encode())
        whole.update(path.read_bytes() if path.is_file() else b"")
    return whole.hexdigest()


@needs_uv
def test_the_patient_stays_as_it_is(proofs, tmp_path, monkeypatch):
    patient = tmp_path / "patient"
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(patient)], check=True)
    python = str(patient / "bin" / "python")
    subprocess.run([UV, "pip", "install", "-q", "--no-deps", "--python", python, "tool==1.0", "base==2.0"], check=True)
    work, home = tmp_path / "work", tmp_path / "home"
    for folder in (work, home):
        folder.mkdir()
        (folder / "tool.py").write_text("raise SystemExit\n")  # would be imported from the current folder
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(home))
    before = [digest(folder) for folder in (patient, work, home)]
    here = environment("tool==1.0 base", "base==2.0", executable=python)
    proof = prove_finding(finding(), Case(here, Failure("python", (ERROR,))), KNOWN, folder=proofs)
    assert proof.state == PROVED and proof.change.requirements == ("tool>=2",), proof.text
    assert [digest(folder) for folder in (patient, work, home)] == before


@needs_uv
def test_what_only_an_extra_declares_is_added_where_the_fault_does_not_show(proofs):
    here = installed("rider==1.0 base extra;extra=='full'", "extra==1.0")
    fault = finding(provable="import rider", changes=CHANGES[2:])
    proof = prove_finding(fault, Case(here, Failure("python", (ERROR,))), KNOWN, folder=proofs)
    assert proof.state == PROVED and "extra==1.0" in proof.broken, proof.text


@needs_uv
def test_of_a_text_the_versions_that_it_tells_are_installed(proofs):
    told = Environment("the text", Interpreter("", sys.version.split()[0], sys_platform=sys.platform),
                       declared=(Declared("tool", "==1.0"), Declared("base", ">=2")))  # fmt: skip
    proof = prove_finding(finding(), Case(told, Failure("python", (ERROR,))), KNOWN, folder=proofs)
    assert proof.state == PROVED and proof.broken == ("base==2.0", "tool==1.0"), proof.text
    other = Failure("python", (Raised("ImportError", "libfoo.so.1: cannot open shared object file"),))
    assert prove_finding(finding(), Case(told, other), KNOWN, folder=proofs).state == NOT_REPRODUCED


@pytest.mark.parametrize(
    "more, platform, told",
    [({"gpu": True}, sys.platform, "GPU"), ({"provable": None}, sys.platform, "No code"),
     ({"changes": CHANGES[:1]}, sys.platform, "rename"),
     ({}, "win32" if sys.platform != "win32" else "linux", "this machine")],
)  # fmt: skip
def test_what_is_not_provable_here(more, platform, told, tmp_path):
    proof = prove_finding(finding(**more), Case(installed(platform=platform)), KNOWN, folder=tmp_path / "proofs")
    assert proof.state == NOT_PROVABLE and told in proof.text and not (tmp_path / "proofs").exists()


@pytest.mark.slow
def test_without_uv_pip_does_it(proofs, monkeypatch):
    monkeypatch.setattr("doctor.proof.prove.find_uv", lambda: ())
    here = Case(installed("guard==1.0 base>=2"))
    proof = prove_finding(finding(culprits=("base", "guard")), here, KNOWN, folder=proofs, consent=Consent("always"))
    assert proof.state == PROVED and proof.change.requirements == ("tool>=2",), proof.text
    assert "base==2.0" in proof.broken and "tool==2.0" in proof.resolved


def test_only_what_matters_is_built_again():
    here = environment(
        "tool==1.0 base sub[fast]>=1", "base==2.0", "sub==1.0 quick;extra=='fast' slow;extra=='all'", "quick==1",
        "slow==1",
        "other==1 base", "odd==1 tool", "nvidia-cudnn==9", "torch==2.6.0+cu124 nvidia-cudnn",
    )  # fmt: skip
    one = broken_set(finding(provable="import torch.nn\nfrom tool import x"), here)
    assert one.pins == ("base==2.0", "quick==1", "sub==1.0", "tool==1.0", "torch==2.6.0+cu124")
    assert one.roots == {"base", "tool", "torch"} and one.exact
    assert broken_set(finding(), here, modules=("other",)).pins[:2] == ("base==2.0", "other==1")
    assert imported_modules("import a.b, c\ndef f():\n    from d.e import g") == ("a", "c", "d")


def test_local_installs_are_left_out_with_a_word():
    here = environment("tool==1.0 base", "base==2.0")
    tool, base = here.installed
    here = replace(here, installed=(replace(tool, editable="/src/tool"), replace(base, version="odd.version")))
    one = broken_set(finding(), here)
    assert one.pins == () and [line.split(":")[0] for line in one.left_out] == [
        "base odd.version is left out", "tool 1.0 is left out"
    ]  # fmt: skip
