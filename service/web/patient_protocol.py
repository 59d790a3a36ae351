"""uvicorn's HTTP protocol with a limit to how long a client may take for the head of a request (slow loris)."""

import asyncio
from typing import Any

_LATE = b"the head of the request has not come within %g s\n"


def patient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """Return a protocol class for uvicorn.

    A connection is hung up on where the head of its first request is not there after so long, or that of a later one so
    long after its first byte; with status 408 where it has begun. Between requests uvicorn's own limit holds.

    Args:
        seconds: how long.
    """
    from uvicorn.protocols.http.auto import AutoHTTPProtocol

    base: type[Any] = AutoHTTPProtocol  # of httptools where it is installed, else of h11; both have a `cycle`

    class PatientProtocol(base):
        """One connection."""

        _timer: asyncio.TimerHandle | None = None
        _begun = False  # whether the head has

        def connection_made(self, transport: asyncio.Transport) -> None:
            """Begin to wait."""
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            """Take in what has come; wait on where it is a part of a head."""
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:  # the head is there
                self._end()
            else:
                self._begun = True
                self._wait()

        def on_response_complete(self) -> None:
            """Wait for nothing between requests; what has come of the next one is read by the base class."""
            self._end()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            """End."""
            self._end()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self._timer is None and not self.transport.is_closing():
                self._timer = asyncio.get_running_loop().call_later(seconds, self._hang_up)

        def _end(self) -> None:
            self._begun = False
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _hang_up(self) -> None:
            if self._begun:
                told = _LATE % seconds
                head = b"HTTP/1.1 408 Request Timeout\r\ncontent-type: text/plain\r\nconnection: close\r\n"
                self.transport.write(head + b"content-length: %d\r\n\r\n" % len(told) + told)
            self.transport.close()

    return PatientProtocol
