"""Environments read from their files: the interpreter's path as a script sees it, and what is installed on it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from patients import Patient, fake_program, install_into

from doctor.environment.facts import Environment
from doctor.environment.read import EnvironmentUnreadable, read_environment

PYENV = Path.home() / ".pyenv" / "versions"
OTHERS = sorted(str(path) for path in PYENV.glob("3.*/bin/python") if "/3.6" not in str(path))


def read(python: str | Path, **variables: str) -> Environment:
    return read_environment(str(python), variables=variables, machine=False)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Patient:
    return Patient(tmp_path_factory.mktemp("plain") / "venv")


def path_of(python: str, **variables: str) -> list[str]:
    code = "import sys, json; print(json.dumps(sys.path[1:]))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=variables, check=True)
    return [entry for entry in json.loads(done.stdout) if os.path.exists(entry)]


@pytest.mark.parametrize("python", [sys.executable, *OTHERS])
def test_the_path_is_what_a_script_sees(python, tmp_path):
    (tmp_path / "leak").mkdir()
    told = {"PYTHONPATH": f"{tmp_path / 'leak'}", "HOME": str(tmp_path)}
    here = read(python, **told).interpreter
    assert list(here.path) == path_of(python, **told)
    asked = "import sys, sysconfig; print(sys.version.split()[0], sys.base_prefix)"
    version, base = subprocess.run([python, "-c", asked], capture_output=True, text=True).stdout.split()
    assert (here.version, here.base_prefix) == (version, base)
    short = "cp" + "".join(version.split(".")[:2])
    assert here.tags[0].startswith(f"{short}-{short}") and "py3-none-any" in here.tags
    assert f"{short}-none-any" in here.tags and not any(tag.startswith("cp315") for tag in here.tags)


def test_user_site_and_the_base_are_on_the_path_as_python_has_them(tmp_path):
    venv = Patient(tmp_path / "venv", None, "--system-site-packages")
    short = f"python{sys.version_info.major}.{sys.version_info.minor}"
    user = tmp_path / "user" / "lib" / short / "site-packages"
    user.mkdir(parents=True)
    told = {"PYTHONUSERBASE": str(tmp_path / "user"), "HOME": str(tmp_path)}
    here = read(venv.python, **told).interpreter
    assert list(here.path) == path_of(venv.python, **told)
    assert here.system_site_packages and str(user) in here.path and here.user_site_enabled
    off = read(venv.python, **told, PYTHONNOUSERSITE="1").interpreter
    assert str(user) not in off.path and not off.user_site_enabled


def test_distributions_are_read_in_the_order_of_the_path(plain, tmp_path):
    plain.install("Huggingface_Hub", "0.26.0", requires=("rich", "torch; extra == 'torch'"), requires_python=">=3.8")
    plain.install("compiled", "1.0", tags=("cp311-cp311-linux_x86_64",), files={"one.py": "", "two/__init__.py": "",
                  "three.cpython-311-x86_64-linux-gnu.so": "", "../../../bin/tool": "", "data/x.txt": ""})  # fmt: skip
    install_into(tmp_path, "huggingface-hub", "0.17.1")
    here = read(plain.python, PYTHONPATH=str(tmp_path))
    hubs = [one for one in here.installed if one.name == "huggingface-hub"]
    assert [(one.version, one.site) for one in hubs] == [("0.17.1", str(tmp_path)), ("0.26.0", str(plain.site))]
    assert str(here.version("huggingface_hub")) == "0.17.1" and here.complete
    assert hubs[1].requires == ("rich", "torch; extra == 'torch'") and hubs[1].requires_python == ">=3.8"
    assert hubs[1].modules == ("huggingface_hub",) and hubs[1].installer == "pip"
    compiled = here.find("compiled")
    assert compiled.modules == ("data", "one", "three", "two") and compiled.tags == ("cp311-cp311-linux_x86_64",)


def test_editable_installs_are_found_in_every_way_they_are_made(plain, tmp_path):
    source = tmp_path / "src"
    (source / "modern").mkdir(parents=True)
    told = {"direct_url.json": json.dumps({"url": source.as_uri(), "dir_info": {"editable": True}})}
    finder = f"MAPPING: dict[str, str] = {{'modern': '{source / 'modern'}'}}\nNAMESPACES = {{}}\n"
    plain.install("modern", "1.0", extra=told, files={"__editable___modern_1_0_finder.py": finder,
                  "__editable__.modern-1.0.pth": "import __editable___modern_1_0_finder; x.install()"})  # fmt: skip
    mapped = finder.replace("modern", "mapped")
    plain.install("mapped", "2.0", files={"__editable___mapped_2_0_finder.py": mapped})
    linked = tmp_path / "linked"
    install_into(linked, "unused", "1")
    egg = linked / "linked.egg-info"
    egg.mkdir()
    (egg / "PKG-INFO").write_text("Metadata-Version: 1.0\nName: linked\nVersion: 3.0\n")
    (egg / "requires.txt").write_text("torch>=2\n\n[fast:python_version < '3.12']\nxformers\n")
    (plain.site / "linked.egg-link").write_text(f"{linked}\n.")
    (plain.site / "easy-install.pth").write_text(f"{linked}\n{tmp_path / 'gone'}\n# nothing\n")
    here = read(plain.python)
    assert here.find("modern").editable == str(source) and here.find("modern").origin == str(source)
    assert here.find("mapped").editable == str(source)
    found = [one for one in here.installed if one.name == "linked"]
    assert len(found) == 1 and found[0].editable == str(linked) and found[0].version == "3.0"
    assert found[0].requires == ("torch>=2", "xformers ; extra == 'fast' and (python_version < '3.12')")
    assert str(linked) in here.interpreter.path and here.find("unused").version == "1"


def test_where_a_package_came_from_has_no_credentials(plain):
    url = {"url": "https://me:hf_secret@example.org/x.git?token=abc", "vcs_info": {"vcs": "git", "commit_id": "12ab"}}
    plain.install("origin", "1.0", extra={"direct_url.json": json.dumps(url)})
    told = {"PIP_INDEX_URL": "https://user:word@host/simple", "HF_TOKEN": "hf_x", "HOME": "/h", "NCCL_DEBUG": "INFO"}
    here = read(plain.python, **told, NCCL_SECRET="x", TOKENIZERS_PARALLELISM="false")
    assert here.find("origin").origin == "git+https://***@example.org/x.git?token=***@12ab"
    kept = {"NCCL_DEBUG": "INFO", "PIP_INDEX_URL": "https://***@host/simple", "TOKENIZERS_PARALLELISM": "false"}
    assert here.variables == kept


@pytest.mark.parametrize("broken", [
    {}, {"METADATA": ""}, {"METADATA": "\xff\x00"}, {"RECORD": '"a,b.py",x,1\n'}, {"direct_url.json": "{"},
    {"WHEEL": "Tag"}, {"direct_url.json": "[]"},
    {"METADATA": "Name: odd\nVersion: 2.0\nDescription: a\n        Version: 9\n"},
])  # fmt: skip
def test_a_broken_dist_info_breaks_nothing(tmp_path, broken):
    info = tmp_path / "odd-2.0.dist-info"
    info.mkdir()
    for name, text in broken.items():
        (info / name).write_text(text, encoding="latin-1")
    found = read(sys.executable, PYTHONPATH=str(tmp_path)).installed[0]
    assert (found.name, found.version) == ("odd", "2.0")


def test_what_is_no_environment_is_said(tmp_path):
    def said(path: Path | str) -> str:
        with pytest.raises(EnvironmentUnreadable) as raised:
            read(path)
        return str(raised.value)

    assert "is not there" in said(tmp_path / "none")
    assert "no virtual environment" in said(tmp_path)
    script = fake_program(tmp_path, "train.sh", f"touch {tmp_path / 'ran'}")
    assert "no Python interpreter by its name" in said(script) and not (tmp_path / "ran").exists()
    old = fake_program(tmp_path, "python2", "echo 'Unknown option: -I' >&2; exit 2")
    assert "is Python 2" in said(old)
    mute = fake_program(tmp_path, "python3.9", "echo boom >&2; exit 3")
    assert "does not start: boom" in said(mute)
    locked = fake_program(tmp_path, "python3.8", "exit 0")
    locked.chmod(0o644)
    assert "chmod +x" in said(locked)
    (tmp_path / "python3").symlink_to(tmp_path / "gone")
    assert f"is a link to {tmp_path / 'gone'}, which is not there" in said(tmp_path / "python3")
    binary = tmp_path / "python3.7"
    binary.write_bytes(b"\x7fELF no")
    binary.chmod(0o755)
    assert "can't be run" in said(binary)
    assert "No interpreter is named" in said(" ")


def test_a_venv_whose_python_is_gone_is_read_from_its_files(tmp_path):
    venv = Patient(tmp_path / "venv")
    venv.install("peft", "0.14.0")
    base = tmp_path / "base"
    for name in ("python", "python3"):
        (venv.folder / "bin" / name).unlink()
        (venv.folder / "bin" / name).symlink_to(base / "python3.11")
    here = read(venv.folder)
    assert str(here.version("peft")) == "0.14.0"
    assert f"{base / 'python3.11'}, which is not there" in here.interpreter.fault
    assert here.interpreter.version.startswith(f"{sys.version_info.major}.{sys.version_info.minor}.")
    assert "py3-none-any" in here.interpreter.tags


@pytest.mark.parametrize("inside", ["", "bin/python"])
def test_a_venv_is_named_by_its_folder_or_its_interpreter(plain, inside):
    assert read(plain.folder / inside).interpreter.prefix == str(plain.folder)


def test_a_project_folder_stands_for_its_venv(tmp_path):
    Patient(tmp_path / ".venv")
    assert read(tmp_path).interpreter.prefix == str(tmp_path / ".venv")
