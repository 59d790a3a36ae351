"""A language model chooses what is done next: asked once, obeyed where that is possible, and else the rules go on."""

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from tuning_tasks import ROOT, make_task, tune
from warm_python import run_python

pytest.importorskip("langgraph")

from agents.brain.language_model import choice_of


@pytest.mark.parametrize(("text", "wanted"), [
    ('{"action": "train", "reason": "nothing yet."}', ("train", "nothing yet")),
    ('Well, {"action": "finish"} it is.', ("finish", "it gave no reason")),
    ('{broken} {"action": "train", "reason": ["a", "b"]}', ("train", "['a', 'b']")),
    ('{"action": "delete", "reason": "x"}', "named 'delete', which is not possible"),
    ("train", "answered no JSON object with an action"),
])  # fmt: skip
def test_only_what_is_possible_is_chosen(text, wanted):
    choice, why = choice_of(text, ["finish", "train"])
    assert (choice.action, choice.reason) == wanted if isinstance(wanted, tuple) else (choice, why) == (None, wanted)


class Stub:
    """An endpoint of OpenAI's protocol that answers what it is told to, and keeps what it was asked."""

    def __init__(self, *answers: str) -> None:
        stub, self.asked, left = self, [], list(answers)

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stub.asked.append(
                    (self.headers["Authorization"], json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                )
                said = left.pop(0) if len(left) > 1 else left[0]
                if said == "late":
                    stub.late.wait(60)
                message = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
                body = json.dumps(
                    {"choices": [message], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
                ).encode()
                try:
                    self.send_response(200)
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # nobody waits any more

            def log_message(self, *words: object) -> None: ...

        self.late = threading.Event()
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def run(folder: Path, **environment: str) -> dict:
    done = run_python([ROOT / "tune.py", "run", "--yes"], folder, environment)
    assert done.returncode == 0, done.stderr
    return json.loads(tune("status", "--json", folder=folder).stdout)["state"] | {"told": done.stdout}


def led(tmp_path: Path, address: str) -> Path:
    folder = make_task(tmp_path)
    task = folder / "task.yaml"
    task.write_text(f"{task.read_text()}brain: {{endpoint: {{address: '{address}', model: m, key: BRAIN_KEY}}}}\n")
    return folder


def test_it_is_asked_once_and_obeyed(tmp_path):
    stub = Stub('{"action": "train", "reason": "begin"}', '{"action": "finish", "reason": "good enough for me"}')
    folder = led(tmp_path, stub.address)
    state = run(folder, BRAIN_KEY="secret")
    assert len(state["rounds"]) == 1 and state["stop"] == "good enough for me (m)"
    assert [key for key, _ in stub.asked] == ["Bearer secret", "Bearer secret"]
    told = stub.asked[1][1]["messages"][1]["content"]
    assert "Found: underfitting" in told and "- change: propose the change for underfitting" in told
    assert "secret" not in "".join(path.read_text() for path in (folder / ".tune" / "effects").glob("*brain*/*.json"))
    # What it said is kept: a fork from the same step asks anew, a repeat of the run nothing.
    run(folder, BRAIN_KEY="secret")
    assert len(stub.asked) == 2


def test_where_it_is_wrong_or_late_or_gone_the_rules_go_on(tmp_path):
    stub = Stub("I would rather not say", "late", '{"action": "delete", "reason": "why not"}')
    folder = led(tmp_path, stub.address)
    state = run(folder, BRAIN_KEY="x", TUNE_BRAIN_SECONDS="1")
    stub.late.set()
    # As the rules alone: three rounds, of 4, 8 and 16 epochs.
    assert [each["settings"]["epochs"] for each in state["rounds"]] == ["4", "8", "16"]
    results = [
        json.loads(path.read_text()) for path in sorted((folder / ".tune" / "effects").glob("*brain/result.json"))
    ]
    assert results[0]["text"] == "I would rather not say" and "timed out" in results[1]["error"]
    assert "named 'delete', which is not possible" in state["told"]
    assert len(stub.asked) == 3  # the end of the budget is nobody's choice


@pytest.mark.slow
def test_our_own_service_may_choose(tmp_path):
    pytest.importorskip("transformers")
    words = [sys.executable, str(ROOT / "serve.py"), "--model", "tiny", "--port", "0", "--folder", str(tmp_path / "s")]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        line = next(line for line in process.stdout if "http://127.0.0.1:" in line)
        address = "http://127.0.0.1:" + line.split("http://127.0.0.1:")[1].split()[0] + "/v1"
        folder = led(tmp_path, address)
        task = folder / "task.yaml"
        task.write_text(task.read_text().replace("model: m,", "model: tiny,"))
        state = run(folder, BRAIN_KEY="any")
    finally:
        process.terminate()
        process.communicate()
    # Its weights are random: it says nothing that can be done, and the rules do.
    assert len(state["rounds"]) == 3 and "answered no JSON object with an action" in state["told"]
