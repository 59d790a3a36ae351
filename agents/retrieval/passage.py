"""A piece of a document, which knows where it is from."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        text: its text.
        source: where it is from: file, heading and line.
        title: its heading; "" where it has none.
    """

    text: str
    source: str
    title: str = ""
