"""Commands that somebody pastes."""

import shlex
import subprocess

import pytest
from known import environment

from doctor.environment.facts import Environment, Gpu, Machine
from doctor.finding import Change
from doctor.remedy.commands import RESTART, Commands, commands, torch_build
from doctor.remedy.quoting import for_powershell

PIN = Change("pin", "Hold peft below 0.14.", requirements=("peft<0.14",))


def test_a_pin_for_uv_pip_and_colab():
    here = environment("peft==0.14.0", executable="/my envs/v/bin/python")
    assert commands(PIN, here) == Commands(
        uv=("uv pip install --python '/my envs/v/bin/python' 'peft<0.14'",),
        pip=("'/my envs/v/bin/python' -m pip install 'peft<0.14'",),
        colab=("%pip install 'peft<0.14'", RESTART),
    )


def test_bash_takes_the_words_as_they_are_meant(tmp_path):
    change = Change("pin", "Hold.", requirements=('a[x]<2,!=1.5; python_version < "3.12"', "b>=1"))
    line = commands(change, environment("a==2", executable=str(tmp_path / "it's $HOME"))).uv[0]
    read = subprocess.run(["bash", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True).stdout
    assert read.splitlines() == shlex.split(line)
    assert read.splitlines()[-2:] == list(change.requirements)


def test_a_text_without_an_interpreter():
    assert commands(PIN, Environment("the text")) == Commands(
        uv=("uv pip install 'peft<0.14'",), pip=("python -m pip install 'peft<0.14'",),
        colab=("%pip install 'peft<0.14'", RESTART),
    )  # fmt: skip


def test_powershell():
    here = environment("peft==0.14.0", executable=r"C:\Users\Jo Doe\v\Scripts\python.exe", platform="win32")
    told = commands(PIN, here)
    assert told.pip == (r"& 'C:\Users\Jo Doe\v\Scripts\python.exe' -m pip install 'peft<0.14'",)
    assert for_powershell("it's") == "& 'it''s'"
    variable = Change("environment", "Set.", environment=(("A", "1"), ("B", "")))
    assert commands(variable, here).uv == ("$env:A = 1", "Remove-Item Env:B")


def test_a_project_of_uv_is_changed_by_uv_add(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\nname='x'\nversion='1'\n")
    (tmp_path / "uv.lock").write_text("version = 1\n")
    here = environment("peft==0.14.0", executable=f"{tmp_path}/.venv/bin/python", prefix=f"{tmp_path}/.venv")
    assert commands(PIN, here).uv == (f"uv add --project {tmp_path} 'peft<0.14'",)
    assert commands(PIN, here).pip == (f"{tmp_path}/.venv/bin/python -m pip install 'peft<0.14'",)
    lock = Environment(str(tmp_path / "uv.lock"))
    assert commands(Change("uninstall", "Go.", remove=("peft",)), lock).uv == (f"uv remove --project {tmp_path} peft",)


def test_taking_away_and_installing_anew():
    change = Change("install", "Anew.", requirements=("peft",), remove=("peft", "peft-fork"))
    told = commands(change, environment("peft==0.14.0", executable="/v/bin/python"))
    assert told.uv == ("uv pip uninstall --python /v/bin/python peft peft-fork",
                       "uv pip install --python /v/bin/python --reinstall peft")  # fmt: skip
    assert told.colab == ("%pip uninstall -y peft peft-fork", "%pip install peft", RESTART)


def test_a_new_package_needs_no_restart():
    assert RESTART not in commands(PIN, environment("transformers==4.40.2")).colab


@pytest.mark.parametrize(
    "here, build",
    [(environment("torch==2.5.0+cpu"), "cpu"), (environment("torch==2.5.0+cu121"), "cu121"),
     (environment("torch==2.5.0"), None), (environment("x==1", machine=Machine(gpus=())), "cpu"),
     (environment("x==1", machine=Machine(gpus=()), platform="win32"), None),
     (environment("x==1", machine=Machine(gpus=(Gpu("T4"),), driver_cuda="12.5")), "cu124"),
     (environment("x==1", machine=Machine(gpus=(Gpu("T4"),), driver_cuda="13")), "cu130"),
     (environment("torch==2.5.0", platform="darwin", machine=Machine(gpus=())), None)],
)  # fmt: skip
def test_torch_comes_from_the_index_that_has_its_build(here, build):
    change = Change("pin", "Raise torch.", requirements=("torch>=2.6",))
    assert torch_build(change, here) == build
    told = commands(change, here)
    assert ("--torch-backend" in told.uv[0], "download.pytorch.org" in told.pip[0]) == (bool(build), bool(build))
    assert build is None or (f"--torch-backend={build}" in told.uv[0] and f"/whl/{build} " in told.colab[0])
    assert torch_build(PIN, here) is None


def test_a_build_that_is_named_is_taken():
    change = Change("pin", "Raise torch.", requirements=("torch==2.7.0+cu128",))
    assert torch_build(change, environment("torch==2.5.0+cpu")) == "cu128"


def test_other_kinds_are_shell_lines():
    here = environment("x==1")
    system = Change("system", "Install libnuma.", commands=("sudo apt-get install -y libnuma1",))
    assert commands(system, here) == Commands(
        uv=system.commands, pip=system.commands, colab=("!sudo apt-get install -y libnuma1",)
    )
    variable = Change("environment", "Set.", environment=(("A", "1 2"), ("B", "")))
    assert commands(variable, here) == Commands(
        uv=("export A='1 2'", "unset B"), pip=("export A='1 2'", "unset B"),
        colab=("%env A=1 2", "import os; os.environ.pop('B', None)"),
    )  # fmt: skip
    assert commands(Change("restart", "Restart."), here).colab == (RESTART,)
