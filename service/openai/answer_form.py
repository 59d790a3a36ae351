"""Which form an answer must have: what `response_format`, `tools` and `tool_choice` of a chat ask together."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.openai.answer_grammars import ANY_OBJECT, json_grammar, parameters_grammar, tool_grammar
from service.web.openai_error import INVALID_TYPE, MISSING, wrong

Json = dict[str, Any]
_NAME = re.compile(r"[\w.-]{1,64}")  # of a function or a schema
_FORMATS = ("text", "json_object", "json_schema")
_CHOICES = ("none", "auto", "required")


@dataclass(frozen=True)
class AnswerForm:
    """The form of an answer.

    Attributes:
        grammar: what the answer's text must be; None for any text.
        tools: tools that are shown to the model, as they were sent; none where it was told not to call any.
        parts: of each schema in the grammar the field that has it, and its own grammar: to say which can't be used.
        must_call: whether the answer is calls and nothing else.
    """

    grammar: str | None = None
    tools: tuple[Json, ...] = ()
    parts: tuple[tuple[str, str], ...] = ()
    must_call: bool = False


@dataclass(frozen=True)
class _Schema:
    schema: Mapping[str, Any]
    strict: bool


def answer_form(fields: Mapping[str, Any]) -> AnswerForm:
    """Read what a request says about the form of its answer.

    Args:
        fields: its fields that are not null.

    Returns:
        The form.

    Raises:
        RequestError: something is wrong with it.
    """
    said, tools, several = _format(fields), _tools(fields), _several(fields)
    parts = []
    if said is not None:
        parts.append(("response_format", json_grammar(said.schema, said.strict)))
    must_call, callable_tools = _choice(fields, tools)
    if not callable_tools:
        return AnswerForm(parts[0][1] if parts else None, (), tuple(parts))
    free = not must_call and several and said is None and len(callable_tools) == len(tools)
    if free and not any(tool["function"].get("strict") for tool in tools):
        return AnswerForm(None, tools)
    places = {id(tool): number for number, tool in enumerate(tools)}
    parts += [(f"tools[{places[id(tool)]}].function.parameters", parameters_grammar(tool)) for tool in callable_tools]
    one = isinstance(fields.get("tool_choice"), dict) and fields["tool_choice"].get("type") == "function"
    otherwise, strict = (None, True) if said is None else (said.schema, said.strict)
    grammar = tool_grammar(callable_tools, must_call, several and not one, otherwise, strict)
    return AnswerForm(grammar, tools, tuple(parts), must_call)


def _format(fields: Mapping[str, Any]) -> _Schema | None:
    """Return the schema of what is said; None for any text."""
    given = fields.get("response_format")
    if given is None:
        return None
    if not isinstance(given, dict):
        raise wrong("response_format", given, "it must be an object with a type", INVALID_TYPE)
    kind = given.get("type")
    if kind not in _FORMATS:
        raise wrong("response_format.type", kind, f"allowed are {', '.join(_FORMATS)}")
    if kind != "json_schema":
        return None if kind == "text" else _Schema(ANY_OBJECT, strict=True)
    where, described = "response_format.json_schema", given.get("json_schema")
    if not isinstance(described, dict):
        raise wrong(where, described, "it must be an object with a name and a schema", MISSING)
    if not isinstance(described.get("name"), str) or not _NAME.fullmatch(described["name"]):
        raise wrong(f"{where}.name", described.get("name"), "it must be 1 to 64 letters, digits, _ and -")
    schema = described.get("schema")
    if not isinstance(schema, dict):
        raise wrong(f"{where}.schema", schema, "it must be a JSON schema")
    return _Schema(schema, _strict(described, where))


def _tools(fields: Mapping[str, Any]) -> tuple[Json, ...]:
    tools = fields.get("tools", [])
    if not isinstance(tools, list) or not all(map(_is_tool, tools)):
        raise wrong("tools", tools, "it must be a list of {type: function, function: {name, description, parameters}}")
    names = set()
    for number, tool in enumerate(tools):
        function, where = tool["function"], f"tools[{number}].function"
        if not _NAME.fullmatch(function["name"]) or function["name"] in names:
            raise wrong(f"{where}.name", function["name"], "it must be 1 to 64 letters, digits, _ and -, for each tool "
                        "another one")  # fmt: skip
        if not isinstance(function.get("parameters") or {}, dict):
            raise wrong(f"{where}.parameters", function["parameters"], "it must be a JSON schema")
        _strict(function, where)
        names.add(function["name"])
    return tuple(tools)


def _choice(fields: Mapping[str, Any], tools: Sequence[Json]) -> tuple[bool, tuple[Json, ...]]:
    """Return whether a tool must be called, and which may be."""
    choice = fields.get("tool_choice", "auto" if tools else "none")
    if choice == "none":
        return False, ()
    kind = choice.get("type") if isinstance(choice, dict) else None
    if choice not in _CHOICES and kind not in ("function", "allowed_tools"):
        raise wrong("tool_choice", choice, 'allowed are "none", "auto", "required" and {type: function, function: '
                    "{name}}")  # fmt: skip
    if not tools:
        raise wrong("tool_choice", choice, "it needs tools")
    if not isinstance(choice, dict):
        return choice == "required", tuple(tools)
    if kind == "function":
        return True, (_named(choice, tools),)
    allowed = choice.get("allowed_tools")
    mode = allowed.get("mode") if isinstance(allowed, dict) else None
    if not isinstance(allowed, dict) or mode not in ("auto", "required") or not isinstance(allowed.get("tools"), list):
        raise wrong("tool_choice", choice, "allowed_tools must have a mode, auto or required, and a list of tools")
    names = [_named(each, tools)["function"]["name"] for each in allowed["tools"]]
    if not names:
        raise wrong("tool_choice", choice, "allowed_tools has no tool in it")
    return mode == "required", tuple(tool for tool in tools if tool["function"]["name"] in names)


def _named(choice: object, tools: Sequence[Json]) -> Json:
    """Return the tool that a choice names."""
    function = choice.get("function") if isinstance(choice, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    found = next((tool for tool in tools if tool["function"]["name"] == name), None)
    if found is None:
        known = ", ".join(tool["function"]["name"] for tool in tools)
        raise wrong("tool_choice", choice, f"there is no tool of this name; there are: {known}")
    return found


def _several(fields: Mapping[str, Any]) -> bool:
    given = fields.get("parallel_tool_calls", True)
    if not isinstance(given, bool):
        raise wrong("parallel_tool_calls", given, "allowed are true and false", INVALID_TYPE)
    if not given and not fields.get("tools"):
        raise wrong("parallel_tool_calls", given, "it needs tools")
    return given


def _strict(described: Mapping[str, Any], where: str) -> bool:
    strict = described.get("strict")
    if strict is not None and not isinstance(strict, bool):
        raise wrong(f"{where}.strict", strict, "allowed are true and false", INVALID_TYPE)
    return bool(strict)


def _is_tool(tool: object) -> bool:
    function = tool.get("function") if isinstance(tool, dict) and tool.get("type") == "function" else None
    return isinstance(function, dict) and isinstance(function.get("name"), str)
