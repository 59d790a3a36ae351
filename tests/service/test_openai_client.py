"""OpenAI's protocol through unmodified clients: the newest of OpenAI's; others in environments of their own."""

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")
pytest.importorskip("llguidance")

import openai_client_checks

from llm import base_model
from service.local_service import serve

HERE = Path(openai_client_checks.__file__).parent


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(base_model.load("tiny"), tmp_path_factory.mktemp("store"), "org/tiny") as service:
        yield service


@pytest.mark.parametrize("check", openai_client_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_newest_client(served, check):
    check(openai_client_checks.Service(served.url, served.models.name))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["openai==1.109.1", "openai==3.51.0"])
def test_an_older_client(served, tmp_path, version):
    told = run_in(tmp_path, HERE / "openai_client_checks.py", served, version)
    held = [line for line in told.splitlines() if version.replace("==", " ") in line and " holds " in line]
    assert len(held) == len(openai_client_checks.CHECKS)


@pytest.mark.slow
def test_langchain(served, tmp_path):
    assert " holds" in run_in(tmp_path, HERE / "langchain_client_checks.py", served, "langchain-openai==1.7.4")


def run_in(folder: Path, script: Path, served, *packages: str) -> str:
    """Run a script in a new environment with further packages, over those that are here; returns what it told."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "client"], check=True)
    python = folder / "client" / "bin" / "python"
    (own,) = (folder / "client" / "lib").glob("python*/site-packages")
    (own / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *packages]
    done = subprocess.run(install, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{packages} can't be installed here: {(done.stderr or done.stdout).strip()[-300:]}")
    done = subprocess.run(
        [python, "-W", "ignore", script, served.url, served.models.name], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
