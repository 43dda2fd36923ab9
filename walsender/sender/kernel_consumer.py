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
* A stream that is level may let the thread of the commits send to the duplicate (`walsender.source.permits`);
  until that is taken back, nothing is written to it here.

A client that takes much, and is not alone, is served by a *pump*: several messages are gathered
and a thread sends them, so that clients who are far behind use all cores and do not hold up those
who are level.  Then these hold beside:

* While a thread sends, the producer is paused, the socket is not watched, and what is left to send is the
  thread's alone.  What is written meanwhile waits.
* A thread has a descriptor that nobody closes before it is done, or the number might be another file's.
  When the connection is given up meanwhile, the socket is shut down, so that nothing follows.
"""

from __future__ import annotations

import contextlib
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
from walsender.sender.load import FileEnded, Load, Part
from walsender.sender.transport_drained import TransportDrained

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.kernel_pipe import KernelPipes
    from walsender.sender.page_cache import PageCache, RunInThread
    from walsender.sender.producer import WalProducer
    from walsender.source import Permit, WalSlice

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

# Who has taken so much in this time is worth a trip to a thread, and does not keep a shutdown waiting.
_PUMPED_IF_WITHIN: Final = 1.0  # seconds

# What is reported of the file; anything else is the socket's.
_OF_THE_FILE: Final = frozenset({errno.EIO, errno.EINVAL, errno.ENOSYS, errno.EOVERFLOW, errno.ESTALE})

# As Twisted does it: the kernel has no buffer now and will have one.
_NO_MEMORY_NOW: Final = frozenset({errno.ENOBUFS, errno.ENOMEM})


def is_bare_socket(transport: IClientTransport, reactor: object) -> bool:
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
class KernelConsumer:
    """
    Moves WAL within the kernel.

    What is still to be sent is, in this order: the load, ``_cold``, ``_tail``.

    :param pump: returns what runs the sending of a load in a thread; ``None``: the reactor's thread does it.
    """

    def __init__(
        self,
        reactor: IServerReactor,
        transport: IClientTransport,
        page_cache: PageCache,
        pipes: KernelPipes,
        pump: Callable[[], RunInThread | None] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._transport = transport
        self._page_cache = page_cache
        self._pipes: KernelPipes | None = pipes
        self._pump = pump
        self._producer: WalProducer | None = None
        self._socket: socket.socket | None = None
        self._load = Load()
        self._cold: Part | None = None
        self._tail = b""
        self._share = SHARE
        self.read_size = _SMALL
        self._to_be_judged = _JUDGED_AFTER
        self._judged_at = reactor.seconds()
        self._worth_a_pump = False
        self._without_socket = False  # there was no descriptor for it; the transport is written to
        self._warming = False
        self._watching = False
        self._gathering = False
        self._pumping = False
        self._lent: Permit | None = None
        self._drained: Callable[[], None] | None = None
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
        # The tail was given before, while the socket was being watched.
        part = Part(self._tail + prefix, piece)
        self._tail = b""
        self._share -= piece.length
        if not self._page_cache.holds(piece):
            self._cold = part
            self._pause()  # first: what is warm at once goes on from `_warm`
            if not self._load.parts:
                self._warm()
            return
        self._load.parts.append(part)
        if self._gathering:
            if self._share <= 0:
                self._pause()
        elif self._push() and self._share <= 0:
            self._wait()

    def write(self, data: bytes) -> None:
        """See `IWalConsumer`."""
        if self._without_socket:
            self._transport.write(data)
            return
        waiting = self._watching and self._unsent()
        self._tail += data
        if not (waiting or self._gathering):
            self._push()

    def when_drained(self, drained: Callable[[], None]) -> None:
        """See `IWalConsumer`: while the producer runs, what is gathered is left, and perhaps a keepalive."""
        if self._load.parts:
            self._drained = drained
        else:
            drained()

    def lend(self, permit: Permit) -> bool:
        """See `IWalConsumer`."""
        busy = self._unsent() or self._warming or self._watching or self._gathering
        if self._socket is None or busy or self._drained is not None or self._finished is not None:
            return False
        permit.send = self._socket.send
        self._lent = permit
        return True

    def take_back(self, rest: bytes) -> None:
        """See `IWalConsumer`."""
        self._lent = None
        if rest:
            self.write(rest)

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
        if self._lent is not None:
            self._lent.withdraw()  # first: what is closed may be another's at once
        self._drained = self._cold = None
        self._page_cache.forget()
        self._pipes = None
        if self._socket is not None:
            self._stop_watching()
            if self._pumping:  # `_pumped` will close it
                with contextlib.suppress(OSError):
                    self._socket.shutdown(socket.SHUT_WR)
            else:
                self._close_socket()
        self._transport.unregisterProducer()

    # The transport's side

    def transport_drained(self) -> None:
        """The transport has written all; the socket is ours now."""
        if self._producer is None or self._socket is not None:
            return
        handle = self._transport.getHandle()
        assert isinstance(handle, socket.socket), "is_bare_socket() has looked"
        try:
            self._socket = handle.dup()
        except OSError as error:  # no descriptor is left: nothing was sent, so the client can be told
            self._transport.unregisterProducer()
            self._without_socket = True
            self._transport.write(self._tail)
            self._tail = b""
            if self._finished is not None:  # there was nothing to send any more
                self._hand_back()
            else:
                self._producer.cannot_send(error)
            return
        self._load.over_tcp = self._socket.family != socket.AF_UNIX
        self._go_on()

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
        if self._load.parts and self._worth_a_pump and (run := self._pump()) is not None:
            self._send_in_thread(run)
            return None
        # Watching goes on while the producer runs, so that a client that is
        # catching up costs no system calls to stop and start watching it.
        self._go_on()
        if not self._unsent() and self._share > 0:
            self._stop_watching()
        return None

    def connectionLost(self, reason: Failure) -> None:
        """The reactor found the duplicate hung up."""
        self.connection_lost()
        self._transport.abortConnection()

    def _judge(self) -> None:
        """Choose how large messages are, and who sends them, by how long the last few MiB took."""
        now = self._reactor.seconds()
        taken = now - self._judged_at
        self.read_size = _LARGE if taken <= _IN_GOOD_TIME else _SMALL
        self._worth_a_pump = taken <= _PUMPED_IF_WITHIN
        self._to_be_judged = _JUDGED_AFTER
        self._judged_at = now

    # Sending

    def _unsent(self) -> bool:
        return self._pumping or bool(self._load.parts or self._cold or self._tail)

    def _pause(self) -> None:
        assert self._producer is not None, "a closed consumer's producer has been stopped"
        self._producer.pauseProducing()

    def _go_on(self) -> None:
        """Send what is left, then let the producer give more."""
        if not self._push():
            return
        if (drained := self._drained) is not None:
            self._drained = None
            drained()
        if self._producer is None or self._finished is not None:
            return
        run = self._pump() if self._worth_a_pump else None
        if run is None:
            self._producer.resumeProducing()
            return
        self._gathering = True
        self._producer.resumeProducing()
        self._gathering = False
        if self._producer is None:
            return
        if self._load.parts:
            self._send_in_thread(run)
        elif not self._warming:
            self._push()  # a keepalive

    def _warm(self) -> None:
        """Have the cold part read; nothing is sent meanwhile."""
        assert self._cold is not None, "one has been found"
        assert self._cold.piece is not None, "it is of a file"
        self._warming = True
        self._stop_watching()
        producer = self._producer
        assert producer is not None, "only an open consumer sends"
        warmed = self._page_cache.warm(self._cold.piece).addCallback(self._warmed)
        warmed.addErrback(producer.mistake)

    def _warmed(self, _: object) -> None:
        self._warming = False
        if self._cold is None:
            return  # closed meanwhile
        self._load.parts.append(self._cold)
        self._cold = None
        self._share = SHARE
        if self._worth_a_pump and (run := self._pump()) is not None:
            self._send_in_thread(run)
        else:
            self._go_on()

    def _wait(self) -> None:
        """Have `doWrite` called when the socket has room, and send nothing more until then."""
        self._pause()
        if not self._watching:
            self._watching = True
            self._reactor.addWriter(self)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            self._reactor.removeWriter(self)

    def _send_in_thread(self, run: RunInThread) -> None:
        self._pause()
        self._stop_watching()
        self._pumping = True
        producer = self._producer
        assert producer is not None, "only an open consumer sends"
        pumped = run(self._load.pump, self._socket, self._pipes).addCallback(self._pumped)
        pumped.addErrback(self._pump_failed, producer)

    def _pumped(self, error: Exception | None) -> None:
        """A thread has done what could be done of the load."""
        self._pumping = False
        if self._producer is None:
            self._close_socket()
        elif error is not None:
            self._went_wrong(error)
        else:
            self._share = SHARE
            self._go_on()

    def _pump_failed(self, failure: Failure, producer: WalProducer) -> None:
        """Something unforeseen has happened in the thread, or after it; it has nothing of ours any more."""
        self._pumping = False
        if self._producer is None and self._socket is not None:
            self._close_socket()
        producer.mistake(failure)

    def _push(self) -> bool:
        """Send what is unsent; return whether all of it went and the stream goes on."""
        if self._socket is None or self._pumping or self._warming:
            return False
        assert self._lent is None, "another thread may be sending"
        while True:
            assert self._pipes is not None, "there is a socket"
            error = self._load.send(self._socket, self._pipes)
            if error is not None:
                self._went_wrong(error)
                return False
            if self._cold is not None:
                self._warm()
                return False
            if not self._tail:
                break
            self._load.parts.append(Part(self._tail))
            self._tail = b""
        if self._finished is not None:
            self._hand_back()
            return False
        return True

    def _went_wrong(self, error: Exception) -> None:
        part = self._load.parts[0]
        of_the_file = part.left and not part.prefix
        if isinstance(error, BlockingIOError):
            self._wait()
        elif isinstance(error, FileEnded):
            self._read_failed(part, None)
        elif isinstance(error, OSError) and error.errno in _NO_MEMORY_NOW:
            self._wait()
        elif isinstance(error, OSError) and error.errno in _OF_THE_FILE and of_the_file:
            self._read_failed(part, error)
        else:
            self.connectionLost(Failure(CONNECTION_LOST))

    def _read_failed(self, part: Part, error: OSError | None) -> None:
        assert self._producer is not None, "only an open consumer sends"
        assert part.piece is not None, "only reading a piece fails so"
        done = part.piece.length - part.left
        self._producer.read_failed(part.piece, done, error, in_message=True)

    def _close_socket(self) -> None:
        assert self._socket is not None, "called once"
        self._socket.close()
        self._socket = None
        self._load.parts.clear()

    def _hand_back(self) -> None:
        finished, self._finished = self._finished, None
        assert finished is not None, "called once, after finish()"
        self.close()
        finished.callback(None)
