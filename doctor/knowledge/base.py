"""All that the doctor knows, each part read when it is first asked."""

from functools import cached_property
from importlib import import_module
from typing import Any

from doctor.knowledge.metadata import Metadata
from doctor.knowledge.symbols import Symbols


class Knowledge:
    """Metadata of releases, symbols of releases, and rules.

    Args:
        metadata: what is known of releases' metadata; None for what is shipped or was refreshed since.
        symbols: what is known of releases' symbols; None for what is shipped or was built since.
    """

    def __init__(self, metadata: Metadata | None = None, symbols: Symbols | None = None) -> None:
        self._metadata = metadata
        self._symbols = symbols

    @cached_property
    def metadata(self) -> Metadata:
        """Released versions of projects and what they declare."""
        return self._metadata or Metadata()

    @cached_property
    def symbols(self) -> Symbols:
        """Names, modules and parameters of releases, and who uses them."""
        return self._symbols or Symbols()

    @cached_property
    def rules(self) -> tuple[Any, ...]:
        """Rules of breakages that nobody declares."""
        rules: tuple[Any, ...] = import_module("doctor.knowledge.rules").read_rules()
        return rules
