"""Rollouts of agents as people write them: each answer is in exactly one row, as it was sampled, and nothing else is.

The agents note what the endpoint tells of each answer (ids of the prompt, sampled ids, their log-probabilities), and
that is what the rows are compared with.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

pytest.importorskip("transformers")
pytest.importorskip("openai")
pytest.importorskip("starlette")

from data.chat_renderer import Renderer
from llm import base_model
from train.agents.agent_function import find_agent
from train.agents.credit import Credit, CreditSettings
from train.agents.flight import FlightLimits
from train.agents.played import DONE, FAILED, NO_CALL, NO_REWARD, TIMED_OUT, UNFINISHED
from train.agents.rollout import Rollout, RolloutPlan
from train.agents.rollout_runner import RolloutRunner, RunnerSettings
from train.agents.rollout_summary import rollout_numbers, trouble_in
from train.agents.sampled_policy import SampledPolicy

AGENTS = '''
import threading

SAID = {}  # by kind: of each answer the prompt's ids, the sampled ids, their log-probabilities

def user(text):
    return {"role": "user", "content": text}

# Ids of special tokens that end no answer as the template does: none of them is to be sampled.
NONE_SUCH = {str(token): -100 for token in (256, 257, 258, 259)}

def say(kind, client, messages, **more):
    fields = {"max_tokens": 4, "logit_bias": NONE_SUCH, **more}
    answer = client.chat.completions.create(model="m", messages=messages, logprobs=True,
                                            extra_body={"return_token_ids": True}, **fields)
    for choice in answer.choices:
        logprobs = [each.logprob for each in choice.logprobs.content]
        SAID.setdefault(kind, []).append((answer.prompt_token_ids, choice.token_ids, logprobs))
    return answer.choices[0].message

def turns(kind, client):
    """What a user, or a tool, says in between is read and not learned."""
    messages = [user("begin")]
    for word in ("the tool says 5", "the user says go on"):
        messages += [{"role": "assistant", "content": say(kind, client, messages).content}, user(word)]
    say(kind, client, messages)

def edited(kind, client):
    said = say(kind, client, [user("begin")]).content
    say(kind, client, [user("begin"), {"role": "assistant", "content": said + "!"}, user("go on")])

def shortened(kind, client):
    """An agent that keeps a window of its conversation."""
    messages = [user("one"), {"role": "assistant", "content": say(kind, client, [user("one")]).content}, user("two")]
    messages += [{"role": "assistant", "content": say(kind, client, messages).content}, user("three")]
    say(kind, client, messages[2:])

def parallel(kind, client):
    """Each of three goes on by itself."""
    def talk(word):
        first = say(kind, client, [user(word)]).content
        say(kind, client, [user(word), {"role": "assistant", "content": first}, user("go on")])
    threads = [threading.Thread(target=talk, args=(word,)) for word in ("one", "two", "three")]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]

def choices(kind, client):
    say(kind, client, [user("begin")], n=3)

def sub_agent(kind, client):
    """Asks somebody else in the middle of its conversation, and goes on with it."""
    messages = [user("begin")]
    messages += [{"role": "assistant", "content": say(kind, client, messages).content}]
    helper = say(kind, client, [{"role": "system", "content": "You help."}, user("what now?")])
    say(kind, client, [*messages, user(helper.content or "nothing")])

def retry(kind, client):
    """Asks again, and goes on from the second answer."""
    messages = [user("begin")]
    say(kind, client, messages)
    second = say(kind, client, messages).content
    say(kind, client, [*messages, {"role": "assistant", "content": second}, user("go on")])

def twice(kind, client):
    """The same prompt with the same answer."""
    for _ in range(2):
        say(kind, client, [user("begin")], temperature=0)

def stream(kind, client):
    parts = client.chat.completions.create(model="m", messages=[user("begin")], max_tokens=4, logprobs=True,
                                           stream=True, logit_bias=NONE_SUCH, extra_body={"return_token_ids": True})
    prompt, ids, logprobs, text = [], [], [], ""
    for part in parts:
        prompt = getattr(part, "prompt_token_ids", None) or prompt
        for choice in part.choices:
            ids += getattr(choice, "token_ids", None) or []
            logprobs += [each.logprob for each in choice.logprobs.content] if choice.logprobs else []
            text += choice.delta.content or ""
    SAID.setdefault(kind, []).append((prompt, ids, logprobs))
    say(kind, client, [user("begin"), {"role": "assistant", "content": text}, user("go on")])

LOOK = {"type": "function", "function": {"name": "look", "strict": True, "parameters": {
    "type": "object", "properties": {"where": {"enum": ["up", "down"]}}, "required": ["where"],
    "additionalProperties": False}}}

def tool(kind, client):
    """A real call, what came of it, and an answer."""
    messages = [user("begin")]
    call = say(kind, client, messages, tools=[LOOK], tool_choice="required", max_tokens=100)
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "nothing there"}
    say(kind, client, [*messages, call.model_dump(exclude_none=True), result], tools=[LOOK])

def cut_off(kind, client):
    say(kind, client, [user("begin")], max_tokens=2)

def fails(kind, client):
    say(kind, client, [user("begin")])
    return {}["answer"]

def no_reward(kind, client):
    say(kind, client, [user("begin")])
    return "good"

def endless(kind, client):
    while kind:
        say(kind, client, [user("begin")], max_tokens=1)

def leaves(kind, client):
    """Reads one part of a long answer, and goes."""
    parts = client.chat.completions.create(model="m", messages=[user("begin")], max_tokens=200, stream=True)
    next(iter(parts))
    parts.close()

def leaves_once(kind, client):
    leaves(kind, client)
    say(kind, client, [user("begin")])

def silent(kind, client):
    pass

def play(task, client):
    found = globals()[task](task, client)
    return 1.0 if found is None else found
'''
# Of each agent how it ends, how many answers and rows it has, and how many of these go on from no row.
RULES = {
    "turns": (DONE, 3, 1, 0),
    "edited": (DONE, 2, 2, 1),
    "shortened": (DONE, 3, 2, 1),
    "parallel": (DONE, 6, 3, 2),
    "choices": (DONE, 3, 3, 2),
    "sub_agent": (DONE, 3, 2, 1),
    "retry": (DONE, 3, 2, 1),
    "twice": (DONE, 2, 2, 1),
    "stream": (DONE, 2, 1, 0),
    "cut_off": (DONE, 1, 1, 0),
    "fails": (FAILED, 1, 1, 0),
    "no_reward": (NO_REWARD, 1, 1, 0),
    "leaves_once": (DONE, 1, 1, 0),
    "leaves": (UNFINISHED, 0, 0, 0),
    "silent": (NO_CALL, 0, 0, 0),
}
KINDS = [*RULES, "tool", "endless"]


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Rollout], dict[str, list]]:
    """Rollouts of all kinds of agents at once, by kind, and what they noted."""
    file = tmp_path_factory.mktemp("kinds") / "kinds_of_agents.py"
    Path(file).write_text(AGENTS)
    agent = find_agent(f"{file}:play")
    base = base_model.load("tiny")
    policy = SampledPolicy(base, Renderer(base.tokenizer, base.template, base.end_ids), None, "v1")
    runner = RolloutRunner(agent, RunnerSettings(at_once=4, limits=FlightLimits(turns=30)))
    plans = [RolloutPlan(task, 0, 7 + task) for task in range(len(KINDS))]
    rollouts = runner.run(plans, KINDS, policy)
    return dict(zip(KINDS, rollouts, strict=True)), vars(agent.module)["SAID"]


@pytest.mark.parametrize("kind", RULES)
def test_how_it_ends_and_what_goes_on_from_what(played, kind):
    rollout = played[0][kind]
    assert (rollout.outcome, rollout.turns, len(rollout.rows), rollout.splits) == RULES[kind]
    assert (rollout.reward is None) == (rollout.outcome in (FAILED, NO_REWARD))


@pytest.mark.parametrize("kind", [each for each in KINDS if each not in ("leaves", "silent", "endless")])
def test_each_answer_is_in_one_row_as_it_was_sampled_and_nothing_else_is(played, kind):
    """Prompts, results of tools and what users say are read, and carry no log-probability and no advantage."""
    rollout, said = played[0][kind], played[1][kind]
    taken = [torch.zeros(len(row.ids), dtype=torch.bool) for row in rollout.rows]
    for prompt, ids, logprobs in said:
        place = _place(rollout, taken, prompt, ids)
        assert place is not None, f"an answer that is in no row: {ids}"
        row, span = rollout.rows[place], slice(len(prompt), len(prompt) + len(ids))
        taken[place][span] = True
        assert row.logprobs[span].tolist() == pytest.approx(logprobs, abs=1e-5)
    for row, spans in zip(rollout.rows, taken, strict=True):
        assert torch.equal(row.sampled, spans) and not row.logprobs[~spans].any() and row.versions == ("v1",)
    assert rollout.tokens == sum(len(ids) for _, ids, _ in said)


def _place(rollout: Rollout, taken: Sequence[torch.Tensor], prompt: list[int], ids: list[int]) -> int | None:
    """Return the row that begins with a prompt and goes on with an answer, where no other answer is."""
    for place, row in enumerate(rollout.rows):
        span = slice(len(prompt), len(prompt) + len(ids))
        if (
            row.ids[: span.stop].tolist() == [*prompt, *ids]
            and not taken[place][span].any()
            and row.sampled[span].all()
        ):
            return place
    return None


def test_what_a_tool_says_is_read_alone(played):
    """Whether or not the template writes the call as it was sampled, the result is in a row, and not learned."""
    rollout = played[0]["tool"]
    assert (rollout.outcome, rollout.turns) == (DONE, 2)
    tokenizer = base_model.load("tiny").tokenizer
    read = "".join(tokenizer.decode(row.ids[~row.sampled].tolist()) for row in rollout.rows)
    sampled = "".join(tokenizer.decode(row.ids[row.sampled].tolist()) for row in rollout.rows)
    assert "nothing there" in read and "nothing there" not in sampled and '"look"' in sampled


def test_the_same_answer_twice_counts_twice(played):
    one, other = played[0]["twice"].rows
    assert torch.equal(one.ids, other.ids) and torch.equal(one.sampled, other.sampled)


def test_what_is_cut_off_broken_off_or_left_is_counted(played):
    rollouts = played[0]
    assert rollouts["cut_off"].cut_off == 1 and rollouts["silent"].cut_off == 0
    endless = rollouts["endless"]
    assert (endless.outcome, endless.reward) == (TIMED_OUT, None) and endless.turns > 30
    assert [rollouts[kind].cancelled for kind in ("leaves", "leaves_once", "turns")] == [1, 1, 0]
    numbers = rollout_numbers(list(rollouts.values()), success=1.0)
    asked = len(KINDS) - 2
    assert numbers["failed"] == (3 / len(KINDS), len(KINDS))
    assert numbers["unfinished"] == (1 / asked, asked) and numbers["reward"] == (1.0, len(KINDS) - 3)
    lines = trouble_in(list(rollouts.values())).lines
    assert any(
        "1 of 17 rollouts: the agent went away from each of its answers before their end" in each for each in lines
    )
    assert any("1 of 17 rollouts: the agent never asked the model" in each for each in lines)


def test_each_row_has_the_advantage_of_its_rollout(played):
    """All of them together weigh as much as their rollout, however many there are."""
    some = [played[0][kind] for kind in ("turns", "parallel", "sub_agent", "cut_off")]
    for place, each in enumerate(some):
        each.task, each.sample, each.reward = 0, place, float(place)
    for average in ("tokens", "rollouts", "constant"):
        rows = Credit(CreditSettings(group_size=4, average=average, average_length=10)).rows(some, {})
        for place, rollout in enumerate(some):
            mine = [row for row in rows if row.rollout == place]
            assert len(mine) == len(rollout.rows)
            for row in mine:
                assert torch.equal(row.advantages, torch.where(row.sampled, place - 1.5, 0.0).float())
            counted = math.fsum(row.counts for row in mine)
            assert counted == pytest.approx(rollout.tokens if average == "tokens" else 1.0)


def test_a_reward_for_failures_is_told(played):
    some = [Rollout(0, 0, FAILED, 0.0, told="x.py:1", turns=1, tokens=1), Rollout(0, 1, DONE, 1.0, turns=1, tokens=1)]
    (line,) = trouble_in(some).lines
    assert line == "1 of 2 rollouts: the agent failed, and their reward is failed_reward = 0: x.py:1"
    numbers = rollout_numbers(some, success=1.0)
    assert numbers["failed"] == (0.5, 2) and numbers["reward"] == (0.5, 2) and numbers["success"] == (0.5, 2)
