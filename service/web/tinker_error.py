"""Errors as the Tinker protocol tells them."""

import json


class TinkerError(Exception):
    """A request that can't be done: says what was given, what is allowed, what to do.

    A request that will never be done needs a status below 500: clients send others again, for minutes.

    Args:
        message: what is wrong, for the client's user.
        status: HTTP status, where the request is refused at once.
        category: whose fault it is: user, server or unknown.
        retry_after: seconds after which the client may send it again; None to leave that to the client.
    """

    def __init__(self, message: str, status: int = 400, category: str = "user", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message, self.status, self.category, self.retry_after = message, status, category, retry_after

    def body(self) -> bytes:
        """Return it as JSON: the form of a failed promise, and of a refusal."""
        return json.dumps({"error": self.message, "category": self.category}).encode()

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of a refusal."""
        return [] if self.retry_after is None else [(b"retry-after", str(self.retry_after).encode())]
