"""What clients of OpenAI's protocol rely on, checked through the official client of any version and nothing else.

`check_*` are the checks, each of them whole in itself; `python openai_client_checks.py URL MODEL` does all of them with
the client that is installed, so that each version can be tried in an environment of its own. The service must serve a
model whose template shows tools, and that draws something else for each seed, such as `tiny`.
"""

import asyncio
import inspect
import json
import sys
import threading
import time

import openai
import pydantic

ASK = [{"role": "user", "content": "Hi there"}]
IDS = {"extra_body": {"return_token_ids": True}}
PLACE = {
    "type": "object", "required": ["city", "days"], "additionalProperties": False,
    "properties": {"city": {"type": "string", "maxLength": 4}, "days": {"type": "integer", "minimum": 0, "maximum": 9}},
}  # fmt: skip
ADD = {"type": "function", "function": {"name": "add", "description": "adds", "strict": True, "parameters": {
    "type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["a"],
    "additionalProperties": False}}}  # fmt: skip
_CLOSE = 1e-3  # between logprobs that differ by rounding


class Place(pydantic.BaseModel):
    """What a client makes of an answer itself."""

    city: str = pydantic.Field(max_length=4)
    days: int = pydantic.Field(ge=0, le=9)


class Service:
    """A service as a client sees it.

    Args:
        url: where it is.
        model: name of its model.
    """

    def __init__(self, url: str, model: str) -> None:
        self.url, self.model = url, model
        self.client = self.at("/v1")

    def at(self, base: str, kind=openai.OpenAI):
        """Return a client of one of the bases."""
        return kind(base_url=self.url + base, api_key="tml-local", max_retries=0, timeout=300)

    def chat(self, **fields):
        """Ask for an answer; a seed and a few tokens if nothing else is said."""
        given = {"model": self.model, "messages": ASK, "max_tokens": 12, "seed": 3, "temperature": 1.0, **fields}
        return self.client.chat.completions.create(**given)

    def completion(self, **fields):
        """Ask for what follows on a text."""
        return self.client.completions.create(**{"model": self.model, "max_tokens": 8, "seed": 3, **fields})


def logprobs(choice) -> list[float]:
    """Return the logprobs of a choice of a chat."""
    return [entry.logprob for entry in choice.logprobs.content]


def close(ones, others) -> bool:
    """Return whether numbers are the same up to rounding."""
    return len(ones) == len(others) and max(abs(one - other) for one, other in zip(ones, others)) < _CLOSE  # noqa: B905


def refused(ask, status: int, param: str | None, code: str) -> None:
    """Require that a request is refused."""
    try:
        answer = ask()
    except openai.APIStatusError as error:
        found = error.status_code, error.param, error.code
        assert found == (status, param, code) and error.type, (found, error.message)
        assert type(error) is {400: openai.BadRequestError, 404: openai.NotFoundError}[status]
    else:
        raise AssertionError(f"it was answered: {answer}")


def check_models(service):
    """Under both bases, and under one that carries the key."""
    for base in ("/v1", "/oai/api/v1", "/keys/tml-local/v1", "/keys/tml-local/oai/api/v1"):
        client = service.at(base)
        assert service.model in [model.id for model in client.models.list()]
        assert client.models.retrieve(service.model).id == service.model


def check_a_stream_says_what_an_answer_says(service):
    """Text, ids, logprobs, ends and counts."""
    fields = {"n": 2, "logprobs": True, "top_logprobs": 2, **IDS}
    whole = service.chat(**fields)
    text, ids, found, ends = ["", ""], [[], []], [[], []], [None, None]
    prompt, usage = [], None
    for chunk in service.chat(**fields, stream=True, stream_options={"include_usage": True}):
        prompt += getattr(chunk, "prompt_token_ids", None) or []
        if chunk.usage is not None:
            assert usage is None and chunk.choices == []
            usage = chunk.usage
        for choice in chunk.choices:
            at = choice.index
            text[at] += choice.delta.content or ""
            ids[at] += getattr(choice, "token_ids", None) or []
            found[at] += logprobs(choice) if choice.logprobs else []
            if choice.finish_reason:
                assert ends[at] is None
                ends[at] = choice.finish_reason
    assert text == [choice.message.content for choice in whole.choices]
    assert ids == [choice.token_ids for choice in whole.choices] and ids[0] != ids[1]
    assert prompt == whole.prompt_token_ids and ends == [choice.finish_reason for choice in whole.choices]
    assert usage == whole.usage and usage.completion_tokens == len(ids[0]) + len(ids[1])
    assert (usage.prompt_tokens, usage.total_tokens) == (len(prompt), len(prompt) + usage.completion_tokens)
    assert all(close(each, logprobs(choice)) for each, choice in zip(found, whole.choices))  # noqa: B905


def check_completions_go_on_from_ids_as_chats_do(service):
    """The same prompt, the same seed: the same ids under both routes."""
    chat = service.chat(**IDS)
    plain = service.completion(prompt=chat.prompt_token_ids, max_tokens=12, temperature=1.0, **IDS)
    assert plain.choices[0].token_ids == chat.choices[0].token_ids
    assert plain.choices[0].text == chat.choices[0].message.content


def check_echo(service):
    """Logprobs of a prompt are those that its tokens were sampled with."""
    chat = service.chat(logprobs=True, **IDS)
    ids, begin = chat.prompt_token_ids + chat.choices[0].token_ids, len(chat.prompt_token_ids)
    echo = service.completion(prompt=ids, max_tokens=0, echo=True, logprobs=2, **IDS)
    told = echo.choices[0].logprobs
    assert len(told.tokens) == len(told.text_offset) == len(ids) and told.token_logprobs[0] is told.top_logprobs[0]
    assert close(told.token_logprobs[begin:], logprobs(chat.choices[0]))
    assert (echo.usage.completion_tokens, echo.choices[0].finish_reason, echo.choices[0].token_ids) == (0, "length", [])
    more = service.completion(prompt="Hi é", max_tokens=3, echo=True, logprobs=1)
    without = service.completion(prompt="Hi é", max_tokens=3)
    assert more.choices[0].text == "Hi é" + without.choices[0].text
    assert len(more.choices[0].logprobs.tokens) == more.usage.prompt_tokens + 3
    stream = service.completion(prompt="Hi é", max_tokens=3, echo=True, logprobs=1, stream=True)
    parts = [chunk.choices[0] for chunk in stream]
    assert "".join(part.text for part in parts) == more.choices[0].text
    assert [text for part in parts for text in part.logprobs.tokens] == more.choices[0].logprobs.tokens
    assert [at for part in parts for at in part.logprobs.text_offset] == more.choices[0].logprobs.text_offset


def check_biases_and_penalties(service):
    """What is banned is never said, what is forced always; what was said is said less."""
    greedy = {"temperature": 0, "max_tokens": 20, **IDS}
    plain = service.chat(**greedy).choices[0].token_ids
    assert plain[0] not in service.chat(**greedy, logit_bias={str(plain[0]): -100}).choices[0].token_ids
    forced = service.chat(**greedy, logit_bias={"65": 100}).choices[0]
    assert forced.token_ids == [65] * 20
    less = service.chat(**greedy, logit_bias={"65": 100, "66": 95}, frequency_penalty=2.0).choices[0].token_ids
    assert less[0] == 65 and set(less) == {65, 66}


def check_forms(service):
    """JSON of a schema, in a stream too, and as the client's own class."""
    form = {"type": "json_schema", "json_schema": {"name": "place", "strict": True, "schema": PLACE}}
    said = service.chat(response_format=form, max_tokens=300).choices[0].message.content
    stream = service.chat(response_format=form, max_tokens=300, stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in stream) == said
    assert list(json.loads(said)) == ["city", "days"]
    chats = service.client.chat.completions
    parse = getattr(chats, "parse", None) or service.client.beta.chat.completions.parse
    answer = parse(model=service.model, messages=ASK, response_format=Place, seed=2, max_tokens=300)
    assert isinstance(answer.choices[0].message.parsed, Place)


def check_tools(service):
    """A call that must come, its result, and a stream of it."""
    fields = {"tools": [ADD], "max_tokens": 300, "parallel_tool_calls": False}
    choice = service.chat(**fields, tool_choice="required").choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, call.function.name) == ("tool_calls", "add")
    assert list(json.loads(call.function.arguments)) == ["a"]
    messages = [*ASK, choice.message, {"role": "tool", "tool_call_id": call.id, "content": "3"}]
    assert service.chat(messages=messages, tools=[ADD]).choices[0].finish_reason
    named = {"type": "function", "function": {"name": "add"}}
    chunks = [chunk.choices[0] for chunk in service.chat(**fields, tool_choice=named, stream=True)]
    (streamed,) = [each for chunk in chunks for each in chunk.delta.tool_calls or []]
    assert (streamed.index, streamed.function.name) == (0, "add") and json.loads(streamed.function.arguments)
    assert chunks[-1].finish_reason == "tool_calls"


def check_what_changes_nothing_is_taken(service):
    """Fields about accounts, a developer's message, content in parts."""
    parts = [{"type": "text", "text": "Hi "}, {"type": "text", "text": "there"}]
    plain = service.chat(messages=[{"role": "developer", "content": "Be brief"}, *ASK])
    more = service.client.chat.completions.create(
        model=service.model, seed=3, temperature=1.0, max_completion_tokens=12, user="u", metadata={"a": "b"},
        store=False, messages=[{"role": "developer", "content": "Be brief"}, {"role": "user", "content": parts}],
    )  # fmt: skip
    assert more.choices[0].message.content == plain.choices[0].message.content


def check_errors(service):
    """Each by its field and code, as the kind of exception that the client has for it."""
    refused(lambda: service.chat(model="gpt-9"), 404, "model", "model_not_found")
    refused(lambda: service.chat(temperature=-1), 400, "temperature", "invalid_value")
    refused(lambda: service.chat(extra_body={"frobnicate": 1}), 400, "frobnicate", "unknown_parameter")
    refused(lambda: service.chat(store=True), 400, "store", "unsupported_value")
    refused(lambda: service.completion(prompt="x", n=1, best_of=2), 400, "best_of", "unsupported_value")
    long = [{"role": "user", "content": "x" * 400_000}]
    refused(lambda: service.chat(messages=long), 400, "messages", "context_length_exceeded")


def check_clients_at_the_same_time_get_what_they_get_alone(service):
    """Each by its seed."""
    alone = [service.chat(seed=seed, **IDS).choices[0].token_ids for seed in range(4)]
    found: dict[int, list[int]] = {}

    def ask(seed: int) -> None:
        found[seed] = service.chat(seed=seed, **IDS).choices[0].token_ids

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[seed] for seed in range(4)] == alone


def check_the_client_that_waits_for_nothing(service):
    """The asynchronous one, with and without a stream."""

    async def ask() -> tuple[str, str]:
        client = service.at("/v1", openai.AsyncOpenAI)
        fields = {"model": service.model, "messages": ASK, "max_tokens": 12, "seed": 3, "temperature": 1.0}
        whole = await client.chat.completions.create(**fields)
        stream = await client.chat.completions.create(**fields, stream=True)
        said = [chunk.choices[0].delta.content or "" async for chunk in stream]
        return whole.choices[0].message.content, "".join(said)

    expected = service.chat().choices[0].message.content
    assert asyncio.run(ask()) == (expected, expected)


CHECKS = [each for name, each in list(globals().items()) if name.startswith("check_") and inspect.isfunction(each)]


def main() -> int:
    """Do all checks; returns the exit code."""
    service = Service(*sys.argv[1:3])
    for check in CHECKS:
        begin = time.monotonic()
        check(service)
        print(f"openai {openai.__version__}: {check.__name__} holds ({time.monotonic() - begin:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
