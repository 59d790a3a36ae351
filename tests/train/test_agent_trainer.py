"""Reinforcement of agents through the command line: what is learned, exactly, and agents that go wrong."""

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

AGENTS = '''
import asyncio, itertools, os, signal, time

def tasks(split):
    return [{"ask": f"{split} {number}"} for number in range(6)]

def say(client, messages, **more):
    return client.chat.completions.create(model="whatever", messages=messages, **more)

def ask(client, task, **more):
    return say(client, [{"role": "user", "content": task["ask"]}], **more)

def lower(text):
    return sum(character.islower() for character in text or "")

def letters(task, client):
    print("printed by the agent")
    answer = ask(client, task, max_tokens=2)
    return {"reward": lower(answer.choices[0].message.content) / 2, "used": answer.usage.completion_tokens}

def turns(task, client):
    """Two calls with what a tool said between them, each answer as it came."""
    messages, used, said = [{"role": "user", "content": task["ask"]}], 0, ""
    for _ in range(3):
        answer = say(client, messages, max_tokens=3)
        used, text = used + answer.usage.completion_tokens, answer.choices[0].message.content
        said += text
        messages += [{"role": "assistant", "content": text}, {"role": "user", "content": "the tool says 5"}]
    return {"reward": lower(said), "used": used}

def edited(task, client):
    """The second turn has another history than what was sampled."""
    first = ask(client, task, max_tokens=3)
    messages = [{"role": "user", "content": task["ask"]}, {"role": "assistant", "content": "something else"}]
    second = say(client, [*messages, {"role": "user", "content": "go on"}], max_tokens=3)
    used = first.usage.completion_tokens + second.usage.completion_tokens
    return {"reward": lower(second.choices[0].message.content), "used": used}

async def waits(task, client):
    both = [client.chat.completions.create(model="m", messages=[{"role": "user", "content": word}], max_tokens=2)
            for word in (task["ask"], "beside it")]
    answers = await asyncio.gather(*both)
    return lower(answers[0].choices[0].message.content)

def fails_at_times(task, client):
    text = ask(client, task, max_tokens=200).choices[0].message.content
    number = int(task["ask"].split()[1])
    if number == 1:
        return {}["question"]
    return {2: None, 3: float("nan"), 4: "good"}.get(number, lower(text))

def always_fails(task, client):
    if os.environ.get("MENDED"):
        return letters(task, client)
    return task["question"]

def never_asks(task, client):
    return 1.0

def sleeps(task, client):
    if task["ask"].endswith("3"):
        time.sleep(600)
    return lower(ask(client, task, max_tokens=1).choices[0].message.content)

def never_ends(task, client):
    while task["ask"].endswith("3"):
        ask(client, task, max_tokens=1)
    return lower(ask(client, task, max_tokens=1).choices[0].message.content)

def likeliest(task, client):
    return lower(ask(client, task, max_tokens=2, temperature=0, top_p=0.9).choices[0].message.content)

turns_taken = itertools.count(1)  # each number once, whatever the threads do

def at_times(task, client):
    text = ask(client, task, max_tokens=2).choices[0].message.content
    number = next(turns_taken) if task["ask"].startswith("train") else 0
    if 4 < number <= 8:
        return {"reward": 0.5}
    return {"reward": 3 * number + lower(text), "extra": 1}

def own_client(task):
    from openai import OpenAI
    print("printed by the agent")
    return lower(ask(OpenAI(), task, max_tokens=1).choices[0].message.content)

def killed(task, client):
    """Ends the whole process in the middle of the rollouts of the second epoch."""
    if os.environ.get("KILL_IN_ROLLOUTS") and task["ask"].startswith("train"):
        with open("calls.txt", "a") as stream:
            stream.write("x")
        if os.path.getsize("calls.txt") >= 20:  # threads may pass 20 side by side
            os.kill(os.getpid(), signal.SIGKILL)
    return turns(task, client)

def interrupts(task, client):
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(600)

def two(task, other, client):
    return 0.0
'''
WATCH = """
import os, signal
from train.callbacks import Callback

class Watch(Callback):
    def on_step_end(self, trainer, steps):
        if trainer.record.progress.step == int(os.environ.get("KILL_AT", 0)):
            os.kill(os.getpid(), signal.SIGKILL)
"""
QUICK = {
    "base_model": "tiny", "plot_at_end": "off", "sample_count": "1", "lora_targets": "attention", "lora_rank": "4",
    "tasks_per_epoch": "4", "group_size": "4", "validate_every_n_epochs": "2", "rollouts_in": "threads",
}  # fmt: skip


def line_of(text: str) -> int:
    """Return the number of the first line of the agents that has a text in it."""
    return next(number for number, line in enumerate(AGENTS.splitlines(), 1) if text in line)


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "agents.py").write_text(AGENTS)
    (shared_project.path / "watch.py").write_text(WATCH)
    return shared_project


def run(lab, agent: str, *words: str, **environment: str):
    settings = {"agent": f"agents.py:{agent}"} | QUICK | dict(word.split("=", 1) for word in words)
    return lab.run("Agent", *(f"{name}={value}" for name, value in settings.items()), **environment)


def train(lab, agent: str, *words: str, **environment: str) -> tuple[Path, dict, str]:
    done = run(lab, agent, *words, **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    folder = lab.runs("Agent")[-1]
    return folder, json.loads((folder / "metrics.json").read_text()), done.stdout + done.stderr


def newest_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(sorted((folder / "checkpoints").iterdir())[-1] / "weights.safetensors")


def test_an_agent_learns_what_is_rewarded(lab):
    """Any two letters from random bytes; what is said of the rollouts is what they were."""
    words = ("trained=all", "epochs=16", "learning_rate=3e-3", "group_size=16", "validate_every_n_epochs=8",
             "val_samples=2")  # fmt: skip
    folder, metrics, told = train(lab, "letters", *words)
    summary, history = metrics["summary"], metrics["history"]
    assert summary["before"]["reward"] < 0.3 and summary["after"]["reward"] > 0.7
    change = summary["change"]["reward"]
    assert change["tasks"] == 6 and change["low"] > 0.3
    assert change["difference"] == pytest.approx(summary["after"]["reward"] - summary["before"]["reward"])
    assert history["val_reward"][-1] == metrics["best"]["value"] == pytest.approx(summary["after"]["reward"])
    assert history["val_loss"] == pytest.approx([-reward for reward in history["val_reward"]])
    assert history["val_kl"][-1] > 0.1 and len(history["train_reward_interval"]) == 16
    assert "printed by the agent" not in told
    assert (folder / "agent_output.txt").read_text().count("printed by the agent") > 16 * 64
    (sample,) = json.loads((folder / "samples.json").read_text())
    assert sample["prompt"] == "<|im_start|>user\nval 0<|im_end|>\n<|im_start|>assistant\n"
    assert sample["finish"] == "length" and sample["answer"].islower() and sample["place"].startswith("task 1, reward ")
    assert (folder / "model" / "model.safetensors").is_file()


def test_rows_are_what_was_sampled_and_ratios_are_one(lab):
    """E1, E2, E5: each sampled id counts once; the sampler's weights are the trainer's, at each step."""
    words = ("epochs=3", "learning_rate=0.03", "validate_every_n_epochs=1")
    _, metrics, _ = train(lab, "turns", *words)
    history = metrics["history"]
    assert history["train_length"] == history["train_used"] and history["train_turns"] == [3.0] * 3
    for name in ("train_sampler_gap", "val_sampler_gap"):
        assert len(history[name]) == 3 and max(history[name]) < 1e-4
    assert history["train_ratio"] == pytest.approx([1.0] * 3, abs=1e-4)
    assert abs(history["val_kl"][-1]) > 1e-3, "the weights have changed, and the sampler's with them"


def test_a_turn_that_does_not_go_on_from_the_last_is_a_row_of_its_own(lab):
    _, metrics, _ = train(lab, "edited", "epochs=1")
    history = metrics["history"]
    assert history["train_length"] == history["train_used"] and history["train_split"] == [1.0]


# All settings of the algorithm that keep something from one epoch for another are on.
KILLED = ("epochs=3", "learning_rate=0.01", "steps_per_epoch=3", "checkpoint_every_n_steps=1", "kl_weight=0.05",
          "loss=ppo", "group_size=2", "dynamic_sampling=on", "curriculum=success", "success_reward=3",
          "max_steps_off_policy=4", "average=constant", "average_length=9", "overlong_length=9", "overlong_buffer=4",
          "callbacks=watch:Watch")  # fmt: skip


@pytest.fixture(scope="module")
def whole_run(lab):
    """A run that nothing interrupts: its folder and its numbers."""
    return train(lab, "killed", *KILLED)[:2]


@pytest.mark.parametrize("how", [pytest.param("inside an epoch", marks=pytest.mark.slow), "in its rollouts"])
def test_a_killed_run_goes_on_to_the_same_bits(lab, whole_run, how):
    """B3: between the steps of an epoch its rollouts are in the checkpoint; before them they are made again."""
    whole, expected = whole_run
    where = {"KILL_AT": "5"} if how == "inside an epoch" else {"KILL_IN_ROLLOUTS": "1"}
    (lab.path / "calls.txt").unlink(missing_ok=True)
    assert run(lab, "killed", *KILLED, **where).returncode == -9
    cut = lab.runs("Agent")[-1]
    if how == "inside an epoch":
        assert sorted((cut / "checkpoints").iterdir())[-1].name.endswith("epoch-00001-step-00000001")
    done = lab.run("Agent", "--resume")
    assert done.returncode == 0, done.stderr
    metrics = json.loads((cut / "metrics.json").read_text())
    assert metrics["history"] == expected["history"]
    history = metrics["history"]
    assert max(history["train_sampling_rounds"]) > 1 and history["train_off_policy"][0] == pytest.approx(1, abs=0.5)
    assert history["train_off_policy"][1] > 1.5 and history["train_stale"][2] > 0 and max(history["train_overlong"]) > 0
    one, other = newest_state(whole), newest_state(cut)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_that_is_interrupted_in_its_first_rollouts_says_how_to_go_on(lab):
    """There is no checkpoint yet, but the rollouts so far are kept."""
    done = run(lab, "interrupts", "tasks_per_epoch=1", "parallel_rollouts=1")
    assert done.returncode == 130, done.stderr
    assert "interrupted by SIGINT; go on with: " in done.stderr and "train.py Agent --resume 2" in done.stderr


def test_an_agent_that_fails_costs_its_rollouts_alone(lab):
    folder, metrics, told = train(lab, "fails_at_times", "tasks_per_epoch=6", "epochs=1", "sample_count=6")
    assert metrics["history"]["train_failed"] == [pytest.approx(4 / 6)]
    assert metrics["history"]["val_failed"] == [pytest.approx(4 / 6)]
    where = f"agents.py:{line_of('question')} in fails_at_times: KeyError: 'question'"
    assert f"4 of 24 rollouts: the agent failed, and they are left out: {where}" in told
    assert "there is no reward, and they are left out: agents.py:fails_at_times: what it returned is" in told
    samples = json.loads((folder / "samples.json").read_text())
    assert [sample["finish"] for sample in samples] == ["stop", "failed", *["no reward"] * 3, "stop"]


@pytest.mark.slow
def test_a_reward_for_failures_counts_and_teaches(lab):
    """4 of 6 tasks have it, whether their agent raised or returned nothing, in training and in validation."""
    words = ("tasks_per_epoch=6", "epochs=1", "sample_count=1", "failed_reward=-300", "advantage=batch")
    _, metrics, told = train(lab, "fails_at_times", *words)
    history = metrics["history"]
    for split in ("train", "val"):
        assert history[f"{split}_failed"] == [pytest.approx(4 / 6)]
        assert -200 <= history[f"{split}_reward"][0] < -180, "at most 200 letters each in the other two tasks"
    assert "4 of 24 rollouts: the agent failed, and their reward is failed_reward = -300: agents.py:" in told
    assert history["train_ratio"] == [pytest.approx(1, abs=1e-4)], "from all of them something is learned"


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        ("always_fails", f"agents.py:{line_of('return task')} in always_fails: KeyError: 'question'"),
        ("never_asks", "the agent never asked the model, so nothing can be learned: does it use the client"),
    ],
)
def test_a_run_ends_where_nothing_can_be_learned(lab, agent, expected):
    done = run(lab, agent, "epochs=1")
    assert done.returncode == 4, done.stderr
    assert "epoch 1: no rollout can be learned from." in done.stderr and expected in done.stderr
    assert "Traceback" not in done.stderr
    if agent == "always_fails":  # what it needs is there now; its file is as it was
        again = lab.run("Agent", "--resume", MENDED="1")
        assert again.returncode == 0 and "are kept" not in again.stdout + again.stderr, again.stderr


@pytest.mark.parametrize(
    ("agent", "limit", "told"),
    [
        ("sleeps", "rollout_seconds=6", "it took longer than rollout_seconds = 6"),
        ("never_ends", "rollout_turns=20", "it took more answers than rollout_turns = 20"),
    ],
)
def test_a_rollout_without_end_is_broken_off(lab, agent, limit, told):
    """Those that wait for their answers meanwhile, since waves wait for it, are none the worse for it."""
    (lab.path / "ask.jsonl").write_text('{"ask": "val 1"}\n')
    words = ("tasks_per_epoch=6", "epochs=1", limit, "val_tasks=ask.jsonl", "group_size=2")
    _, metrics, output = train(lab, agent, *words)
    assert metrics["history"]["train_failed"] == [pytest.approx(1 / 6)]
    assert f"2 of 12 rollouts: broken off, and left out: {told}" in output


def test_async_agents_and_those_that_make_their_own_client(lab):
    _, metrics, _ = train(lab, "waits", "epochs=1")
    assert metrics["history"]["train_turns"] == [2.0]
    folder, metrics, told = train(lab, "own_client", "epochs=1", "parallel_rollouts=2")
    assert metrics["history"]["train_turns"] == [1.0] and metrics["history"]["train_failed"] == [0.0]
    assert "printed by the agent" not in told
    assert "printed by the agent" in (folder / "agent_output.txt").read_text()


def test_lists_of_the_history_agree_where_an_epoch_has_nothing_to_learn(lab):
    """The second epoch's rewards are all the same; a number is returned at times only."""
    folder, metrics, told = train(lab, "at_times", "epochs=3", "tasks_per_epoch=2", "group_size=2")
    history = metrics["history"]
    assert {len(values) for name, values in history.items() if name.startswith("train_")} == {3}
    assert [value is None for value in history["train_ratio"]] == [False, True, False]
    assert [value is None for value in history["train_extra"]] == [False, True, False]
    assert history["train_flat_groups"][1] == 1.0 and "epoch 2: no step" in told
    log = (folder / "train.log").read_text()  # has the lines of all epochs, however quick they were
    second = next(line for line in log.splitlines() if "epoch 2/3" in line)
    assert "train_extra -," in second and "nan" not in told
    assert not re.search("ratio|sampler_gap|interval|split|unfinished|failed", second), "the line has what one looks at"


def test_settings_of_requests_that_teach_nothing_are_told(lab):
    _, metrics, told = train(lab, "likeliest", "epochs=1", "lockstep=off")
    assert metrics["history"]["train_flat_groups"] == [1.0]
    assert "the agent asks for the likeliest tokens (temperature 0)" in told
    assert "the agent asks with top_p: what is sampled is another policy" in told
    assert "epoch 1: no step, since the rewards of the rollouts are the same within each of 4 tasks" in told


@pytest.mark.slow
def test_a_preview_shows_what_would_be_trained_on_and_a_check_plays_a_few_rollouts(lab):
    shown = lab.run("Agent", "--preview", "1", "agent=agents.py:turns", "base_model=tiny")
    assert shown.returncode == 0, shown.stderr
    assert "trained on is what is in [brackets]" in shown.stdout and "--- row 1, task " in shown.stdout
    assert "INFO" not in shown.stdout
    assert "<|im_start|>assistant\\n[" in shown.stdout or "<|im_start|>assistant\n[" in shown.stdout
    checked = lab.run("Agent", "--check", "agent=agents.py:letters", "base_model=tiny", "tasks_per_epoch=0")
    assert checked.returncode == 0 and "0 failed" in checked.stdout, checked.stdout + checked.stderr
    failing = lab.run("Agent", "--check", "agent=agents.py:always_fails", "base_model=tiny")
    where = f"agents.py:{line_of('return task')} in always_fails: KeyError: 'question'"
    assert failing.returncode != 0 and where in failing.stdout + failing.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("agent=agents.py:lettters",), "agents.py has no function lettters; did you mean letters?"),
        (("agent=nowhere.py:play",), "there is no file nowhere.py in"),
        (("agent=agents.py",), "give it as file:function or module:function, such as examples/hello.py:hello"),
        (("agent=agents.py:two",), "it needs task, other, client; it is called as two(task, client)"),
        (("clip=0.9, 1.1",), "clip = 0.9, 1.1: clip is for loss = ppo and loss = cispo, and"),
        (("loss=ppo", "clip=0.8"), "clip = 0.8: give two numbers, the lowest and the highest ratio"),
        (("loss=ppo", "clip=1.2, 0.8"), "clip_low_threshold of the loss ppo is 1.2, above clip_high_threshold 0.8"),
        (("tasks=nothing.jsonl",), "nothing.jsonl."),
        (
            ("curriculum=success", "tasks_per_epoch=6", "steps_per_epoch=25"),
            "curriculum = success chooses among tasks, and an epoch",
        ),
    ],
)
def test_what_can_not_be_is_refused(lab, words, expected):
    done = run(lab, "letters", *words)
    assert done.returncode in (2, 3) and expected in done.stderr and "Traceback" not in done.stderr
    assert ("steps_per_epoch = 25: an epoch has 24 rollouts (6 tasks, 4 each)" in done.stderr) == (len(words) == 3)


def test_settings_that_do_not_go_together_are_all_told(lab):
    words = ("average=constant", "overlong_buffer=5", "overlong_length=4", "dynamic_sampling=on", "advantage=batch",
             "max_steps_off_policy=2", "steps_per_epoch=4")  # fmt: skip
    done = run(lab, "letters", *words)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    for told in (
        "average = constant divides by average_length, or by max_tokens, and both are 0: give one of them",
        "overlong_buffer = 5 is more than overlong_length = 4",
        "dynamic_sampling = on leaves out tasks whose rollouts have one reward, from which",
        "max_steps_off_policy = 2: an epoch's last step is 3 steps after its rollouts. Give at least 3, or a smaller",
    ):
        assert told in done.stderr
