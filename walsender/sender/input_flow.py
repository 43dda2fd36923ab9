"""
`InputFlow`: what a client says, processed one message at a time.

It is held back while the transport's buffer is full, so that a client cannot ask faster
than it reads, and while the conversation waits for something else.  What comes meanwhile
is kept, within a bound: behind it no more is read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from walsender.wire import FrontendBuffer

if TYPE_CHECKING:
    from walsender.sender.interfaces import IClientTransport

_MAX_HELD: Final = 64 << 10  # bytes kept while input is held back


class IInputHost(Protocol):
    """What the flow of input needs of the conversation that it belongs to."""

    transport: IClientTransport

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is read or written."""

    @property
    def is_held(self) -> bool:
        """Whether the next message has to wait for something else than the transport."""

    def process_one(self, buffer: FrontendBuffer) -> bool:
        """Process one message out of *buffer*; return whether there was one."""


@implementer(IPushProducer)
class InputFlow:
    """
    One client's input; towards the transport, outside streams, a producer whose work is to read it.

    :ivar pending: bytes that have come and have not been processed.
    """

    def __init__(self, host: IInputHost) -> None:
        self._host = host
        self._buffer = FrontendBuffer()
        self._transport_full = False
        self._processing = False

    @property
    def pending(self) -> int:
        """See above."""
        return self._buffer.pending

    def begin(self) -> None:
        """The transport is the conversation's: let it say when its buffer is full."""
        self._host.transport.registerProducer(self, True)

    def leave(self) -> None:
        """The transport is a stream's; from now on only the stream's output waits for it."""
        self._host.transport.unregisterProducer()
        if self._transport_full:  # by the last answer
            self._transport_full = False
            self._host.transport.resumeProducing()

    def take_back(self) -> None:
        """The transport is the conversation's again."""
        self._transport_full = False
        self.begin()
        self._host.transport.resumeProducing()
        self._process()

    def received(self, data: bytes) -> None:
        """Process what has come, as far as may be."""
        self._buffer.receive_data(data)
        self._process()
        if self._host.is_held and self._buffer.pending > _MAX_HELD:
            self._host.transport.pauseProducing()

    def wanted(self) -> None:
        """Process what was held back, and what comes."""
        if not self._host.is_closed and not self._transport_full:
            self._host.transport.resumeProducing()
            self._process()

    def pauseProducing(self) -> None:
        """The transport's buffer is full: answer no more until it is empty."""
        self._transport_full = True
        self._host.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._transport_full = False
        self._host.transport.resumeProducing()
        self._process()

    def stopProducing(self) -> None:
        """The connection is lost; the protocol's `connectionLost` follows."""

    def _process(self) -> None:
        """Take messages from the buffer until it has no whole one, or input is held back."""
        if self._processing:
            return
        self._processing = True
        host = self._host
        try:
            while not (host.is_closed or host.is_held or self._transport_full):
                if not host.process_one(self._buffer):
                    break
        finally:
            self._processing = False
