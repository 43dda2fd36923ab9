"""
`ThrottledTransport`: an in-memory transport that treats its producer as a TCP transport does.

Twisted's own ``StringTransport`` never pauses anybody, closes at once, and takes
what a socket would refuse; code that passes with it may hang or crash on a
socket.  Here the network moves only when a test says so (`ThrottledTransport.drain`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol, ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from twisted.internet.interfaces import IAddress, IProtocol


class _Producer(Protocol):
    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


@implementer(ITCPTransport)
class ThrottledTransport(StringTransport):
    """
    Pauses its producer from inside ``write`` and drains on command.

    As on a socket: writing never sends by itself; a streaming producer is paused, again
    at every write, while more than `high_water` bytes wait, and resumed when none do;
    a pull producer is asked at once and then whenever nothing waits; an orderly close
    happens after the last byte, if no producer is paused; an abort drops what waits;
    what is written after the end is dropped.

    :param protocol: is told what a transport tells its protocol.
    :ivar high_water: bytes; as ``twisted.internet.abstract.FileDescriptor.bufferSize``.
    :ivar received: what the peer has read since `clear`.
    :ivar aborted: the connection was, or is about to be, aborted by our side.
    :ivar peer_closes: the peer closes its half as soon as it has read that we have closed ours.
    :ivar half_closed: our half is closed.
    :ivar reading: whether the protocol is given what arrives.
    :ivar options: socket options that were set, by name.
    """

    high_water = 64 * 1024

    def __init__(self, protocol: IProtocol, peer: IAddress | None = None) -> None:
        self.received = bytearray()
        self._waiting: list[bytes] = []
        self._arrived: list[bytes] = []
        self._producer_paused = False
        self.buffered = 0
        self.aborted = False
        self.peer_closes = True
        self.half_closing = self.half_closed = False
        self.reading = True
        self.options: dict[str, object] = {}
        self.protocol = protocol
        self.producer: _Producer | None = None
        StringTransport.__init__(self, peerAddress=peer)

    # What the test does

    def clear(self) -> None:
        """Forget what the peer has read."""
        StringTransport.clear(self)
        self.received.clear()

    def take(self) -> bytes:
        """Return what the peer has read since `clear` or the last time, and forget that alone."""
        taken = bytes(self.received)
        self.received.clear()
        return taken

    def value(self) -> bytes:
        """Return all that was written since `clear`, read by the peer or not."""
        return bytes(self.received) + b"".join(self._waiting)

    def drain(self, count: int | None = None) -> None:
        """
        Let the peer read: one turn of the reactor.

        :param count: bytes; all that wait if not given.
        """
        self._flow(count)
        self._read()

    def _flow(self, count: int | None) -> None:
        if self.disconnected:
            return
        if self.aborted:
            self._lose(ConnectionAborted())
            return
        data = b"".join(self._waiting)
        taken = len(data) if count is None else min(count, len(data))
        self.received += data[:taken]
        self._waiting = [data[taken:]] if taken < len(data) else []
        self.buffered = len(data) - taken
        if self.buffered:
            return
        if self.producer is not None and (self._producer_paused or not self.streaming):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._lose(ConnectionDone())
        elif self.half_closing and not self.half_closed:
            self.half_closed = True
            IHalfCloseableProtocol(self.protocol).writeConnectionLost()
            if self.peer_closes:
                self.deliver_eof()

    def drain_all(self, turns: int = 100_000) -> bytes:
        """Let the peer read until nothing moves any more; return what it has read since `clear`."""
        for _ in range(turns):
            self.drain()
            if not self.buffered and not self._is_asked:
                break
        else:
            raise AssertionError(f"still sending after {turns} turns")
        return bytes(self.received)

    def deliver(self, data: bytes) -> None:
        """Let *data* arrive from the peer; it is kept while the protocol has paused reading."""
        self._arrived.append(data)
        self._read()

    def deliver_eof(self) -> None:
        """Let the peer close its half of the connection."""
        half_closeable = IHalfCloseableProtocol(self.protocol, None)
        if half_closeable is None:
            self._lose(ConnectionDone())
        else:
            half_closeable.readConnectionLost()

    def lose(self, reason: Exception | None = None) -> None:
        """Let the connection be lost, as by a reset."""
        if not self.disconnected:
            self._lose(reason or ConnectionLost())

    # ITransport

    def write(self, data: bytes) -> None:
        """See `ITransport`; nothing but ``bytes``."""
        self.writeSequence((data,))

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See `ITransport`; nothing but ``bytes``."""
        pieces = list(data)
        for piece in pieces:
            if type(piece) is not bytes:
                raise TypeError(f"Data must be bytes, not {type(piece).__name__}")
        if self.disconnected or self.aborted:
            return
        self._waiting += pieces
        self.buffered += sum(map(len, pieces))
        if self.producer is not None and self.streaming and self.buffered > self.high_water:
            self._producer_paused = True
            self.producer.pauseProducing()

    def loseConnection(self) -> None:
        """See `ITransport`; happens when everything is written."""
        if not self.disconnected:
            self.disconnecting = True
            self.reading = False

    def abortConnection(self) -> None:
        """See `ITCPTransport`; happens in the next turn."""
        if not self.disconnected and not self.aborted:
            self.aborted = True
            self.reading = False
            self._waiting = []
            self.buffered = 0

    # ITCPTransport

    def loseWriteConnection(self) -> None:
        """See `ITCPTransport`; happens when everything is written."""
        if not (self.disconnected or self.disconnecting):
            self.half_closing = True

    def getHandle(self) -> None:
        """See `ISystemHandle`: there is none."""

    def setTcpNoDelay(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.options["TCP_NODELAY"] = enabled

    def getTcpNoDelay(self) -> bool:
        """See `ITCPTransport`."""
        return bool(self.options.get("TCP_NODELAY"))

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """See `ITCPTransport`."""
        self.options["SO_KEEPALIVE"] = enabled

    def getTcpKeepAlive(self) -> bool:
        """See `ITCPTransport`."""
        return bool(self.options.get("SO_KEEPALIVE"))

    # IConsumer

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See `IConsumer`."""
        if self.producer is not None:
            raise RuntimeError(f"cannot register {producer!r}, {self.producer!r} was never unregistered")
        if self.disconnected:
            producer.stopProducing()
            return
        self.producer = producer
        self.streaming = streaming
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See `IConsumer`; harmless without a producer, as on a socket."""
        self.producer = None
        self.streaming = None

    # IPushProducer, towards the protocol

    def pauseProducing(self) -> None:
        """Stop giving the protocol what arrives."""
        self.reading = False

    def resumeProducing(self) -> None:
        """Give the protocol what arrives again, at a later turn as a reactor does."""
        if not (self.disconnected or self.disconnecting or self.aborted):
            self.reading = True

    def stopProducing(self) -> None:
        """See `IProducer`."""
        self.loseConnection()

    # Inside

    @property
    def _is_asked(self) -> bool:
        """Whether another turn would do something although nothing is buffered."""
        if self.disconnected:
            return False
        if self.half_closing and not self.half_closed:
            return True
        return self._producer_paused or self.aborted or (self.disconnecting and self.producer is None)

    def _read(self) -> None:
        while self.reading and self._arrived:
            self.protocol.dataReceived(self._arrived.pop(0))

    def _lose(self, reason: Exception) -> None:
        self.disconnected = True
        self.connected = False
        self.reading = False
        self._waiting = []
        self.buffered = 0
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        self.protocol.connectionLost(Failure(reason))
