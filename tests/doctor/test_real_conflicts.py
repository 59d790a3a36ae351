"""Conflicts through the command line: three by their structure, offline; all of them by real installs (slow)."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conflicts import CONFLICTS, FAULTS, build, fail, uv
from patients import Patient

ROOT = Path(__file__).resolve().parents[2]
WITH_FIX = [one for one in CONFLICTS if one.mended]

HTTPX = """
class Client:
    def __init__(self, *, timeout=None): pass
"""
OPENAI = """
import httpx
class _Default(httpx.Client):
    def __init__(self, **kwargs):
        kwargs.setdefault("timeout", 600)
        super().__init__(**kwargs)
class SyncAPIClient:
    def __init__(self, proxies=None):
        self.client = _Default(timeout=1, proxies=proxies)
"""
HUB = """
def _attach(name, submod_attrs):
    return (lambda asked: 1), None, list(submod_attrs)
_SUBMOD_ATTRS = {"hf_api": ["HfApi", "whoami"]}
__getattr__, _dir, __all__ = _attach(__name__, submod_attrs=_SUBMOD_ATTRS)
"""
# Of each: distributions with their files, the statement that fails, what mends it.
SMALL = {
    "R6": (
        [("httpx", "0.28.1", (), {"httpx/__init__.py": "from ._client import Client\n", "httpx/_client.py": HTTPX}),
         ("openai", "1.54.5", ("httpx<1,>=0.23.0",),
          {"openai/__init__.py": "from ._base_client import SyncAPIClient as OpenAI\n",
           "openai/_base_client.py": OPENAI})],
        "import openai; openai.OpenAI()", "runtime/api_change", "httpx",
    ),
    "R7": (
        [("setuptools", "82.0.0", (), {"setuptools/__init__.py": ""}),
         ("tensorboard", "2.14.1", ("setuptools>=41.0.0",),
          {"tensorboard/__init__.py": "", "tensorboard/default.py": "import pkg_resources\n",
           "tensorboard/main.py": "from tensorboard import default\n"})],
        "import tensorboard.default", "import/not_installed", "setuptools",
    ),
    "R16": (
        [("huggingface-hub", "1.0.1", (), {"huggingface_hub/__init__.py": HUB,
                                           "huggingface_hub/hf_api.py": "HfApi = whoami = 1\n"}),
         ("gradio", "4.44.1", ("huggingface-hub>=0.19.3",),
          {"gradio/__init__.py": "from gradio import oauth\n",
           "gradio/oauth.py": "from huggingface_hub import HfFolder, whoami\n"})],
        "import gradio", "import/wrong_version", "huggingface-hub",
    ),
}  # fmt: skip


def doctor(python, folder, *options, **variables):
    command = [sys.executable, str(ROOT / "doctor.py"), "--python", str(python), "--folder", str(folder), "--json",
               "--memory", str(folder / "memory"), *options]  # fmt: skip
    ran = subprocess.run(command, cwd=folder, env={**os.environ, **variables}, capture_output=True, text=True)
    assert ran.returncode in (0, 1), f"{ran.stdout[-500:]}\n{ran.stderr[-2000:]}"
    return json.loads(ran.stdout)["findings"]


@pytest.mark.parametrize("key", SMALL)
def test_small_conflicts_are_seen_before_and_after_they_fail(tmp_path, key):
    installs, statement, branch, culprit = SMALL[key]
    patient = Patient(tmp_path / "venv")
    for name, version, requires, files in installs:
        commands = {"entry_points.txt": f"[console_scripts]\n{name} = {name}.main:run\n"}
        patient.install(name, version, requires=requires, files=files, extra=commands)
    failed = patient.run(statement, cwd=tmp_path)
    if key == "R16":  # the attached table here makes up any name: only the real one refuses
        failed.stderr = "ImportError: cannot import name 'HfFolder' from 'huggingface_hub'\n"
    assert failed.stderr
    (tmp_path / "traceback.txt").write_text(failed.stderr)
    for options in ((), ("--traceback", str(tmp_path / "traceback.txt"))):
        found = doctor(patient.folder, tmp_path, "--proof", "never", *options)
        first = next(one for one in found if one["level"] != "note")
        assert first["branch"] == branch, first
        assert culprit in first["culprits"]
        pins = [pin for change in first["changes"] for pin in change["requirements"]]
        assert any(pin.startswith(f"{culprit}<") for pin in pins), pins


def installed(conflict, folder):
    """Build a conflict, or skip where its packages can't be had."""
    if conflict.torch and not os.environ.get("UV_FIND_LINKS"):
        pytest.skip("UV_FIND_LINKS names no folder with a wheel of torch for processors")
    try:
        made = build(conflict, folder)
    except OSError as error:
        pytest.skip(f"uv: {error}")
    if conflict.installs and made.returncode:
        pytest.skip(f"its packages can't be had here: {made.stderr[-300:]}")
    return made


@pytest.mark.slow
@pytest.mark.parametrize("conflict", CONFLICTS, ids=lambda one: one.key)
def test_real_conflicts_are_diagnosed(tmp_path, conflict):
    made = installed(conflict, tmp_path)
    failed = fail(conflict, tmp_path) if conflict.installs else made
    text = failed.stdout + failed.stderr
    if not conflict.installs and conflict.expected not in text:
        pytest.skip("its build can't be begun here")
    assert failed.returncode and conflict.expected in text
    (tmp_path / "traceback.txt").write_text(text)
    told = doctor(tmp_path / "venv", tmp_path, "--traceback", str(tmp_path / "traceback.txt"), "--proof", "never")
    names = {pin.partition("<")[0].partition(">")[0].partition("=")[0] for way in conflict.mended for pin in way}
    first = told[0]
    assert first["branch"] in conflict.branches or names & set(first["culprits"]), first["verdict"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.key)
def test_faults_of_the_surroundings_are_diagnosed(tmp_path, fault):
    installed(fault, tmp_path)
    failed = fail(fault, tmp_path)
    assert fault.expected in failed.stderr + failed.stdout
    settings = {name: value.format(folder=tmp_path) for name, value in fault.variables.items()}
    told = doctor(tmp_path / "venv", tmp_path, "--proof", "never", **settings)
    assert any(one["branch"] in fault.branches for one in told if one["level"] != "note"), told


def test_uv_is_named_by_its_path_or_as_a_module():
    assert uv()[0] == sys.executable or Path(uv()[0]).stem == "uv"
