"""Faults of long work, really injected: the runner tells what, where, why, what to do and what to type."""

import json
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest

from tests.workflow.small_workflows import ROOT, call

# Five pieces of work, told one by one; the third is what a step is given.
SCRIPT = """import json, os, pathlib, sys, time, urllib.request
events = open(os.environ["WORKFLOW_EVENTS"], "a")


def ask(path):
    try:
        with urllib.request.urlopen(f"{os.environ['SERVICE']}/{path}", timeout=20) as answer:
            return answer.read()
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"Error code: {error.code} - {error.read().decode()}") from None


for number in range(1, 6):
    if number == 3:
        exec(compile(open(sys.argv[1]).read(), sys.argv[1], "exec"))
    events.write(json.dumps({"done": number, "total": 5, "unit": "examples"}) + "\\n")
    events.flush()
"""
ROWS = '{{"dialogue": "a"}}\n{{"dialogue": "b"}}\n{}\n{{"dialogue": "d"}}\n'
READ = 'for line in open("{}"):\n    print(json.loads(line)["dialogue"])'
SLOWLY = "for loss in ({}):\n    print(f'loss {{loss}}', flush=True)\n    time.sleep(0.3)\ntime.sleep(60)"
DATA, MEMORY, RATE = "not of the form", "memory", "learning rate is too high"
HALVE_BATCH, HALVE_RATE = "Halve batch (16) in training_config.yaml", "Halve rate (0.1) in training_config.yaml"
# Each error twice: what the third piece of work does; the kind; what is in what, where, why and do.
FAULTS = {
    "key_refused": ('ask("401/invalid_api_key")', "key", "Error code: 401", "", "does not know the key", "console"),
    "module_absent": ("import sacrebleu", "module", "No module named 'sacrebleu'", "", "sacrebleu", "Install"),
    "library_absent": (
        'raise ImportError("libGL.so.1: cannot open shared object file: No such file or directory")',
        "module", "libGL.so.1", "", "The system library libGL.so.1 (OpenGL) is missing", "apt libgl1"),
    "connection_503": ('ask("503/overloaded")', "connection", "code: 503", "", "could not be reached", "status page"),
    "connection_dropped": ('ask("drop")', "connection", "RemoteDisconnected", "", "could not be reached", "Nothing"),
    "connection_said": ("sys.exit(75)", "connection", "exit code 75", "", "could not be reached", "Nothing is lost"),
    "loss_nan": ('print("step 3/5 loss nan", flush=True)\ntime.sleep(60)', "nan", "loss is nan", "", RATE, HALVE_RATE),
    "loss_explodes": (SLOWLY.format("2.0, 1.0, 50, 60, 70"), "nan", "10 times its best, 1", "", RATE, HALVE_RATE),
    "checkpoint_folder": (
        'pathlib.Path("checkpoints").write_text("")\npathlib.Path("checkpoints/000003").mkdir(parents=True)',
        "checkpoint", "checkpoints", "", "A checkpoint was not written", "is a folder and may be written"),
    "checkpoint_refused": (
        'try:\n    ask("500/storage_is_full")\nexcept RuntimeError as error:\n'
        '    raise RuntimeError("checkpoint 000003 could not be saved") from error',
        "checkpoint", "checkpoint 000003 could not be saved", "", "A checkpoint was not written", "the newest one"),
    "checkpoint_lacks": (
        'pathlib.Path("saved/step-000003").mkdir(parents=True)', "checkpoint",
        "saved has no checkpoint of step 5; there are 3", None, "A checkpoint was not written", "the newest one"),
    "memory_none": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))\nbytearray(2**33)",
        "memory", "MemoryError", "", "does not fit into the memory", HALVE_BATCH),
    "memory_killed": ("os.kill(os.getpid(), 9)", "memory", "it was killed (137)", "", "want of memory", HALVE_BATCH),
    "quota_402": ('ask("402/Payment_required")', "quota", "Error code: 402", "", "no money or no quota", "Add credit"),
    "quota_429": (
        'ask("429/insufficient_quota:_you_exceeded_your_current_quota")', "quota", "insufficient quota", "",
        "no money or no quota", "Add credit"),
    "data_cut": (
        READ.format("cut.jsonl"), "data", "JSONDecodeError", "cut.jsonl:3: no JSON: ", DATA, "Mend"),
    "data_columns": (
        READ.format("other.jsonl"), "data", "KeyError: 'dialogue'", "other.jsonl:3: it has no dialogue; it has dialog",
        DATA, "Mend the row"),
    # A mistake of a script's own is not begun again and again because it had once lost its connection.
    "mistake": (
        'print("ConnectionError: retrying (429 too many requests)")\nraise ValueError("a mistake")',
        "unknown", "ValueError: a mistake", "", "own error", "Mend the script"),
}  # fmt: skip
COMES_BACK = 'ask("back")'
# Steps that can't begin: what they need, and what is told.
LACKS = {
    "key_missing": ("variables: [LACKING_API_KEY]", "LACKING_API_KEY is not set", "Write it into .env"),
    "key_placeholder": (
        "variables: [SAMPLE_API_KEY]",
        "SAMPLE_API_KEY is not well-formed: it is a placeholder",
        ".env",
    ),
    "key_cut": (
        "variables: [CUT_API_KEY]",
        "CUT_API_KEY is not well-formed: it has blanks",
        ".env",
    ),
    "key_of_another": ("service: true", "TINKER_API_KEY is not well-formed: keys of Tinker begin with tml-", "console"),
    "package": ("packages: ['tinker>=0.38']", "tinker>=0.38 is not installed", "Install what is lacking"),
    "python": ("python: '>=4'", "Python >=4 is needed", "Make a .venv"),
}
ENV = "SAMPLE_API_KEY=your-key-here\nCUT_API_KEY=tml-01234 56789\nTINKER_API_KEY=sk-0123456789abcdef\n"


class Service(BaseHTTPRequestHandler):
    """Answers each path with the status that it names; of /drop it hangs up, of /back it does so twice."""

    asked: ClassVar[Counter[str]] = Counter()

    def do_GET(self):
        status, _, message = self.path.strip("/").partition("/")
        self.asked[status] += 1
        if status == "drop" or (status == "back" and self.asked[status] < 3):
            self.connection.close()
            return
        self.send_response(200 if status == "back" else int(status))
        self.end_headers()
        self.wfile.write(json.dumps({"error": message.replace("_", " ")}).encode())

    def log_message(self, *words):
        pass


def written(folder, steps: dict[str, tuple[str, str, str]]) -> None:
    """Write a workflow of steps, each a fault, what it needs and its checks."""
    lines = ["schema: 1", "name: faulty", "title: Faults", "preset: cpu", "settings: [training_config.yaml]",
             "presets: {cpu: {model: tiny}}", "steps:"]  # fmt: skip
    for number, (name, (fault, needs, checks)) in enumerate(steps.items(), 1):
        (folder / f"{name}.py").write_text(fault)
        lines.append(
            f"  - {{number: {number}, name: {name}, title: {name}, category: data, "
            f'command: "python work.py {name}.py {{batch}} {{rate}}", needs: {{{needs}}}, checks: [{checks}], '
            f"watch: {{loss: true}}, retry: {{minutes: {5 if name == 'comes_back' else 0.03}}}}}"
        )
    (folder / "workflow.yaml").write_text("\n".join([*lines, ""]))
    (folder / "training_config.yaml").write_text("cpu: {batch: 16, rate: 0.1}\n")
    (folder / "work.py").write_text(SCRIPT)


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """One run of all faults; the project's own environment is empty, and the doctor has read it in no time."""
    folder = tmp_path_factory.mktemp("faulty")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / ".venv")], check=True)
    (folder / "cut.jsonl").write_text(ROWS.format('{"dialogue": "Wh'))
    (folder / "other.jsonl").write_text(ROWS.format('{"dialog": "What?"}'))
    (folder / ".env").write_text(ENV)
    checks = {"checkpoint_lacks": "{checkpoints: {folder: saved, steps: [3, 5]}}"}
    needs = {"data_cut": "files: [cut.jsonl]", "data_columns": "files: [other.jsonl]"}
    steps = {name: (fault[0], needs.get(name, ""), checks.get(name, "")) for name, fault in FAULTS.items()}
    steps |= {"comes_back": (COMES_BACK, "", "")} | {name: ("", lacks[0], "") for name, lacks in LACKS.items()}
    written(folder, steps)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        variables = {"SERVICE": f"http://127.0.0.1:{server.server_address[1]}"}
        code, _, err = call(folder, "run", "--parallel", "3", **variables)
    finally:
        server.shutdown()
        server.server_close()
    journal = [json.loads(line) for line in (folder / ".workflow" / "journal.jsonl").read_text().splitlines()]
    kinds = {name: [event["failure"] for event in journal if event["kind"] == "failed" and event["step"] == number]
             for number, name in enumerate(steps, 1)}  # fmt: skip
    return folder, code, err, kinds


def part(err: str, name: str) -> str:
    """Return what was told of the end of a step."""
    found = re.search(rf"^\[Step \d+/\d+\] {name}: (?:failed|can't begin)\n((?: .*\n)+)", err, re.MULTILINE)
    assert found, err
    return found[1]


def told(text: str, word: str) -> list[str]:
    """Return what is told under a word: what, where, why, do, type, then."""
    return re.findall(rf"^    {word} +(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_told_with_what_helps(ran, name):
    _, code, err, kinds = ran
    _, kind, what, place, why, do = FAULTS[name]
    text = part(err, name)
    assert code == 1 and kinds[name][-1] == kind, text
    assert len(told(text, "what")) == 1 and what in told(text, "what")[0], text
    assert why in told(text, "why")[0] and any(do in line for line in told(text, "do")), text
    assert told(text, "then")[0].endswith(f"{ROOT / 'workflow.py'} run"), text
    assert told(text, "log")[0].startswith(".workflow/logs/"), text
    if place is not None:
        where = told(text, "where")[0]
        assert "example 2 of 5" in where and place in where, where
        # Where Python says no line of the script's, since it was ended from outside, it is the script alone.
        ended = kind == "nan" or name in ("memory_killed", "connection_said")
        assert re.match(r"work\.py, " if ended else r"\w+\.py:\d+, ", where), where
    waits = kind == "connection"
    assert (len(kinds[name]) > 1) is waits and ("it was waited for" in told(text, "what")[0]) is waits, text


def test_what_to_type_is_the_doctors(ran):
    folder, _, err, _ = ran
    python = folder / ".venv" / "bin" / "python"
    assert told(part(err, "module_absent"), "type") == [f"uv pip install --python {python} sacrebleu"]
    assert told(part(err, "library_absent"), "type") == ["apt-get install -y libgl1"]
    assert told(part(err, "package"), "type") == [f"uv pip install --python {python} 'tinker>=0.38'"]
    assert told(part(err, "key_missing"), "type") == [f"echo 'LACKING_API_KEY=...' >> {folder / '.env'}"]


@pytest.mark.parametrize("name", LACKS)
def test_what_a_step_lacks_is_told_before_it_begins(ran, name):
    folder, _, err, kinds = ran
    _, what, do = LACKS[name]
    text = part(err, name)
    assert kinds[name] == ["prerequisite"] and what in told(text, "what")[0], text
    assert any(do in line for line in told(text, "do")) and told(text, "then"), text
    assert not list((folder / ".workflow" / "logs").glob(f"*_{name}.log"))
    assert "0123456789abcdef" not in err and "56789" not in text


def test_a_connection_that_comes_back_is_gone_on_with(ran):
    """Dropped twice, then there: nobody has to do anything."""
    _, _, err, kinds = ran
    assert kinds["comes_back"] == ["connection", "connection"]
    assert "comes_back: http.client.RemoteDisconnected" in err and "begun again in 2 s" in err
    assert re.search(r"comes_back: done in", err)


def test_a_service_that_does_not_answer_is_waited_for_before_a_step_begins(tmp_path):
    written(tmp_path, {"asks": ("", "service: true", "")})
    variables = {"TINKER_BASE_URL": "http://127.0.0.1:9", "TINKER_API_KEY": "tml-local"}
    code, _, err = call(tmp_path, "run", **variables)
    assert code == 1 and "http://127.0.0.1:9 does not answer: Connection refused; looked at again in 1 s" in err
    assert "Nothing is lost" in part(err, "asks")
    assert call(tmp_path, "run")[0] == 0, "without an address and a key a step begins a service of its own"


def test_an_environment_whose_python_is_gone_is_told(tmp_path):
    written(tmp_path, {"works": ("", "", "")})
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    os.symlink("/nowhere/python3", tmp_path / ".venv" / "bin" / "python")
    code, _, err = call(tmp_path, "run")
    assert code == 3 and ".venv has no Python, or one that is gone. Make it anew: python3 -m venv --clear" in err
