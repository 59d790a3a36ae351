"""The OpenAI protocol over HTTP: chat completions, completions and models, for any client of it.

A client's key says whose request it is. It is the bearer token, or a part of the path for clients that send none:
`/keys/KEY/v1/chat/completions`, where it may have any character but a slash.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, TypeVar

from data.chat_messages import Conversation, RowError
from data.chat_renderer import Renderer
from llm.engine_error import EngineError
from llm.sample_result import CANCELLED
from llm.sampling_settings import SampleRequest, SamplingSettings, SettingError
from service.openai.alias_routes import AliasRoutes
from service.openai.aliases import Aliases
from service.openai.answer_form import AnswerForm
from service.openai.openai_answers import Answers, ChatAnswers, CompletionAnswers, Json, to_json, usage_of
from service.openai.openai_requests import ChatRequest, Wanted, chat_request, completion_request, read_body
from service.openai.response_answers import ResponseAnswers
from service.openai.response_requests import response_request, told_as_response
from service.openai.said_before import Said, SaidBefore
from service.openai.token_texts import TokenTexts
from service.openai.tool_calls import writes_tool_calls
from service.sampling.exchange import Exchange, ExchangeLog, Message, UnknownKeyError
from service.sampling.sampling_loop import Increment, LoopEndedError, SamplingLoop, Ticket
from service.sampling.schedules import NotEnteredError
from service.sampling.served_models import UnknownModelError
from service.web.http_call import ClientGone, HttpCall, HttpHandler
from service.web.openai_error import INVALID_VALUE, NO_KEY, NOT_FOUND, SERVER, RequestError

if TYPE_CHECKING:
    from starlette.applications import Starlette

# Bytes of a request above which rendering it would hold up other clients: it is done beside them.
_LONG = 65536
TOO_LONG = "context_length_exceeded"
T = TypeVar("T")


@dataclass(frozen=True)
class AppLimits:
    """What the app takes.

    Attributes:
        body: bytes of a request.
    """

    body: int = 16 * 2**20


def openai_app(
    loop: SamplingLoop,
    renderer: Renderer,
    log: ExchangeLog | None = None,
    defaults: SamplingSettings | None = None,
    limits: AppLimits | None = None,
    aliases: Aliases | None = None,
) -> "Starlette":
    """Make the app.

    Args:
        loop: what samples.
        renderer: the one renderer: prompts are what it makes of conversations in training too.
        log: records what is said under the keys that are open in it, and may refuse others; None serves everybody.
        defaults: settings of fields that a request doesn't have, or has as null.
        limits: what the app takes.
        aliases: names that clients may point at models; None where they may not.

    Returns:
        An ASGI app, to be served by one event loop.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

    async def http_error(request: Request, error: HTTPException) -> Response:
        told = RequestError(f"{request.method} {request.url.path} is not served: {error.detail}", code="unknown_url")
        return Response(told.body(), error.status_code, error.headers, "application/json")

    endpoint = _Endpoint(loop, renderer, log or ExchangeLog(only_open=False), defaults, limits or AppLimits())
    table = [
        ("chat/completions", "POST", endpoint.chat), ("completions", "POST", endpoint.completions),
        ("responses", "POST", endpoint.responses),
        ("models", "GET", endpoint.models), ("models/{model:path}", "GET", endpoint.model),
        *(AliasRoutes(aliases, endpoint.require_key).table() if aliases is not None else ()),
    ]  # fmt: skip
    routes = [
        Route(f"{base}/v1/{path}", endpoint=HttpHandler(answer), methods=[method])
        for base in ("", "/keys/{key}", "/oai/api", "/keys/{key}/oai/api")
        for path, method, answer in table
    ]
    return Starlette(routes=routes, exception_handlers={HTTPException: http_error})


class _Record:
    """Writes what comes of one request into the log: each choice once.

    Args:
        log: the log.
        field: by which the client names the prompt.
        messages: messages of the request.
        tools: its tools.
        sampled: of earlier answers, the ids that they were sampled as.
    """

    def __init__(
        self,
        log: ExchangeLog,
        field: str,
        messages: Sequence[Message] = (),
        tools: Sequence[Message] = (),
        sampled: Mapping[int, tuple[int, ...]] | None = None,
    ) -> None:
        self.field = field
        self._log, self._messages, self._tools, self._sampled = log, tuple(messages), tuple(tools), sampled or {}
        self._written: set[tuple[int, int]] = set()

    def write(self, ticket: Ticket, choice: int, finish: str, answer: Json) -> None:
        """Write one choice.

        Args:
            ticket: the request.
            choice: place among its samples.
            finish: why it ended, as the client is told.
            answer: the message, as the client gets it.
        """
        if ticket.handle is None or ticket.version is None or (ticket.number, choice) in self._written:
            return
        self._written.add((ticket.number, choice))
        sample = ticket.handle.samples[choice]
        self._log.add(
            Exchange(
                ticket.key, ticket.number, choice, ticket.model, ticket.version, tuple(ticket.request.prompt),
                tuple(sample.tokens), tuple(sample.logprobs), finish,
                None if finish == CANCELLED else sample.stopped_by, ticket.request.settings, answer, self._messages,
                self._tools, self._sampled, time.time(),
            )
        )  # fmt: skip

    def write_cancelled(self, tickets: Sequence[Ticket]) -> None:
        """Write what was sampled of answers that the client did not wait for."""
        for ticket in tickets:
            for choice, sample in enumerate(ticket.handle.samples if ticket.handle is not None else ()):
                if sample.tokens:
                    self.write(ticket, choice, CANCELLED, {"role": "assistant", "content": sample.text})


class _Arrivals:
    """Wakes a task of this event loop from any thread."""

    def __init__(self) -> None:
        self._event, self._loop = asyncio.Event(), asyncio.get_running_loop()

    def tell(self) -> None:
        """Something has come. After the end of the event loop nobody waits for it."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait until something has come since the last time."""
        await self._event.wait()
        self._event.clear()


class _Endpoint:
    """What is done with each request."""

    def __init__(
        self,
        loop: SamplingLoop,
        renderer: Renderer,
        log: ExchangeLog,
        defaults: SamplingSettings | None,
        limits: AppLimits,
    ) -> None:
        self._loop, self._renderer, self._log, self._limits = loop, renderer, log, limits
        self._defaults = defaults or SamplingSettings()
        self._texts = TokenTexts(renderer.tokenizer)
        self._calls_tools = writes_tool_calls(renderer)
        self._longest = max(map(len, renderer.tokenizer.get_vocab()))  # characters of a token
        self._started = int(time.time())
        self._said = SaidBefore()

    # ---------------------------------------------------------------------------------------------------------- routes

    async def chat(self, call: HttpCall) -> None:
        """Answer a request for a chat completion."""
        body = await call.body(self._limits.body)
        self.require_key(call)
        asked = chat_request(read_body(body), self._defaults)

        def answers(prompt_ids: Sequence[int], mark: str) -> Answers:
            return ChatAnswers(asked.wanted, self._texts, prompt_ids, bool(asked.tools), mark)

        await self._chat(call, asked, len(body), answers, "messages")

    async def responses(self, call: HttpCall) -> None:
        """Answer a request for a response: a chat in other words."""
        body = await call.body(self._limits.body)
        self.require_key(call)
        key = call.key
        asked = response_request(read_body(body), self._defaults, lambda id: self._said.find(key, id))

        def keep(id: str, answer: Json) -> None:
            self._said.keep(key, id, Said(asked.before, (*asked.messages, answer)))

        def answers(prompt_ids: Sequence[int], mark: str) -> Answers:
            return ResponseAnswers(asked, self._texts, prompt_ids, mark, keep)

        with told_as_response():
            await self._chat(call, asked.chat, len(body), answers, "input")

    async def _chat(
        self,
        call: HttpCall,
        asked: ChatRequest,
        size: int,
        answers: Callable[[Sequence[int], str], Answers],
        field: str,
    ) -> None:
        """Answer a chat.

        Args:
            call: the request.
            asked: what it asks.
            size: bytes of its body.
            answers: makes the answer, of the ids of the prompt and what sets the request apart from all others.
            field: by which the client names the messages.
        """
        self._require_model(asked.wanted)
        if asked.tools and not self._calls_tools:
            raise RequestError(
                "tools are not supported: the chat template of this model shows none, or calls of them in another form "
                "than <tool_call>{...}</tool_call>; ask without them, or take a model that has (tiny, Qwen's)", "tools",
            )  # fmt: skip
        self._require_fits(size, [asked.messages, asked.tools], field)
        with _refusing(field):
            chat = Conversation.of(asked.messages, asked.tools, broken_calls=True)
        number, seed = self._log.begin(call.key)
        sampled = self._log.sampled(call.key, chat)

        def prompt() -> list[int]:
            with _refusing(field):
                return self._renderer.prompt(chat, sampled=sampled)

        ids = await _beside(size, prompt)
        requests = _requests([ids], asked.wanted, [seed], field)
        await self._require_form(asked.wanted.form, requests[0])
        mark = f"{call.key}/{number}"
        record = _Record(self._log, field, asked.messages, asked.tools, sampled)
        await self._answer(call, asked.wanted, requests, [number], answers(requests[0].prompt, mark), record)

    async def completions(self, call: HttpCall) -> None:
        """Answer a request for completions."""
        body = await call.body(self._limits.body)
        self.require_key(call)
        asked = completion_request(read_body(body), self._defaults)
        self._require_model(asked.wanted)
        begun = [self._log.begin(call.key) for _ in asked.prompts]

        for prompt in asked.prompts:
            self._require_fits(len(body), prompt, "prompt")

        def prompts() -> list[list[int]]:
            return [self._renderer.plain_ids(each) if isinstance(each, str) else list(each) for each in asked.prompts]

        ids = await _beside(len(body), prompts)
        requests = _requests(ids, asked.wanted, [seed for _, seed in begun], "prompt")
        await self._require_form(asked.wanted.form, requests[0])
        texts = [each if isinstance(each, str) else None for each in asked.prompts]
        answers = CompletionAnswers(asked.wanted, self._texts, [request.prompt for request in requests], texts)
        record = _Record(self._log, "prompt")
        await self._answer(call, asked.wanted, requests, [number for number, _ in begun], answers, record)

    async def models(self, call: HttpCall) -> None:
        """Tell which models there are."""
        self.require_key(call)
        models = self._loop.models
        told = [self._told(name) for name in (*models.names(), *models.aliases())]
        await call.reply(200, to_json({"object": "list", "data": told}))

    async def model(self, call: HttpCall) -> None:
        """Tell of one model."""
        self.require_key(call)
        name = call.parameter("model") or ""
        with _refusing("model"):
            self._loop.models.find(name)
        await call.reply(200, to_json(self._told(name)))

    # ----------------------------------------------------------------------------------------------------------- steps

    def require_key(self, call: HttpCall) -> None:
        """Refuse a call whose key is none."""
        with _refusing("model"):
            self._log.require(call.key)

    def _require_model(self, wanted: Wanted) -> None:
        with _refusing("model"):
            self._loop.models.find(wanted.model)

    def _require_fits(self, size: int, text: object, field: str) -> None:
        """Refuse what is far too long before it is rendered, which would take minutes."""
        context = self._loop.sampler.base.context
        if size <= context:
            return
        least = _least_tokens(text, self._longest)
        if least > context:
            raise RequestError(f"{field} is of {least} tokens or more; the model's context is {context} tokens", field,
                               code=TOO_LONG)  # fmt: skip

    async def _require_form(self, form: AnswerForm, request: SampleRequest) -> None:
        """Read the grammar of an answer, beside the other clients, and refuse one that can't be used by its field."""
        if form.grammar is None:
            return
        try:
            await asyncio.to_thread(self._loop.sampler.check, request)
        except SettingError as error:
            if error.field == "grammar":
                raise await asyncio.to_thread(self._refused_form, form, request, error) from error

    def _refused_form(self, form: AnswerForm, request: SampleRequest, error: SettingError) -> RequestError:
        """Say which schema can't be used, and why."""
        refused = form.parts[0][0]
        for field, grammar in form.parts:
            try:
                self._loop.sampler.check(replace(request, settings=replace(request.settings, grammar=grammar)))
            except SettingError as own:
                refused, error = field, own
                break
        code = "invalid_json_schema" if refused == "response_format" else "invalid_function_parameters"
        return RequestError(f"{refused} has a schema that can't be followed: {error.allowed}", refused, code=code)

    def _told(self, name: str) -> Json:
        told = {"id": name, "object": "model", "created": self._started, "owned_by": "local"}
        target = self._loop.models.resolve(name)
        return told if target == name else {**told, "root": target}

    async def _answer(
        self,
        call: HttpCall,
        wanted: Wanted,
        requests: Sequence[SampleRequest],
        numbers: Sequence[int],
        answers: Answers,
        record: _Record,
    ) -> None:
        """Let requests be sampled, and tell the client what comes of them."""
        arrived = _Arrivals()
        with _refusing(record.field):
            tickets = self._loop.submit_together(call.key, wanted.model, requests, numbers, wanted.stream, arrived.tell)
        self._log.expect(call.key, numbers, answered=wanted.only_prompt)
        gone = asyncio.ensure_future(call.gone())
        gone.add_done_callback(lambda ended: None if ended.cancelled() else self._cancel(tickets))
        try:
            await self._tell(call, wanted, tickets, arrived, answers, record)
        except ClientGone:
            raise
        except Exception:  # the client is told of it
            self._log.expect(call.key, numbers, answered=True)
            raise
        finally:
            gone.cancel()
            self._cancel(tickets)

    async def _tell(
        self,
        call: HttpCall,
        wanted: Wanted,
        tickets: Sequence[Ticket],
        arrived: _Arrivals,
        answers: Answers,
        record: _Record,
    ) -> None:
        begun, ended = False, False
        while not ended:
            await arrived.wait()
            ended = all(ticket.done for ticket in tickets)  # asked first, so that all is taken in the last round
            for ticket in tickets:
                if ticket.error is not None:
                    with _refusing(record.field):
                        raise ticket.error
            events: list[bytes] = []
            for place, ticket in enumerate(tickets):
                for new in self._new(ticket, wanted.stream, ended):
                    if not begun:
                        begun = True
                        answers.begin(tickets)
                    number = place * wanted.choices + new.sample
                    events += answers.take(number, new)
                    if new.finish is not None and not ticket.cancelled and not wanted.only_prompt:
                        record.write(ticket, new.sample, answers.finish(number), answers.message(number))
            if events and not any(ticket.cancelled for ticket in tickets):
                await call.send_events(events)
        if any(ticket.cancelled for ticket in tickets):
            record.write_cancelled(tickets)
            raise ClientGone
        handles = [ticket.handle for ticket in tickets if ticket.handle is not None]
        usage = usage_of(
            sum(handle.prompt_tokens for handle in handles),
            0 if wanted.only_prompt else sum(handle.completion_tokens for handle in handles),
            sum(handle.cached_tokens for handle in handles),
        )
        if wanted.stream:
            await call.send_events(answers.end(usage), more=False)
        else:
            await call.reply(200, answers.whole(usage))

    @staticmethod
    def _new(ticket: Ticket, stream: bool, ended: bool) -> list[Increment]:
        """Return what a request has brought since the last time: without a stream all of it, when all have ended."""
        if stream:
            return ticket.take()
        if not ended or ticket.handle is None:
            return []
        return [Increment.whole(number, sample) for number, sample in enumerate(ticket.handle.samples)]

    def _cancel(self, tickets: Sequence[Ticket]) -> None:
        for ticket in tickets:
            if not ticket.done:
                self._loop.cancel(ticket)


def _requests(
    prompts: Sequence[Sequence[int]], wanted: Wanted, seeds: Sequence[int | None], field: str
) -> list[SampleRequest]:
    """Return what the sampler is asked: of each prompt its ids, and the seed of its number where it names none."""
    requests = []
    with _refusing(field):
        for ids, seed in zip(prompts, seeds, strict=True):
            own = wanted.settings.seed is not None or seed is None
            settings = wanted.settings if own else replace(wanted.settings, seed=seed)
            requests.append(SampleRequest(ids, settings, wanted.choices))
    return requests


def _least_tokens(text: object, longest: int) -> int:
    """Return how many tokens whatever has texts is at least, where no token has more characters than `longest`."""
    if isinstance(text, str):
        return -(-len(text) // longest)
    if isinstance(text, Mapping):
        return sum(_least_tokens(each, longest) for each in text.values())
    if isinstance(text, list | tuple):
        return sum(_least_tokens(each, longest) for each in text)
    return 0


async def _beside(size: int, work: Callable[[], T]) -> T:
    """Do work; where it is for a long request, in a thread beside the other clients."""
    return await asyncio.to_thread(work) if size > _LONG else work()


@contextmanager
def _refusing(field: str) -> Iterator[None]:
    """Tell what other parts refuse in OpenAI's form.

    Args:
        field: by which the client names the prompt.
    """
    try:
        yield
    except RowError as error:
        raise RequestError(f"{field} can't be used: {error}", field) from error
    except UnknownModelError as error:
        raise RequestError(str(error), "model", 404, NOT_FOUND, "model_not_found") from error
    except (UnknownKeyError, NotEnteredError) as error:
        raise RequestError(f"{error}: send a key that is (as bearer token, or in /keys/KEY/v1)", None, 401, NO_KEY,
                           "invalid_api_key") from error  # fmt: skip
    except SettingError as error:
        name, code = error.field, None
        if name == "prompt":
            name, code = field, TOO_LONG if "context" in error.allowed else None
        elif name == "stop" and isinstance(error.given, int):
            name = "stop_token_ids"
        raise RequestError(f"{name} is {error.given}; {error.allowed}", name, code=code or INVALID_VALUE) from error
    except LoopEndedError as error:
        raise RequestError(str(error), None, 503, SERVER) from error
    except EngineError as error:
        raise RequestError(str(error), None, 500, SERVER) from error
