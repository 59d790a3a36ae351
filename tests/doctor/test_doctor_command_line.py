"""`python doctor.py` by its door: what it takes, what it answers, what it never shows."""

import os
import re
import subprocess
import sys

import pytest
from doctor_program import ROOT, apart, here
from patients import Patient

_MISSING = 'Traceback (most recent call last):\n  File "app.py", line 1, in <module>\n    import cv2\n{}'
_ERROR = _MISSING.format("ModuleNotFoundError: No module named 'cv2'\n")


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['doctor.py', '--help']\ntry:\n    import doctor.command_line as c; c.main()\n"
        "except SystemExit:\n    pass\n"
        "print([n for n in ('torch', 'numpy', 'yaml', 'packaging', 'doctor.knowledge', "
        "'doctor.diagnosis') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert "plan" in done.stdout and "Exit codes" in done.stdout


def test_an_examination_needs_no_torch(tmp_path):
    code = (
        "import sys; import doctor.command_line as c; code = c.main(['--traceback', 'e.txt', '--json'])\n"
        "print([n for n in ('torch', 'numpy', 'config', 'train') if n in sys.modules], code, file=sys.stderr)"
    )
    (tmp_path / "e.txt").write_text(_ERROR)
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True,
                          env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL)  # fmt: skip
    assert done.stderr.splitlines()[-1] == "[] 1", done.stderr


def test_a_healthy_environment_ends_with_0(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    patient = Patient(tmp_path / "v")
    patient.install("peft", "0.14.0")
    answer = here(capfd, "--python", patient.folder, "--json")
    assert answer.code == 0 and answer.json["status"] == "healthy" and answer.json["schema"] == 1
    assert answer.json["facts"]["packages"] == {"peft": "0.14.0"}
    assert answer.json["facts"]["python"]["version"].startswith(f"{sys.version_info[0]}.{sys.version_info[1]}")
    told = here(capfd, "--python", patient.folder)
    assert "Nothing wrong was found." in told.out and "1 distributions" in told.out


def test_a_traceback_alone_by_file_and_by_pipe(tmp_path):
    (tmp_path / "e.txt").write_text(_ERROR)
    by_file = apart("--traceback", "e.txt", "--json", cwd=tmp_path)
    assert by_file.code == 1 and by_file.json["findings"][0]["branch"] == "import/not_installed"
    assert "opencv-python" in by_file.json["findings"][0]["changes"][0]["requirements"][0]
    for words in (["--traceback", "-"], []):
        by_pipe = apart(*words, "--json", cwd=tmp_path, stdin=_ERROR)
        assert by_pipe.code == 1 and by_pipe.json["findings"] == by_file.json["findings"]
    assert by_file.json["facts"]["source"] == "the text"
    assert any("--python" in note for note in by_file.json["notes"])


def test_a_traceback_with_paths_of_an_environment_here_reads_it_too(tmp_path, capfd):
    patient = Patient(tmp_path / "v")
    patient.install("peft", "0.14.0")
    (tmp_path / "e.txt").write_text(
        f'Traceback (most recent call last):\n  File "{patient.site}/peft/__init__.py", line 1, in <module>\n'
        "    import nosuch_thing\nModuleNotFoundError: No module named 'nosuch_thing'\n"
    )
    answer = here(capfd, "--traceback", tmp_path / "e.txt", "--json")
    assert answer.json["facts"]["packages"] == {"peft": "0.14.0"}
    assert answer.json["facts"]["failure"]["importer"] == "peft"


def test_facts_overrule(tmp_path, capfd):
    answer = here(capfd, "--fact", "torch==2.6.0", "--fact", "gpu=T4", "--fact", "python=3.10", "--fact", "place=colab",
                  "--fact", "system=linux", "--fact", "driver=535.10", "--json")  # fmt: skip
    facts = answer.json["facts"]
    assert facts["declared"] == [{"name": "torch", "specifier": "==2.6.0", "place": "--fact"}]
    assert facts["python"]["version"] == "3.10" and facts["machine"]["container"] == "colab"
    assert facts["machine"]["gpus"][0]["name"] == "T4" and facts["machine"]["driver"] == "535.10"
    assert not answer.json["notes"]


@pytest.mark.parametrize(
    "words, said",
    [
        (["nowhere.txt"], "nowhere.txt is not there"),
        (["--traceback", "nowhere.log"], "there is no such file"),
        (["--traceback", "."], "it is a folder"),
        (["--traceback", "empty.txt"], "it is empty"),
        (["--python", "nowhere"], "nowhere is not there"),
        (["--python", "plain"], "no virtual environment"),
        (["plain"], "no virtual environment"),
        (["--fact", "gpuu=T4"], "did you mean gpu?"),
        (["--fact", "torch=2.6"], "torch==2.6"),
        (["--fact", "place=moon"], "allowed are colab"),
        (["--fact", "python=new"], "a version such as 3.11"),
        (["--trace", "x"], "there is no option --trace"),
        (["binary.txt"], "no text"),
        (["picture.png"], "of no kind that is known"),
        (["--proof", "often"], "none of never, ask, always"),
        (["run"], "no command is given"),
        (["run", "--", "nosuchcommand"], "there is no command nosuchcommand"),
        (["pin", "binary.txt"], "a Python script"),
        (["pin", "broken.py"], "broken.py:1: no Python"),
        (["plan", "colourless", "ideas"], "is understood"),
        (["smoke", "--timeout", "0"], "above 0"),
    ],
)  # fmt: skip
def test_a_mistake_ends_with_2_and_says_what_is_allowed(words, said, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain").mkdir()
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "binary.txt").write_bytes(b"\0\1\2" * 99)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "broken.py").write_text("def f(:\n")
    answer = here(capfd, *words)
    assert answer.code == 2 and said in answer.err, answer.err
    assert "Traceback" not in answer.err and not answer.out


def test_what_nothing_explains_ends_with_3_and_says_what_was_ruled_out(tmp_path, capfd):
    (tmp_path / "e.txt").write_text('Traceback (most recent call last):\n  File "a.py", line 1, in f\nZapError: blip\n')
    answer = here(capfd, "--traceback", tmp_path / "e.txt")
    assert answer.code == 3 and "I don't know" in answer.out and "To tell more, give:" in answer.out
    java = 'Exception in thread "main" java.lang.NullPointerException\n\tat com.x.Main.main(Main.java:5)\n'
    (tmp_path / "e.txt").write_text(java)
    assert here(capfd, "--traceback", tmp_path / "e.txt", "--json").json["status"] == "unknown"
    (tmp_path / "e.txt").write_bytes(os.urandom(4096) + b"\0" * 99)
    assert here(capfd, "--traceback", tmp_path / "e.txt").code == 3


SECRETS = {
    "user:hunter2hunter2": "https://user:hunter2hunter2@example.com/simple",
    "hf_AbCdEfGhIjKlMn1234": "hf_AbCdEfGhIjKlMn1234",
    "sk-proj-abc123def456": "OPENAI_API_KEY=sk-proj-abc123def456",
    "AKIAABCDEFGHIJKLMNOP": "AKIAABCDEFGHIJKLMNOP",
    "s3cr3tpassw0rd": "MY_PASSWORD=s3cr3tpassw0rd",
}


def test_credentials_are_never_shown(tmp_path, capfd, monkeypatch):
    """Neither of a traceback, nor of a file, nor of the environment's variables, in no form of the answer."""
    text = "\n".join(SECRETS.values())
    (tmp_path / "e.txt").write_text(f"{text}\n{_ERROR}{text}\nModuleNotFoundError: No module named 'x' {text}\n")
    (tmp_path / "requirements.txt").write_text(
        f"--index-url {SECRETS['user:hunter2hunter2']}\n"
        f"peft @ {SECRETS['user:hunter2hunter2']}/peft-0.14.0-py3-none-any.whl\n"
        "git+https://hf_AbCdEfGhIjKlMn1234@github.com/a/b.git\ntransformers==4.30.2\ntokenizers==0.15.2\n"
    )
    (tmp_path / "bad.txt").write_text("nonsense ! https://user:hunter2hunter2@example.com hf_AbCdEfGhIjKlMn1234\n")
    (tmp_path / "fail.py").write_text(f"import sys; print({text!r}); import nosuchmodule\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_TOKEN", "hf_AbCdEfGhIjKlMn1234")
    monkeypatch.setenv("PIP_INDEX_URL", SECRETS["user:hunter2hunter2"])
    patient = Patient(tmp_path / "v")
    shown = here(capfd, "--python", patient.folder, "--json", "--verbose").out
    for words in (
        ["--traceback", "e.txt"],
        ["requirements.txt"],
        ["bad.txt"],
        ["requirements.txt", "--traceback", "e.txt"],
    ):
        for style in ([], ["--json"], ["--verbose"], ["--quiet"]):
            answer = here(capfd, *words, *style)
            shown += answer.out + answer.err
    ran = apart("run", "--json", "--", patient.python, "fail.py", cwd=tmp_path)
    shown += ran.out  # what the command itself writes is passed through as it is
    for secret in SECRETS:
        assert secret.split(":")[-1] not in shown, secret
    assert "peft" in shown and "nosuchmodule" in ran.out


def test_a_finding_takes_at_most_a_screen_and_no_colour(tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "requirements.txt").write_text("transformers==4.30.2\ntokenizers==0.15.2\n")
    answer = here(capfd, "requirements.txt")
    lines = answer.out.splitlines()
    assert answer.code == 1 and len(lines) <= 40, answer.out
    assert "\x1b" not in answer.out
    assert max(len(line) for line in lines if "uv" not in line and "pip" not in line) <= 100
    quiet = here(capfd, "requirements.txt", "--quiet")
    assert len(quiet.out.splitlines()) < len(lines) and quiet.code == 1


def test_the_menagerie_command_has_it():
    from commands.menagerie import _COMMANDS

    assert _COMMANDS["doctor"] == "doctor.command_line"


def test_a_script_header_lets_uv_run_it():
    text = (ROOT / "doctor.py").read_text()
    assert re.search(
        r"(?m)^# /// script\n# requires-python = \">=3\.11\"\n# dependencies = \[.*packaging.*pyyaml", text
    )


def test_the_first_change_is_one_that_does_something_and_no_two_move_one_package_one_way(tmp_path, capfd):
    """setuptools is installed: to install it is nothing; a guess about other packages is no way beside what is sure."""
    patient = Patient(tmp_path / "v")
    patient.install("setuptools", "82.0.0")
    patient.install("tensorboard", "2.18.0", requires=("setuptools>=41.0.0", "numpy>=1.12.0"),
                    files={"tensorboard/__init__.py": "import pkg_resources\n"})  # fmt: skip
    (tmp_path / "e.txt").write_text(
        f'Traceback (most recent call last):\n  File "{patient.site}/tensorboard/__init__.py", line 1, in <module>\n'
        "    import pkg_resources\nModuleNotFoundError: No module named 'pkg_resources'\n"
    )
    given = ("--python", patient.folder, "--traceback", tmp_path / "e.txt")
    asked = [change["requirements"] for change in here(capfd, *given, "--json").json["findings"][0]["changes"]]
    assert asked[0] == ["setuptools<82"] and ["setuptools"] not in asked
    told = here(capfd, *given).out
    ways = [line.partition(": ")[2] for line in told.splitlines() if line.startswith(("Do: ", "Or: "))]
    assert ways[0] == "Hold setuptools below 82." and not any("own python" in way for way in ways)
    assert sum("Raise tensorboard" in way for way in ways) <= 1


def test_a_guess_of_other_packages_is_no_way_beside_what_is_sure(tmp_path, capfd):
    patient = Patient(tmp_path / "v")
    patient.install("openai", "1.40.0", requires=("httpx<1,>=0.23.0", "tqdm>4"))
    patient.install("httpx", "0.28.1")
    patient.install("tqdm", "4.70.1")
    (tmp_path / "e.txt").write_text(
        f'Traceback (most recent call last):\n  File "{patient.site}/openai/_base_client.py", line 741, in __init__\n'
        "    super().__init__(**kwargs)\n"
        "TypeError: Client.__init__() got an unexpected keyword argument 'proxies'\n"
    )
    found = here(capfd, "--python", patient.folder, "--traceback", tmp_path / "e.txt", "--json").json["findings"][0]
    assert found["changes"][0]["requirements"] == ["httpx<0.28"]
    assert not any("tqdm" in text for change in found["changes"] for text in (change["text"], *change["requirements"]))


def test_a_pipe_beside_a_file_is_no_failure(tmp_path):
    """`yes | doctor.py FILE --apply` judges the file, and ends."""
    (tmp_path / "r.txt").write_text("transformers==4.30.2\ntokenizers==0.15.2\n")
    piped = apart("r.txt", "--json", "--apply", cwd=tmp_path, stdin=_ERROR)
    assert piped.code == 1 and {one["branch"] for one in piped.json["findings"]} == {"resolve/conflict"}
