"""The form of an answer as clients ask for it: JSON of a schema, calls of tools that must come, strict arguments."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("openai")
pytest.importorskip("llguidance")

import httpx
from service_models import TOOLS, scripted, serving

HI = [{"role": "user", "content": "Hi"}]
PERSON = {
    "type": "object", "required": ["name", "age", "likes"], "additionalProperties": False,
    "properties": {"name": {"type": "string", "maxLength": 4}, "age": {"type": "integer", "minimum": 0, "maximum": 120},
                   "likes": {"type": "array", "items": {"enum": ["a", "bé"]}, "maxItems": 2}},
}  # fmt: skip
AS_PERSON = {"type": "json_schema", "json_schema": {"name": "person", "schema": PERSON, "strict": True}}
NUMBERS = {"type": "object", "properties": {"a": {"type": "integer", "minimum": -99, "maximum": 99}}, "required": ["a"],
           "additionalProperties": False}  # fmt: skip


def tool(name: str, **more) -> dict:
    return {"type": "function", "function": {"name": name, "parameters": NUMBERS, **more}}


ADD, SUB = tool("add"), tool("sub")


@pytest.fixture(scope="module")
def tiny():
    """Random weights, so that nothing but the grammar makes what comes JSON; its template shows tools."""
    with serving() as served:
        yield served


def ask(served, path="/v1/chat/completions", **fields) -> httpx.Response:
    given = {"model": "tiny", "seed": 1, **({"messages": HI} if "chat" in path else {}), **fields}
    return httpx.post(served.url + path, json=given, timeout=120)


def chat(served, **fields) -> dict:
    response = ask(served, **fields)
    assert response.status_code == 200, response.text
    return response.json()


def is_person(text: str) -> bool:
    found = json.loads(text)
    return (
        list(found) == ["name", "age", "likes"] and len(found["name"]) <= 4 and 0 <= found["age"] <= 120
        and all(each in ("a", "bé") for each in found["likes"])
    )  # fmt: skip


# --------------------------------------------------------------------------------------------------------------- JSON


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"temperature": 5.0, "top_p": 0.5, "n": 2}, {"top_k": 3}])
def test_json_of_a_schema_whatever_the_weights_and_settings(tiny, settings):
    answer = chat(tiny, response_format=AS_PERSON, logprobs=True, top_logprobs=2, return_token_ids=True, **settings)
    for choice in answer["choices"]:
        assert choice["finish_reason"] == "stop" and is_person(choice["message"]["content"])
        told = choice["logprobs"]["content"]
        assert len(told) == len(choice["token_ids"]) and choice["token_ids"][-1] in (257, 260)
        # The model's own, which the grammar changes nothing of: those that it reads the same ids with.
        ids = [*answer["prompt_token_ids"], *choice["token_ids"]]
        read = ask(tiny, "/v1/completions", prompt=ids, max_tokens=0, echo=True, logprobs=0).json()["choices"][0]
        expected = read["logprobs"]["token_logprobs"][len(answer["prompt_token_ids"]) :]
        assert [entry["logprob"] for entry in told] == pytest.approx(expected, abs=1e-3)
    assert answer["usage"]["completion_tokens"] == sum(len(choice["token_ids"]) for choice in answer["choices"])


def test_a_stream_of_json_is_the_answer_without_one(tiny):
    fields = {"response_format": AS_PERSON, "n": 2, "seed": 9}
    whole = [choice["message"]["content"] for choice in chat(tiny, **fields)["choices"]]
    said = ["", ""]
    for line in ask(tiny, stream=True, **fields).text.split("\n\n")[:-2]:
        for choice in json.loads(line[6:])["choices"]:
            said[choice["index"]] += choice["delta"].get("content") or ""
    assert said == whole and all(map(is_person, said))


def test_any_object_and_what_max_tokens_cuts(tiny):
    answer = chat(tiny, response_format={"type": "json_object"}, n=3, logit_bias={"125": 5})
    found = [json.loads(choice["message"]["content"]) for choice in answer["choices"]]
    assert all(isinstance(each, dict) for each in found)
    cut = chat(tiny, response_format=AS_PERSON, max_tokens=5)["choices"][0]
    assert cut["finish_reason"] == "length" and cut["message"]["content"].lstrip().startswith("{")


def test_json_ends_by_itself_where_no_token_ends_it(tiny):
    choice = chat(tiny, response_format=AS_PERSON, ignore_eos=True, return_token_ids=True)["choices"][0]
    assert choice["finish_reason"] == "stop" and is_person(choice["message"]["content"])
    assert bytes(choice["token_ids"]).decode() == choice["message"]["content"]


def test_neighbours_get_what_they_get_alone(tiny):
    """Answers with a grammar and without share a batch: none changes the other."""
    from concurrent.futures import ThreadPoolExecutor

    fields = [{"seed": seed, "max_tokens": 12, **({"response_format": AS_PERSON} if seed % 2 else {})}
              for seed in range(4)]  # fmt: skip
    alone = [chat(tiny, **each)["choices"] for each in fields]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: chat(tiny, **each)["choices"], fields))
    assert together == alone


def test_plain_completions_have_forms_too(tiny):
    response = ask(tiny, "/v1/completions", prompt="x", response_format=AS_PERSON, max_tokens=200)
    assert is_person(response.json()["choices"][0]["text"])


@pytest.mark.parametrize(
    ("schema", "says"),
    [
        ({"type": "strin"}, "Invalid type: strin"),
        ({"not": {"type": "string"}}, "Unimplemented keys"),
        ({"$ref": "http://elsewhere/schema"}, "elsewhere"),
        ({"type": "integer", "minimum": 5, "maximum": 3}, "Unsatisfiable"),
    ],
)
def test_a_schema_that_can_not_be_followed_is_400_and_says_why(tiny, schema, says):
    given = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    error = ask(tiny, response_format=given).json()["error"]
    assert says in error["message"] and error["param"] == "response_format" and error["code"] == "invalid_json_schema"
    of_tool = tool("add", strict=True, parameters=schema)
    error = ask(tiny, tools=[SUB, of_tool], tool_choice="required", response_format=AS_PERSON).json()["error"]
    assert says in error["message"] and error["code"] == "invalid_function_parameters"
    assert error["param"] == "tools[1].function.parameters"


def test_what_is_not_strict_passes_over_what_can_not_be_followed(tiny):
    schema = {**NUMBERS, "not": {"required": ["b"]}}
    given = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    assert list(json.loads(chat(tiny, response_format=given)["choices"][0]["message"]["content"])) == ["a"]


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"response_format": "json"}, "response_format", "it must be an object with a type"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "allowed are text, json_object, json_schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "it must be an object"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
            "response_format.json_schema.name", "1 to 64 letters",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
            "response_format.json_schema.schema", "it must be a JSON schema",
        ),
        ({"parallel_tool_calls": False}, "parallel_tool_calls", "it needs tools"),
        ({"tool_choice": "required"}, "tool_choice", "it needs tools"),
        ({"tools": [ADD], "tool_choice": "add"}, "tool_choice", 'allowed are "none", "auto", "required"'),
        (
            {"tools": [ADD], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice", "there is no tool of this name; there are: add",
        ),
        ({"tools": [ADD, ADD]}, "tools[1].function.name", "for each tool another one"),
        ({"tools": [tool("a b")]}, "tools[0].function.name", "1 to 64 letters"),
        ({"tools": [tool("a", strict="yes")]}, "tools[0].function.strict", "allowed are true and false"),
        ({"tools": [{"type": "custom"}]}, "tools", "it must be a list of"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_by_its_field(tiny, fields, param, says):
    response = ask(tiny, **fields)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param) and says in error["message"], error
    assert error["type"] == "invalid_request_error" and error["code"]


# -------------------------------------------------------------------------------------------------------------- tools


@pytest.mark.parametrize(
    ("choice", "names"),
    [
        ("required", {"add", "sub"}),
        ({"type": "function", "function": {"name": "sub"}}, {"sub"}),
        ({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [
            {"type": "function", "function": {"name": "add"}}]}}, {"add"}),
    ],
)  # fmt: skip
def test_calls_that_must_come(tiny, choice, names):
    answer = chat(tiny, tools=[ADD, SUB], tool_choice=choice, parallel_tool_calls=False, n=4)
    for each in answer["choices"]:
        calls = each["message"]["tool_calls"]
        assert each["finish_reason"] == "tool_calls" and each["message"]["content"] is None and len(calls) == 1
        arguments = json.loads(calls[0]["function"]["arguments"])
        assert list(arguments) == ["a"] and -99 <= arguments["a"] <= 99
    assert {each["message"]["tool_calls"][0]["function"]["name"] for each in answer["choices"]} <= names


def test_a_call_that_max_tokens_cuts_is_a_call_with_the_beginning_of_its_arguments(tiny):
    fields = {"tools": [ADD], "tool_choice": "required", "parallel_tool_calls": False, "seed": 4}
    whole = chat(tiny, **fields, return_token_ids=True)["choices"][0]
    text = bytes(token for token in whole["token_ids"] if token < 256).decode()
    arguments = whole["message"]["tool_calls"][0]["function"]["arguments"]
    name_known = text.index('"arguments":') + len('"arguments":')
    begin = text.index("{", name_known)
    for size in (5, name_known - 1, name_known, begin + 3, len(text) - 3):
        cut = chat(tiny, **fields, max_tokens=size)["choices"][0]
        told = [call["function"] for call in cut["message"].get("tool_calls", [])]
        assert cut["finish_reason"] == "length" and "tool_call" not in (cut["message"]["content"] or "")
        if size < name_known:
            assert not told
        else:
            assert [call["name"] for call in told] == ["add"]
            expected = text[begin:size] if size < len(text) - 3 else text[begin : text.index("}") + 1]
            assert told[0]["arguments"] == expected
    assert json.loads(arguments) == json.loads(expected)


def test_a_stream_calls_as_the_answer_does_and_a_tool_without_parameters_gets_none(tiny):
    fields = {"tools": [{"type": "function", "function": {"name": "now"}}], "tool_choice": "required", "n": 1,
              "parallel_tool_calls": False}  # fmt: skip
    whole = chat(tiny, **fields)["choices"][0]["message"]["tool_calls"]
    assert (whole[0]["function"]["name"], json.loads(whole[0]["function"]["arguments"])) == ("now", {})
    chunks = [json.loads(line[6:])["choices"][0] for line in ask(tiny, stream=True, **fields).text.split("\n\n")[:-2]]
    calls = [call for chunk in chunks for call in chunk["delta"].get("tool_calls", [])]
    assert [call["function"] for call in calls] == [call["function"] for call in whole]
    assert chunks[-1]["finish_reason"] == "tool_calls"


def test_json_or_calls_where_both_are_asked(tiny):
    answer = chat(tiny, tools=[ADD], response_format=AS_PERSON, parallel_tool_calls=False, n=5)
    kinds = set()
    for each in answer["choices"]:
        message = each["message"]
        kinds.add(each["finish_reason"])
        assert message.get("tool_calls") or is_person(message["content"])
    assert kinds == {"stop", "tool_calls"}


def test_strict_arguments_are_of_the_schema_and_text_is_free():
    """A model that says what no schema allows is led back to it; what it says without a call stays as it is."""
    wrong = ("Well.", "<tool_call>", '\n{"name": "add", "arguments": {"b', "X")
    strict = [tool("add", strict=True)]
    with serving(scripted(*wrong, template=TOOLS)) as served:
        free = chat(served, tools=[ADD], temperature=0)["choices"][0]
        assert free["message"]["content"] == "".join(wrong) and free["finish_reason"] == "stop"
        led = chat(served, tools=strict, temperature=0, parallel_tool_calls=False)["choices"][0]
        assert led["message"]["content"] == "Well." and led["finish_reason"] == "tool_calls"
        assert list(json.loads(led["message"]["tool_calls"][0]["function"]["arguments"])) == ["a"]
    with serving(scripted("No calls.", template=TOOLS)) as served:
        said = chat(served, tools=strict, temperature=0)["choices"][0]
        assert (said["message"]["content"], said["finish_reason"]) == ("No calls.", "stop")
