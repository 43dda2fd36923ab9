"""
The consumer for plain sockets: the kernel moves WAL from file to socket, Python never sees it.

The socket gets page-cache pages, not copies, so only bytes that
nobody will ever change may go this way; what lies below a source's flush
position is of that kind.  While a stream runs, this object writes to a
duplicate of the transport's socket and the transport itself only reads:

* It waits until the transport's own buffer is empty.  A pull producer learns
  that: its first ``resumeProducing`` comes on registration, the second when
  everything has been written.
* Every byte of the stream goes through here, so that nothing overtakes.
* The clean-up has one order: stop watching the duplicate, close it, unregister
  from the transport; only then may the transport be lost or aborted.  An open
  duplicate would go on sending after an abort.
* When the peer hangs up, the reactor tells the duplicate first and then the
  transport; when only sending fails, it tells the duplicate alone, and the
  transport is aborted from here.
"""

from __future__ import annotations

import errno
import socket
from typing import TYPE_CHECKING, Final

from twisted.internet import tcp, unix
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFDSet, IWriteDescriptor
from twisted.internet.main import CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer

from walsender.sender.interfaces import IClientTransport, IServerReactor, IWalConsumer
from walsender.sender.transport_drained import TransportDrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.kernel_pipe import KernelPipes
    from walsender.sender.page_cache import PageCache
    from walsender.sender.producer import WalProducer
    from walsender.source import WalSlice

# How much one client may take per wake-up before the others have their turn.
SHARE: Final = 4 << 20  # bytes

# PostgreSQL's messages; and, once a client has shown that it takes so much in good time,
# larger ones: the fewer calls the better, up to about here.  A standby gives up a
# connection on which no *whole* message arrives for wal_receiver_timeout, so a slow
# link never sees them.
_SMALL: Final = 128 << 10
_LARGE: Final = 1 << 20
_JUDGED_AFTER: Final = 8 << 20  # bytes, more than a socket buffers
_IN_GOOD_TIME: Final = 4.0  # seconds for so many

# What sendfile reports of the file; anything else is the socket's.
_OF_THE_FILE: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW, errno.ESTALE})

# As Twisted does it: the kernel has no buffer now and will have one.
_NO_MEMORY_NOW: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})


def can_sendfile(transport: IClientTransport, reactor: object) -> bool:
    """
    Return whether *transport* is a bare server-side TCP or unix socket under a descriptor-watching *reactor*.

    Anything wrapped around a socket (TLS above all) would be bypassed.
    """
    return (
        type(transport) in {tcp.Server, unix.Server}
        and not getattr(transport, "TLS", False)
        and IReactorFDSet.providedBy(reactor)
    )


@implementer(IWalConsumer, IWriteDescriptor)
class SendfileConsumer:
    """
    Moves WAL within the kernel.

    At most one piece is on its way.  What is still to be sent is, in this order:
    ``_prefix``, the rest of the piece, ``_tail``.
    """

    def __init__(
        self, reactor: IServerReactor, transport: IClientTransport, page_cache: PageCache, pipes: KernelPipes
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._page_cache = page_cache
        self._pipes: KernelPipes | None = pipes
        self._producer: WalProducer | None = None
        self._socket: socket.socket | None = None
        self._prefix = b""
        self._piece: WalSlice | None = None
        self._offset = 0
        self._left = 0
        self._tail = b""
        self._share = SHARE
        self.read_size = _SMALL
        self._to_be_judged = _JUDGED_AFTER
        self._judged_at = reactor.seconds()
        self._without_socket = False  # there was no descriptor for it; the transport is written to
        self._warming = False
        self._watching = False
        self._finished: Deferred[None] | None = None

    # IWalConsumer

    def start(self, producer: WalProducer) -> None:
        """See `IWalConsumer`."""
        self._producer = producer
        drained = TransportDrained(self.transport_drained, self.connection_lost)
        self._transport.registerProducer(drained, False)

    def send(self, prefix: bytes, piece: WalSlice) -> None:
        """See `IWalConsumer`."""
        self._to_be_judged -= piece.length
        if self._to_be_judged <= 0:
            self._judge()
        self._prefix = prefix
        if self._tail:
            # Given before, while the socket was being watched.
            self._prefix, self._tail = self._tail + prefix, b""
        self._piece = piece
        self._offset = piece.offset
        self._left = piece.length
        if self._page_cache.holds(piece):
            if self._push():
                self._share -= piece.length
                if self._share <= 0:
                    self._wait()
            return
        assert self._producer is not None, "a closed consumer's producer has been stopped"
        self._warming = True
        self._producer.pauseProducing()
        self._stop_watching()  # or doWrite would send the cold range
        self._page_cache.warm(piece).addCallback(self._warmed)

    def write(self, data: bytes) -> None:
        """See `IWalConsumer`."""
        if self._without_socket:
            self._transport.write(data)
            return
        waiting = self._watching and self._unsent()
        self._tail += data
        if self._socket is not None and not self._warming and not waiting:
            self._push()

    def when_drained(self, drained: Callable[[], None]) -> None:
        """See `IWalConsumer`: while the producer runs, nothing is left here but perhaps a keepalive."""
        drained()

    def finish(self) -> Deferred[None]:
        """See `IWalConsumer`."""
        self._finished = Deferred()
        finished = self._finished
        if self._without_socket or (self._socket is not None and not self._unsent()):
            self._hand_back()
        return finished

    def close(self) -> None:
        """See `IWalConsumer`."""
        if self._producer is None:
            return
        self._producer = None
        self._piece = None
        self._page_cache.forget()
        self._pipes = None
        if self._socket is not None:
            self._stop_watching()
            self._socket.close()
            self._socket = None
        self._transport.unregisterProducer()

    # The transport's side

    def transport_drained(self) -> None:
        """The transport has written all; the socket is ours now."""
        if self._producer is None or self._socket is not None:
            return
        handle = self._transport.getHandle()
        assert isinstance(handle, socket.socket), "can_sendfile() has looked"
        try:
            self._socket = handle.dup()
        except OSError as error:  # no descriptor is left: nothing was sent, so the client can be told
            self._transport.unregisterProducer()
            self._without_socket = True
            self._transport.write(self._tail)
            self._tail = b""
            self._producer.cannot_send(error)
            return
        if self._push() and self._finished is None:
            self._producer.resumeProducing()

    def connection_lost(self) -> None:
        """The transport has lost its connection."""
        producer = self._producer
        self.close()
        if producer is not None:
            producer.stopProducing()

    # IWriteDescriptor

    def fileno(self) -> int:
        """Return the duplicate's descriptor; -1 when it is closed."""
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        """See `twisted.internet.interfaces.ILoggingContext`."""
        return "walsender"

    def doWrite(self) -> Failure | None:
        """The socket has room again."""
        self._share = SHARE
        if not self._push():
            return None
        if self._producer is not None and self._finished is None:
            # Watching goes on while the producer runs, so that a client that is
            # catching up costs no system calls to stop and start watching it.
            self._producer.resumeProducing()
        if not self._unsent() and self._share > 0:
            self._stop_watching()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the duplicate hung up."""
        self.connection_lost()
        self._transport.abortConnection()

    def _judge(self) -> None:
        """Choose how large messages are from how long the client took for the last few MiB."""
        now = self._reactor.seconds()
        self.read_size = _LARGE if now - self._judged_at <= _IN_GOOD_TIME else _SMALL
        self._to_be_judged = _JUDGED_AFTER
        self._judged_at = now

    # Sending

    def _unsent(self) -> bool:
        return bool(self._prefix or self._left or self._tail)

    def _warmed(self, _: object) -> None:
        self._warming = False
        if self._producer is not None and self._push() and self._finished is None:
            self._producer.resumeProducing()

    def _wait(self) -> None:
        """Have `doWrite` called when the socket has room, and send nothing more until then."""
        assert self._producer is not None, "only an open consumer sends"
        self._producer.pauseProducing()
        if not self._watching:
            self._watching = True
            self._reactor.addWriter(self)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            self._reactor.removeWriter(self)

    def _push(self) -> bool:
        """Send what is unsent; return whether all of it went and the stream goes on."""
        while self._socket is not None:
            try:
                if self._prefix:
                    more = socket.MSG_MORE if self._left else 0
                    self._prefix = self._prefix[self._socket.send(self._prefix, more) :]
                elif self._left:
                    if not self._send_file():
                        return False
                elif self._tail:
                    self._prefix, self._tail = self._tail, b""
                else:
                    self._piece = None
                    if self._finished is not None:
                        self._hand_back()
                        return False
                    return True
            except BlockingIOError:
                self._wait()
                return False
            except InterruptedError:
                continue
            except OSError as error:
                self._failed(error)
                return False
        return False

    def _send_file(self) -> bool:
        assert self._socket is not None, "checked by the caller"
        assert self._piece is not None, "bytes are left of it"
        assert self._pipes is not None, "there is a socket"
        file = self._piece.segment.descriptor
        sent = self._pipes.move(file, self._offset, self._left, self._socket.fileno())
        if not sent:
            self._read_failed(None)  # the file has become shorter
            return False
        self._offset += sent
        self._left -= sent
        if self._left:
            self._wait()
            return False
        return True

    def _failed(self, error: OSError) -> None:
        if error.errno in _NO_MEMORY_NOW:
            self._wait()
        elif error.errno in _OF_THE_FILE and self._left and not self._prefix:
            self._read_failed(error)
        else:
            self.connectionLost(Failure(CONNECTION_LOST))

    def _read_failed(self, error: OSError | None) -> None:
        producer, piece = self._producer, self._piece
        assert producer is not None, "only an open consumer sends"
        assert piece is not None, "only reading a piece fails so"
        producer.read_failed(piece, piece.length - self._left, error, in_message=True)

    def _hand_back(self) -> None:
        finished, self._finished = self._finished, None
        assert finished is not None, "called once, after finish()"
        self.close()
        finished.callback(None)
