"""What frameworks send, as it was recorded of each: it is understood, and a next turn goes on from the sampled ids.

framework_requests.jsonl has a line for each conversation: who sent it, where to, and the bodies of its requests, in
the second of which the answer to the first comes back with the result of a tool.
"""

import copy
import json
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("llguidance")

import httpx
from client_environments import client_python
from service_models import TOOLS, scripted, serving

from service.sampling.exchange import ExchangeLog

RECORDED = [json.loads(line) for line in Path(__file__).with_name("framework_requests.jsonl").read_text().splitlines()]
CALL = ("Let me see.", "\n<tool_", "call>\n", '{"name": "add", ', '"arguments": {"a": 2, "b": 3}}', "\n</tool_call>")


@pytest.fixture(scope="module")
def served():
    with serving(scripted(*CALL, template=TOOLS), log=ExchangeLog(), names=("gpt-4o-mini",)) as served:
        yield served


def name_of(recorded) -> str:
    first = recorded["bodies"][0]
    return f"{recorded['client']} {recorded['path'].split('/')[2]}{' stream' if first.get('stream') else ''}"


def post(served, recorded, body) -> str:
    headers = {"authorization": f"Bearer {name_of(recorded)}"}
    answer = httpx.post(served.url + recorded["path"], json=body, headers=headers, timeout=60)
    assert answer.status_code == 200, answer.text
    return answer.text


def with_arguments(body, arguments: str):
    """Return a second request with the arguments that were called now, in the client's own spelling."""
    body = copy.deepcopy(body)
    for item in body.get("input") or [
        call["function"] for each in body["messages"] for call in each.get("tool_calls", [])
    ]:
        if "arguments" in item:
            dense = " " not in item["arguments"]
            item["arguments"] = json.dumps(json.loads(arguments), separators=(",", ":")) if dense else arguments
    return body


def test_each_framework_is_among_them():
    clients = {recorded["client"].split()[0] for recorded in RECORDED}
    assert clients == {"openai-agents", "langchain-openai", "autogen-ext", "pydantic-ai", "crewai"}


@pytest.mark.parametrize("recorded", RECORDED, ids=name_of)
def test_what_a_framework_sends_is_understood(served, recorded):
    key = name_of(recorded)
    served.log.open(key, seed=1)
    first, *second = recorded["bodies"]
    told = post(served, recorded, first)
    if first.get("stream"):
        assert told.rstrip().endswith("[DONE]") or '"type":"response.' in told.split("data: ")[-1]
    (exchange,) = served.log.exchanges(key)
    shown = served.loop.sampler.base.tokenizer.decode(exchange.prompt_ids)
    asked = (first.get("instructions"), first.get("input"), first.get("messages"))
    texts = [each["content"] for part in asked if isinstance(part, list) for each in part]
    for text in [*texts, *(part for part in asked if isinstance(part, str))]:
        assert text in shown
    assert ("Add two numbers." in shown) == ("tools" in first) == ("tool_calls" in exchange.answer)
    for body in second:
        (call,) = exchange.answer["tool_calls"]
        post(served, recorded, with_arguments(body, call["function"]["arguments"]))
        _, after = served.log.exchanges(key)
        whole = exchange.prompt_ids + exchange.token_ids
        alike = after.tools == exchange.tools  # AutoGen leaves tools out where it only wants to hear of the result
        assert (after.prompt_ids[: len(whole)] == whole) == alike
        result = (body.get("input") or body.get("messages"))[-1]
        assert (result.get("output") or result["content"]) in served.loop.sampler.base.tokenizer.decode(
            after.prompt_ids
        )
        assert [message["role"] for message in after.messages][-3:] == ["user", "assistant", "tool"]
    served.log.close(key)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("agent", "packages"),
    [
        ("openai_agents.py:play", ["openai-agents==0.24.0"]),
        ("langchain_tools.py:play", ["langchain==1.5.2", "langchain-openai==1.7.4"]),
        ("autogen_chat.py:greet", ["autogen-agentchat==0.7.5", "autogen-ext[openai]==0.7.5"]),
        ("pydantic_typed.py:play", ["pydantic-ai-slim[openai]==2.68.0"]),
        ("crewai_crew.py:greet", ["crewai==1.15.30"]),
    ],
)
def test_the_example_of_a_framework_learns(shared_project, tmp_path, agent, packages):
    python = client_python(tmp_path, *packages, alone=True)
    settings = (
        f"agent=examples/frameworks/{agent}", f"agent_python={python}", "base_model=tiny", "trained=all", "epochs=6",
        "tasks_per_epoch=4", "group_size=4", "val_samples=4", "advantage=batch", "learning_rate=5e-3",
        "gradient_clip_value=0.5", "parallel_rollouts=2", "validate_every_n_epochs=6", "plot_at_end=off",
    )  # fmt: skip
    done = shared_project.run("Agent", *settings)
    assert done.returncode == 0, done.stderr + done.stdout
    metrics = json.loads((shared_project.runs("Agent")[-1] / "metrics.json").read_text())
    assert metrics["summary"]["change"]["reward"]["low"] > 0.2, metrics["summary"]
