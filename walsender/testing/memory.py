"""
A server without a network, and a client of it: whole conversations in a test's own thread.

Time passes when the test says so, bytes move when it says so, and nothing else happens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.address import IPv4Address
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from walsender.sender import WalSenderFactory
from walsender.testing.transport import ThrottledTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress, IProtocol

    from walsender.sender import IServerReactor
    from walsender.source import IWalSource

EPOCH: Final = 946684800
"""2000-01-01 UTC in Unix time, from which the protocol counts its times."""

_LOCAL: Final = IPv4Address("TCP", "127.0.0.1", 40000)
_TURNS: Final = 100_000


class HeldThreadPool:
    """
    Runs what it is given at once, or when told to.

    :ivar holding: keep jobs for `run`.
    """

    def __init__(self) -> None:
        self.holding = False
        self._jobs: list[Callable[[], None]] = []

    @property
    def waiting(self) -> int:
        """How many jobs are kept."""
        return len(self._jobs)

    def callInThreadWithCallback(
        self, done: Callable[[bool, object], None], function: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> None:
        """See `twisted.python.threadpool.ThreadPool`."""

        def job() -> None:
            try:
                result = function(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (as a thread pool)
                done(False, Failure(error))
            else:
                done(True, result)

        if self.holding:
            self._jobs.append(job)
        else:
            job()

    def run(self) -> None:
        """Run what has been kept."""
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()


class ClockReactor(Clock):
    """
    A `twisted.internet.task.Clock` that is also what a `WalSenderFactory` needs of a reactor beside sockets.

    It begins a second after 2000-01-01 UTC, which is 0 in the protocol.

    :ivar pool: its thread pool, which has no threads.
    """

    def __init__(self) -> None:
        super().__init__()
        self.rightNow = EPOCH + 1.0
        self.pool = HeldThreadPool()

    def getThreadPool(self) -> HeldThreadPool:
        """See `IReactorThreads`."""
        return self.pool

    def callFromThread(self, function: Callable[..., object], *args: Any) -> None:
        """See `IReactorFromThreads`."""
        function(*args)


class MemoryServer:
    """
    Serves a source to clients in the same process, without a network.

    :param source: what is served; it must be ready.
    :param reactor: by default a new one.
    :param options: of `WalSenderFactory`.
    :ivar reactor: its clock.
    :ivar factory: the `WalSenderFactory`; its ``slot_table`` has an entry for each client that is let in.
    """

    def __init__(self, source: IWalSource, *, reactor: ClockReactor | None = None, **options: Any) -> None:
        self.reactor = reactor or ClockReactor()
        self.factory = WalSenderFactory(cast("IServerReactor", self.reactor), source, **options)

    def connect(self, protocol: IProtocol | None = None, peer: IAddress = _LOCAL) -> MemoryConnection:
        """
        Connect a client.

        :param protocol: the client; ``None``: the test itself, by `MemoryConnection.send` and `receive`.
        :param peer: where the client seems to be, which decides whether it is let in.
        """
        return MemoryConnection(self, protocol, peer)


class MemoryConnection:
    """
    One client's connection to a `MemoryServer`.

    :ivar client: the client's end of it.
    :ivar server: the server's end.
    """

    def __init__(self, server: MemoryServer, protocol: IProtocol | None, peer: IAddress) -> None:
        self._reactor = server.reactor
        self._received = bytearray()
        client = _Listener(self._received) if protocol is None else protocol
        walsender = server.factory.buildProtocol(peer)
        assert walsender is not None, "it refuses nobody"
        self.server = ThrottledTransport(walsender, peer)
        self.client = ThrottledTransport(client)
        self.server.peer_closes = False  # the client does that itself
        self._ways = (_Way(self.server, self.client), _Way(self.client, self.server))
        ends: tuple[tuple[Any, ThrottledTransport], ...] = ((walsender, self.server), (client, self.client))
        for protocol_there, transport in ends:
            protocol_there.makeConnection(transport)
        self.flush()

    def flush(self) -> None:
        """
        Let bytes move both ways, and ends be noticed, until nothing does any more.

        :raises AssertionError: it would go on for ever.
        """
        for _ in range(_TURNS):
            self._reactor.advance(0)
            if not any([way.move() for way in self._ways]):  # noqa: C419 (both)
                return
        raise AssertionError(f"still talking after {_TURNS} turns")

    def advance(self, seconds: float) -> None:
        """Let time go by; whatever is due on the way happens in its moment, and bytes move there."""
        end = self._reactor.seconds() + seconds
        now = self._reactor.seconds()
        while now < end:
            due = min([end, *(call.getTime() for call in self._reactor.getDelayedCalls())])
            self._reactor.advance(max(0.0, due - now))
            self.flush()
            now = self._reactor.seconds()

    def send(self, data: bytes) -> None:
        """Send bytes as the client, and let everything move."""
        self.client.write(data)
        self.flush()

    def receive(self) -> bytes:
        """Return what the server has sent since the last time, if no protocol was given to `connect`."""
        received = bytes(self._received)
        self._received.clear()
        return received

    def lose(self) -> None:
        """Let both ends lose the connection, as when the network is cut."""
        self.server.lose()
        self.client.lose()

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        return self.server.disconnected and self.client.disconnected


class _Way:
    """One of the two ways between the ends of a connection."""

    def __init__(self, source: ThrottledTransport, target: ThrottledTransport) -> None:
        self._source = source
        self._target = target
        self._ended = False

    def move(self) -> bool:
        """Let arrive what a socket takes at once, or the end; return whether anything has happened."""
        source, target = self._source, self._target
        was_open = not source.disconnected
        source.drain(source.high_water)
        data = source.take()
        if data and target.disconnected:
            source.lose()
        elif data:
            target.deliver(data)
        elif (source.disconnected or source.half_closed) and not self._ended:
            self._ended = True
            if source.aborted:
                target.lose()
            elif not target.disconnected:
                target.deliver_eof()
            return True
        return bool(data) or (was_open and source.disconnected)


class _Listener(Protocol):
    """A client that only keeps what it is sent."""

    def __init__(self, received: bytearray) -> None:
        self._received = received

    def dataReceived(self, data: bytes) -> None:
        """See `twisted.internet.interfaces.IProtocol`."""
        self._received += data
