"""The process that plays an agent: a line for each task, one event loop for all of them."""

import io
import json

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
