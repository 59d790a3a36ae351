"""Grammars of answers, met with texts that fit and others that don't."""

import json

import pytest

pytest.importorskip("transformers")
pytest.importorskip("llguidance")

from llm.engine_error import EngineError
from llm.text_stream import TokenBytes
from llm.tiny_model import byte_tokenizer
from llm.token_grammar import TokenGrammars
from service.openai.answer_grammars import ANY_OBJECT, json_grammar, parameters_grammar, tool_grammar

END = 257
OPEN_PLACE = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.fixture(scope="module")
def grammars():
    tokenizer = byte_tokenizer()
    return TokenGrammars(tokenizer, TokenBytes(tokenizer), 261)


def fits(grammars, grammar: str, text: str) -> bool:
    """Return whether a text, and an end behind it, can be sampled."""
    state = grammars.begin(grammar, [END])
    for byte in text.encode():
        if not state.allowed()[byte]:
            return False
        state.take(byte)
    return bool(state.allowed()[END])


def tool(name: str = "f", **function) -> dict:
    return {"type": "function", "function": {"name": name, **function}}


@pytest.mark.parametrize(
    ("schema", "text", "right"),
    [
        (ANY_OBJECT, '{"a": [1, null, {"b": "é\\n"}]}', True),
        (ANY_OBJECT, "[]", False),
        (ANY_OBJECT, '{"a": "\\ud83d"}', False),  # half of a character
        (OPEN_PLACE, '{"city": "Rome"}', True),
        (OPEN_PLACE, '{\n  "city": "Rome"\n}', True),
        (OPEN_PLACE, '{   "city": "Rome"}', False),  # space without end is none of JSON's needs
        (OPEN_PLACE, '{"city": "Rome", "more": 1}', False),
        ({**OPEN_PLACE, "additionalProperties": {"type": "integer"}}, '{"city": "Rome", "more": 1}', True),
        ({"type": "array", "items": OPEN_PLACE}, '[{"city": "Rome", "more": 1}]', False),
        ({"anyOf": [OPEN_PLACE, {"type": "null"}]}, '{"city": "Rome", "more": 1}', False),
        ({"anyOf": [OPEN_PLACE, {"type": "null"}]}, "null", True),
        ({"$ref": "#/$defs/place", "$defs": {"place": OPEN_PLACE}}, '{"city": "Rome", "more": 1}', False),
        (
            {"allOf": [OPEN_PLACE, {"type": "object", "properties": {"more": {"const": 1}}, "required": ["more"]}]},
            '{"city": "Rome", "more": 1}', True,
        ),
        ({"type": "object", "properties": {"allOf": {"const": 1}}}, '{"allOf": 1}', True),
    ],
)  # fmt: skip
def test_json(grammars, schema, text, right):
    assert fits(grammars, json_grammar(schema), text) is right


def test_nothing_but_the_grammar_is_given_away(grammars):
    """What is in a schema or a name is no grammar of its own."""
    hostile = '"} \n start: /.*/ \n x: {"'
    schema = {"type": "object", "properties": {hostile: {"const": hostile}}, "required": [hostile]}
    assert fits(grammars, json_grammar(schema), json.dumps({hostile: hostile}))
    assert not fits(grammars, json_grammar(schema), "anything")


CALL = '<tool_call>\n{"name": "f", "arguments": {"city": "Rome"}}\n</tool_call>'
OTHER = CALL.replace('"f"', '"g"')


@pytest.mark.parametrize(
    ("options", "text", "right"),
    [
        ({"must_call": True, "several": False}, CALL, True),
        ({"must_call": True, "several": False}, CALL.replace(': "Rome"', ':"Rome"'), False),  # no template spells it so
        ({"must_call": True, "several": False}, f"{CALL}\n{OTHER}", False),
        ({"must_call": True, "several": True}, f"{CALL}\n{OTHER}", True),
        ({"must_call": True, "several": True}, f"Well. {CALL}", False),
        ({"must_call": True, "several": True}, "", False),
        ({"must_call": False, "several": True}, f"Well.\n{CALL}", True),
        ({"must_call": False, "several": True}, "Well. <tool_", True),
        ({"must_call": False, "several": True}, CALL + " and more", False),
        ({"must_call": False, "several": True}, '<tool_call>\n{"name": "h"', False),
        ({"must_call": False, "several": False, "otherwise": {"const": 1}}, "1", True),
        ({"must_call": False, "several": False, "otherwise": {"const": 1}}, CALL, True),
        ({"must_call": False, "several": False, "otherwise": {"const": 1}}, "Well.", False),
    ],
)
def test_calls(grammars, options, text, right):
    tools = [tool("f", parameters=OPEN_PLACE), tool("g", parameters=OPEN_PLACE, strict=True)]
    assert fits(grammars, tool_grammar(tools, **options), text) is right


def test_a_tool_without_parameters_takes_none(grammars):
    assert fits(grammars, parameters_grammar(tool()), "{}")
    assert not fits(grammars, parameters_grammar(tool()), '{"a": 1}')


def test_a_token_that_is_not_allowed_is_an_error(grammars):
    state = grammars.begin(json_grammar(ANY_OBJECT), [END])
    with pytest.raises(EngineError, match="the grammar can't be followed"):
        state.take(ord("x"))
