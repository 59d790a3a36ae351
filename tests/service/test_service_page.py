"""What docs/service.md shows is run as a reader would: its Python in one process, its curl in a shell."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tinker")
pytest.importorskip("openai")

from doc_pages import blocks_of

from llm import base_model
from service.local_service import serve

PAGE = "docs/service.md"


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """The variables that a reader has set; the small model stands in for SmolLM2."""
    with serve(base_model.load("tiny"), tmp_path_factory.mktemp("store"), "smollm2") as service:
        (exports,) = [block.text for block in blocks_of(PAGE) if "export TINKER_BASE_URL" in block.text]
        words = [word.partition("=") for line in exports.splitlines() for word in line.split()[1:]]
        told = {name: value.replace("http://127.0.0.1:8123", service.url) for name, _, value in words}
        yield {**os.environ, **told, "TINKER_TELEMETRY": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def served(language: str) -> list[str]:
    return [block.text for block in blocks_of(PAGE) if block.language == language and block.note("served")]


@pytest.mark.slow
def test_its_python_runs(environment, tmp_path):
    code = "\n".join(served("python"))
    assert "import tinker" in code and "from openai import OpenAI" in code
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    losses = [float(line.split()[1]) for line in done.stdout.splitlines()[:6]]
    assert losses[-1] < losses[0]
    assert "/weights/step-10" in done.stdout and "/sampler_weights/pig-latin-1" in done.stdout


def test_its_curl_runs(environment, tmp_path):
    commands = "\n".join(served("sh"))
    told = [
        subprocess.run(["bash", "-ec", line], cwd=tmp_path, env=environment, capture_output=True, text=True).stdout
        for line in commands.splitlines()
        if line
    ]
    words = ('"choices"', '"smollm2"', '"ok"', '"policy"', '"policy"', '"deleted":true')
    assert [word in text for word, text in zip(words, told, strict=True)] == [True] * len(words)
