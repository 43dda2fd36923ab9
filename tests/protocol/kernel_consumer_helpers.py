"""A client of the kernel consumer: a real pair of sockets, and a reactor that moves only when told to."""

from __future__ import annotations

import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from protocol_helpers import LOCAL, ClockReactor, ColdPageCache, RecordedFactory
from twisted.internet.defer import Deferred, maybeDeferred

from walsender.auth import LocalAuthorizer
from walsender.sender.kernel_consumer import KernelConsumer
from walsender.sender.kernel_pipe import KernelPipes
from walsender.sender.page_cache import PageCache
from walsender.testing.transport import ThrottledTransport

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.sender.states import State
    from walsender.wire.dialect import Dialect


class WritersReactor(ClockReactor):
    """A clock that remembers who wants to write."""

    def __init__(self) -> None:
        super().__init__()
        self.writers: list[Any] = []

    def addWriter(self, writer: Any) -> None:
        """See `IReactorFDSet`."""
        if writer not in self.writers:
            self.writers.append(writer)

    def removeWriter(self, writer: Any) -> None:
        """See `IReactorFDSet`."""
        if writer in self.writers:
            self.writers.remove(writer)


class SocketTransport(ThrottledTransport):
    """Sends what was written to a real socket, turn by turn."""

    def __init__(self, protocol: Any, handle: socket.socket) -> None:
        super().__init__(protocol, LOCAL)
        self.handle = handle

    def getHandle(self) -> socket.socket:  # type: ignore[override]
        """See `ISystemHandle`."""
        return self.handle

    def turn(self) -> None:
        """Let the socket take what it takes."""
        while True:
            waiting = b"".join(self._waiting)
            try:
                sent = self.handle.send(waiting) if waiting else 0
            except BlockingIOError:
                return
            before = self.buffered
            self.drain(sent)
            if self.disconnected:
                self.handle.close()
            if not self.buffered or self.buffered == before:
                return


class HeldThreads:
    """Stands for threads: what is given to them is done when a test says so."""

    def __init__(self) -> None:
        self.jobs: list[tuple[Deferred[Any], Callable[[], object]]] = []

    def run(self, function: Callable[..., object], *arguments: object) -> Deferred[Any]:
        """See `walsender.work_threads.WorkThreads`."""
        done: Deferred[Any] = Deferred()
        self.jobs.append((done, partial(function, *arguments)))
        return done

    def work(self) -> None:
        """Do what is there."""
        jobs, self.jobs = self.jobs, []
        while jobs:
            done, job = jobs.pop()
            maybeDeferred(job).chainDeferred(done)


class SendfileFactory(RecordedFactory):
    """
    Always uses the kernel consumer.

    :ivar threads: send everything but what comes first; ``None``: there are none.
    """

    threads: HeldThreads | None = None

    def consumer(self, transport: Any) -> Any:
        """See `WalSenderFactory`."""
        cache = (ColdPageCache if self.cold else PageCache)(self._run_in_thread)
        threads = self.threads
        if threads is None:
            return KernelConsumer(self.reactor, transport, cache, KernelPipes())
        consumer = KernelConsumer(self.reactor, transport, cache, KernelPipes(), lambda: threads.run)
        consumer._worth_a_pump = True
        return consumer


class Peer:
    """The client's end of the pair, and everything behind the server's."""

    def __init__(
        self, source: Any, dialect: Dialect, *, cold: bool = False, threads: HeldThreads | None = None
    ) -> None:
        self.reactor = WritersReactor()
        self.source = source
        self.factory = SendfileFactory(
            self.reactor,  # type: ignore[arg-type]
            source,
            dialect,
            LocalAuthorizer(),
        )
        self.factory.cold = cold
        self.factory.threads = threads
        ours, self.socket = socket.socketpair()
        for end in (ours, self.socket):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.protocol = self.factory.buildProtocol(LOCAL)
        self.transport = SocketTransport(self.protocol, ours)
        self.protocol.makeConnection(self.transport)
        self.received = b""

    def close(self) -> None:
        """Close both ends."""
        self.transport.lose()
        self.socket.close()
        self.transport.handle.close()

    def read(self, size: int = 1 << 20) -> bytes:
        """Read what is there."""
        try:
            data = self.socket.recv(size)
        except BlockingIOError:
            return b""
        self.received += data
        return data

    def turn(self) -> None:
        """Let the reactor go round once."""
        self.transport.turn()
        for writer in list(self.reactor.writers):
            if writer.fileno() >= 0:
                writer.doWrite()

    def run(self) -> bytes:
        """Read until nothing moves; return all of it since the last time."""
        idle = 0
        while idle < 3:
            self.turn()
            idle = 0 if self.read() else idle + 1
        received, self.received = self.received, b""
        return received

    @property
    def states(self) -> list[State]:
        """All states so far."""
        return self.protocol.__dict__["states"]
