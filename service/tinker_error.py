"""Errors as the Tinker protocol tells them."""

import json


class TinkerError(Exception):
    """A request that can't be done: says what was given, what is allowed, what to do.

    Args:
        message: what is wrong, for the client's user.
        status: HTTP status, where the request is refused at once.
        category: whose fault it is: user, server or unknown.
    """

    def __init__(self, message: str, status: int = 400, category: str = "user") -> None:
        super().__init__(message)
        self.message, self.status, self.category = message, status, category

    def body(self) -> bytes:
        """Return it as JSON: the form of a failed promise, and of a refusal."""
        return json.dumps({"error": self.message, "category": self.category}).encode()
