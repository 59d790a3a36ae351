"""Agents that another Python plays: an environment without a package of this program, and with names of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

from train.agents.agent_elsewhere import ask_agent
from train.agents.agent_function import AgentFunctionError

AGENT = '''
import importlib.util, json, os, urllib.request
import config, train.loop  # its own, though this program has packages of these names

assert not any(importlib.util.find_spec(name) for name in ("torch", "numpy", "openai"))

def tasks(split):
    return [{"ask": f"{split} {number}"} for number in range(4)]

def all_of(task):
    """Asks by the standard library alone."""
    body = {"model": "any", "messages": [{"role": "user", "content": task["ask"]}], "max_tokens": 3}
    request = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/chat/completions", json.dumps(body).encode(),
                                     {"Authorization": "Bearer " + os.environ["OPENAI_API_KEY"]})
    answer = json.load(urllib.request.urlopen(request))
    return {"reward": config.FACTOR * answer["usage"]["completion_tokens"], "seven": train.loop.SEVEN}
'''
OTHERS = {
    "needs.py": "import a_package_that_is_not_here\ndef play(task): return 0.0\n",
    "given.py": "def play(task, client): return 0.0\n",
    "exits.py": "import sys\nsys.exit('set MY_KEY first')\n",
    "text.py": "def tasks(split):\n    return 'tasks.jsonl'\n\ndef play(task):\n    return 1\n\n"
    "def swapped(client, task):\n    return 1\n",
    "none.py": "def play(task): return 0.0\n",
    "odd.py": "def tasks(): return [object()]\ndef play(task): return 0.0\n",
    "fails.py": "def tasks(split): return {}['x']\ndef play(task): return 0.0\n",
    "client.py": "import openai\nopenai.OpenAI()\ndef tasks(): return [1, 2, 3]\ndef play(task, client): return 0.0\n",
}


@pytest.fixture(scope="module")
def bare(tmp_path_factory) -> Path:
    """The Python of an environment that has no packages at all."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    return folder / "bin" / "python"


def test_an_agent_is_trained_by_a_python_without_packages(shared_project, bare):
    folder = shared_project.path
    (folder / "elsewhere" / "train").mkdir(parents=True)
    (folder / "elsewhere" / "train" / "loop.py").write_text("SEVEN = 7\n")
    (folder / "elsewhere" / "config.py").write_text("FACTOR = 2\n")
    (folder / "elsewhere" / "agent.py").write_text(AGENT)
    words = ("agent=elsewhere/agent.py:all_of", f"agent_python={bare}", "base_model=tiny", "epochs=1", "group_size=2",
             "tasks_per_epoch=2", "parallel_rollouts=2", "plot_at_end=off")  # fmt: skip
    done = shared_project.run("Agent", *words)
    assert done.returncode == 0, done.stderr + done.stdout
    metrics = json.loads((shared_project.runs("Agent")[-1] / "metrics.json").read_text())
    history = metrics["history"]
    assert history["val_reward"] == [6.0] and history["val_seven"] == [7.0] and history["val_failed"] == [0.0]
    assert "4 tasks and 4 to validate with" in done.stdout + done.stderr


def test_it_says_what_its_agent_is(tmp_path, bare, monkeypatch):
    """Clients at the top of a module need a key, which the processes that play have, and the shell may not."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name, source in OTHERS.items():
        (tmp_path / name).write_text(source)
    agent = ask_agent(f"{tmp_path}/odd.py:play", bare, with_tasks=False)
    assert (agent.own_tasks, agent.source().decode()) == ({}, OTHERS["odd.py"])
    here = ask_agent(f"{tmp_path}/client.py:play", Path(sys.executable), with_tasks=True)
    assert here.own_tasks == {"all": [1, 2, 3]} and not here.takes_client


@pytest.mark.parametrize(
    ("agent", "says"),
    [
        ("needs.py:play", "needs.py:1: ModuleNotFoundError: No module named 'a_package_that_is_not_here'; install it"),
        ("none.py:play", "none.py:play has no tasks: give a file of tasks (tasks = tasks.jsonl), or a function"),
        ("odd.py:play", "odd.py:play must give plain data: Object of type object is not JSON serializable"),
        ("fails.py:play", "fails.py:1 in tasks: KeyError: 'x'"),
        ("none.py:plays", "none.py has no function plays; did you mean play?"),
        ("nowhere.py:play", "nowhere.py in"),
        ("given.py:play", "is given an OpenAI client, and there is no package openai: install openai there, or let"),
        ("nomodule:play", "No module named 'nomodule'; give it as file:function"),
        ("./none:play", "./none is no module's name, and a file must be one of Python's, .py; did you mean ./none.py?"),
        ("exits.py:play", "exits.py:2: SystemExit: set MY_KEY first"),
        (
            "text.py:play",
            "tasks('train') of agent = text.py:play returned something of type str: it must be a list of tasks",
        ),
        ("text.py:swapped", "it takes the client first; it is called as swapped(task, client)"),
    ],
)
def test_what_is_wrong_with_an_agent_is_told(tmp_path, bare, monkeypatch, agent, says):
    monkeypatch.chdir(tmp_path)
    for name, source in OTHERS.items():
        (tmp_path / name).write_text(source)
    with pytest.raises(AgentFunctionError) as error:
        ask_agent(agent, bare, with_tasks=True)
    assert says in str(error.value) and f"agent_python = {bare}" in str(error.value)


def test_what_is_no_python_is_refused(tmp_path, bare):
    (old := tmp_path / "old").write_text("#!/bin/sh\necho 'SyntaxError: invalid syntax' >&2\nexit 1\n")
    old.chmod(0o755)
    (closed := tmp_path / "closed").write_text("")
    for python, says in (
        (bare.parent.parent, f"it is a folder; its Python is {bare}. Give the path of an environment's bin/python."),
        (tmp_path, "it is a folder without bin/python. Give the path"),
        (tmp_path / "none", "there is no such file. Give the path"),
        (old, "can't play agents: SyntaxError: invalid syntax (Python 3.10 or newer is needed)"),
        (closed, "can't be run: Permission denied"),
    ):
        with pytest.raises(AgentFunctionError) as error:
            ask_agent("agent.py:play", python, with_tasks=True)
        assert f"agent_python = {python}" in str(error.value) and says in str(error.value)
