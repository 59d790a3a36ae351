"""Workflows of small scripts, by the real command line: run, killed, mended, gone on with."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

WORKFLOW = """schema: 1
name: small
title: Four small steps
preset: few
presets: {few: {rows: 20}, many: {rows: 40}}
steps:
  - number: 1
    name: make
    title: Making rows
    category: data
    command: python make.py {rows}
    needs: {files: [words.txt]}
    produces: [rows.jsonl]
    checks: [{rows: {file: rows.jsonl, exactly: "{rows}"}}]
    estimate: {minutes: "{rows} / 10", tokens_out: "{rows} * 100"}
  - {number: 2, name: left, title: Left, category: data, command: python side.py left,
     needs: {steps: [1], files: [rows.jsonl]}, produces: [left.txt]}
  - {number: 3, name: right, title: Right, category: data, command: python side.py right,
     needs: {steps: [1], files: [rows.jsonl]}, produces: [right.txt]}
  - {number: 4, name: look, title: Looking, category: end, person: true, needs: {steps: [2, 3]}}
"""

# Goes on where it was; waits at a row while a file says so, which lets a test kill it there.
MAKE = """import json, os, pathlib, sys, time
file = pathlib.Path("rows.jsonl")
done = file.read_text().splitlines() if file.exists() else []
total = int(sys.argv[1])
events = open(os.environ["WORKFLOW_EVENTS"], "a")
pathlib.Path("begun").open("a").write(f"{os.getpid()} {len(done)}\\n")
for number in range(len(done), total):
    with file.open("a") as stream:
        stream.write(json.dumps({"n": number, "word": open("words.txt").read().strip()}) + "\\n")
    events.write(json.dumps({"done": number + 1, "total": total, "unit": "rows", "dollars": 0.01 * number}) + "\\n")
    events.flush()
    while number == 10 and pathlib.Path("wait").exists():
        time.sleep(0.02)
"""
SIDE = """import pathlib, sys
name = sys.argv[1]
pathlib.Path(f"{name}.txt").write_text(name + open("rows.jsonl").read())
if pathlib.Path(f"{name}.py").exists():
    exec(compile(open(f"{name}.py").read(), f"{name}.py", "exec"))
"""


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment without packages, which the doctor has read in no time when a step fails."""
    folder = tmp_path_factory.mktemp("bare") / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    return folder


@pytest.fixture
def project(tmp_path, bare):
    (tmp_path / ".venv").symlink_to(bare)
    (tmp_path / "workflow.yaml").write_text(WORKFLOW)
    (tmp_path / "make.py").write_text(MAKE)
    (tmp_path / "side.py").write_text(SIDE)
    (tmp_path / "words.txt").write_text("word")
    return tmp_path


def begin(project: Path, *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, str(ROOT / "workflow.py"), *words], cwd=project, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def call(project: Path, *words: str) -> tuple[int, str, str]:
    process = begin(project, *words)
    out, err = process.communicate()
    assert "Traceback" not in err.replace("Traceback (most recent call last):\\n", "") or "side.py" in err, err
    return process.returncode, out, err


def status(project: Path) -> dict[int, tuple[str, str]]:
    _, out, _ = call(project, "status", "--json")
    return {each["number"]: (each["state"], each["reason"]) for each in json.loads(out)["steps"]}


def until(condition) -> None:
    """Wait for what another process does; a test that waits in vain is stopped from outside."""
    while not condition():
        time.sleep(0.02)


def test_a_workflow_is_planned_run_and_finished_by_a_person(project):
    code, out, _ = call(project, "plan")
    assert code == 0 and "python make.py 20" in out and "2 min, 2,000 tokens written" in out and "4 steps to do" in out
    code, _, err = call(project, "run", "--parallel", "2")
    assert code == 1 and "[Step 1/4] Making rows: done" in err and "ok  rows.jsonl has 20 rows" in err
    assert f"[Step 4/4] Looking: for you to do; then `{sys.executable} {ROOT / 'workflow.py'} step 4 --done`" in err
    assert (project / "left.txt").exists() and (project / "right.txt").exists()
    assert call(project, "step", "4", "--done", "--note", "all well")[0] == 0
    code, _, err = call(project, "run")
    assert code == 0 and "all 4 steps done" in err and "Making rows ..." not in err
    code, out, _ = call(project, "status")
    assert code == 0 and "4 of 4 steps done" in out and "rows.jsonl has 20 rows" in out
    assert call(project, "report")[0] == 0
    report = (project / "RESULTS_REPORT.md").read_text()
    assert "4 of 4 steps done" in report and "| 4 | Looking | done |  |  | all well |" in report
    assert "| dollars | $0.19 |" in report
    page = (project / "report.html").read_text()
    assert "rows.jsonl has 20 rows" in page and "$0.19" in page and "http" not in page

    (project / "words.txt").write_text("other")
    assert status(project)[1] == ("stale", "words.txt has changed") and status(project)[4][0] == "stale"
    (project / "rows.jsonl").unlink()
    code, _, err = call(project, "run", "--until", "3")
    assert code == 0 and "again, since words.txt has changed" in err and "Left: again, since" in err
    assert json.loads((project / "rows.jsonl").read_text().splitlines()[0])["word"] == "other"


def test_code_that_a_script_imports_is_among_what_a_step_is_made_from(project):
    (project / "shared.py").write_text("from deeper import suffix\n")
    (project / "deeper.py").write_text("suffix = ''\n")
    (project / "side.py").write_text("import pathlib, json\ndef use():\n    import shared\n" + SIDE)
    assert call(project, "run", "--until", "3")[0] == 0
    assert {number: state for number, (state, _) in status(project).items()} == {
        1: "done",
        2: "done",
        3: "done",
        4: "waiting",
    }
    (project / "deeper.py").write_text("suffix = '!'\n")
    states = status(project)
    assert states[1][0] == "done" and states[2] == states[3] == ("stale", "deeper.py has changed")
    # A step that was done before code was looked at stays done.
    journal = project / ".workflow" / "journal.jsonl"
    events = [json.loads(line) for line in journal.read_text().splitlines()]
    for event in events:
        event.get("facts", event).get("inputs", {}).pop("deeper.py", None)
    journal.write_text("".join(json.dumps(event) + "\n" for event in events))
    assert status(project)[2][0] == "done"


def test_another_preset_than_that_of_the_last_run_is_told(project):
    (project / "side.py").write_text("raise SystemExit('no')\n")
    _, _, err = call(project, "run", "--preset", "many", "--until", "2")
    assert "then   " in err and "run --preset many --until 2\n" in err and "note:" not in err
    _, out, err = call(project, "status")
    assert err == "note: the last run was with --preset many; this is few, as workflow.yaml has it\n"
    assert "(preset few)" in out
    assert call(project, "status", "--preset", "many")[2] == ""


@pytest.mark.parametrize(
    "number", [signal.SIGKILL, signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_runner_that_is_ended_is_gone_on_with(project, number):
    """Its script is not left behind, and what it had made is not made again."""
    (project / "wait").write_text("")
    process = begin(project, "run")
    until(lambda: (project / "rows.jsonl").exists() and len((project / "rows.jsonl").read_text().splitlines()) == 11)
    until(lambda: status(project)[1][0] == "running")
    process.send_signal(number)
    process.communicate()
    assert process.returncode == (-9 if number == signal.SIGKILL else 128 + number)
    assert status(project)[1] == ("stopped", "it was killed" if number == signal.SIGKILL else "it was stopped")
    (project / "wait").unlink(missing_ok=True)
    first = int((project / "begun").read_text().split()[0])
    if number == signal.SIGKILL:
        (project / "wait").write_text("")  # else it would come to its end meanwhile
        again = begin(project, "run")
        until(lambda: len((project / "begun").read_text().splitlines()) == 2)
        (project / "wait").unlink()
        _, err = again.communicate()
        assert "it was still running without us; ended" in err
    else:
        call(project, "run")
    assert not Path(f"/proc/{first}").exists() or "make.py" not in Path(f"/proc/{first}/cmdline").read_text()
    rows = [json.loads(line)["n"] for line in (project / "rows.jsonl").read_text().splitlines()]
    assert rows == list(range(20)) and int((project / "begun").read_text().split()[3]) == 11
    assert status(project)[2][0] == "done"


@pytest.mark.parametrize(
    ("line", "what", "why"),
    [
        ("raise RuntimeError('CUDA out of memory. Tried to allocate 2 GiB')", "left.py:1", "does not fit"),
        ("import os\nos.kill(os.getpid(), 9)", "it was killed (137)", "want of memory"),
        ("pathlib.Path('left.txt').unlink()", "left.txt: not made", "not what it should be"),
    ],
)
def test_a_failure_is_told_and_others_go_on(project, line, what, why):
    (project / "left.py").write_text(line)
    code, _, err = call(project, "run", "--until", "3")
    assert code == 1 and "[Step 2/4] Left: failed" in err and "Right: done" in err
    assert what in err and why in err and "    do     " in err and ".workflow/logs/02_left.log" in err
    assert status(project)[2][0] == "failed" and status(project)[3][0] == "done"
    (project / "left.py").unlink()
    assert call(project, "run", "--until", "3")[0] == 0


def test_a_lost_connection_is_waited_for(project):
    (project / "left.py").write_text(
        "if not pathlib.Path('back').exists():\n    pathlib.Path('back').write_text('')\n    raise SystemExit(75)"
    )
    code, _, err = call(project, "run", "--until", "3")
    assert code == 0 and "begun again in 1 s" in err and "all 3 steps done" in err


def test_a_loss_that_explodes_stops_the_step(project):
    text = (project / "workflow.yaml").read_text().replace("left,\n", "left, watch: {loss: true},\n")
    (project / "workflow.yaml").write_text(text)
    (project / "left.py").write_text(
        "import time\nfor step in range(1000):\n    loss = [2.0, 1.5, float('nan')][min(step, 2)]\n"
        "    print(f'step {step}/1000 loss {loss}', flush=True)\n    time.sleep(0.05)"
    )
    code, _, err = call(project, "run", "--until", "2")
    assert code == 1 and "the loss is nan at step " in err and "Halve the learning rate" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "nowhere"], "nowhere/workflow.yaml: No such file or directory. Name the folder of a workflow; `"),
        (["run", "--preset", "fiw"], "there is no preset fiw; did you mean few?"),
        (["step", "9"], "there is no step 9; there are 1 to 4"),
        (["step", "4"], "step 4 is a person's: --done when it is"),
        (["step", "4", "--done"], "step 4 can't be done yet: it needs steps 2, 3"),
        (["run", "--from", "4", "--until", "2"], "no step is from 4 until 2"),
        (["run", "--parallel", "0"], "at least one step"),
    ],
)
def test_wrong_words_are_told(project, words, said):
    code, _, err = call(project, *words)
    assert code == 2 and said in err


def test_what_a_step_lacks_is_told_before_it_begins(project):
    text = (project / "workflow.yaml").read_text().replace(
        "files: [words.txt]", "files: [words.txt], variables: [NO_SUCH_KEY], packages: ['no-such-package>=2', numpy]"
    )  # fmt: skip
    (project / "workflow.yaml").write_text(text)
    code, _, err = call(project, "run")
    assert code == 1 and "NO_SUCH_KEY is not set" in err and "no-such-package>=2 is not installed" in err
    assert "pip install" in err and "'no-such-package>=2'" in err and not (project / "begun").exists()
    (project / ".env").write_text("export NO_SUCH_KEY='secret' # mine\n")
    assert "NO_SUCH_KEY" not in call(project, "run")[2]


def test_variables_may_be_those_of_a_preset(project):
    text = (
        (project / "workflow.yaml")
        .read_text()
        .replace("files: [words.txt]", 'files: [words.txt], variables: ["{keys}"]')
    )
    text = text.replace("{rows: 20}", "{rows: 20, keys: []}").replace(
        "{rows: 40}", "{rows: 40, keys: [NO_KEY, NO_URL]}"
    )
    (project / "workflow.yaml").write_text(text)
    code, _, err = call(project, "run", "--preset", "many")
    assert code == 1 and "NO_KEY is not set" in err and "NO_URL is not set" in err
    assert call(project, "run", "--until", "1")[0] == 0


def test_two_runners_are_one_too_many(project):
    (project / "wait").write_text("")
    first = begin(project, "run")
    until(lambda: (project / "begun").exists())
    code, _, err = call(project, "run")
    assert code == 3 and "being run by another process" in err
    (project / "wait").unlink()
    first.communicate()
    assert os.path.exists(project / "left.txt")
