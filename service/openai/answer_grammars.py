"""Grammars of answers: JSON of a schema, and calls of tools, as requests of OpenAI's protocol ask for them.

A grammar is in llguidance's dialect of Lark (`llm.token_grammar`), in which `%json` takes a JSON schema. Between the
parts of JSON is one space, or a new line and its indentation: models that have not learnt better would go on for ever.
Arguments of calls are spelled as templates write them, so that the next turn's prompt goes on from the sampled ids.
"""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from service.openai.tool_calls import CLOSE, OPEN

_SPACE = {"whitespace_pattern": r"( |\n {0,24})?"}
_AS_TEMPLATES = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
# Keywords by which an object may have properties that are named elsewhere.
_ELSEWHERE = {"additionalProperties", "unevaluatedProperties", "patternProperties", "anyOf", "oneOf", "$ref"}
_SCHEMAS = ("properties", "$defs", "definitions")  # keywords with a schema by each name
ANY_OBJECT: Mapping[str, Any] = {"type": "object"}


def json_grammar(schema: Mapping[str, Any], strict: bool = True) -> str:
    """Return the grammar of an answer that is JSON.

    Args:
        schema: JSON schema.
        strict: whether a keyword that can't be followed is an error; else it is passed over.
    """
    return _whole("start: " + _json(schema, strict))


def tool_grammar(
    tools: Sequence[Mapping[str, Any]],
    must_call: bool,
    several: bool,
    otherwise: Mapping[str, Any] | None = None,
    strict: bool = True,
) -> str:
    """Return the grammar of an answer that may call tools, each by arguments of its schema.

    Args:
        tools: tools that may be called, 1 or more, in OpenAI's form. Of those that are not strict, keywords that can't
            be followed are passed over.
        must_call: whether the answer is calls and nothing else.
        several: whether there may be more than one call.
        otherwise: JSON schema of an answer that calls nothing; None for any text.
        strict: of `otherwise`, as `json_grammar` has it.
    """
    calls = " | ".join(f"call_{number}" for number in range(len(tools)))
    more = f"({_text(chr(10) + OPEN)} call)*" if several else ""
    lines = [f"call: {calls}", *(f"call_{number}: {_call(tool)}" for number, tool in enumerate(tools))]
    if must_call:
        lines.append(f"start: {_text(OPEN)} call {more}")
    elif otherwise is not None:
        lines.append(f"start: {_json(otherwise, strict)} | {_text(OPEN)} call {more}")
    else:
        lines += [f"start: TEXT | begin call {more}", f"begin[lazy]: TEXT {_text(OPEN)}", r"TEXT: /(.|\n)*/"]
    return _whole("\n".join(lines))


def parameters_grammar(tool: Mapping[str, Any]) -> str:
    """Return the grammar of a tool's arguments alone."""
    return _whole("start: " + _arguments(tool))


def _call(tool: Mapping[str, Any]) -> str:
    """Return what follows the opening tag of a call, as templates write it."""
    function = tool["function"]
    name = json.dumps(function["name"], ensure_ascii=False)
    head, tail = f'\n{{"name": {name}, "arguments": ', f"}}\n{CLOSE}"
    return f"{_text(head)} {_arguments(tool)} {_text(tail)}"


def _arguments(tool: Mapping[str, Any]) -> str:
    function = tool["function"]
    return _json(function.get("parameters") or _NO_ARGUMENTS, bool(function.get("strict")), _AS_TEMPLATES)


def _json(schema: Mapping[str, Any], strict: bool, space: Mapping[str, Any] = _SPACE) -> str:
    options = {**space, "lenient": not strict}
    whole = json.dumps(schema, ensure_ascii=False)
    closed = schema if re.search(r'"allOf"\s*:', whole) else _closed(schema)
    return "%json " + json.dumps({**closed, "x-guidance": options}, ensure_ascii=False)


def _closed(schema: Any) -> Any:
    """Return a schema whose objects have no properties but those it names, where it leaves that open.

    What fits it fits the schema too; a model that has not learnt better would make up properties without end.
    """
    if not isinstance(schema, Mapping):
        return schema
    done = dict(schema)
    for name in _SCHEMAS:
        if isinstance(schema.get(name), Mapping):
            done[name] = {each: _closed(part) for each, part in schema[name].items()}
    if "properties" not in schema:
        for name in ("anyOf", "oneOf"):
            if isinstance(schema.get(name), list):
                done[name] = [_closed(part) for part in schema[name]]
    elif not _ELSEWHERE & schema.keys():
        done["additionalProperties"] = False
    for name in ("items", "additionalProperties"):
        if name in done:
            done[name] = _closed(done[name])
    return done


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _whole(rules: str) -> str:
    return f"%llguidance {{}}\n{rules}\n"
