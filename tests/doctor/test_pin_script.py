"""`python doctor.py pin SCRIPT.py`: imports become a PEP 723 block."""

import tomllib

import pytest
from doctor_program import here
from patients import Patient

from doctor.sources.script_file import find_block

SCRIPT = """#!/usr/bin/env python
'''What it does.'''
import os, peft.tuners
import helper
from package import thing
from . import sibling
from google.protobuf import message
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import pandas
try:
    import xformers
except ImportError:
    xformers = None
def f():
    import importlib
    importlib.import_module("yaml")
"""


@pytest.fixture
def here_script(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patient = Patient(tmp_path / "v")
    patient.install("peft", "0.14.0")
    patient.install("PyYAML", "6.0.2", files={"yaml/__init__.py": ""})
    patient.install("protobuf", "5.29.5+local", files={"google/protobuf/__init__.py": ""})
    (tmp_path / "helper.py").write_text("")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "thing.py").write_text("")
    (tmp_path / "a.py").write_text(SCRIPT)
    return tmp_path / "a.py"


def entries(path):
    return tomllib.loads(find_block(path.read_text()).toml)


def test_what_is_imported_is_pinned_to_the_environment(here_script, capfd):
    shown = here(capfd, "pin", "a.py", "--python", "v", "--offline", "--check")
    assert shown.code == 1 and here_script.read_text() == SCRIPT and '+#     "peft==0.14.0",' in shown.out
    answer = here(capfd, "pin", "a.py", "--python", "v", "--offline")
    assert answer.code == 0 and answer.out == shown.out
    assert "xformers is optional, and not installed: left out" in answer.err
    told = entries(here_script)
    assert sorted(told["dependencies"]) == ["peft==0.14.0", "protobuf==5.29.5", "pyyaml==6.0.2"]
    assert told["requires-python"].startswith(">=3.")
    assert "# line 3; of v" in here_script.read_text() and here_script.read_text().startswith("#!/usr/bin/env python\n")
    compile(here_script.read_text(), "a.py", "exec")
    again = here(capfd, "pin", "a.py", "--python", "v", "--offline", "--check")
    assert again.code == 0 and "nothing to write" in again.out


def test_ranges_of_the_users_own_stay_and_crlf_too(here_script, capfd):
    block = (
        '# /// script\r\n# dependencies = [\r\n#   "peft>=0.13",\r\n#   "PyYAML",\r\n#   "rich",\r\n# ]\r\n# ///\r\n'
    )
    here_script.write_bytes((block + "import peft, yaml\n").replace("\n", "\r\n").replace("\r\r", "\r").encode())
    assert here(capfd, "pin", "a.py", "--python", "v", "--offline").code == 0
    assert entries(here_script)["dependencies"] == ["peft>=0.13", "PyYAML==6.0.2", "rich"]
    assert here_script.read_bytes().count(b"\n") == here_script.read_bytes().count(b"\r\n")


def test_a_module_of_no_known_project_is_told(here_script, capfd):
    here_script.write_text("import zzz_nobody_knows\nimport peft\n")
    answer = here(capfd, "pin", "a.py", "--python", "v", "--offline")
    assert answer.code == 1 and "line 1: which project zzz_nobody_knows is of is not known" in answer.err
    assert entries(here_script)["dependencies"] == ["peft==0.14.0"]


def test_what_is_not_installed_gets_the_newest_that_is_known(here_script, capfd):
    here_script.write_text("import trl\n")
    assert here(capfd, "pin", "a.py", "--python", "v", "--offline", "--python-version", "3.11").code == 0
    (pin,) = entries(here_script)["dependencies"]
    assert pin.startswith("trl==1.") and "newest known on 20" in here_script.read_text()
