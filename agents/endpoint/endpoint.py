"""A language model behind an address: one call of OpenAI's chat completions, tried again where that can help."""

import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from constants.counting import counted

_TRIES = 6
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0  # seconds; each pause is twice the one before it
_PATIENCE = 300.0  # seconds for an answer
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # what may be otherwise a moment later
_SHOWN = 300  # letters of a refusal that are told
_NOT_EVERYWHERE = ("max_tokens", "temperature", "seed")  # settings that some models refuse by their names
_HERE = ("localhost", "127.0.0.1", "::1")


class EndpointError(Exception):
    """A model that can't be asked; the text says why and what to do."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model is.

    Attributes:
        address: address of the protocol, such as http://127.0.0.1:8123/v1.
        model: name that the model has there.
        key: environment variable that holds the key; "" where none is needed. The key itself is in no file of ours.
    """

    address: str
    model: str
    key: str = ""


@dataclass(frozen=True)
class Reply:
    """What a model has answered.

    Attributes:
        text: its answer.
        finish: why it ended: `stop`, `length`, or another word of the endpoint's.
        tokens: tokens that were read and written, as the endpoint counts them; 0 where it doesn't say.
    """

    text: str
    finish: str
    tokens: tuple[int, int] = (0, 0)


def ask(
    endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], max_tokens: int, temperature: float = 0.0, seed: int = 0,
    tries: int = _TRIES, patience: float = _PATIENCE,
) -> Reply:  # fmt: skip
    """Ask a model once; where it is busy or can't be reached, up to six times, with pauses that grow.

    Args:
        endpoint: where it is.
        messages: the conversation, in OpenAI's form.
        max_tokens: most tokens of the answer.
        temperature: of sampling; 0 takes the likeliest tokens.
        seed: seed of sampling, for endpoints that heed one.
        tries: how often it is asked at most.
        patience: seconds that an answer may take.

    Raises:
        EndpointError: it can't be reached, refuses, or answers what is no completion.
    """
    body = {"model": endpoint.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": temperature,
            "seed": seed}  # fmt: skip
    answer = _asked(endpoint, body, tries, patience)
    try:
        choice = answer["choices"][0]
        used = answer.get("usage") or {}
        return Reply(str(choice["message"]["content"] or ""), str(choice.get("finish_reason") or "stop"),
                     (int(used.get("prompt_tokens") or 0), int(used.get("completion_tokens") or 0)))  # fmt: skip
    except (KeyError, IndexError, TypeError, AttributeError):
        raise EndpointError(f"{endpoint.address} answers what is no chat completion: {_short(answer)}") from None


def _asked(endpoint: Endpoint, body: dict[str, Any], tries: int, patience: float) -> dict[str, Any]:
    """Ask; a setting that the model there does not take is left out, or called as newer models call it."""
    while True:
        try:
            return call(endpoint, "chat/completions", body, tries, patience)
        except EndpointError as error:
            told = str(error)
            name = next((one for one in _NOT_EVERYWHERE if one in body and f"'{one}'" in told), None)
            if name is None or "with status 400" not in told:
                raise
            value = body.pop(name)
            if name == "max_tokens":
                body["max_completion_tokens"] = value


def call(
    endpoint: Endpoint, route: str, body: Mapping[str, Any], tries: int = _TRIES, patience: float = _PATIENCE
) -> dict[str, Any]:
    """Send a request to a route of the protocol; tried again as `ask` says.

    Args:
        endpoint: where it is sent.
        route: such as `chat/completions`.
        body: what is sent, as JSON.
        tries: how often it is sent at most.
        patience: seconds that an answer may take.

    Returns:
        What came back, from JSON.

    Raises:
        EndpointError: it can't be reached, refuses, or answers what is no JSON.
    """
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        if not os.environ.get(endpoint.key):
            raise EndpointError(f"{endpoint.address} needs a key: set the environment variable {endpoint.key} to it")
        headers["Authorization"] = f"Bearer {os.environ[endpoint.key].strip()}"
    request = urllib.request.Request(
        f"{endpoint.address.rstrip('/')}/{route}", json.dumps(body).encode(), headers, method="POST"
    )
    # A proxy of the environment knows nothing of this machine's own addresses.
    here = urlsplit(endpoint.address).hostname in _HERE
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))
    pause, why = _FIRST_PAUSE, ""
    for left in reversed(range(tries)):
        wait = pause
        try:
            with opener.open(request, timeout=patience) as stream:
                answer = json.load(stream)
            if not isinstance(answer, dict):
                raise EndpointError(f"{endpoint.address} answers what is no JSON object: {_short(answer)}")
            return answer
        except urllib.error.HTTPError as error:
            why = _refusal(endpoint, error)
            if error.code not in _AGAIN:
                raise EndpointError(why) from None
            wait = _asked_pause(error, pause)
        except ValueError:
            raise EndpointError(
                f"{endpoint.address} answers no JSON; is it the address of the protocol, which ends with /v1?"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            why = f"{endpoint.address} can't be reached: {getattr(reason, 'strerror', None) or reason}"
        if left:
            time.sleep(wait)
            pause = min(2 * pause, _LONGEST_PAUSE)
    raise EndpointError(f"{why} (tried {counted(tries, 'time')})")


def _asked_pause(error: urllib.error.HTTPError, usual: float) -> float:
    try:
        return min(max(float(error.headers.get("Retry-After") or ""), 0.0), 2 * _LONGEST_PAUSE)
    except ValueError:
        return usual


def _refusal(endpoint: Endpoint, error: urllib.error.HTTPError) -> str:
    """Say in a line why an endpoint refuses, in its own words where it has some."""
    try:
        text = error.read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        text = ""
    try:
        told = json.loads(text)["error"]
        text = str(told.get("message") or told) if isinstance(told, dict) else str(told)
    except (ValueError, KeyError, TypeError):
        pass
    advice = {
        401: f"; is {endpoint.key} its key?" if endpoint.key else "; name the environment variable of its key as `key`",
        404: f"; does it have the model {endpoint.model}, and does its address end with /v1?",
    }.get(error.code, "")
    return f"{endpoint.address} refuses with status {error.code}: {_short(text)}{advice}"


def _short(value: object) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
