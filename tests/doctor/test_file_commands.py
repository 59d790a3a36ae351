"""Commands that delete and rename, in the shell of the system that the files lie on."""

import shlex

import pytest

from doctor.diagnosis.file_commands import delete_command, rename_command
from doctor.environment.facts import Environment, Interpreter


def test_bash():
    here = Environment("v", Interpreter("/v/bin/python", "3.11"))
    assert shlex.split(delete_command(here, "/a b", "/c")) == ["rm", "-r", "/a b", "/c"]
    assert rename_command(here, "/x.py", "/my_x.py") == "mv /x.py /my_x.py"


@pytest.mark.parametrize(
    "path, shown", [("C:\\v\\~umpy", "'C:\\v\\~umpy'"), ("C:\\a b", "'C:\\a b'"), ("C:\\v", "C:\\v")]
)
def test_powershell(path, shown):
    here = Environment("v", Interpreter("C:\\v\\python.exe", "3.11", sys_platform="win32"))
    assert delete_command(here, path, path) == "; ".join([f"Remove-Item -Recurse -Force {shown}"] * 2)
    assert rename_command(here, path, "D:\\x") == f"Move-Item {shown} D:\\x"
