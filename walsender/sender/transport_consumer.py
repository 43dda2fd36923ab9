"""The consumer for any transport: WAL is read into Python and written (TLS, wrapped transports, tests)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from walsender.sender.interfaces import IClientTransport, IWalConsumer
from walsender.sender.transport_drained import TransportDrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.page_cache import PageCache
    from walsender.sender.producer import WalProducer
    from walsender.sender.tls_writer import TlsWriter
    from walsender.source import Permit, WalSlice


@implementer(IWalConsumer, IPushProducer)
class TransportConsumer:
    """
    Copies WAL through this process.

    Two things make the WAL producer pause: the transport's buffer is full, or a
    cold range is being read in a thread.  It runs only while neither is
    so.  A transport pauses its producer from *inside* ``write``, and again at
    every further write; both flags may be set twice.
    """

    # One write of a Twisted transport takes 128 KiB to the socket; a message of just
    # more would cost a second turn of the reactor, and a small packet, for the rest;
    # and under TLS a record of its own.
    read_size: Final = 120 << 10

    def __init__(self, transport: IClientTransport | TlsWriter, page_cache: PageCache) -> None:
        self._transport = transport
        self._page_cache = page_cache
        self._producer: WalProducer | None = None
        self._transport_full = False
        self._empty = False  # nothing was written since the transport told that its buffer is empty
        self._reading = False
        self._tail = b""  # to be written after the cold range
        self._finished: Deferred[None] | None = None

    # IWalConsumer

    def start(self, producer: WalProducer) -> None:
        """See `IWalConsumer`."""
        self._producer = producer
        # On a connection that is lost already this calls stopProducing.
        self._transport.registerProducer(self, True)
        if self._producer is not None:
            producer.resumeProducing()

    def send(self, prefix: bytes, piece: WalSlice) -> None:
        """See `IWalConsumer`."""
        if self._page_cache.holds(piece):
            self._send_now(prefix, piece)
            return
        producer = self._producer
        assert producer is not None, "a closed consumer's producer has been stopped"
        self._reading = True
        producer.pauseProducing()
        warmed = self._page_cache.warm(piece).addCallback(self._warmed, prefix, piece)
        warmed.addErrback(producer.mistake)

    def write(self, data: bytes) -> None:
        """See `IWalConsumer`."""
        if self._reading:
            self._tail += data
        else:
            self._empty = False
            self._transport.write(data)

    def when_drained(self, drained: Callable[[], None]) -> None:
        """
        See `IWalConsumer`.

        A transport tells a producer of our kind that its buffer is empty only after it was full.
        So for this once another kind is registered in our place, and as nobody would be told that
        the buffer is full, nothing is produced meanwhile.  A producer that has caught up has written
        in this turn of the reactor, if at all since the buffer was empty: there is something to wait for.
        """
        if self._empty:
            drained()
            return
        self.pauseProducing()
        self._transport.unregisterProducer()
        self._transport.registerProducer(
            TransportDrained(lambda: self._transport_drained(drained), self.stopProducing), False
        )

    def lend(self, permit: Permit) -> bool:
        """See `IWalConsumer`: a transport is the reactor's thread's alone."""
        return False

    def take_back(self, rest: bytes) -> None:
        """See `IWalConsumer`."""

    def finish(self) -> Deferred[None]:
        """
        See `IWalConsumer`.

        Not before the client has read: or whoever starts and ends streams without
        reading would fill the transport's buffer a message at a time.
        """
        self._finished = Deferred()
        finished = self._finished
        self._hand_back_if_done()
        return finished

    def close(self) -> None:
        """See `IWalConsumer`."""
        if self._producer is not None:
            self._producer = None
            self._page_cache.forget()
            self._transport.unregisterProducer()

    # IPushProducer, towards the transport

    def pauseProducing(self) -> None:
        """The transport's buffer is full."""
        self._transport_full = True
        if self._producer is not None:
            self._producer.pauseProducing()

    def resumeProducing(self) -> None:
        """The transport's buffer is empty."""
        self._transport_full = False
        self._empty = True
        if self._finished is not None:
            self._hand_back_if_done()
        elif self._producer is not None and not self._reading:
            self._producer.resumeProducing()

    def stopProducing(self) -> None:
        """The connection is lost."""
        producer, self._producer = self._producer, None
        if producer is not None:
            self._page_cache.forget()
            producer.stopProducing()

    def _transport_drained(self, drained: Callable[[], None]) -> None:
        if self._producer is None:
            return
        self._transport.unregisterProducer()
        self._transport.registerProducer(self, True)
        if self._producer is not None:
            drained()
            self.resumeProducing()

    def _warmed(self, _: object, prefix: bytes, piece: WalSlice) -> None:
        if self._producer is None:
            return
        self._reading = False  # first: if this read fails, what is said about it must not wait for it
        sent = self._send_now(prefix, piece)
        if not sent or self._producer is None:
            return
        tail, self._tail = self._tail, b""
        self._transport.write(tail)
        if self._finished is not None:
            self._hand_back_if_done()
        elif not self._transport_full:
            self._producer.resumeProducing()

    def _hand_back_if_done(self) -> None:
        if self._producer is None or self._reading or self._transport_full:
            return
        finished, self._finished = self._finished, None
        assert finished is not None, "called after finish()"
        self.close()
        finished.callback(None)

    def _send_now(self, prefix: bytes, piece: WalSlice) -> bool:
        try:
            data = os.pread(piece.segment.descriptor, piece.length, piece.offset)
        except OSError as error:
            return self._read_failed(piece, prefix, 0, error)
        if len(data) < piece.length:
            return self._read_failed(piece, prefix, len(data), None)
        self._empty = False
        # Both in one call: joined they would be copied once more.
        self._transport.writeSequence((prefix, data) if prefix else (data,))
        return True

    def _read_failed(self, piece: WalSlice, prefix: bytes, length: int, error: OSError | None) -> bool:
        assert self._producer is not None, "only a running producer sends"
        # If the header was to go with this read, nothing of the message is on its
        # way and the client can be told; unless something was promised to follow it.
        in_message = not prefix or bool(self._tail) or self._finished is not None
        self._producer.read_failed(piece, length, error, in_message=in_message)
        return False
