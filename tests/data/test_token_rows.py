"""The account of rows: read = used + left out; nothing left to learn stops, with figures."""

import json

import chat_samples as samples
import pytest

pytest.importorskip("transformers")

from data.chat_renderer import EMPTY_ANSWER, Renderer
from data.conversations import open_source
from data.data_error import DataError
from data.token_row import TokenRow
from data.token_rows import split_rows, token_rows


def source_of(tmp_path, *rows, name="data.jsonl", **options):
    path = tmp_path / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return open_source(path, **options)


def chat(question: str, answer: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


@pytest.fixture(scope="module")
def renderer():
    return Renderer(samples.byte_tokenizer(merges=[("a", "b")]))


def test_nothing_left_to_learn_stops_with_figures(tmp_path, renderer):
    long, short = chat("q" * 200, "Ok"), chat("q", "Ok")
    with pytest.raises(DataError) as told:
        token_rows(source_of(tmp_path, *[long] * 8), renderer, 64)
    needed = 1 + 5 + 200 + 1 + 1 + 1 + 10 + 3  # header, question, end, line feed, header, answer with its end
    assert "8 of 8 rows are longer than max_length=64" in str(told.value)
    assert f"they need {needed} tokens" in str(told.value) and f"Give max_length={needed}" in str(told.value)
    rows, account = token_rows(source_of(tmp_path, *[long] * 3, *[short] * 5), renderer, 64)
    assert len(rows) == 5 and all(row.trained == 3 for row in rows)
    assert (account.read, account.used) == (8, 5)
    assert account.left_out == {"longer than max_length=64": [f"line {n}: {needed} tokens" for n in (1, 2, 3)]}
    assert len(token_rows(source_of(tmp_path, long), renderer, needed)[0]) == 1
    with pytest.raises(DataError, match=f"line 1: the row needs {needed} tokens, more than max_length=64"):
        token_rows(source_of(tmp_path, long, short), renderer, 64, "stop")
    with pytest.raises(DataError, match="1 of 1 rows: there is no answer"):
        token_rows(source_of(tmp_path, {"messages": chat("a", "b")["messages"][:1]}), renderer, 64)


BAD = (
    chat("a", "b"), chat("a", ""), {"messages": [{"role": "bot", "content": "x"}]}, '{"messages": ', "", chat("a", "c"),
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "tool_calls": [
        {"name": "f", "arguments": "{"}]}]},
)  # fmt: skip


def test_bad_rows_are_counted_and_named(tmp_path, renderer):
    source = source_of(tmp_path, *BAD)
    rows, account = token_rows(source, renderer, 512)
    assert [row.place for row in rows] == ["line 1", "line 2", "line 6"]
    assert rows[1].targets() == [[260]]  # an empty answer: only the end of its turn
    assert account.notes == {EMPTY_ANSWER: ["line 2"]}
    assert account.left_out == {
        "unknown role; allowed are system, developer, user, assistant, tool": ["line 3: message 1 has the role 'bot'"],
        "bad JSON": ["line 4: Expecting value, column 14"],
        "arguments are not JSON": ["line 7: message 2: Expecting property name enclosed in double quotes: line 1 "
                                   "column 2 (char 1)"],
    }  # fmt: skip
    assert account.read == account.used + sum(map(len, account.left_out.values())) == 6
    text = "\n".join(account.lines())
    assert "rows: 6 read = 3 used + 3 left out" in text and "format messages" in text
    assert "left out, 1: bad JSON [line 4: Expecting value, column 14]" in text
    assert f"1 row: {EMPTY_ANSWER} [line 2]" in text
    state = json.loads(json.dumps(account.state()))
    assert (state["rows_read"], state["rows_used"], sum(state["rows_left_out"].values())) == (6, 3, 3)
    assert state["sha256"] == source.files.digest() and len(state["sha256"]) == 64
    assert state["trained_tokens"] == sum(row.trained for row in rows) == 5
    with pytest.raises(DataError, match="data.jsonl, line 3: unknown role.*on_bad_row = skip"):
        token_rows(source, renderer, 512, "stop")
    with pytest.raises(DataError, match="on_bad_row is no; allowed are stop and skip"):
        token_rows(source, renderer, 512, "no")


def test_orders_that_a_template_refuses_are_left_out_in_its_words(tmp_path):
    strict = Renderer(samples.byte_tokenizer(samples.ALTERNATES))
    twice = {"messages": [{"role": "user", "content": "a"}, *chat("b", "c")["messages"]]}
    system = {"messages": [{"role": "system", "content": "a"}, *chat("b", "c")["messages"]]}
    _, account = token_rows(source_of(tmp_path, twice, chat("a", "b"), system), strict, 100)
    assert account.left_out == {
        "the chat template refuses it: Conversation roles must alternate": ["line 1"],
        "the chat template refuses it: System role not supported": ["line 3"],
    }


def test_documents_are_cut_so_that_each_token_is_learned_once(tmp_path, renderer):
    text = "".join(chr(97 + n % 26) for n in range(2, 100))
    rows, account = token_rows(source_of(tmp_path, {"text": text}), renderer, 20)
    whole = [*renderer.plain_ids(text), 257]
    assert all(len(row.ids) <= 20 and row.weights[0] == 0 and row.weights[1:].all() for row in rows)
    assert [token for row in rows for token in row.ids[1:].tolist()] == whole[1:]
    assert account.trained == len(whole) - 1 and account.used == 1
    assert list(account.notes) == ["a document is longer than max_length: it was cut into pieces"]


def test_a_conversation_in_several_rows_keeps_those_that_fit(tmp_path):
    made = Renderer(samples.byte_tokenizer(samples.DROPS_BUT_LAST_ANSWER))
    turns = [*chat("a", "<think>x</think>b")["messages"], *chat("c" * 100, "d")["messages"]]
    rows, account = token_rows(source_of(tmp_path, {"messages": turns}), made, 128)
    assert [row.trained for row in rows] == [2] and (account.read, account.used) == (1, 1)
    assert any("some answers of a conversation are longer" in note for note in account.notes)


def test_tokens_do_not_depend_on_the_kind_of_file(tmp_path, renderer):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"prompt": "a\r\nb\u2028", "completion": "b\U0001f600"}, {"prompt": "a", "completion": "b"}]
    source_of(tmp_path, *rows)
    (tmp_path / "data.csv").write_bytes('prompt,completion\r\n"a\r\nb\u2028",b\U0001f600\r\na,b'.encode())
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "data.parquet")
    ids = [[row.ids.tolist() for row in token_rows(open_source(tmp_path / f"data.{kind}"), renderer, 99)[0]]
           for kind in ("jsonl", "csv", "parquet")]  # fmt: skip
    assert ids[0] == ids[1] == ids[2] and ids[0][1] == [97, 98, 257]


def test_a_limit(tmp_path, renderer):
    rows, account = token_rows(source_of(tmp_path, *[chat("a", "b")] * 5), renderer, 99, limit=3)
    assert len(rows) == account.used == account.read == 3


def test_rows_that_belong_together_are_not_split():
    rows = [TokenRow.of([n, n + 1], [0.0, 1.0], f"line {n // 2}") for n in range(40)]
    same = TokenRow.of([0, 1], [0.0, 1.0], "line 99")  # the same tokens as the first row
    for seed in range(20):
        train, validation = split_rows([*rows, same], 0.25, seed)
        assert len(train) + len(validation) == 41 and 10 <= len(validation) <= 11
        assert not {row.place for row in train} & {row.place for row in validation}
        assert len({row.place in ("line 0", "line 99") and any(row is each for each in validation)
                    for row in (rows[0], rows[1], same)}) == 1  # fmt: skip
    first, second = split_rows(rows, 0.25, 3), split_rows(rows, 0.25, 3)
    assert [row.place for row in first[1]] == [row.place for row in second[1]]
    assert [row.place for row in split_rows(rows, 0.25, 4)[1]] != [row.place for row in first[1]]
    assert split_rows(rows, 0) == (rows, [])
    assert [len(part) for part in split_rows(rows[:4], 0.01)] == [2, 2]
    again = [TokenRow.of([1, 2], [0.0, 1.0], f"line {n}") for n in range(4)]
    assert [len(part) for part in split_rows(again, 0.25)] == [3, 1]  # the same row again and again
    with pytest.raises(DataError, match="2 rows of tokens. is of one place, line 0: none is left to validate with"):
        split_rows(rows[:2], 0.5)
    with pytest.raises(DataError, match="val_share is 1; it must be"):
        split_rows(rows, 1)
