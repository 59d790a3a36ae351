"""The process that plays an agent: a line for each task, one event loop for all of them."""

import io
import json
import os
import select
import signal
import socket
import subprocess
import sys

import pytest

from constants import PACKAGE_ROOT
from train.agents.worker import main

AGENT = '''
import asyncio

loops, left, ended = set(), [], []

async def waits_for_ever(task):
    try:
        await asyncio.Event().wait()
    finally:
        ended.append(task)

async def play(task):
    """Leaves something behind each time, which must not go on in the next task's name."""
    loops.add(asyncio.get_running_loop())
    before = len(ended)
    left.append(asyncio.create_task(waits_for_ever(task)))
    await asyncio.sleep(0)
    if task == 1:
        raise KeyError("one")
    return {"reward": task, "loops": len(loops), "ended": before}
'''


def test_agents_keep_one_event_loop_and_what_they_leave_behind_ends(tmp_path):
    (tmp_path / "agent.py").write_text(AGENT)
    answers = io.StringIO()
    main(f"{tmp_path}/agent.py:play", io.StringIO("".join(f'{{"task": {task}}}\n' for task in range(3))), answers)
    first, second, third = map(json.loads, answers.getvalue().splitlines())
    assert first == {"outcome": "done", "reward": 0.0, "numbers": {"loops": 1.0, "ended": 0.0}}
    assert second["outcome"] == "failed" and second["told"].endswith("agent.py:19 in play: KeyError: 'one'")
    assert third["numbers"] == {"loops": 1.0, "ended": 2.0}


FORKS = """
import os, sys

def leaves(task):
    here = os.getcwd() != "/" and "OPENAI_BASE_URL" in os.environ
    os.chdir("/")
    os.environ.clear()
    return here

def play(task):
    child = os.fork()
    if child == 0:
        if task == "exits":
            sys.exit(5)
        return 7
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize(("agent", "rewards"), [("play", [5, 0]), ("leaves", [1, 1])])
def test_what_an_agent_leaves_behind_is_nothing_to_the_next_task(tmp_path, agent, rewards):
    """A child that it forked gives no answer in its place; the folder and the endpoint's address are there again."""
    (tmp_path / "agent.py").write_text(FORKS)
    words = [sys.executable, "-m", "train.agents.worker", f"{tmp_path}/agent.py:{agent}"]
    done = subprocess.run(
        words, input='{"task": "exits"}\n{"task": "returns"}\n', capture_output=True, text=True, cwd=PACKAGE_ROOT,
        env={**os.environ, "OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, timeout=120,
    )  # fmt: skip
    assert [json.loads(line)["reward"] for line in done.stdout.splitlines()] == rewards, done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_an_agent_that_loops_ends_with_the_process_that_forked_it(tmp_path):
    """kill -9 of the process that forks: nobody is left who could end what it has forked."""
    (tmp_path / "agent.py").write_text("def play(task):\n    while True:\n        pass\n")
    (control, theirs), (channel, lines) = socket.socketpair(), socket.socketpair()
    forking = subprocess.Popen(
        [sys.executable, "-m", "train.agents.worker", f"{tmp_path}/agent.py:play", "--fork", str(theirs.fileno())],
        pass_fds=[theirs.fileno()], cwd=PACKAGE_ROOT,
    )  # fmt: skip
    control.settimeout(120)
    told = control.makefile(encoding="utf-8")
    assert "ready" in json.loads(told.readline())
    socket.send_fds(control, [b'{"start": 1, "environment": {}}\n'], [lines.fileno()])
    lines.close()
    looping = os.pidfd_open(json.loads(told.readline())["pid"])
    channel.sendall(b'{"task": 1}\n')
    assert not select.select([looping], [], [], 0)[0]
    forking.send_signal(signal.SIGKILL)
    forking.wait()
    assert select.select([looping], [], [], 120)[0], "it loops on"
