"""Formats are found out and told; what isn't clear is refused; rows that can't be used say why."""

import json

import pytest

from data.chat_messages import Completion, Conversation, Document, RowError
from data.conversations import FORMATS, open_source, parse_columns
from data.data_error import DataError


def written(tmp_path, *rows, name="data.jsonl"):
    path = tmp_path / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def examples(path, **options):
    return [row.example for row in open_source(path, **options).rows()]


def said(example: Conversation) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in example.messages]


TURNS = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]


@pytest.mark.parametrize(
    ("row", "name", "expected"),
    [
        ({"messages": TURNS, "id": 7}, "messages", [("user", "a"), ("assistant", "b")]),
        ({"conversations": TURNS}, "messages", [("user", "a"), ("assistant", "b")]),
        ({"messages": json.dumps(TURNS)}, "messages", [("user", "a"), ("assistant", "b")]),
        ({"messages": TURNS, "system": "s"}, "messages", [("system", "s"), ("user", "a"), ("assistant", "b")]),
        ({"prompt": TURNS[:1], "completion": TURNS[1:]}, "prompt_completion", [("user", "a"), ("assistant", "b")]),
        ({"prompt": "a", "completion": "b"}, "prompt_completion", Completion("a", "b")),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca", [("user", "a"), ("assistant", "b")]),
        ({"instruction": "a", "input": "x", "output": "b"}, "alpaca", [("user", "a\n\nx"), ("assistant", "b")]),
        ({"instruction": "c", "output": "d", "system": "s", "history": [["a", "b"]]}, "alpaca",
         [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]),
        ({"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}], "system": "s"}, "sharegpt",
         [("system", "s"), ("user", "a"), ("assistant", "b")]),
        ({"text": "<|im_start|>user\na\nb<|im_end|>\n<|im_start|>assistant\n c <|im_end|>\n"}, "chatml",
         [("user", "a\nb"), ("assistant", " c ")]),
        ({"text": "just words"}, "text", Document("just words")),
    ],
)  # fmt: skip
def test_formats_are_found_out(tmp_path, row, name, expected):
    path = written(tmp_path, row)
    source = open_source(path)
    assert source.data_format == name and name in FORMATS
    assert f"JSON lines, format {name} (rows have `" in source.told() and str(path) in source.told()
    found = examples(path)[0]
    assert (said(found) if isinstance(found, Conversation) else found) == expected
    assert ("not used: id" in source.told()) == ("id" in row)


def test_what_isnt_clear_is_refused_with_how_to_say_it(tmp_path):
    both = written(tmp_path, {"instruction": "a", "output": "b", "text": "c"})
    with pytest.raises(
        DataError, match="isn't clear.*alpaca .line 1.*text.*data_format = alpaca or data_format = text"
    ):
        open_source(both)
    assert said(examples(both, data_format="alpaca")[0])[1] == ("assistant", "b")
    assert examples(both, data_format="text") == [Document("c")]
    mixed = written(tmp_path, {"prompt": "a", "completion": "b"}, {"messages": TURNS})
    with pytest.raises(DataError, match="prompt_completion .line 1.* and messages .line 2"):
        open_source(mixed)
    strange = written(tmp_path, {"question": "a", "answer": "b"})
    with pytest.raises(
        DataError, match="no format fits rows with `question`, `answer`.*data_columns = prompt=question"
    ):
        open_source(strange)
    asked = written(tmp_path, {"id": 1, "Prompt": "a", "response": "b"})
    with pytest.raises(DataError, match="data_columns = instruction=Prompt, output=response for the model's chat"):
        open_source(asked)
    assert said(examples(asked, columns={"instruction": "Prompt", "output": "response"})[0])[1][1] == "b"
    with pytest.raises(DataError, match="Name the column of questions: data_columns = instruction=Prompt[.]"):
        open_source(asked, answers=False)
    strange = written(tmp_path, {"question": "a", "answer": "b"})
    columns = parse_columns("prompt=question, completion = answer")
    assert "no row" not in open_source(strange, columns=columns).told()
    told = open_source(strange, columns=columns | {"system": "frame"}).told()
    assert "data_columns names frame, which no row has" in told
    assert examples(strange, columns=columns) == [Completion("a", "b")]
    with pytest.raises(DataError, match="data_format = alpaca needs `instruction`.*the rows have `question`"):
        open_source(strange, data_format="alpaca")
    with pytest.raises(DataError, match="data_format is chat; allowed are auto, messages"):
        open_source(strange, data_format="chat")
    with pytest.raises(DataError, match="data_columns names ask, which no format has"):
        open_source(strange, columns={"ask": "question"})
    with pytest.raises(DataError, match="it must be pairs such as"):
        parse_columns("prompt")


def test_files_without_rows_are_refused(tmp_path):
    with pytest.raises(DataError, match="has no row"):
        open_source(written(tmp_path))
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n{")
    with pytest.raises(DataError, match="none of the first 2 rows can be read; line 1: bad JSON"):
        open_source(broken, data_format="text")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"messages": [{"role": "bot", "content": "a"}]}],
         ["unknown role; allowed are system, developer, user, assistant, tool (message 1 has the role 'bot')"]),
        ([{"messages": TURNS[:1]}], ["there is no answer: no message of an assistant that is trained on"]),
        ([{"messages": []}, {"messages": None}, {"other": 1}],
         ["there is no message", "`messages` is no list", "there is no `messages`"]),
        ([{"messages": [*TURNS, {"role": "user"}]}, {"messages": ["a"]}],
         ["a message has no content (message 3)", "a message is not a mapping of role and content (message 1"]),
        ([{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}],
         ["only text can be used (message 1 has a part of the type 'image_url')"]),
        ([{"system": "s", "messages": [{"role": "system", "content": "t"}, *TURNS]}], ["there are two system"]),
        ([{"messages": [{"role": "user", "content": 5}]}], ["content is no text (that of message 1 is a number)"]),
        ([{"prompt": "a", "completion": ""}, {"prompt": "a", "completion": 5}, {"prompt": "a", "completion": None},
          {"prompt": "a"}],
         ["the answer is empty", "`completion` is no text (it is 5)", "`completion` is no text (it is null)",
          "there is no `completion`"]),
        ([{"instruction": "a", "output": " \n"}], ["the answer is empty"]),
        ([{"conversations": [{"from": "bing", "value": "a"}]}], ["unknown role; allowed are human, user, gpt"]),
        ([{"text": "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb"}],
         ["ChatML is broken (line 3 of the text"]),
        ([{"text": ""}], ["the text is empty"]),
    ],
)  # fmt: skip
def test_rows_that_cant_be_used_say_why(tmp_path, rows, told):
    good = {"messages": TURNS, "prompt": "x", "completion": "y", "instruction": "x", "output": "y", "text": "x",
            "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]}  # fmt: skip
    name = next(name for name in ("messages", "completion", "output", "conversations", "text") if name in rows[0])
    formats = {"messages": "messages", "completion": "prompt_completion", "output": "alpaca",
               "conversations": "sharegpt", "text": "chatml" if "<" in str(rows) else "text"}  # fmt: skip
    del good["messages" if name == "conversations" else "conversations"]
    found = examples(written(tmp_path, good, *rows), data_format=formats[name])[1:]
    assert all(isinstance(error, RowError) for error in found)
    assert [str(error)[: len(start)] for error, start in zip(found, told, strict=True)] == told


def test_messages_are_brought_to_the_form_of_templates(tmp_path):
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": '{"x": null}'}},
        {"role": "function", "name": "f", "content": "12"},
        {"role": "assistant", "content": "c", "weight": 0},
    ]
    tools = json.dumps([{"type": "function", "function": {"name": "f", "parameters": '{"type": "object"}'}}])
    chat = examples(written(tmp_path, {"messages": messages, "tools": tools}))[0]
    assert chat.messages[0]["content"] == "ab"
    assert chat.messages[1]["tool_calls"] == [{"type": "function", "function": {"name": "f", "arguments": {"x": None}}}]
    assert chat.messages[1]["content"] is None and chat.messages[2]["role"] == "tool"
    assert [chat.trains_on(number) for number in range(4)] == [False, True, False, False]
    assert chat.tools[0]["function"]["parameters"] == {"type": "object"}
    shared = [{"from": "human", "value": "a"}, {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
              {"from": "observation", "value": "12"}]  # fmt: skip
    called = examples(written(tmp_path, {"conversations": shared}))[0]
    assert called.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {}}
    with pytest.raises(RowError, match="arguments of a tool call are not a mapping .those of message 1 are a list"):
        Conversation.of([{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "[1]"}]}])


def test_what_is_null_beside_the_content_is_not_there(tmp_path):
    """Rows written by way of a table or a class have every key, most of them null."""
    nothing = {"name": None, "tool_calls": None, "tool_call_id": None, "function_call": None, "weight": None}
    call = {"id": None, "type": "function", "function": {"name": "f", "description": None, "arguments": {"x": None}}}
    messages = [
        {"role": "user", "content": "a", **nothing},
        {**nothing, "role": "assistant", "content": None, "tool_calls": [call]},
    ]
    user, answer = examples(written(tmp_path, {"messages": messages}))[0].messages
    assert user == {"role": "user", "content": "a"}
    assert answer == {"role": "assistant", "content": None, "tool_calls": [
        {"type": "function", "function": {"name": "f", "arguments": {"x": None}}}]}  # fmt: skip


def test_tools_and_calls_may_be_json_one_by_one(tmp_path):
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    call = {"name": "f", "arguments": '{"x": 1}'}
    messages = [TURNS[0], {"role": "assistant", "tool_calls": [json.dumps(call)]}]
    chat = examples(written(tmp_path, {"messages": messages, "tools": [json.dumps(tool)]}))[0]
    assert chat.tools == (tool,)
    assert chat.messages[1]["tool_calls"][0]["function"] == {"name": "f", "arguments": {"x": 1}}
    for tools, words in ((["{"], "tools are not JSON"), ([None], "one of them is null"), ([1], "one of them is a num")):
        with pytest.raises(RowError, match=words):
            Conversation.of(TURNS, tools)


def test_a_tool_has_no_parameters_of_other_rows_tools(tmp_path):
    """As a column of mappings has them, written to JSON; what may be null in a schema stays."""
    limit = {"type": "integer", "default": None, "enum": [1, None], "description": None, "items": None}
    choice = {"anyOf": [{"type": "string", "items": None}, {"type": "null"}]}
    parameters = {"type": "object", "properties": {"city": {"type": "string"}, "limit": limit, "unit": choice,
                                                   "path": None}, "required": ["city"], "$defs": None}  # fmt: skip
    tool = {"type": "function", "function": {"name": "f", "description": None, "strict": None,
                                             "parameters": parameters}, "id": None}  # fmt: skip
    wanted = {"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "required": ["city"], "properties": {
            "city": {"type": "string"}, "limit": {"type": "integer", "default": None, "enum": [1, None]},
            "unit": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}}}  # fmt: skip
    assert examples(written(tmp_path, {"messages": TURNS, "tools": [tool]}))[0].tools == (wanted,)
    plain = examples(written(tmp_path, {"messages": TURNS, "tools": [tool["function"]]}))[0]
    assert plain.tools == (wanted["function"],)
    with pytest.raises(RowError, match="the function of one is a number"):
        Conversation.of(TURNS, [{"type": "function", "function": 1}])


@pytest.mark.parametrize("number", ["NaN", "1e400", '[{"y": -Infinity}]'])
def test_arguments_that_are_no_json_are_not_trained_on(number):
    """Python reads and writes such numbers; the JSON that a model learns to write must not have them."""
    call = {"name": "f", "arguments": f'{{"x": {number}}}'}
    with pytest.raises(RowError, match="a number that JSON has no words for .message 1"):
        Conversation.of([{"role": "assistant", "tool_calls": [call]}])


def test_the_same_rows_in_all_files(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"prompt": "a\r\nb\u2028", "completion": "007"}, {"prompt": '\U0001f600 "q", x', "completion": "null"}]
    lines = written(tmp_path, *rows)
    array = tmp_path / "data.json"
    array.write_text(json.dumps(rows, ensure_ascii=False))
    table = tmp_path / "data.csv"
    cells = [f'"{row["prompt"]}","{row["completion"]}"'.replace('"q"', '""q""') for row in rows]
    table.write_bytes("\r\n".join(["prompt,completion", *cells]).encode())
    columns = tmp_path / "data.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), columns)
    expected = [Completion(row["prompt"], row["completion"]) for row in rows]
    assert [examples(path) for path in (lines, array, table, columns)] == [expected] * 4


def test_columns_of_other_types_are_no_text(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    columns = {"prompt": ["a", "b"], "completion": [b"raw", b"bytes"]}
    parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet")
    (error, _) = examples(tmp_path / "a.parquet", data_format="prompt_completion")
    assert str(error) == "`completion` is no text (it is b'raw')"


def test_tool_calls_of_parquet_have_no_arguments_of_other_rows(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def row(arguments):
        call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
        return {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": None,
                                                                  "tool_calls": [call]}]}  # fmt: skip

    rows = [row({"x": 1}), row({"y": 2})]
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    assert examples(path) == examples(written(tmp_path, *rows))
    assert examples(path)[0].messages[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}


def test_files_of_chatml_text(tmp_path):
    path = tmp_path / "chats.txt"
    path.write_text(
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\nb\n\nc<|im_end|>\n\n"
        "<|im_start|>user\nd<|im_end|>\n<|im_start|>assistant\ne<|im_end|>\n"
    )
    source = open_source(path)
    rows = list(source.rows())
    assert source.data_format == "chatml" and [row.place for row in rows] == ["line 1", "line 8"]
    assert said(rows[0].example)[1] == ("assistant", "b\n\nc") and said(rows[1].example)[0] == ("user", "d")
    plain = tmp_path / "words.txt"
    plain.write_text("words\n")
    assert examples(plain) == [Document("words\n")]
