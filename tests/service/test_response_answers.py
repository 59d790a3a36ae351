"""The Responses protocol as OpenAI's client meets it: answers, streams, calls of functions, going on from an answer."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")

import httpx
import openai
from service_models import END, TOOLS, scripted, serving

from service.sampling.exchange import ExchangeLog

ADD = {"type": "function", "name": "add", "description": "adds", "strict": None,
       "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}}  # fmt: skip
CALL = ("Let me see.", "\n<tool_", "call>\n", '{"name": "add", ', '"arguments": {"a": 1}}', "\n</tool_call>")


@pytest.fixture(scope="module")
def letters():
    with serving(scripted(b"ABCDEFG", template=TOOLS)) as served:
        yield served


def ask(served, key="somebody", **fields):
    return served.client(key).responses.create(**{"model": "tiny", "input": "Hi", **fields})


def test_an_answer(letters):
    """It is the chat's, in other words."""
    answer = ask(letters, instructions="Be brief", top_logprobs=2, include=["message.output_text.logprobs"],
                 extra_body={"return_token_ids": True})  # fmt: skip
    (item,) = answer.output
    assert (answer.output_text, answer.status, item.status, item.role) == (
        "ABCDEFG",
        "completed",
        "completed",
        "assistant",
    )
    assert answer.token_ids == [*b"ABCDEFG", END] and answer.system_fingerprint == "version of tiny"
    messages = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
    chat = letters.client().chat.completions.create(
        model="tiny", messages=messages, logprobs=True, top_logprobs=2, extra_body={"return_token_ids": True}
    )
    assert answer.prompt_token_ids == chat.prompt_token_ids
    counts = (answer.usage.input_tokens, answer.usage.output_tokens, answer.usage.total_tokens)
    assert counts == (len(chat.prompt_token_ids), 8, len(chat.prompt_token_ids) + 8)
    told = [(each.token, each.logprob, len(each.top_logprobs)) for each in item.content[0].logprobs]
    assert told == [(each.token, each.logprob, 2) for each in chat.choices[0].logprobs.content]
    assert answer.instructions == "Be brief" and answer.temperature == 1.0 and answer.text.format.type == "text"
    # A second reading by the client's own types: nothing that they need is missing.
    type(answer).model_validate(answer.model_dump(by_alias=True))


def test_an_answer_that_is_cut_is_incomplete(letters):
    answer = ask(letters, max_output_tokens=3)
    assert (answer.status, answer.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert answer.output_text == "ABC" and answer.output[0].status == "incomplete"
    with letters.client().responses.stream(model="tiny", input="Hi", max_output_tokens=3) as stream:
        kinds = [event.type for event in stream]
    assert kinds[-1] == "response.incomplete"


def test_a_stream_says_what_an_answer_does(letters):
    """Each event has its place in the protocol, and the client's own reading of them all gives the answer."""
    with letters.client().responses.stream(model="tiny", input="Hi", top_logprobs=0) as stream:
        events = list(stream)
        whole = stream.get_final_response()
    kinds = [event.type for event in events]
    deltas = [event for event in events if event.type == "response.output_text.delta"]
    assert kinds == [
        "response.created", "response.in_progress", "response.output_item.added", "response.content_part.added",
        *["response.output_text.delta"] * len(deltas), "response.output_text.done", "response.content_part.done",
        "response.output_item.done", "response.completed",
    ]  # fmt: skip
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(event.delta for event in deltas) == whole.output_text == "ABCDEFG" and len(deltas) > 3
    assert events[0].response.status == "in_progress" and whole.usage.output_tokens == 8
    assert {event.item_id for event in deltas} == {whole.output[0].id}
    assert len(whole.output[0].content[0].logprobs) == 8
    body = {"model": "tiny", "input": "Hi", "stream": True}
    raw = httpx.post(f"{letters.url}/v1/responses", json=body, timeout=60)
    parts = raw.text.strip().split("\n\n")
    assert all(part.split("\n")[0] == f"event: {json.loads(part.split('data: ')[1])['type']}" for part in parts)


def test_a_silent_answer_is_a_message_without_text():
    with serving(scripted(b"")) as served:
        answer = ask(served)
        assert [item.type for item in answer.output] == ["message"] and answer.output_text == ""
        with served.client().responses.stream(model="tiny", input="Hi") as stream:
            kinds = [event.type for event in stream]
        assert kinds[2:] == [
            "response.output_item.added", "response.content_part.added", "response.output_text.done",
            "response.content_part.done", "response.output_item.done", "response.completed",
        ]  # fmt: skip


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("by_id", [False, True])
def test_calls_of_functions_go_on_from_the_sampled_ids(stream, by_id):
    """What an answer said and called comes back as two items, or by the answer's id."""
    log = ExchangeLog()
    with serving(scripted(*CALL, template=TOOLS), log=log) as served:
        log.open("a")
        client = served.client("a")
        if stream:
            with client.responses.stream(model="tiny", input="Hi", tools=[ADD]) as events:
                kinds = [event.type for event in events]
                answer = events.get_final_response()
            assert kinds[-5:] == [
                "response.output_item.added", "response.function_call_arguments.delta",
                "response.function_call_arguments.done", "response.output_item.done", "response.completed",
            ]  # fmt: skip
        else:
            answer = ask(served, "a", tools=[ADD])
        _, call = answer.output
        assert (answer.output_text, answer.status) == ("Let me see.", "completed")
        assert (call.type, call.name, call.arguments, call.status) == ("function_call", "add", '{"a": 1}', "completed")
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "2"}
        if by_id:
            ask(served, "a", tools=[ADD], input=[result], previous_response_id=answer.id)
        else:
            before = [{"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
                      *(item.model_dump(exclude_none=True) for item in answer.output)]  # fmt: skip
            ask(served, "a", tools=[ADD], input=[*before, result])
        first, second = log.close("a")
    whole = first.prompt_ids + first.token_ids
    assert second.prompt_ids[: len(whole)] == whole
    roles = ["user", "assistant", "tool"]
    assert [message["role"] for message in second.messages] == roles and first.finish == "tool_calls"


def test_instructions_hold_for_one_answer_and_an_id_is_its_keys_own(letters):
    first = ask(letters, instructions="one")
    second = ask(letters, input="and?", previous_response_id=first.id, extra_body={"return_token_ids": True})
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "ABCDEFG"},
                {"role": "user", "content": "and?"}]  # fmt: skip
    same = ask(letters, input=messages, extra_body={"return_token_ids": True})
    assert second.prompt_token_ids == same.prompt_token_ids and second.previous_response_id == first.id
    with pytest.raises(openai.BadRequestError, match="there is no such response any more: send all items as input"):
        ask(letters, "another", previous_response_id=first.id)


def test_forms_hold():
    pytest.importorskip("llguidance")
    with serving() as served:
        schema = {"type": "object", "properties": {"day": {"type": "integer", "minimum": 1, "maximum": 9}},
                  "required": ["day"], "additionalProperties": False}  # fmt: skip
        form = {"format": {"type": "json_schema", "name": "day", "strict": True, "schema": schema}}
        answer = ask(served, text=form, max_output_tokens=200, extra_body={"seed": 1})
        assert 1 <= json.loads(answer.output_text)["day"] <= 9
        called = ask(served, tools=[ADD | {"strict": True}], tool_choice={"type": "function", "name": "add"},
                     parallel_tool_calls=False, max_output_tokens=200, extra_body={"seed": 1})  # fmt: skip
        (call,) = called.output
        assert call.name == "add" and set(json.loads(call.arguments)) <= {"a"}
