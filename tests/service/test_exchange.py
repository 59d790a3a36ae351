"""The record of what was said: by key and number, and which ids an answer that comes back was sampled as."""

import pytest

from data.chat_messages import Conversation
from llm.sampling_settings import SamplingSettings
from service.sampling.exchange import Exchange, ExchangeLog, UnknownKeyError, seed_of

ASK = {"role": "user", "content": "Hi"}


def exchange(number: int, answer: dict, ids: tuple[int, ...], messages=(ASK,), key: str = "a", **more) -> Exchange:
    return Exchange(key, number, more.pop("choice", 0), "m", "v", (1, 2), ids, (0.0,) * len(ids), "stop", 0,
                    SamplingSettings(), answer, tuple(messages), **more)  # fmt: skip


def say(text: str) -> dict:
    return {"role": "assistant", "content": text}


def sampled(log: ExchangeLog, *messages: dict, tools=(), key: str = "a") -> dict:
    return log.sampled(key, Conversation.of(messages, tools))


def test_keys_are_open_from_open_to_close():
    log = ExchangeLog()
    log.open("a", seed=3)
    assert log.begin("a") == (0, seed_of(3, 0)) and log.begin("a") == (1, seed_of(3, 1))
    with pytest.raises(ValueError, match="open already"):
        log.open("a")
    log.add(exchange(1, say("x"), (7,)))
    log.add(exchange(0, say("x"), (6,), choice=1))
    log.add(exchange(0, say("x"), (5,)))
    log.add(exchange(0, say("x"), (5,), key="b"))  # not open: dropped
    assert [each.token_ids for each in log.exchanges("a")] == [(5,), (6,), (7,)] == [
        each.token_ids for each in log.close("a")]  # fmt: skip
    for ask in (log.close, log.exchanges, log.begin, log.require):
        with pytest.raises(UnknownKeyError, match="the key 'a' is not open"):
            ask("a")
    log.open("a")
    assert log.begin("a") == (0, None) and log.exchanges("a") == []


def test_requests_that_are_sampled_are_unanswered_until_they_have_their_answer():
    log = ExchangeLog()
    log.open("a")
    log.expect("a", [0, 1])
    log.expect("a", [2])
    log.expect("a", [3], answered=True)
    log.expect("b", [0])  # not open: nobody asks for it
    log.add(exchange(1, say("x"), (7,)))
    assert log.unanswered("a") == {0, 2}
    log.expect("a", [0], answered=True)
    assert log.unanswered("a") == {2}
    log.close("a")
    with pytest.raises(UnknownKeyError, match="the key 'a' is not open"):
        log.unanswered("a")


def test_where_all_may_ask_each_has_a_number_of_its_own():
    log = ExchangeLog(only_open=False)
    log.require("x")
    assert [log.begin("x"), log.begin("y"), log.begin("x")] == [(0, None), (1, None), (2, None)]


def test_seeds_differ_and_stay():
    assert seed_of(1, 2) == seed_of(1, 2)
    assert len({seed_of(a, b) for a in range(20) for b in range(20)}) == 400
    assert all(0 <= seed_of(1, number) < 2**63 for number in range(100))


def test_an_answer_is_known_by_all_that_was_said_before_it():
    log = ExchangeLog()
    log.open("a")
    log.open("b")
    log.add(exchange(0, say("x"), (7,)))
    more = {"role": "user", "content": "more"}
    assert sampled(log, ASK, say("x"), more) == {1: (7,)}
    assert sampled(log, ASK, {**say("x"), "refusal": None, "tool_calls": None, "annotations": []}, more) == {1: (7,)}
    assert sampled(log, ASK, {"role": "assistant", "content": [{"type": "text", "text": "x"}]}) == {1: (7,)}
    assert sampled(log, ASK, say("y"), more) == {}
    assert sampled(log, {"role": "user", "content": "Ho"}, say("x"), more) == {}
    assert sampled(log, ASK, ASK, say("x"), more) == {}
    assert sampled(log, ASK, say("x"), tools=[{"type": "function", "function": {"name": "f"}}]) == {}
    assert sampled(log, ASK, say("x"), more, key="b") == {} == sampled(log, ASK, say("x"), more, key="c")


def test_of_answers_with_one_text_the_one_that_was_gone_on_from_counts():
    log = ExchangeLog()
    log.open("a")
    first, more = {1: (7,)}, {"role": "user", "content": "more"}
    log.add(exchange(0, say("x"), (7,)))
    log.add(exchange(1, say("y"), (9,), (ASK, say("x"), more), sampled=first))
    log.add(exchange(2, say("x"), (5, 2)))  # the first question once more, the same text by other ids
    assert sampled(log, ASK, say("x"), more, say("y")) == {1: (7,), 3: (9,)}
    assert sampled(log, ASK, say("x"), more) == {1: (5, 2)}


def test_calls_of_tools_are_known_in_whatever_form_they_come_back():
    log = ExchangeLog()
    log.open("a")
    function = {"name": "f", "arguments": '{"b": 1, "a": "é"}'}
    call = {"id": "call_1", "type": "function", "function": function}
    log.add(exchange(0, {"role": "assistant", "content": None, "tool_calls": [call]}, (7,)))
    back = {**call, "index": 0, "function": {"name": "f", "arguments": '{"a":"\\u00e9","b":1}'}}
    assert sampled(log, ASK, {"role": "assistant", "content": "", "tool_calls": [back]}) == {1: (7,)}
    other = {**call, "function": {"name": "f", "arguments": "{}"}}
    assert sampled(log, ASK, {"role": "assistant", "content": None, "tool_calls": [other]}) == {}
