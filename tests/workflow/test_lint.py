"""The lint says each thing of a script that does it, and nothing of one that does well."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from workflow.lint.linting import RULES, lint_text
from workflow.lint.script import ScriptError

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
import math
import tinker
from datasets import load_dataset
from tinker import types

data = load_dataset("owner/name", revision="2f1a0c9").shuffle(seed=0)
service = tinker.ServiceClient()
path = open("last").read().strip()
if path:
    client = service.create_training_client_from_state_with_optimizer(path).result()
else:
    client = service.create_lora_training_client(base_model="Qwen/Qwen3-8B", rank=32, seed=0).result()
adam = types.AdamParams(learning_rate=3e-4, beta1=0.9, beta2=0.95)


def datum(tokens, weights):
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={"target_tokens": tokens[1:], "weights": weights[1:]},
    )


for step, batch in enumerate(data):
    forward = client.forward_backward([datum(*row) for row in batch], "cross_entropy")
    update = client.optim_step(adam)
    loss = forward.result().metrics["loss:sum"]
    update.result()
    if not math.isfinite(loss):
        raise SystemExit(f"step {step}: the loss is {loss}")
    if step % 200 == 0:
        open("last", "w").write(client.save_state(f"{step:06d}").result().path)
sampler = client.save_weights_and_get_sampling_client().result()
params = types.SamplingParams(max_tokens=64, temperature=0.7)
futures = [sampler.sample(prompt=one, num_samples=1, sampling_params=params) for one in data]
print([future.result() for future in futures])
"""

POLICY = """
import tinker
from tinker import types
service = tinker.ServiceClient()
client = service.create_lora_training_client(base_model="m", rank=32).result()
{before}
for step in range(100):
    {inside}
    params = types.SamplingParams(max_tokens=9)
    groups = [sampler.sample(prompt=p, num_samples=8, sampling_params=params) for p in prompts]
    batch = [types.Datum(model_input=i, loss_fn_inputs={inputs}) for i in read(groups)]
    a = client.forward_backward(batch, loss_fn="importance_sampling"); b = client.optim_step(adam)
    check_finite(a.result()); b.result()
    client.save_state(f"{{step}}").result()
resume_from = load(client)
"""
SAMPLER = "sampler = client.save_weights_and_get_sampling_client().result()"
INPUTS = '{"target_tokens": 1, "logprobs": 2, "advantages": 3}'

ASYNC = """
import tinker
async def train(client: tinker.TrainingClient, batch, adam):
    {lines}
"""

# What is changed in the good script, and what is then said.
CHANGES = [
    ("wait-between", 'batch], "cross_entropy")', 'batch], "cross_entropy").result()'),
    ("wait-between", "    update = client", "    early = forward.result()\n    update = client"),
    ("answer-dropped", "    update = client.optim_step(adam)", "    client.optim_step(adam)"),
    ("answer-dropped", ').result().path)', ').result().path)\n        client.save_state("x" + str(step))'),
    ("no-update", "    update = client.optim_step(adam)\n", ""),
    ("loss-name", '"cross_entropy")', '"cross_entrpy")'),
    ("loss-name", ', "cross_entropy")', ', loss_fn="nll")'),
    ("not-shifted", "from_ints(tokens[:-1])", "from_ints(tokens[1:])"),
    ("not-shifted", '"target_tokens": tokens[1:]', '"target_tokens": TensorData(data=tokens[:-1], dtype="int64")'),
    ("inputs-of-loss", ', "weights": weights[1:]', ""),
    ("no-nan-check", "not math.isfinite(loss)", "loss > 9"),
    ("saved-at-the-end", "    if step % 200 == 0:\n        open", "if True:\n    open"),
    ("no-save", 'client.save_state(f"{step:06d}").result().path', '"nothing"'),
    ("no-resume", "service.create_training_client_from_state_with_optimizer(path)", "service.begin(path)"),
    ("resumed-without-optimizer", "from_state_with_optimizer", "from_state"),
    ("one-name", 'save_state(f"{step:06d}")', 'save_state("last")'),
    ("client-in-loop", "    forward = ", "    tinker.ServiceClient()\n    forward = "),
    ("one-by-one", "sampling_params=params) for", "sampling_params=params).result() for"),
    ("learning-rate", "3e-4", "3e-2"),
    ("learning-rate", "learning_rate=3e-4", "learning_rate=rate"),
    ("rank", "rank=32", "rank=2048"),
    ("unbounded-answer", "max_tokens=64, ", ""),
    ("unbounded-answer", "max_tokens=64", "max_tokens=None"),
    ("greedy-groups", "num_samples=1, sampling_params=params", "num_samples=4, sampling_params=types.SamplingParams("
     "max_tokens=9, temperature=0)"),
    ("key-in-code", "ServiceClient()", 'ServiceClient(api_key="tml-0123456789abcdef01234567")'),
    ("unpinned-data", ', revision="2f1a0c9"', ""),
    ("no-seed", "shuffle(seed=0)", "shuffle()"),
    ("setting-name", "learning_rate=3e-4", "lr=3e-4"),
]  # fmt: skip


def names(text: str) -> list[str]:
    return [problem.rule.name for problem in lint_text(text, "script.py")]


def changed(old: str, new: str) -> str:
    assert GOOD.count(old) >= 1, old
    text = GOOD.replace(old, new)
    if "learning_rate=rate" in text:
        text = text.replace("adam = ", "rate = 1e-8\nadam = ")
    if new == "shuffle()":
        text = text.replace(", seed=0).result()", ").result()")
    return text


def test_nothing_is_said_of_a_good_script():
    assert names(GOOD) == []
    assert names(POLICY.format(before="", inside=SAMPLER, inputs=INPUTS)) == []


@pytest.mark.parametrize(("rule", "old", "new"), CHANGES)
def test_a_change_for_the_worse_is_found_and_nothing_else(rule, old, new):
    assert set(names(changed(old, new))) == {rule}


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("stale-sampler", POLICY.format(before=SAMPLER, inside="pass", inputs=INPUTS)),
        ("inputs-of-loss", POLICY.format(before="", inside=SAMPLER, inputs='{"target_tokens": 1, "weights": 2}')),
        ("never-awaited", ASYNC.format(lines="client.optim_step_async(adam)")),
        ("answer-dropped", ASYNC.format(lines="await client.optim_step_async(adam)")),
        ("wait-between", ASYNC.format(
            lines='f = await client.forward_backward_async(batch, "ppo")\n    r = await f\n'
            "    o = await client.optim_step_async(adam)\n    await o")),
        ("wait-between", ASYNC.format(
            lines='r = await client.forward_backward(batch, "ppo")\n    o = await client.optim_step(adam)')),
        ("blocks-the-loop", ASYNC.format(lines='x = client.forward_backward(batch, "ppo").result()')),
        ("swallowed-error", ASYNC.format(
            lines="try:\n        x = await client.optim_step(adam)\n    except Exception:\n        pass")),
    ],
)  # fmt: skip
def test_what_only_other_scripts_can_do_wrong(rule, text):
    assert set(names(text)) == {rule}


@pytest.mark.parametrize(
    "lines",
    [
        'f = await client.forward_backward_async(batch, "ppo")\n    o = await client.optim_step_async(adam)\n'
        "    return await f, await o",
        'f = client.forward_backward(batch, "ppo")\n    o = client.optim_step(adam)\n    return await f, await o',
        "answers = []\n    for turn in range(3):\n        a = await client.sample(prompt=history, sampling_params=p)\n"
        "        history.append(a)",
        "while not done:\n        a = (await sampler.sample_async(prompt=x, num_samples=1, sampling_params=p))",
    ],
)
def test_what_async_scripts_do_well_is_left_alone(lines):
    assert names(ASYNC.format(lines=lines)) == []


def test_a_word_turns_a_rule_off_on_its_line():
    line = "    client.optim_step(adam)"
    worse = changed("    update = client.optim_step(adam)", f"{line}  # noqa: answer-dropped")
    assert names(worse) == []
    assert names(worse.replace("answer-dropped", "no-seed")) == ["answer-dropped"]


def test_scripts_without_the_sdk_are_not_judged():
    assert names(GOOD.replace("import tinker\n", "").replace("from tinker import types", "").replace("3e-4", "3")) == []


def test_every_rule_is_tested_and_says_why():
    others = {"stale-sampler", "never-awaited", "blocks-the-loop", "swallowed-error"}
    assert {rule for rule, _, _ in CHANGES} | others == {rule.name for rule in RULES} and len(RULES) >= 15
    for rule in RULES:
        assert rule.why.endswith(".") and rule.better and rule.reference.startswith("https://")
        compile("async def f():\n" + "\n".join(f"    {line}" for line in whole(rule.better)), rule.name, "exec")


def whole(code: str) -> list[str]:
    lines = code.splitlines()
    return ["try:", "    pass", *lines] if lines[0].startswith("except") else lines


@pytest.mark.parametrize("text", ["def f(:", "print 'x'", "x = (" * 300, "\0"])
def test_what_is_no_python_is_refused(text):
    with pytest.raises(ScriptError, match=r"script\.py"):
        lint_text(text, "script.py")


def lint(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(ROOT / "workflow.py"), "lint", *words], text=True, capture_output=True)


def test_the_command_line(tmp_path):
    """Exit codes, places, one explanation for each rule, JSON, and files that can't be read."""
    (tmp_path / "good.py").write_text(GOOD)
    assert lint(str(tmp_path / "good.py")).returncode == 0
    worse = tmp_path / "scripts"
    worse.mkdir()
    (worse / "a.py").write_text(changed('"cross_entropy")', '"nll")'))
    (worse / "b.py").write_text(changed('"cross_entropy")', '"nll")'))
    told = lint(str(worse))
    line = next(number for number, text in enumerate(GOOD.splitlines(), 1) if "cross_entropy" in text)
    assert told.returncode == 1 and f"{worse / 'a.py'}:{line}: error loss-name: there is no loss 'nll'" in told.stdout
    assert told.stdout.count("losses\n") == 1 and "2 scripts: 2 errors" in told.stdout
    content = json.loads(lint(str(worse), "--json").stdout)
    assert [one["rule"] for one in content["problems"]] == ["loss-name"] * 2 and content["scripts"] == 2
    (worse / "c.py").write_bytes(b"\xff\xfe\x00")
    unread = lint(str(worse), str(tmp_path / "absent.py"))
    assert unread.returncode == 3 and "c.py" in unread.stdout and "absent.py: No such file" in unread.stdout
    assert "Traceback" not in unread.stdout + unread.stderr
    assert lint().returncode == 2
