"""Requests of the Responses protocol: items become messages, and what can't be done is refused by its field's name."""

import pytest

from llm.sampling_settings import SamplingSettings
from service.openai.response_requests import ResponseRequest, response_request
from service.openai.said_before import Said, SaidBefore
from service.web.openai_error import RequestError

TEXT = {"type": "output_text", "text": "so", "annotations": [], "logprobs": []}
ANSWER = {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [TEXT]}


def call(number: int) -> dict[str, str]:
    return {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": "f", "arguments": "{}"}


def result(number: int) -> dict[str, str]:
    return {"type": "function_call_output", "call_id": f"call_{number}", "output": f"is {number}"}


def read(find=lambda id: None, **fields) -> ResponseRequest:
    return response_request({"model": "m", "input": "Hi", **fields}, SamplingSettings(), find)


def said(items) -> list[tuple[str, str | None, list[str]]]:
    """Of each message its role, its text and the ids of its calls."""
    messages = read(input=items).chat.messages
    return [(each["role"], each["content"], [call["id"] for call in each.get("tool_calls", [])]) for each in messages]


def test_items_of_one_answer_are_one_message():
    assert said("Hi") == [("user", "Hi", [])]
    user = {"role": "user", "content": [{"type": "input_text", "text": "H"}, {"type": "input_text", "text": "i"}]}
    assert said([user, ANSWER, call(1), call(2), result(1), result(2), call(3), result(3), ANSWER, ANSWER]) == [
        ("user", "Hi", []), ("assistant", "so", ["call_1", "call_2"]), ("tool", "is 1", []), ("tool", "is 2", []),
        ("assistant", None, ["call_3"]), ("tool", "is 3", []), ("assistant", "so", []), ("assistant", "so", []),
    ]  # fmt: skip
    thought = {"type": "reasoning", "id": "rs_1", "summary": []}  # clients add such, with nothing in them
    assert said([user, thought, call(1)]) == [("user", "Hi", []), ("assistant", None, ["call_1"])]
    assert said([user, call(1), {"role": "user", "content": "no"}, call(2)])[-1] == ("assistant", None, ["call_2"])


def test_fields_become_those_of_chats():
    asked = read(
        instructions="Be brief", max_output_tokens=9, temperature=0.5, top_p=0.9, stream=True, seed=3, store=True,
        reasoning={"effort": "low"}, text={"verbosity": "low"}, metadata={"a": "b"}, truncation="disabled", user="u",
    )  # fmt: skip
    settings = asked.chat.wanted.settings
    assert (settings.max_tokens, settings.temperature, settings.top_p, settings.seed) == (9, 0.5, 0.9, 3)
    assert asked.chat.messages[0] == {"role": "system", "content": "Be brief"} and asked.chat.wanted.stream
    assert asked.messages == ({"role": "user", "content": "Hi"},) and asked.chat.wanted.logprobs is None
    told = {"max_output_tokens": 9, "instructions": "Be brief", "reasoning": {"effort": "low"}, "metadata": {"a": "b"}}
    assert asked.told.items() >= told.items() and asked.told["text"]["format"] == {"type": "text"}
    assert read(include=["message.output_text.logprobs"]).chat.wanted.logprobs == 0
    assert read(top_logprobs=4).chat.wanted.logprobs == 4
    assert read(include=["reasoning.encrypted_content"]).chat.wanted.logprobs is None


def test_tools_become_those_of_chats():
    tools = [{"type": "function", "name": name, "parameters": {"type": "object"}, "strict": True} for name in "fg"]
    assert [tool["function"]["name"] for tool in read(tools=tools).chat.tools] == ["f", "g"]
    must = read(tools=tools, tool_choice={"type": "function", "name": "g"}).chat.wanted.form
    assert must.must_call and [field for field, _ in must.parts] == ["tools[1].function.parameters"]
    some = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "f"}]}
    assert [field for field, _ in read(tools=tools, tool_choice=some).chat.wanted.form.parts] == [
        "tools[0].function.parameters"
    ]
    assert read(tools=tools, tool_choice="none").chat.tools == ()
    for nothing in ({"tool_choice": "auto"}, {"parallel_tool_calls": False}, {"tools": [], "tool_choice": "none"}):
        assert read(**nothing).chat.tools == ()


def test_what_was_said_before_is_put_in_front():
    kept = SaidBefore()
    first = Said(None, ({"role": "user", "content": "1"}, {"role": "assistant", "content": "2"}))
    kept.keep("me", "a", first)
    kept.keep("me", "b", Said(first, ({"role": "user", "content": "3"}, {"role": "assistant", "content": "4"})))
    asked = read(lambda id: kept.find("me", id), previous_response_id="b", instructions="new")
    assert [message["content"] for message in asked.chat.messages] == ["new", "1", "2", "3", "4", "Hi"]
    assert asked.messages == ({"role": "user", "content": "Hi"},) and kept.find("you", "b") is None


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"input": None}, "input", "input is null; it must be a text, or a list of 1 item or more"),
        ({"input": []}, "input", "it must be a text, or a list of 1 item or more"),
        ({"input": [3]}, "input[0]", "input[0] is 3; it must be an object"),
        (
            {"input": [{"type": "item_reference", "id": "x"}]},
            "input[0].type",
            "supported are message, function_call and",
        ),
        ({"input": [{"type": "reasoning", "summary": [{"text": "x"}]}]}, "input[0].type", "supported are message"),
        ({"input": [{"role": "robot", "content": "x"}]}, "input[0].role", "allowed are user, assistant, system"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content[0].type", "only text"),
        ({"input": [{"role": "user"}]}, "input[0].content", "it must be a text, or a list of parts"),
        ({"input": [{"type": "function_call", "name": "f"}]}, "input[0].call_id", "it must be a text"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id", "the call_id of a function"),
        ({"instructions": ["x"]}, "instructions", "it must be a text"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", 'tools[0].type is "web_search"; only "function" is'),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "it must be the name of the function"),
        (
            {"tools": [{"type": "function", "name": "f", "parameters": 3}]},
            "tools[0].parameters",
            "must be a JSON schema",
        ),
        ({"tool_choice": "required"}, "tool_choice", "it needs tools"),
        ({"max_output_tokens": 0}, "max_output_tokens", "max_output_tokens is 0; "),
        ({"temperature": -1}, "temperature", "temperature is -1; "),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", 'text.format.type is "xml"; allowed are text'),
        ({"text": {"format": {"type": "json_schema", "name": "x"}}}, "text.format.schema", "it must be a JSON schema"),
        ({"text": "short"}, "text", "it must be an object with format and verbosity"),
        ({"include": ["file_search_call.results"]}, "include", "supported are message.output_text.logprobs and"),
        ({"background": True}, "background", "background is true; only false is supported"),
        ({"truncation": "auto"}, "truncation", 'only "disabled" is supported'),
        ({"conversation": "c"}, "conversation", "send the items, or previous_response_id"),
        ({"previous_response_id": "r"}, "previous_response_id", "there is no such response any more: send all items"),
        ({"messages": []}, "messages", "messages is not supported; known are frequency_penalty, "),
        ({"n": 2}, "n", "n is not supported; known are"),
        ({"model": None}, "model", "it must be the name of a model"),
    ],
)
def test_what_can_not_be_done_is_refused_by_its_field(fields, param, says):
    with pytest.raises(RequestError) as error:
        read(**fields)
    assert (error.value.param, error.value.status) == (param, 400) and says in error.value.message
