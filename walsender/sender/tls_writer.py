"""
What the transport consumer writes to under TLS: it encrypts by itself, without Twisted's layers in between.

Twisted's TLS transport joins what it is given, cuts it into records, copies each on its way down, and
sends 128 KiB per turn of the reactor.  Here WAL is encrypted several records at a time, gathered, and sent
while the socket takes it.  The connection stays Twisted's, which reads, answers alerts and key updates
and says good-bye.  So that what both send stays in the order in which OpenSSL has made it:

* What Twisted has not given to OpenSSL yet (`BufferingTLSTransport` collects) goes before the stream begins.
* What OpenSSL has made is taken out at once: nobody finds what is the other's.
* The socket itself is written to only at the moment at which the transport *below* TLS tells that all it
  had is sent; nobody else acts in that moment.  What the socket does not take then is given to that
  transport, and so is everything at any other time.

Nothing is kept here from one turn of the reactor to the next.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Final

from OpenSSL import SSL
from twisted.internet import tcp
from twisted.internet.interfaces import IPullProducer
from twisted.protocols.tls import BufferingTLSTransport, TLSMemoryBIOProtocol
from zope.interface import implementer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IPushProducer

    from walsender.sender.interfaces import IClientTransport

RECORD: Final = 16 << 10  # bytes of content at most (RFC 8446, 5.1)

# OpenSSL's buffer keeps the size that it once had, for as long as the connection lives.
_AT_ONCE: Final = 4 * RECORD
_OVERHEAD: Final = 1 << 10  # bytes, more than so many records add

# How much is sent in one call, and may be taken per wake-up before others have their turn.
_GATHERED: Final = 512 << 10
SHARE: Final = 2 << 20

# As Twisted's transports have it: with more waiting the producer is paused.
_FULL: Final = 64 << 10


def can_encrypt(transport: IClientTransport) -> bool:
    """
    Return whether *transport* is a server-side TCP connection that Twisted encrypts, in a way that we know.

    What `BufferingTLSTransport` collects can be flushed only through an attribute that is private:
    a Twisted that has another is left to do all by itself.
    """
    if not (isinstance(transport, tcp.Server) and type(transport) is tcp.Server and transport.TLS):
        return False
    tls: Any = transport.protocol
    if type(tls) is BufferingTLSTransport:
        return hasattr(getattr(tls, "_aggregator", None), "flush")
    return type(tls) is TLSMemoryBIOProtocol


@implementer(IPullProducer)
class TlsWriter:
    """
    One connection; has those methods of a transport that `TransportConsumer` needs.

    :param transport: one that `can_encrypt` approves of, after the handshake.
    """

    def __init__(self, transport: IClientTransport) -> None:
        tls: Any = transport.protocol
        self._tls = tls
        self._below = tls.transport
        self._openssl: SSL.Connection = tls.getHandle()
        self._fileno = transport.fileno  # type: ignore[attr-defined]
        self._producer: Any = None
        self._streaming = False
        self._registering = False
        self._direct = False
        self._over = False
        self._parts: list[bytes] = []
        self._gathered = 0
        self._share = 0
        self._waiting = 0

    # What the consumer writes to

    def registerProducer(self, producer: IPushProducer | IPullProducer, streaming: bool) -> None:
        """See `twisted.internet.interfaces.IConsumer`."""
        if (aggregator := getattr(self._tls, "_aggregator", None)) is not None:
            aggregator.flush()
        self._producer = producer
        self._streaming = streaming
        self._registering = True
        self._below.registerProducer(self, False)
        self._registering = False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        """See `twisted.internet.interfaces.IConsumer`."""
        self._leave()
        self._producer, self._streaming = None, False
        self._below.unregisterProducer()

    def write(self, data: bytes) -> None:
        """See `twisted.internet.interfaces.ITransport`."""
        self._encrypt(memoryview(data))
        self._encrypted()

    def writeSequence(self, data: Sequence[bytes]) -> None:
        """See `twisted.internet.interfaces.ITransport`."""
        *prefix, last = data
        rest = memoryview(last)
        if prefix:
            # In one record with what follows; joining all would copy it.
            start = max(0, RECORD - sum(map(len, prefix)))
            self._encrypt(memoryview(b"".join((*prefix, rest[:start]))))
            rest = rest[start:]
        self._encrypt(rest)
        self._encrypted()

    # What the transport below tells

    def resumeProducing(self) -> None:
        """All is sent; also called on registration, which says nothing."""
        if self._registering:
            return
        if self._below.disconnecting:
            # It waits for us: only without a producer is it lost.
            self._below.unregisterProducer()
            return
        self._waiting = 0
        self._share = SHARE
        self._direct = True
        self._producer.resumeProducing()
        self._send()
        self._direct = False

    def stopProducing(self) -> None:
        """The connection is lost."""
        self._over = True
        if self._producer is not None:
            self._producer.stopProducing()

    # Inside

    def _encrypt(self, data: memoryview) -> None:
        """Put the records of *data* behind what is gathered."""
        if self._over:
            return
        openssl, position = self._openssl, 0
        try:
            while position < len(data):
                position += openssl.send(data[position : position + _AT_ONCE])
                part = openssl.bio_read(_AT_ONCE + _OVERHEAD)
                self._parts.append(part)
                self._gathered += len(part)
        except SSL.Error:
            # The client has said good-bye, and Twisted has answered.  Without renegotiation nothing
            # else keeps OpenSSL from writing.
            self._over = True
            self._below.loseConnection()

    def _encrypted(self) -> None:
        if self._over or not self._direct:
            self._leave()
            return
        is_enough = self._share <= self._gathered
        if not is_enough and self._gathered < _GATHERED:
            return
        # The last stays.  Who waits until all is sent, from the end of this turn on, is told so by the
        # transport, and that only if something is left to it.
        last = self._parts.pop()
        self._gathered -= len(last)
        self._send()
        self._parts.append(last)
        self._gathered += len(last)
        if is_enough:
            self._gathered += _FULL  # so that the transport tells when the next may come
        if is_enough or not self._direct:
            self._leave()

    def _send(self) -> None:
        """Have the socket take what is gathered."""
        if not self._direct or not self._parts:
            return
        try:
            sent = os.writev(self._fileno(), self._parts)
        except OSError:
            sent = 0  # if there is more to it than want of room, the transport meets it again
        self._share -= sent
        self._gathered -= sent
        if not self._gathered:
            self._parts.clear()
            return
        while sent >= len(self._parts[0]):
            sent -= len(self._parts.pop(0))
        self._parts[0] = self._parts[0][sent:]
        self._leave()

    def _leave(self) -> None:
        """Leave what is gathered, now and until it has told that all is sent, to the transport."""
        self._direct = False
        parts, self._parts = self._parts, []
        self._waiting += self._gathered
        self._gathered = 0
        if parts:
            self._below.writeSequence(parts)
        if (self._over or self._waiting > _FULL) and self._streaming:
            self._producer.pauseProducing()
