"""`python doctor.py run -- COMMAND`: output passes through, signals too, and a failure is diagnosed."""

import os
import signal
import subprocess
import sys

from doctor_program import ROOT, apart
from patients import Patient

from doctor.commands.command_python import python_of


def test_what_passes_is_passed_through(tmp_path):
    code = "import sys; sys.stdout.write('out'); sys.stderr.write('err'); print(sys.stdin.read())"
    answer = apart("run", "--", sys.executable, "-c", code, cwd=tmp_path, stdin="given")
    assert (answer.code, answer.out, answer.err) == (0, "outgiven\n", "err")


def test_a_failure_is_diagnosed_with_the_python_that_the_command_used(tmp_path):
    patient = Patient(tmp_path / "v")
    patient.install("peft", "0.14.0")
    (tmp_path / "app.py").write_text("print('begun')\nimport cv2\n")
    answer = apart("run", "--json", "--", patient.python, "app.py", cwd=tmp_path)
    assert answer.code == 1 and "begun" in answer.err and "No module named 'cv2'" in answer.err
    assert answer.json["facts"]["packages"] == {"peft": "0.14.0"}
    assert answer.json["findings"][0]["branch"] == "import/not_installed"
    told = apart("run", patient.python, "app.py", cwd=tmp_path)
    assert told.out == "begun\n" and "opencv-python" in told.err and "(exit code 1)" in " ".join(told.err.split())


def test_a_file_beside_the_script_that_hides_a_module_is_found(tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "app.py").write_text("from random import choice\n")
    (tmp_path / "inner" / "random.py").write_text("x = 1\n")
    answer = apart("run", "--json", "--", Patient(tmp_path / "v").python, "inner/app.py", cwd=tmp_path)
    assert answer.code == 1 and answer.json["findings"][0]["branch"] == "import/shadowed"


def test_a_command_that_is_stopped_is_not_diagnosed(tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    words = [sys.executable, str(ROOT / "doctor.py"), "run", "--", sys.executable, "-c", code]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as doctor:
        child = int(doctor.stdout.readline())
        doctor.send_signal(signal.SIGTERM)
        out, err = doctor.communicate(timeout=20)
    assert doctor.returncode == 128 + signal.SIGTERM and out == "" and err == ""
    assert not os.path.exists(f"/proc/{child}")


def test_a_command_that_a_signal_kills_says_how(tmp_path):
    python = Patient(tmp_path / "v").python
    answer = apart("run", "--json", "--", python, "-c", "import os; os.kill(os.getpid(), 9)", cwd=tmp_path)
    assert answer.code in (1, 3) and "exit code 137" in answer.json["about"]


def test_which_python_a_command_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bin").mkdir()
    (tmp_path / ".venv").mkdir()
    (tmp_path / "a.py").write_text("")
    for name, head in (
        ("tool", f"#!{tmp_path}/v/bin/python\n"),
        ("long", f"#!/bin/sh\n'''exec' \"{tmp_path}/v/bin/python3.11\" \"$0\"\n"),
        ("shell", "#!/bin/sh\n"),
    ):
        (tmp_path / "bin" / name).write_text(head)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    assert python_of(["tool", "x"]).python == f"{tmp_path}/v/bin/python"
    assert python_of(["long"]).python == f"{tmp_path}/v/bin/python3.11"
    assert python_of(["shell"]).python is None
    assert python_of(["nosuch"]).python is None
    assert python_of(["uv", "run", "a.py"]).python == str(tmp_path / ".venv")
    assert python_of(["uv", "run", "--with", "x", "a.py"]).python is None
    wrapped = python_of(["nice", "-n", "5", "env", "A=1", sys.executable, "a.py"])
    assert (wrapped.python, wrapped.folder) == (sys.executable, str(tmp_path))
    assert python_of([sys.executable, "-m", "a"]).folder is None
