"""`python serve.py` in a process of its own: what it says, what it refuses, that it ends when it is told to."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("google.protobuf")

from config import ConfigParser
from config.config_classes import key_types
from config.service_config import ServiceConfig
from constants import CONFIG_PATH
from llm import base_model
from service.command_line import _name_of, main
from service.local_service import running
from service.service_limits import ServiceLimits
from service.web.front import Front
from service.web.loopback_server import LoopbackServer

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def forget_settings():
    yield
    ConfigParser.reset()


def start(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "serve.py", "--model", "tiny", "--port", "0", "--folder", str(folder), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_serves_until_it_is_stopped(tmp_path):
    with start(tmp_path, "--name", "org/small") as process:
        first = process.stdout.readline()
        url = re.fullmatch(r"serving org/small at (http://127\.0\.0\.1:\d+) \(any key will do\)\n", first)[1]
        with urllib.request.urlopen(f"{url}/api/v1/get_server_capabilities", timeout=30) as answer:
            (model,) = json.load(answer)["supported_models"]
        assert model["model_name"] == "org/small" and model["max_context_length"] == 2048
        with urllib.request.urlopen(f"{url}/healthz", timeout=30) as answer:
            assert json.load(answer) == {"status": "ok"}
        with start(tmp_path, "--name", "org/small") as second:
            out, told = second.communicate(timeout=60)
        assert second.returncode == 2 and out == "" and "Traceback" not in told
        assert f"is in use by a service (process {process.pid} on " in told and f"at {url}" in told
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        told, errors = process.stdout.read(), process.stderr.read()
    assert errors == ""
    assert f"TINKER_BASE_URL={url}" in told and f"OPENAI_BASE_URL={url}/v1" in told
    assert (tmp_path / "org.small" / "tokenizer" / "tokenizer.json").is_file()
    assert "GET '/healthz' 200" in (tmp_path / "access.log").read_text()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (
            ["--host", "0.0.0.0"],
            "--host 0.0.0.0 lets other machines reach the service: give it a key too, such as --api-key",
        ),
        (["--api-key", "secret"], "--api-key must be ASCII and begin with tml-"),
        (["--api-key", "tml-a b"], "--api-key may have letters, digits, - and _"),
        (["--port", "99999", "--adapters", "0"], "--adapters '0': must be an integer greater than 0"),
        (["--rank-maks", "8"], "there is no option --rank-maks; did you mean --rank-max?"),
        (["rank_max=8"], "rank_max=8 is no option; did you mean --rank-max 8?"),
        (["--served-model-name=x"], "there is no option --served-model-name; did you mean --name x?"),
        (["tiny"], "'tiny' is one word too many: settings are written --name VALUE"),
        (["--model", "/no/such/folder"], "model = /no/such/folder: there is no such file or folder"),
        (["--model", "tinny"], "Did you mean tiny?"),
        (["--device", "cuda:77"], "device = cuda:77 can't be used here"),
        (["--host", "192.0.2.1", "--api-key", "tml-x"], "--host 192.0.2.1 is no address of this machine"),
    ],
)
def test_what_it_refuses(tmp_path, words, told, monkeypatch, capsys):
    pytest.importorskip("starlette")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    try:
        code = main(["--model", "tiny", "--port", "0", "--folder", str(tmp_path), *words])
    except SystemExit as ended:  # argparse's way
        code = ended.code
    out, errors = capsys.readouterr()
    assert code == 2 and out == ""
    assert errors.startswith("error: ") and told in errors and "Traceback" not in errors


def test_a_port_that_is_taken_is_told_before_the_model_is_loaded(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("llm.base_model.load", lambda *_: pytest.fail("it loads"))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        assert main(["--model", "tiny", "--folder", str(tmp_path), "--port", port]) == 2
    assert f"127.0.0.1:{port} is in use: stop what serves there, or take --port 0" in capsys.readouterr().err


def test_help_shows_the_values_in_force(tmp_path, capsys):
    (tmp_path / "my.ini").write_text("[Service]\nrank_max = 8\napi_key = tml-secret\n")
    assert main(["--config", str(tmp_path / "my.ini"), "--adapters", "3", "--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "--rank-max VALUE Greatest rank of an adapter. (int > 0; now 8, by default 256)" in told
    assert "now 3, by default 64" in told and "secret" not in told
    for key in key_types(ServiceConfig):
        assert f"--{key.replace('_', '-')} " in told


def test_each_setting_has_a_line_in_config_ini():
    section = CONFIG_PATH.read_text().split("\n[Service]")[1].split("\n[")[0]
    assert re.findall(r"^(\w+) =", section, flags=re.MULTILINE) == list(key_types(ServiceConfig))


def test_it_writes_the_tokenizer_for_clients(tmp_path, capsys):
    words = ["--model", "tiny", "--name", "org/small", "--tokenizer-for", str(tmp_path / "home")]
    assert main(words) == 0
    told = capsys.readouterr().out
    assert f"export HF_HOME={tmp_path}/home HF_HUB_OFFLINE=1" in told and "org/small" in told
    assert list(tmp_path.glob("home/hub/models--org--small/snapshots/*/tokenizer.json"))
    assert main(["--model", "tiny", "--name", "a/b/c", "--tokenizer-for", str(tmp_path / "home")]) == 2
    assert "is no name that a hub has" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "name"), [("tiny", "tiny"), ("ORG/Model-1", "ORG/Model-1"), ("{0}/merged", "merged"),
                        ("{0}/some model.gguf", "some-model")],
)  # fmt: skip
def test_a_model_without_a_name_is_known_by_the_last_part_of_its_path(tmp_path, model, name):
    (tmp_path / "merged").mkdir()
    (tmp_path / "some model.gguf").touch()
    assert _name_of(model.format(tmp_path)) == name


LOOKS = """
import tinker
client = tinker.ServiceClient()
trainer = client.create_lora_training_client(base_model="org/small", rank=4)
sampler = client.create_sampling_client(base_model="org/small")
for each in (trainer, sampler):
    print(each.get_tokenizer().encode("ab", add_special_tokens=False))
"""


@pytest.mark.slow
def test_tinkers_client_finds_the_tokenizer_without_a_network(tmp_path):
    pytest.importorskip("tinker")
    assert main(["--model", "tiny", "--name", "org/small", "--tokenizer-for", str(tmp_path / "home")]) == 0
    with start(tmp_path / "store", "--name", "org/small", "--api-key", "tml-mine") as process:
        url = re.search(r"http://\S+", process.stdout.readline())[0]
        environment = {**os.environ, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "TINKER_TELEMETRY": "0",
                       "TINKER_BASE_URL": url, "TINKER_API_KEY": "tml-mine"}  # fmt: skip
        done = subprocess.run(
            [sys.executable, "-c", LOOKS], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    assert done.stdout == "[97, 98]\n" * 2, done.stderr


def test_a_service_whose_engine_has_died_ends(tmp_path, capsys, monkeypatch):
    """So that whatever watches over it starts it anew."""

    def died(self):
        raise MemoryError("nothing left")

    monkeypatch.setattr("service.sampling.sampling_loop.SamplingLoop._next", died)
    monkeypatch.setattr("threading.excepthook", lambda _: None)
    assert main(["--model", "tiny", "--port", "0", "--folder", str(tmp_path), "--journal", "off"]) == 4
    assert f"the engine's thread has ended; {tmp_path / 'service.log'} says how" in capsys.readouterr().err


def test_checkpoints_for_which_there_is_no_room_are_refused(tmp_path):
    limits = ServiceLimits(checkpoint_bytes=500_000)
    front = Front()
    with LoopbackServer(front) as server, running(base_model.load("tiny"), tmp_path, server.url, front, limits=limits):

        def ask(route, /, **fields):
            body = json.dumps(fields).encode()
            with urllib.request.urlopen(f"{server.url}/api/v1/{route}", body, timeout=60) as answer:
                return json.load(answer)

        session = ask("create_session", tags=[], sdk_version="0")["session_id"]
        lora = {"rank": 1, "train_mlp": False, "train_unembed": False}
        made = ask("create_model", session_id=session, model_seq_id=0, base_model="tiny", lora_config=lora)
        model = ask("retrieve_future", **made)["model_id"]
        told = []
        for number in range(1, 100):
            saved = ask("save_weights", model_id=model, seq_id=number, path=f"s{number}")
            told.append(ask("retrieve_future", request_id=saved["request_id"]))
            if "error" in told[-1]:
                break
        assert len(told) > 1 and "path" in told[-2]
        assert re.search(
            r"checkpoints take \S+ GB of the 0.0005 GB that they may \(checkpoints_gb\)", told[-1]["error"]
        )
        kept = sum(file.stat().st_size for file in (tmp_path / "checkpoints").rglob("*") if file.is_file())
        assert kept <= 500_000
