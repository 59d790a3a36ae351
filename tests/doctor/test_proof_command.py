"""`doctor.py --proof`: what is found is tried, remembered, and recalled the next time."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from small_wheels import UV, make_tools, needs_uv, only_index

ROOT = Path(__file__).resolve().parents[2]


def doctor(*words: str, at: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(ROOT / "doctor.py"), *words], cwd=at, capture_output=True, text=True, check=False
    )


@pytest.fixture
def patient(tmp_path, monkeypatch):
    """An environment whose `dated` declares base<2 and needs it, and what importing it ends with."""
    make_tools(tmp_path / "index")
    only_index(monkeypatch, tmp_path / "index", tmp_path / "cache")
    folder = tmp_path / "patient"
    folder.mkdir()
    python = folder / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, str(folder / "venv")], check=True)
    install = [UV, "pip", "install", "-q", "--no-deps", "--python", str(python), "dated==1.0", "base==2.0"]
    subprocess.run(install, check=True)
    (folder / "run_it.py").write_text("import dated\n")
    failed = subprocess.run([python, "run_it.py"], cwd=folder, capture_output=True, text=True, check=False)
    (folder / "failed.txt").write_text(failed.stderr)
    return folder


@needs_uv
def test_a_change_is_proved_remembered_and_recalled(patient, tmp_path):
    given = ("--python", "venv", "--traceback", "failed.txt", "--memory", str(tmp_path / "memory"))
    first = doctor(*given, "--proof", "never", at=patient)
    assert first.returncode == 1 and "proof: proved" not in first.stdout and "base" in first.stdout, first.stdout
    assert not (tmp_path / "memory").exists()
    proved = doctor(*given, "--proof", "always", at=patient)
    assert proved.returncode == 1 and "proof: proved" in proved.stdout, proved.stdout + proved.stderr
    said = " ".join(proved.stdout.split())
    assert "It failed with \"ImportError: cannot import name 'old_name' from 'base'\", and passes with base" in said
    memory = (tmp_path / "memory" / "MEMORY.md").read_text()
    assert "fails: ImportError: cannot import name 'old_name' from 'base' · with: base==2.0" in memory
    again = doctor(*given, "--proof", "never", at=patient)
    assert again.returncode == 1 and "proved" in again.stdout.lower(), again.stdout
