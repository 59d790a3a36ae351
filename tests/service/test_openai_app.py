"""The OpenAI protocol as its own client and bare HTTP meet it: answers, streams, keys, errors, ids, who has gone."""

import json
import socket
import threading
from itertools import pairwise

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import httpx
import openai
from service_models import END, TOOLS, scripted, serving

from data.chat_messages import Conversation
from data.chat_renderer import Renderer
from llm import base_model
from llm.sampling_settings import SamplingSettings
from service.openai.openai_app import AppLimits
from service.sampling.exchange import ExchangeLog, seed_of
from service.sampling.schedules import Lockstep

HI = [{"role": "user", "content": "Hi"}]
EMOJI = "é😀".encode()


@pytest.fixture(scope="module")
def tiny():
    with serving() as served:
        yield served


@pytest.fixture(scope="module")
def letters():
    with serving(scripted(b"ABCDEFG")) as served:
        yield served


def chat(served, key="somebody", **fields):
    return served.client(key).chat.completions.create(**{"model": "tiny", "messages": HI, **fields})


def post(served, path="/v1/chat/completions", content=None, **fields) -> httpx.Response:
    body = json.dumps({"model": "tiny", "messages": HI, **fields}) if content is None else content
    return httpx.post(served.url + path, content=body, timeout=60)


def events(served, **fields) -> list[dict | str]:
    """The data of each event of a raw stream."""
    response = post(served, stream=True, **fields)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    *parts, last = response.text.split("\n\n")
    assert last == "" and all(part.startswith("data: ") for part in parts)
    return [part[6:] if part == "data: [DONE]" else json.loads(part[6:]) for part in parts]


# ------------------------------------------------------------------------------------------------------------ answers


def test_an_answer(letters):
    answer = chat(letters, logprobs=True, top_logprobs=2, extra_body={"return_token_ids": True})
    choice = answer.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "ABCDEFG", "stop")
    assert answer.model == "tiny" and answer.system_fingerprint == "version of tiny"
    assert choice.token_ids == [*b"ABCDEFG", END]
    base = scripted(b"ABCDEFG")
    prompt = Renderer(base.tokenizer, base.template).prompt(Conversation.of(HI))
    assert answer.prompt_token_ids == prompt
    counts = (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens)
    assert counts == (len(prompt), 8, len(prompt) + 8)
    told = choice.logprobs.content
    assert [entry.token for entry in told] == [*"ABCDEFG", "<|im_end|>"]
    assert [entry.bytes for entry in told] == [*([byte] for byte in b"ABCDEFG"), None]
    assert all(len(entry.top_logprobs) == 2 and entry.top_logprobs[0].token == entry.token for entry in told)
    assert all(entry.top_logprobs[0].logprob == entry.logprob > -0.01 for entry in told)


@pytest.mark.parametrize(
    ("settings", "text", "ids", "finish"),
    [
        ({"stop": "EF"}, "ABCD", b"ABCDEF", "stop"),
        ({"stop": ["G", "FG"]}, "ABCDE", b"ABCDEFG", "stop"),
        ({"stop": "A"}, "", b"A", "stop"),
        ({"stop": "EFX", "max_tokens": 6}, "ABCDEF", b"ABCDEF", "length"),
        ({"stop": ["DX", "CD"], "max_completion_tokens": 30}, "AB", b"ABCD", "stop"),
        ({"extra_body": {"stop_token_ids": [ord("C")]}}, "AB", b"ABC", "stop"),
        (
            {"extra_body": {"ignore_eos": True}, "max_tokens": 9, "temperature": 0},
            "ABCDEFG",
            [*b"ABCDEFG", END],
            "length",
        ),
    ],
)
def test_stops(letters, settings, text, ids, finish):
    """What is in the text, and what among the ids; a stream tells the same."""
    extra = {**settings.pop("extra_body", {}), "return_token_ids": True}
    choice = chat(letters, **settings, extra_body=extra, logprobs=True).choices[0]
    told = choice.token_ids[: len(ids)]
    assert (choice.message.content[: len(text)], told, choice.finish_reason) == (text, list(ids), finish)
    assert len(choice.logprobs.content) == len(choice.token_ids)
    *chunks, done = events(letters, **settings, **extra, logprobs=True, n=2)
    for number in (0, 1):
        mine = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["index"] == number]
        said = "".join(each["delta"].get("content", "") for each in mine)
        assert said == choice.message.content and done == "[DONE]"
        assert [each["finish_reason"] for each in mine] == [None] * (len(mine) - 1) + [finish]
        assert [token for each in mine for token in each.get("token_ids", [])] == choice.token_ids


@pytest.mark.parametrize("choices", [1, 2])
def test_a_stream_has_one_end_a_choice_then_usage_then_done(tiny, choices):
    *chunks, usage, done = events(tiny, n=choices, max_tokens=5, seed=1, stream_options={"include_usage": True})
    assert done == "[DONE]"
    ends = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["finish_reason"] is not None]
    assert sorted(each["index"] for each in ends) == list(range(choices))
    assert all(each["delta"] == {} for each in ends)
    begins = [chunk["choices"][0] for chunk in chunks if chunk["choices"][0]["delta"].get("role")]
    assert sorted(each["index"] for each in begins) == list(range(choices))
    assert all(chunk["usage"] is None for chunk in chunks) and usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5 * choices and usage["usage"]["prompt_tokens"] == 21
    assert len({chunk["id"] for chunk in [*chunks, usage]}) == 1
    without = events(tiny, max_tokens=5)
    assert not any("usage" in chunk for chunk in without[:-1])


def test_a_stream_says_what_an_answer_does(tiny):
    fields = {"seed": 5, "n": 2, "max_tokens": 30, "logprobs": True, "top_logprobs": 3}
    whole = chat(tiny, **fields, extra_body={"return_token_ids": True})
    said, ids, logprobs, prompt = ["", ""], [[], []], [[], []], []
    for chunk in chat(tiny, **fields, stream=True, extra_body={"return_token_ids": True}):
        prompt += getattr(chunk, "prompt_token_ids", None) or []
        for choice in chunk.choices:
            said[choice.index] += choice.delta.content or ""
            ids[choice.index] += getattr(choice, "token_ids", None) or []
            logprobs[choice.index] += choice.logprobs.content if choice.logprobs else []
    assert said == [choice.message.content for choice in whole.choices]
    assert ids == [choice.token_ids for choice in whole.choices] and prompt == whole.prompt_token_ids
    assert [[entry.token for entry in each] for each in logprobs] == [
        [entry.token for entry in choice.logprobs.content] for choice in whole.choices
    ]


@pytest.mark.parametrize(("most", "text"), [(6, "é😀"), (4, "é�"), (1, "�")])
def test_characters_are_never_cut(most, text):
    with serving(scripted(EMOJI)) as served:
        choice = chat(served, max_tokens=most, logprobs=True).choices[0]
        assert choice.message.content == text
        assert bytes(byte for entry in choice.logprobs.content for byte in entry.bytes) == EMOJI[:most]
        assert choice.logprobs.content[0].token == "bytes:\\xc3"
        deltas = [chunk["choices"][0]["delta"].get("content", "") for chunk in events(served, max_tokens=most)[:-1]]
        assert "".join(deltas) == text
        assert not any("�" in each for each in deltas[:-2])  # at most where the answer ends


def test_seeds(tiny):
    def drawn(**fields):
        return [choice.message.content for choice in chat(tiny, n=4, max_tokens=8, **fields).choices]

    first = drawn(seed=7)
    assert len(set(first)) == 4
    assert drawn(seed=7) == first and drawn(seed=8) != first and drawn() != drawn()
    with_others = [threading.Thread(target=drawn, kwargs={"seed": number}) for number in range(8)]
    for thread in with_others:
        thread.start()
    assert drawn(seed=7) == first
    for thread in with_others:
        thread.join()


def test_completions(letters):
    client = letters.client()
    answer = client.completions.create(model="tiny", prompt=["A", "xC"], n=2, logprobs=1, temperature=0)
    assert [choice.text for choice in answer.choices] == ["BCDEFG", "BCDEFG", "DEFG", "DEFG"]
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[2].logprobs.tokens == [*"DEFG", "<|im_end|>"]
    assert answer.choices[2].logprobs.text_offset == [0, 1, 2, 3, 4]
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 24)
    by_ids = client.completions.create(model="tiny", prompt=[120, 67], extra_body={"return_token_ids": True})
    assert by_ids.choices[0].text == "DEFG" and by_ids.choices[0].prompt_token_ids == [120, 67]
    parts = list(client.completions.create(model="tiny", prompt=["A", "C"], stream=True))
    said = ["".join(part.choices[0].text for part in parts if part.choices[0].index == n) for n in (0, 1)]
    assert said == ["BCDEFG", "DEFG"]
    assert [part.choices[0].finish_reason for part in parts].count("stop") == 2


def test_completions_have_16_tokens_where_none_are_named_and_chats_the_context(tiny):
    client = tiny.client()
    assert client.completions.create(model="tiny", prompt="x", seed=4).usage.completion_tokens <= 16
    answer = chat(tiny, messages=[{"role": "user", "content": "x" * 2000}], extra_body={"ignore_eos": True})
    assert answer.usage.total_tokens == 2048 and answer.choices[0].finish_reason == "length"


def test_models(letters):
    client = letters.client()
    assert [model.id for model in client.models.list()] == ["tiny"]
    assert client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError, match="there is no model 'a/b'; there are: tiny"):
        client.models.retrieve("a/b")


# -------------------------------------------------------------------------------------------------------------- edges


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"temperature": -1}, "temperature is -1; allowed are numbers of 0 or more"),
        ({"temperature": "1"}, "temperature is \"1\"; allowed"),
        ({"temperature": True}, "temperature is true; allowed"),
        ({"top_p": 2}, "top_p is 2; allowed are numbers from 0 to 1"),
        ({"max_tokens": 0}, "max_tokens is 0; allowed are integers of 1 or more"),
        ({"max_tokens": -1}, "max_tokens is -1; allowed are integers of 1 or more"),
        ({"max_completion_tokens": 2.5}, "max_completion_tokens is 2.5; allowed are integers of 1 or more"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens is 3; max_completion_tokens is 4: give one"),
        ({"n": 0}, "n is 0; allowed are integers from 1 to 128"),
        ({"n": 129}, "n is 129; allowed are integers from 1 to 128"),
        ({"seed": 1.5}, "seed is 1.5; allowed are integers"),
        ({"stop": ""}, 'stop is ""; allowed are strings of 1 character or more'),
        ({"stop": 3}, "stop is 3; it must be a string, or a list of up to 64"),
        ({"stop": ["a"] * 65}, "it must be a string, or a list of up to 64"),
        ({"stop_token_ids": [261]}, "stop_token_ids is 261; token ids go from 0 to 260"),
        ({"logprobs": 1}, "logprobs is 1; allowed are true and false"),
        ({"top_logprobs": 2}, "top_logprobs is 2; it needs logprobs: true"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs is 21; allowed are integers from 0 to 20"),
        ({"stream_options": {"include_usage": True}}, "it is allowed with stream: true only"),
        ({"stream": True, "stream_options": {"other": True}}, "stream_options.other is not supported"),
        ({"stream": "yes"}, 'stream is "yes"; allowed are true and false'),
        ({"frequency_penalty": 2.5}, "frequency_penalty is 2.5; allowed are numbers from -2 to 2"),
        ({"presence_penalty": "1"}, "presence_penalty is \"1\"; allowed are numbers from -2 to 2"),
        ({"logit_bias": {"a": 2}}, "it must be an object of token ids, as text, and numbers"),
        ({"logit_bias": {"1": 101}}, "logit_bias is 101; allowed are numbers from -100 to 100"),
        ({"logit_bias": {"261": 1}}, "logit_bias is 261; token ids go from 0 to 260"),
        ({"store": True}, "store is true; only false is supported"),
        ({"echo": True}, "echo is not supported; known are"),
        ({"reasoning": {"effort": "high"}}, "reasoning is not supported; known are"),
        ({"functions": [{}]}, "it is not supported: use tools and tool_choice"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools are not supported: the chat template"),
        ({"messages": []}, "messages is []; it must be a list of 1 message or more"),
        ({"messages": "Hi"}, "it must be a list of 1 message or more"),
        ({"messages": [3]}, "message 1 must be an object with role and content"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "robot"),
        ({"messages": [{"role": "user", "content": 3}]}, "content is no text"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "only text can be used"),
        ({"messages": [{"role": "user", "content": "x" * 2048}]}, "the model's context is 2048 tokens"),
        ({"model": None}, "model is null; it must be the name of a model"),
        ({"modell": "tiny"}, "modell is not supported; known are"),
    ],
)  # fmt: skip
def test_what_can_not_be_done_is_400_by_field_and_the_next_request_works(letters, fields, says):
    response = post(letters, **fields)
    error = response.json()["error"]
    assert response.status_code == 400 and says in error["message"], error
    assert error["type"] == "invalid_request_error"
    assert error["param"] in (*fields, "stream_options.other") and error.keys() == {
        "message", "type", "param", "code"}  # fmt: skip
    assert chat(letters).choices[0].message.content == "ABCDEFG"


def test_null_is_the_default_and_0_is_not(tiny):
    nulls = dict.fromkeys(
        ("temperature", "top_p", "n", "stop", "seed", "max_tokens", "max_completion_tokens", "logprobs", "top_logprobs",
         "stream", "stream_options", "tools", "tool_choice", "response_format", "frequency_penalty", "logit_bias",
         "user", "functions", "whatever"), None)  # fmt: skip
    with_nulls = post(tiny, **{**nulls, "seed": 3, "max_tokens": 8}).json()
    assert with_nulls["choices"][0]["message"] == post(tiny, seed=3, max_tokens=8).json()["choices"][0]["message"]
    greedy = {post(tiny, temperature=0, max_tokens=8).json()["choices"][0]["message"]["content"] for _ in range(3)}
    nearly = post(tiny, temperature=1e-4, max_tokens=8).json()["choices"][0]["message"]["content"]
    top = post(tiny, top_p=0, max_tokens=8).json()["choices"][0]["message"]["content"]
    assert greedy == {nearly} == {top}
    drawn = {
        choice["message"]["content"] for choice in post(tiny, temperature=1.0, n=20, max_tokens=8).json()["choices"]
    }
    assert len(drawn) > 1


def test_defaults_are_for_fields_that_a_request_does_not_have():
    with serving(defaults=SamplingSettings(temperature=0, max_tokens=3)) as served:
        answers = [chat(served), chat(served), chat(served, max_tokens=None), chat(served, max_tokens=7)]
        assert [answer.usage.completion_tokens for answer in answers] == [3, 3, 3, 7]
        assert len({answer.choices[0].message.content for answer in answers[:3]}) == 1


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "is not JSON in UTF-8"),
        (b"{", "is not JSON in UTF-8"),
        (b"[]", "must be a JSON object"),
        (b"\xff", "is not JSON in UTF-8"),
        (b"[" * 100000, "nested too deeply"),
        (b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud83d"}]}',
         "messages[0].content has half of a character in it (\\ud83d)"),
        (b'{"model": "\\udfff", "messages": []}', "model has half of a character"),
        (b'{"model": "tiny", "temperature": NaN}', "NaN is no number of JSON"),
        (b'{"model": "tiny", "temperature": 1e999, "messages": [{"role": "user", "content": "x"}]}', "temperature is"),
        (b'{"model": "tiny", "seed": ' + b"9" * 5000 + b"}", "is not JSON in UTF-8"),
    ],
)  # fmt: skip
def test_bodies_that_are_none_are_400(letters, body, says):
    response = post(letters, content=body)
    assert response.status_code == 400 and says in response.json()["error"]["message"], response.text
    pair = b'{"model": "tiny", "messages": [{"role": "user", "content": "\\ud83d\\ude00"}]}'
    assert post(letters, content=pair).json()["choices"][0]["message"]["content"] == "ABCDEFG"


def test_a_body_has_a_limit():
    with serving(scripted(b"AB"), limits=AppLimits(body=1000)) as served:
        response = post(served, messages=[{"role": "user", "content": "x" * 1000}])
        assert response.status_code == 413 and "longer than 1000 bytes" in response.json()["error"]["message"]
        assert chat(served).choices[0].message.content == "AB"


def test_a_long_prompt_is_refused_by_its_tokens(letters):
    error = post(letters, messages=[{"role": "user", "content": "x" * 300000}]).json()["error"]
    assert (
        "of 25001 tokens or more; the model's context is 2048" in error["message"]
        and error["code"] == "context_length_exceeded"
    )
    assert error["param"] == "messages"


@pytest.mark.parametrize(("method", "path", "status"), [
    ("GET", "/v1/chat/completions", 405), ("POST", "/v1/nothing", 404), ("GET", "/", 404), ("GET", "/v1/models/x", 404),
])  # fmt: skip
def test_paths_that_are_none(letters, method, path, status):
    response = httpx.request(method, letters.url + path)
    assert response.status_code == status and response.json()["error"]["message"]


def test_an_unknown_model_is_404_with_the_known_names(letters):
    with pytest.raises(openai.NotFoundError, match="there is no model 'gpt-4o'; there are: tiny") as caught:
        chat(letters, model="gpt-4o")
    assert caught.value.code == "model_not_found" and caught.value.param == "model"


# --------------------------------------------------------------------------------------------------------------- keys


def test_keys_come_as_bearer_or_in_the_path():
    log = ExchangeLog()
    with serving(scripted(b"AB"), log=log) as served:
        log.open("a b?é")
        log.open("bearer")
        chat(served, key="bearer")
        path = "/keys/a%20b%3F%C3%A9/v1/chat/completions"
        in_path = httpx.post(
            served.url + path, json={"model": "tiny", "messages": HI}, headers={"authorization": "Bearer x"}
        )
        assert in_path.status_code == 200, in_path.text
        assert [len(log.exchanges(key)) for key in ("a b?é", "bearer")] == [1, 1]
        with pytest.raises(openai.AuthenticationError, match="the key 'other' is not open"):
            chat(served, key="other")
        assert (
            httpx.post(served.url + "/v1/chat/completions", json={"model": "tiny", "messages": HI}).status_code == 401
        )
        log.close("bearer")
        with pytest.raises(openai.AuthenticationError):
            chat(served, key="bearer")


# ----------------------------------------------------------------------------------------------------------- exchanges


def test_an_exchange_has_all_that_was_said_and_its_exact_ids():
    log = ExchangeLog()
    with serving(log=log) as served:
        log.open("a", seed=11)
        answer = chat(served, "a", n=2, max_tokens=12, temperature=0.7, extra_body={"return_token_ids": True})
        streamed = chat(served, "a", stream=True, seed=5, max_tokens=3, extra_body={"return_token_ids": True})
        ids = [token for chunk in streamed for choice in chunk.choices for token in getattr(choice, "token_ids", [])]
        first, second, third = log.close("a")
    assert [(each.number, each.choice) for each in (first, second, third)] == [(0, 0), (0, 1), (1, 0)]
    for exchange, choice in zip((first, second), answer.choices, strict=True):
        assert exchange.token_ids == tuple(choice.token_ids) and exchange.prompt_ids == tuple(answer.prompt_token_ids)
        assert exchange.answer == {"role": "assistant", "content": choice.message.content}
        assert exchange.finish == choice.finish_reason and exchange.version == "version of tiny"
        assert len(exchange.logprobs) == len(exchange.token_ids)
        assert exchange.settings.temperature == 0.7 and exchange.settings.seed == seed_of(11, 0)
        assert exchange.messages == tuple(HI) and exchange.key == "a" and exchange.model == "tiny"
    assert third.token_ids == tuple(ids) and third.settings.seed == 5


def test_what_only_reads_a_prompt_is_no_exchange():
    """A token that the client never got is nothing to be trained on."""
    log = ExchangeLog()
    with serving(scripted(b"AB"), log=log) as served:
        log.open("a")
        given = {"model": "tiny", "prompt": "A", "echo": True, "logprobs": 0, "max_tokens": 0}
        assert served.client("a").completions.create(**given).choices[0].text == "A"
        assert served.client("a").completions.create(**given | {"max_tokens": 1}).choices[0].text == "AB"
        (exchange,) = log.close("a")
    assert exchange.token_ids == (ord("B"),) and exchange.number == 1


def test_keys_with_a_seed_draw_the_same_again_and_each_request_other_numbers():
    log = ExchangeLog()
    with serving(log=log) as served:
        said = []
        for key in ("a", "b"):
            log.open(key, seed=3)
            said.append([chat(served, key, max_tokens=8).choices[0].message.content for _ in range(3)])
    assert said[0] == said[1] and len(set(said[0])) == 3


def test_the_next_prompt_goes_on_from_the_ids_that_were_sampled():
    """Random bytes are no UTF-8: their text, encoded again, would give other ids."""
    log = ExchangeLog()
    base = base_model.load("tiny")
    with serving(base, log=log) as served:
        log.open("a", seed=2)
        messages = list(HI)
        for turn in range(4):
            stream = turn == 2
            answer = chat(served, "a", messages=messages, max_tokens=12, stream=stream)
            if stream:
                said = "".join(choice.delta.content or "" for chunk in answer for choice in chunk.choices)
                messages.append({"role": "assistant", "content": said})
            else:
                messages.append(answer.choices[0].message)  # as agents do, with all of its nulls
            messages.append({"role": "user", "content": f"turn {turn}"})
        turns = log.close("a")
    plain = [dict(message) if isinstance(message, dict) else message.model_dump() for message in messages]
    assert any("�" in message["content"] for message in plain[1::2])
    for before, after in pairwise(turns):
        whole = before.prompt_ids + before.token_ids
        assert after.prompt_ids[: len(whole)] == whole
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    assert renderer.prompt(Conversation.of(plain[:3])) != list(turns[1].prompt_ids)


def test_an_answer_that_was_changed_is_encoded_anew():
    log = ExchangeLog()
    base = base_model.load("tiny")
    renderer = Renderer(base.tokenizer, base.template, base.end_ids)
    with serving(base, log=log) as served:
        log.open("a", seed=2)
        said = chat(served, "a", max_tokens=12).choices[0].message.content
        for content, before in ((said + "!", HI), (said, [{"role": "user", "content": "another"}])):
            messages = [*before, {"role": "assistant", "content": content}, {"role": "user", "content": "go on"}]
            chat(served, "a", messages=messages, max_tokens=1)
            last = log.exchanges("a")[-1]
            assert list(last.prompt_ids) == renderer.prompt(Conversation.of(messages)) and not last.sampled


# -------------------------------------------------------------------------------------------------------------- tools

ADD = [{"type": "function", "function": {"name": "add", "description": "adds", "parameters": {
    "type": "object", "properties": {"a": {"type": "integer"}}}}}]  # fmt: skip
CALL = ("Let me see.", "\n<tool_", "call>\n", '{"name": "add", ', '"arguments": {"a": 1}}', "\n</tool_call>")


@pytest.mark.parametrize("stream", [False, True])
def test_calls_of_tools(stream):
    log = ExchangeLog()
    with serving(scripted(*CALL, template=TOOLS), log=log) as served:
        log.open("a")
        answer = chat(served, "a", tools=ADD, stream=stream)
        if stream:
            deltas = [chunk.choices[0] for chunk in answer]
            content = "".join(each.delta.content or "" for each in deltas)
            calls = [call for each in deltas for call in each.delta.tool_calls or []]
            finish = deltas[-1].finish_reason
            assert [call.index for call in calls] == [0]
        else:
            message, finish = answer.choices[0].message, answer.choices[0].finish_reason
            content, calls = message.content, message.tool_calls
        assert (content, finish, len(calls)) == ("Let me see.", "tool_calls", 1)
        assert (calls[0].function.name, calls[0].function.arguments) == ("add", '{"a": 1}')
        # As some clients send it back: encoded again by themselves, with what streams have beside it.
        function = {"name": "add", "arguments": '{"a":1}'}
        call = {"id": calls[0].id, "type": "function", "function": function, **({"index": 0} if stream else {})}
        messages = [*HI, {"role": "assistant", "content": content, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": calls[0].id, "content": "2"}]  # fmt: skip
        chat(served, "a", messages=messages, tools=ADD)
        first, second = log.close("a")
    whole = first.prompt_ids + first.token_ids
    assert second.prompt_ids[: len(whole)] == whole  # the template writes the call as it was sampled
    assert first.finish == "tool_calls" and first.tools == tuple(ADD)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (("<tool_call>", '{"name": "add", "arguments": {'), '<tool_call>{"name": "add", "arguments": {'),
        (("<tool_call>", "{}", "</tool_call>"), "<tool_call>{}</tool_call>"),
        (("<tool_call>", '{"name": "f", "arguments": 3}', "</tool_call>"), None),
        (("<tool_call>", '{"name": "f", "arguments": {"a": "\\ud83d"}}', "</tool_call>"), None),
        (("<tool_call>", '{"name": "f", "arguments": {"a": NaN}}', "</tool_call>"), None),
        (("<tool_call>", '{"name": "f"}', "</tool_call>", " and more"), None),
        (("a <tool", "  ", "b "), "a <tool  b "),
    ],
)
def test_what_is_no_call_is_text(parts, text):
    with serving(scripted(*parts, template=TOOLS)) as served:
        choice = chat(served, tools=ADD).choices[0]
        wanted = "".join(parts) if text is None else text
        assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == (wanted, None, "stop")
        deltas = [each.choices[0].delta.content or "" for each in chat(served, tools=ADD, stream=True)]
        assert "".join(deltas) == wanted
        assert chat(served, tools=ADD, tool_choice="none").choices[0].message.content == wanted


def test_a_call_with_broken_arguments_comes_back_as_it_was():
    """What a model wrote, or was cut off in, is no JSON at times, and agents send it back with what went wrong."""
    log = ExchangeLog()
    cut = ("<tool_call>\n", '{"name": "add", ', '"arguments": {"a": ', "1}}", "\n</tool_call>")
    with serving(scripted(*cut, template=TOOLS), log=log) as served:
        log.open("a")
        message = chat(served, "a", tools=ADD, max_tokens=3).choices[0].message
        (call,) = message.tool_calls
        assert call.function.arguments.strip() == '{"a":'
        answer = {"role": "assistant", "content": message.content, "tool_calls": [call.model_dump()]}
        result = {"role": "tool", "tool_call_id": call.id, "content": "that is no JSON"}
        assert chat(served, "a", messages=[*HI, answer, result], tools=ADD).choices[0].finish_reason == "tool_calls"
        _, second = log.close("a")
        told = served.loop.sampler.base.tokenizer.decode(second.prompt_ids)
        assert f'"arguments": {json.dumps(call.function.arguments)}' in told and "that is no JSON" in told


def test_tools_are_shown_only_where_they_may_be_called():
    with serving(scripted(b"AB", template=TOOLS)) as served:
        counts = [chat(served, tools=ADD, tool_choice=choice).usage.prompt_tokens for choice in ("auto", "none")]
        assert counts[0] > counts[1] == chat(served).usage.prompt_tokens


# ------------------------------------------------------------------------------------------------------------ clients


def test_two_streams_grow_side_by_side():
    with serving() as served:
        streams = [chat(served, stream=True, extra_body={"ignore_eos": True}) for _ in range(2)]
        for _ in range(5):
            assert all(next(stream).choices[0].finish_reason is None for stream in streams)
        assert served.loop.under_way == 2  # neither waits for the other
        for stream in streams:
            stream.close()


@pytest.mark.parametrize("moment", ["queued", "whole", "streaming"])
def test_who_has_gone_frees_the_row(moment, monkeypatch):
    """One row: the next request can only be answered if the one before has let go of it."""
    log = ExchangeLog()
    with serving(rows=1, log=log) as served:
        for key in ("gone", "holds", "next"):
            log.open(key)
        holder = chat(served, "holds", stream=True, extra_body={"ignore_eos": True}) if moment == "queued" else None
        submit, sampler = served.loop.sampler.submit, served.loop.sampler
        begun, under_way = threading.Event(), threading.Event()
        monkeypatch.setattr(sampler, "submit", lambda request: (begun.set(), submit(request))[1])
        step = sampler.step

        def stepped() -> bool:
            more = step()
            if begun.is_set():
                under_way.set()
            return more

        monkeypatch.setattr(sampler, "step", stepped)
        body = json.dumps({"model": "tiny", "messages": HI, "ignore_eos": True, "stream": moment == "streaming"})
        connection = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))
        head = f"POST /keys/gone/v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall((head + body).encode())
        assert under_way.wait(60)
        if moment == "streaming":
            assert b"200 OK" in connection.recv(1000)
        connection.close()
        if holder is not None:
            holder.close()
        assert chat(served, "next", max_tokens=3).usage.completion_tokens <= 3
        left = log.close("gone")
        assert [(each.finish, 0 < len(each.token_ids) < 2000) for each in left] == [("cancelled", True)] * (
            holder is None
        )
        assert served.loop.under_way == served.loop.waiting == sampler.slots == 0


def test_a_failed_step_is_500_and_in_a_stream_an_event(monkeypatch):
    with serving() as served:
        monkeypatch.setattr(served.loop.sampler, "step", lambda: 1 / 0)
        with pytest.raises(openai.InternalServerError, match="sampling failed: division by zero"):
            chat(served)
        monkeypatch.undo()
        assert chat(served, max_tokens=2).usage.completion_tokens <= 2


def test_a_server_that_ends_answers_who_waits(caplog):
    """The client of a stream hears of the end, and no log does."""
    with serving() as served:
        response = httpx.Client(timeout=60).send(
            httpx.Request("POST", f"{served.url}/v1/chat/completions", json={
                "model": "tiny", "messages": HI, "stream": True, "ignore_eos": True, "max_tokens": 2000}), stream=True
        )  # fmt: skip
        lines = response.iter_lines()
        assert next(lines).startswith("data: ")
        served.loop.close()
        last = [line for line in lines if line][-1]
    assert json.loads(last[6:])["error"]["message"] == "the service has been closed"
    assert not [record for record in caplog.records if record.name.startswith(("uvicorn", "service"))]


def test_an_ended_service_answers_503():
    with serving() as served:
        served.loop.close()
        assert post(served).status_code == 503


# ----------------------------------------------------------------------------------------------------------- lockstep


def rollouts(order: list[str]) -> dict[str, list[tuple]]:
    """Two rollouts of 3 and 2 turns in lockstep, whose requests arrive in a given order; what they got."""
    schedule, log = Lockstep(), ExchangeLog()
    turn_of = {name: threading.Event() for name in order}
    turns = {"a": 3, "b": 2}
    with serving(schedule=schedule, log=log) as served:
        for number, key in enumerate(turns):
            log.open(key, seed=number)
        schedule.enter(*turns)

        def agent(key: str) -> None:
            messages = [{"role": "user", "content": f"I am {key}. " + "x" * 50 * (key == "a")}]
            for turn in range(turns[key]):
                name = f"{key}{turn}"
                turn_of[name].wait(60)
                position = order.index(name)
                if position + 1 < len(order):
                    turn_of[order[position + 1]].set()
                answer = chat(served, key, messages=messages, max_tokens=6 + turn)
                messages += [answer.choices[0].message, {"role": "user", "content": str(turn)}]
            schedule.leave(key)

        threads = [threading.Thread(target=agent, args=(key,)) for key in turns]
        for thread in threads:
            thread.start()
        turn_of[order[0]].set()
        for thread in threads:
            thread.join(60)
        return {key: [(each.prompt_ids, each.token_ids, each.logprobs) for each in log.close(key)] for key in turns}


def test_lockstep_gives_the_same_bits_whoever_asks_first():
    first = rollouts(["a0", "b0", "a1", "b1", "a2"])
    assert rollouts(["b0", "a0", "b1", "a1", "a2"]) == first
    assert [len(each) for each in first.values()] == [3, 2]
