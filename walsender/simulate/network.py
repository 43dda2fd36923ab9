"""
The network: connections between protocols of two processes, with latency and limited windows, that can be
stalled, cut and truncated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionLost

from walsender.testing.transport import ThrottledTransport

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

    from twisted.internet.interfaces import IProtocol
    from twisted.internet.task import Clock

    from walsender.simulate.machine import Process

_WINDOW: Final = 192 << 10  # bytes under way, or arrived and unread
_BANDWIDTH: Final = 30e6  # bytes/s


class Connection:
    """
    One connection; it has begun.

    :ivar ends: client's and server's.
    :ivar over: both ends know that.
    """

    def __init__(
        self,
        clock: Clock,
        random: random.Random,
        client: tuple[IProtocol, Process],
        server: tuple[IProtocol, Process],
    ) -> None:
        self.clock = clock
        self.random = random
        self.latency = random.choice([0.0002, 0.001, 0.01])
        self.stalled_until = 0.0
        self.ends = tuple(End(self, *end) for end in (client, server))
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]
        for end in reversed(self.ends):
            end.protocol.makeConnection(end)

    @property
    def over(self) -> bool:
        """Whether both ends know that there is nothing more."""
        return all(end.disconnected or not end.process.alive for end in self.ends)

    def stall(self, seconds: float) -> None:
        """Let nothing pass for some time."""
        self.stalled_until = self.clock.seconds() + seconds

    def reset(self) -> None:
        """Cut it; what is under way is lost, all or some of it."""
        for end in self.ends:
            if self.random.random() < 0.5:
                end.truncate()
            end.cut()

    def process_died(self, process: Process) -> None:
        """Let the other end know: its kernel tells it."""
        for end in self.ends:
            if end.process is process:
                end.peer.later(self.latency, end.peer.cut)


class End(ThrottledTransport):
    """
    One end of a connection.

    :ivar peer: the other.
    :ivar under_way: what has been sent from here and has not arrived.
    """

    peer: End

    def __init__(self, connection: Connection, protocol: IProtocol, process: Process) -> None:
        self.connection = connection
        self.process = process
        self._scheduled = False
        self.under_way: list[bytes] = []
        self._last_arrival = 0.0
        self._told = False
        super().__init__(protocol, IPv4Address("TCP", "127.0.0.1", 40000))

    # What moves it

    def later(self, seconds: float, function: Any, *arguments: Any) -> None:
        """Call something later, if the process is there then."""
        self.process.callLater(seconds, function, *arguments)

    def kick(self) -> None:
        """There may be something to do for the kernel."""
        if not self._scheduled:
            self._scheduled = True
            self.later(0, self._pump)

    @property
    def _unread(self) -> int:
        return sum(map(len, self.under_way)) + sum(map(len, self.peer._arrived))  # noqa: SLF001 -- of our own class

    def _pump(self) -> None:
        self._scheduled = False
        clock = self.connection.clock
        wait = self.connection.stalled_until - clock.seconds()
        if wait > 0:
            self._scheduled = True
            self.later(wait, self._pump)
            return
        room = _WINDOW - self._unread
        sent = 0
        if room > 0 or not self.buffered:
            self._flow(max(room, 0))
            data = bytes(self.received)
            self.received.clear()
            sent = len(data)
            if data:
                self._send(data)
        if self.disconnected:
            self._tell_peer()
        elif sent and (self.buffered or self._is_asked):
            self._scheduled = True
            self.later(sent / _BANDWIDTH, self._pump)

    def _send(self, data: bytes) -> None:
        clock = self.connection.clock
        self.under_way.append(data)
        jitter = self.connection.random.random() * self.connection.latency
        arrival = max(self._last_arrival, clock.seconds() + self.connection.latency + jitter)
        self._last_arrival = arrival
        # It travels on when this process is no more.
        self.peer.later(arrival - clock.seconds(), self.peer.arrive)

    def arrive(self) -> None:
        """The oldest of what the peer has sent is here, unless the network stands still."""
        wait = self.connection.stalled_until - self.connection.clock.seconds()
        if wait > 0:
            self.later(wait, self.arrive)
        elif self.peer.under_way:
            data = self.peer.under_way.pop(0)
            if not self.disconnected:
                self.deliver(data)
            self.peer.kick()

    def send_at_once(self, data: bytes) -> int:
        """
        Send some of *data* and return how much, as ``send`` on a socket where nothing waits.

        :raises OSError: nothing can be sent now, or ever.
        """
        if self.disconnected or self.aborted:
            raise ConnectionResetError
        random = self.connection.random
        room = _WINDOW - self._unread
        if room < len(data) or self.connection.stalled_until > self.connection.clock.seconds():
            raise BlockingIOError
        taken = random.randrange(1, len(data)) if random.random() < 0.1 else len(data)
        self._send(data[:taken])
        return taken

    def _tell_peer(self) -> None:
        """Closed here: the peer reads to the end, or finds a reset."""
        if self._told:
            return
        self._told = True
        wait = max(self._last_arrival - self.connection.clock.seconds(), self.connection.latency)
        if self.aborted:
            self.under_way.clear()
        self.peer.later(wait, self.peer.end_of_stream, self.aborted)

    def end_of_stream(self, reset: bool) -> None:
        """The peer will say nothing more."""
        if self.disconnected:
            return
        if self.peer.under_way or (self._arrived and not reset):
            self.later(0.05, self.end_of_stream, reset)
        elif reset:
            self.cut()
        else:
            self.deliver_eof()
            self.kick()

    def truncate(self) -> None:
        """Lose some of what is under way to here."""
        for data in self.peer.under_way[:1]:
            if not self.disconnected and self.process.alive:
                self.deliver(data[: self.connection.random.randrange(len(data) + 1)])
        self.peer.under_way.clear()

    def cut(self) -> None:
        """The connection is no more."""
        self._told = True
        self.peer.under_way.clear()
        if self.process.alive:
            self.lose(ConnectionLost())

    # What the protocol does

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See `ITransport`."""
        super().writeSequence(data)
        self.kick()

    def loseConnection(self) -> None:
        """See `ITransport`."""
        super().loseConnection()
        self.kick()

    def abortConnection(self) -> None:
        """See `ITCPTransport`."""
        super().abortConnection()
        self.kick()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        """See `IConsumer`."""
        super().registerProducer(producer, streaming)
        self.kick()

    def unregisterProducer(self) -> None:
        """See `IConsumer`."""
        super().unregisterProducer()
        self.kick()

    def resumeProducing(self) -> None:
        """See `IPushProducer`: what has arrived is read in a later turn."""
        super().resumeProducing()
        self.later(0, self._read_on)

    def _read_on(self) -> None:
        self._read()
        self.peer.kick()
