"""The loop by the Tinker SDK: what it learns from, on paper; and that it learns, against a service, in both ways."""

import argparse
import random
import re
import sys
from pathlib import Path

import httpx
import pytest

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("tinker")

from openai import OpenAI
from warm_python import run_python

from llm.base_model import load
from service.local_service import serve

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
AGENT = '''
"""Two turns, each of one letter: small ones are rewarded. A task in ten fails."""

def tasks(split):
    return [{"number": number} for number in range(6 if split == "val" else 10)]

def letters(task, client):
    messages, small = [{"role": "user", "content": "a letter"}], 0
    for _ in range(2):
        answer = client.chat.completions.create(model="any", messages=messages, max_tokens=1)
        said = answer.choices[0].message.content or ""
        small += said.islower()
        messages += [{"role": "assistant", "content": said}, {"role": "user", "content": "another"}]
    if task["number"] == 9:
        raise ValueError("no such task")
    return {"reward": small / 2}
'''


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import train_with_tinker

        yield train_with_tinker
    for name in ("train_with_tinker", "tinker_extras"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    with serve(load("tiny"), tmp_path_factory.mktemp("store"), "tiny", keep=False) as service:
        yield service


def test_turns_that_go_on_are_one_row_and_others_are_apart(script):
    """Prompts, and what tools said, have no log-probability; the same prompt twice is two rows."""
    first, on, edited = ([1, 2], [3], [-0.5]), ([1, 2, 3, 9, 9], [4, 5], [-1.0, -2.0]), ([1, 7, 3], [6], [-3.0])
    assert script.rows_of([first, on, edited]) == [
        ([1, 2, 3, 9, 9, 4, 5], [None, None, -0.5, None, None, -1.0, -2.0]),
        ([1, 7, 3, 6], [None, None, None, -3.0]),
    ]
    assert script.rows_of([first, first]) == [([1, 2, 3], [None, None, -0.5])] * 2
    twice = script.rows_of([first, on, on])
    assert [len(ids) for ids, _ in twice] == [7, 7] and len(twice) == 2


def test_advantages_and_the_mean_over_tokens(script):
    sampled = [([1, 2], [3, 4], [-0.5, -1.0])]
    rollouts = [(0, 1.0, sampled), (0, 0.0, sampled), (1, 0.0, sampled), (1, 0.0, sampled)]
    assert script.advantages_of(rollouts, "centred") == [0.5, -0.5, 0.0, 0.0]
    assert script.advantages_of(rollouts, "batch") == [0.75, -0.25, -0.25, -0.25]
    data = script.policy_data([(0.5, rollouts[0]), (-0.5, rollouts[1]), (0.0, rollouts[2])])
    assert len(data) == 2, "what teaches nothing is left out"
    numbers = [{name: list(tensor.data) for name, tensor in row.loss_fn_inputs.items()} for row in data]
    assert data[0].model_input.to_ints() == [1, 2, 3]
    assert numbers[0] == {"target_tokens": [2, 3, 4], "logprobs": [0.0, -0.5, -1.0], "advantages": [0.0, 0.125, 0.125]}
    assert numbers[1]["advantages"] == [0.0, -0.125, -0.125]


def test_what_can_not_be_noted_costs_its_rollout_and_says_so(script, capsys):
    """A stream, which the loop doesn't read; and an agent that returns no reward."""
    policy = object.__new__(script.Policy)
    policy.endpoint, policy.sdk_sampling = OpenAI(base_url="http://127.0.0.1:1/v1", api_key="x"), False

    def streams(task, client):
        client.chat.completions.create(messages=[], stream=True)

    assert policy.play(streams, {}, random.Random(0)) == (None, [])
    assert "ValueError: streams are not noted here; `python train.py Agent` does that" in capsys.readouterr().err
    assert policy.play(lambda task, client: None, {}, random.Random(0)) == (None, [])
    assert "a rollout failed: TypeError: float() argument" in capsys.readouterr().err
    assert policy.play(lambda task, client: float("nan"), {}, random.Random(0)) == (None, [])
    assert "the reward is nan: it must be a finite number" in capsys.readouterr().err


def test_an_agent_that_is_not_there_is_told(script, tmp_path, monkeypatch):
    (tmp_path / "my_agent.py").write_text("def play(task, client):\n    return 0.0\n")
    for agent, told in (("none.py:play", "there is no file 'none.py'"), ("my_agent.py:play", "and tasks(split)")):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [*sys.path])
        with pytest.raises(SystemExit, match=re.escape(told)):
            script.train(argparse.Namespace(agent=agent))
    with pytest.raises(SystemExit, match="nobody answers at TINKER_BASE_URL=http://127.0.0.1:1 .*: start python"):
        script.require_service("http://127.0.0.1:1")


@pytest.mark.parametrize("way", ["endpoint", "sdk"])
@pytest.mark.slow
def test_it_learns_what_is_rewarded(served, tmp_path, way):
    """From random bytes to small letters; agents that fail cost their own rollouts only."""
    (tmp_path / "agents.py").write_text(AGENT)
    words = ["--agent", tmp_path / "agents.py:letters", "--epochs", 6, "--tasks", 10, "--group", 6, "--steps", 2,
             "--learning-rate", 0.02, "--rank", 8, *(["--sdk-sampling"] if way == "sdk" else [])]  # fmt: skip
    done = run_python(
        [EXAMPLES / "train_with_tinker.py", *words], tmp_path,
        {"TINKER_BASE_URL": served.url, "TINKER_API_KEY": "tml-local", "TINKER_TELEMETRY": "0"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    before, after = (
        float(line.split()[2]) for line in done.stdout.splitlines() if line.startswith(("before", "after"))
    )
    assert before < 0.4 and after > 0.75, done.stdout
    assert done.stdout.count("epoch ") == 6 and "of 6 held-out tasks" in done.stdout
    assert "a rollout failed: ValueError: no such task" in done.stderr
    assert "kept as tinker://" in done.stdout
    if way == "endpoint":
        (alias,) = httpx.get(f"{served.url}/v1/aliases").json()["data"]
        assert alias["id"] == "policy" and "/snapshot-8" in alias["model"], "two evaluations and six epochs"
