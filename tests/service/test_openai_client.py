"""OpenAI's protocol through unmodified clients: the newest of OpenAI's; others in environments of their own.

openai 3.57 and 1.109, 3.51 (slow)   openai_client_checks: answers, streams, completions, echo, biases and penalties,
                                     forms, tools, errors, clients at the same time
LangChain's ChatOpenAI (slow)        langchain_client_checks: invoke, stream, batch, structured output, tools
agentlightning 1.0.2 (slow)          agentlightning_gateway_checks: its gateway, which knows one model and no key
agentlightning 0.3.0 (slow)          agentlightning_trainer_checks: its trainer, whose tracer takes ids off answers
"""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")
pytest.importorskip("llguidance")

import openai_client_checks
from client_environments import client_python
from tinker_calls import PROMPT, Calls, rows

from llm import base_model
from service.local_service import serve

HERE = Path(openai_client_checks.__file__).parent


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(base_model.load("tiny"), tmp_path_factory.mktemp("store"), "org/tiny") as service:
        yield service


@pytest.fixture(scope="module")
def checkpoints(served) -> list[str]:
    """Two checkpoints of a model, with a step of training between them."""
    calls = Calls(served.url)
    model = calls.model(base_model="org/tiny", lora_config={"rank": 4})
    first = calls.save(model, 1, "first", sampler=True)
    given = {"data": rows(*PROMPT), "loss_fn": "cross_entropy"}
    calls.post("forward_backward", model_id=model, seq_id=2, forward_backward_input=given)
    calls.post("optim_step", model_id=model, seq_id=3, adam_params={"learning_rate": 1e-3})
    return [first, calls.save(model, 4, "second", sampler=True)]


@pytest.mark.parametrize("check", openai_client_checks.CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_the_newest_client(served, check):
    check(openai_client_checks.Service(served.url, served.models.name))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["openai==1.109.1", "openai==3.51.0"])
def test_an_older_client(served, tmp_path, version):
    told = run_in(tmp_path, "openai_client_checks.py", served, [served.models.name], version)
    held = [line for line in told.splitlines() if version.replace("==", " ") in line and " holds " in line]
    assert len(held) == len(openai_client_checks.CHECKS)


@pytest.mark.slow
def test_langchain(served, tmp_path):
    assert " holds" in run_in(tmp_path, "langchain_client_checks.py", served, [served.models.name],
                              "langchain-openai==1.7.4")  # fmt: skip


@pytest.mark.slow
def test_the_gateway_of_agentlightning(served, checkpoints, tmp_path):
    """It asks for Python 3.12, and runs with 3.11."""
    pytest.importorskip("tinker")
    told = run_in(tmp_path, "agentlightning_gateway_checks.py", served, ["policy", *checkpoints],
                  "--ignore-requires-python", "agentlightning==1.0.2")  # fmt: skip
    assert " holds" in told
    own = tmp_path / "client" / "bin" / "python"
    told = run_example(sys.executable, "agentlightning_1", served, "--agentlightning", own)
    assert re.search(r"^after: reward [\d.]+ \+- [\d.]+ of 4 held-out tasks$", told, re.MULTILINE), told


@pytest.mark.slow
def test_the_trainer_of_agentlightning(served, checkpoints, tmp_path):
    assert " holds" in run_in(tmp_path, "agentlightning_trainer_checks.py", served, checkpoints,
                              "agentlightning==0.3.0", "tinker", alone=True)  # fmt: skip
    told = run_example(tmp_path / "client" / "bin" / "python", "agentlightning_0_3", served)
    assert re.search(r"^after: reward [\d.]+ \+- [\d.]+ of 4 held-out tasks$", told, re.MULTILINE), told


def test_the_two_protocols_sample_the_same(served, checkpoints):
    """Of one checkpoint, prompt and seed: ids and logprobs, sample by sample, and those of a forward pass."""
    calls, service = Calls(served.url), openai_client_checks.Service(served.url, checkpoints[0])
    asked = calls.post(
        "asample", model_path=checkpoints[0], num_samples=3, prompt={"chunks": [{"tokens": PROMPT}]},
        sampling_params={"max_tokens": 8, "seed": 11, "temperature": 1.0},
    )  # fmt: skip
    sampled = calls.result(asked["request_id"])["sequences"]
    answer = service.completion(prompt=PROMPT, n=3, seed=11, temperature=1.0, logprobs=0, **openai_client_checks.IDS)
    assert [each["tokens"] for each in sampled] == [choice.token_ids for choice in answer.choices]
    for each, choice in zip(sampled, answer.choices, strict=True):
        assert choice.logprobs.token_logprobs == pytest.approx(each["logprobs"], abs=1e-4)
        read = service.completion(prompt=PROMPT + choice.token_ids, max_tokens=0, echo=True, logprobs=0)
        assert read.choices[0].logprobs.token_logprobs[len(PROMPT) :] == pytest.approx(each["logprobs"], abs=1e-3)


def run_in(folder: Path, script: str, served, words: Sequence[str], *packages: str, alone: bool = False) -> str:
    """Run a script in a new environment with packages, over those that are here or alone; returns what it told."""
    python = client_python(folder, *packages, alone=alone)
    done = subprocess.run(
        [python, "-W", "ignore", HERE / script, served.url, *words], cwd=folder, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def run_example(python: str | Path, name: str, served, *words: str | Path) -> str:
    """Run a loop of the examples for an epoch of two rollouts, as a user does; returns what it told."""
    script = HERE.parent.parent / "examples" / name / "train_agent.py"
    done = subprocess.run(
        [python, script, "--model", served.models.name, "--epochs", "1", "--tasks", "1", "--group", "2", *words],
        capture_output=True, text=True, timeout=900,
        env=os.environ | {"OMP_NUM_THREADS": "1", "TINKER_BASE_URL": served.url, "TINKER_API_KEY": "tml-local"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
