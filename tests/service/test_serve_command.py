"""`python serve.py` in a process of its own: what it says, what it refuses, that it ends when it is told to."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("google.protobuf")

ROOT = Path(__file__).resolve().parents[2]


def start(folder: Path, *words: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "serve.py", "--model", "tiny", "--port", "0", "--folder", str(folder), *words],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_it_serves_until_it_is_stopped(tmp_path):
    with start(tmp_path, "--name", "org/small") as process:
        first = process.stdout.readline()
        url = re.fullmatch(r"serving org/small at (http://127\.0\.0\.1:\d+)\n", first)[1]
        with urllib.request.urlopen(f"{url}/api/v1/get_server_capabilities", timeout=30) as answer:
            (model,) = json.load(answer)["supported_models"]
        assert model["model_name"] == "org/small" and model["max_context_length"] == 2048
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        told, errors = process.stdout.read(), process.stderr.read()
    assert errors == ""
    assert f"TINKER_BASE_URL={url}" in told and f"OPENAI_BASE_URL={url}/v1" in told
    assert (tmp_path / "tokenizer" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "--host 0.0.0.0 lets others reach the service: give --api-key too"),
        (["--api-key", "secret"], "--api-key must be ASCII and begin with tml-"),
        (["--port", "99999"], "--port is 99999; allowed are 0"),
        (["--adapters", "0"], "--adapters is 0; allowed are 1 or more"),
        (["--model", "/no/such/folder"], "/no/such/folder"),
    ],
)
def test_what_it_refuses(tmp_path, words, told):
    with start(tmp_path, *words) as process:
        out, errors = process.communicate(timeout=60)
    assert process.returncode == 2 and out == ""
    assert errors.startswith("error: ") and told in errors and "Traceback" not in errors
