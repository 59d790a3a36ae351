"""Errors as OpenAI's protocol tells them."""

import json

INVALID, NO_KEY, NOT_FOUND, SERVER = "invalid_request_error", "authentication_error", "not_found_error", "server_error"


class RequestError(Exception):
    """A request that can't be answered: says what was given, what is allowed, what to do.

    Args:
        message: what is wrong, for the client's user.
        param: field of the request that is wrong; None where it is none of them.
        status: HTTP status.
        kind: OpenAI's type of the error.
        code: OpenAI's code of it; None for none.
    """

    def __init__(
        self, message: str, param: str | None = None, status: int = 400, kind: str = INVALID, code: str | None = None
    ) -> None:
        super().__init__(message)
        self.message, self.param, self.status, self.kind, self.code = message, param, status, kind, code

    def body(self) -> bytes:
        """Return it as JSON."""
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}).encode()
