"""Agents that crash, in processes: each costs the rollout under way, and nothing else."""

import json
import sys

import pytest

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

AGENT = '''
import ctypes, os, threading, time

KINDS = ("fine", "exits", "crashes", "eats", "bomb", "stubborn", "quits")

def loops():
    while True:
        try:
            time.sleep(600)
        except BaseException:
            pass

def tasks(split):
    return [{"kind": kind} for kind in (KINDS if split == "train" else ("fine", "exits"))]

def play(task, client):
    print("printed by", task["kind"])
    with client:  # which closes it: the next rollout needs another one
        answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], max_tokens=3)
    kind = task["kind"]
    if kind == "exits":
        os._exit(3)
    if kind == "crashes":
        ctypes.string_at(0)
    if kind == "eats":
        eaten = b"x" * (4 * 10**8)
        time.sleep(600)
    if kind == "bomb":
        while True:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
    if kind == "stubborn":  # a child that would outlive it, and keeps its files open
        if os.fork() == 0:
            time.sleep(600)
        os._exit(4)
    if kind == "quits":
        raise SystemExit("no more")
    return sum(character.islower() for character in answer.choices[0].message.content)

def once(task, client):
    """Never ends, or crashes, the first time that a task is played."""
    try:
        os.mkdir(f"seen-{task['kind']}")
    except FileExistsError:
        return play({"kind": "fine"}, client)
    print("once", task["kind"])
    if task["kind"] == "fine":
        loops()
    os._exit(5)
'''
ASYNCHRONOUS = """
import threading, time

def tasks(split):
    return [{"number": number} for number in range(6 if split == "train" else 1)]

async def play(task, client, blocks=()):
    said = ""
    for turn in range(2):
        answer = await client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": f"{task['number']} {turn}"}], max_tokens=2)
        said += answer.choices[0].message.content
        if turn == 0 and task["number"] in blocks:
            time.sleep(600)  # nobody else has a turn meanwhile
    await client.close()
    return {"reward": sum(map(str.islower, said)), "threads": threading.active_count()}

async def blocks(task, client):
    return await play(task, client, blocks=[3])
"""
WORDS = (
    "base_model=tiny", "plot_at_end=off", "sample_count=2", "lora_targets=attention", "lora_rank=4", "epochs=1",
    "tasks_per_epoch=0", "group_size=2",
)  # fmt: skip

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what processes take is told by Linux only")


@pytest.fixture(scope="module")
def lab(shared_project):
    (shared_project.path / "crashing.py").write_text(AGENT)
    (shared_project.path / "asynchronous.py").write_text(ASYNCHRONOUS)
    return shared_project


def test_whatever_an_agent_does_costs_its_rollout_alone(lab):
    """By default: exit, segmentation fault, memory, threads without number, a forked child."""
    done = lab.run("Agent", "agent=crashing.py:play", *WORDS, "rollout_memory=250")
    assert done.returncode == 0, done.stderr + done.stdout
    folder = lab.runs("Agent")[-1]
    history, told = json.loads((folder / "metrics.json").read_text())["history"], done.stdout + done.stderr
    assert history["train_failed"] == [pytest.approx(6 / 7)] and history["val_failed"] == [0.5]
    for expected in (
        "the agent failed, and they are left out: the agent's process ended with the exit code 3",
        "the agent failed, and they are left out: the agent's process ended with the exit code 4",
        "the agent failed, and they are left out: the agent's process was ended by SIGSEGV: it crashed",
        "the agent failed, and they are left out: crashing.py:36 in play: SystemExit: no more",
        "broken off, and left out: it took more memory than rollout_memory = 250 MiB",
    ):
        assert f"epoch 1: 2 of 14 rollouts: {expected}" in told, told
    assert "no task to validate with is new (2 tasks, all trained on too)" in told
    assert "reward of the validation tasks: " in told and "(no interval: fewer than 3 tasks have both)" in told
    assert "broken off, and left out: it began more than 1000 threads and processes" in told or "can't start" in told
    printed = (folder / "agent_output.txt").read_text()
    assert printed.count("printed by stubborn") == 2 and "printed by" not in told


def test_a_rollout_that_fails_or_never_ends_is_made_again(lab):
    words = ("rollout_retries=1", "parallel_rollouts=1", "rollout_seconds=6")
    done = lab.run("Agent", "agent=crashing.py:once", *WORDS, *words)
    assert done.returncode == 0, done.stderr + done.stdout
    printed = (lab.runs("Agent")[-1] / "agent_output.txt").read_text()
    assert printed.count("once fine") == 1 and printed.count("once exits") == 1
    history = json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["history"]
    assert history["train_failed"] == [0.0] and history["val_failed"] == [0.0]


def test_tasks_that_are_no_plain_data_are_played_in_threads(lab):
    agent = AGENT.replace('{"kind": kind}', '{"kind": kind, "pair": (2, 3), 7: {(1, 2): "keys of several kinds"}}')
    agent = agent.replace('KINDS if split == "train" else ("fine", "exits")', '("fine", "quits")')
    (lab.path / "pairs.py").write_text(agent)
    done = lab.run("Agent", "agent=pairs.py:play", *WORDS)
    assert done.returncode == 0, done.stderr + done.stdout
    assert "agents play in threads, since tasks are no plain data" in done.stdout + done.stderr
    history = json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["history"]
    assert history["train_failed"] == [0.5] and history["val_failed"] == [0.5]


@pytest.mark.slow
def test_hundreds_at_once_take_one_thread(lab):
    words = (*WORDS[:-1], "group_size=50", "parallel_rollouts=300", "rollouts_in=threads")
    done = lab.run("Agent", "agent=asynchronous.py:play", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    history = json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["history"]
    assert history["train_turns"] == [2.0] and history["train_failed"] == [0.0]
    assert history["train_threads"][0] < 30, "of the run, torch, the server, the sampler and the agents"


def test_who_blocks_the_event_loop_costs_his_rollouts_alone(lab):
    """The others begin again in another loop, and get the answers that they had."""
    words = (*WORDS, "rollouts_in=threads", "rollout_seconds=6")
    done = lab.run("Agent", "agent=asynchronous.py:blocks", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    history = json.loads((lab.runs("Agent")[-1] / "metrics.json").read_text())["history"]
    assert history["train_failed"] == [pytest.approx(1 / 6)] and history["train_turns"] == [pytest.approx(11 / 6)]
