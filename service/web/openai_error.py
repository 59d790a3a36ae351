"""Errors as OpenAI's protocol tells them."""

import json
from collections.abc import Iterable

INVALID, NO_KEY, NOT_FOUND, SERVER = "invalid_request_error", "authentication_error", "not_found_error", "server_error"
# Codes of what is wrong with a field.
INVALID_TYPE, INVALID_VALUE, MISSING = "invalid_type", "invalid_value", "missing_required_parameter"
UNKNOWN, UNSUPPORTED = "unknown_parameter", "unsupported_value"
_MOST_SHOWN = 200  # characters of a value


class RequestError(Exception):
    """A request that can't be answered: says what was given, what is allowed, what to do.

    Args:
        message: what is wrong, for the client's user.
        param: field of the request that is wrong; None where it is none of them.
        status: HTTP status.
        kind: OpenAI's type of the error.
        code: OpenAI's code of it; None for none.
        headers: further headers of the answer, such as retry-after.
    """

    def __init__(
        self,
        message: str,
        param: str | None = None,
        status: int = 400,
        kind: str = INVALID,
        code: str | None = None,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.kind, self.code = message, param, status, kind, code
        self.headers = tuple(headers)

    def body(self) -> bytes:
        """Return it as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()


def wrong(field: str, given: object, allowed: str, code: str = INVALID_VALUE) -> RequestError:
    """Return the refusal of a field's value.

    Args:
        field: name of the field, with those that it is in.
        given: its value.
        allowed: what is allowed, in words.
        code: OpenAI's code of it.
    """
    try:
        shown = json.dumps(given)
    except (TypeError, ValueError):
        shown = repr(given)
    shown = shown if len(shown) <= _MOST_SHOWN else shown[:_MOST_SHOWN] + " ..."
    return RequestError(f"{field} is {shown}; {allowed}", field, code=code)
