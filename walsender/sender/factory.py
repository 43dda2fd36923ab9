"""`WalSenderFactory`: makes a `WalSender` per connection and holds what they share."""

from __future__ import annotations

from hmac import compare_digest
from typing import TYPE_CHECKING, Final
from weakref import ref

from twisted.internet.defer import Deferred, succeed
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from walsender.auth import LocalAuthorizer
from walsender.clocks import time_of_day
from walsender.replication_slots import ReplicationSlots
from walsender.sender.connection_log import LineLimit, Logged
from walsender.sender.giving_way import GivingWay
from walsender.sender.idle_sockets import IdleSocket, IdleSockets
from walsender.sender.kernel_consumer import KernelConsumer, is_bare_socket
from walsender.sender.kernel_pipe import KernelPipes
from walsender.sender.page_cache import PageCache
from walsender.sender.protocol import WalSender
from walsender.sender.slot_table import SlotTable
from walsender.sender.transport_consumer import TransportConsumer
from walsender.sender.waiting_room import WaitingRoom, origin
from walsender.shared_timer import SharedTimer
from walsender.wire.dialect import dialect_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IAddress

    from walsender.auth import IAuthorizer
    from walsender.sender.interfaces import (
        IClientTransport,
        IConsole,
        IServerReactor,
        IServerTls,
        IWalConsumer,
    )
    from walsender.sender.page_cache import RunInThread
    from walsender.source import IWalSource
    from walsender.wire import CancelRequest
    from walsender.wire.dialect import Dialect


# Clients that are not let in yet: as many as walsenders, and some for those who only cancel.
_MORE_WAITING: Final = 32

# Descriptors: of a walsender its socket, the duplicate that the kernel consumer uses and the segments of two
# messages; of the rest listeners, the directory, logs, threads' own.
_PER_WALSENDER: Final = 4
_OTHER_DESCRIPTORS: Final = 32
# A socket that is aborted has its descriptor until the reactor's next turn.
_MOST_CLOSING: Final = 32
_LEAST_WAITING: Final = 8

# From so many clients on the reports of those who are idle are read together.
_WORTH_RESTING: Final = 100

_TELL_EVERY: Final = 60.0  # seconds

_ANY_VERSION: Final = 180000


class WalSenderFactory(Factory):
    """
    Serves one source to any number of clients.

    :param dialect: how clients are spoken to; by default as by the version that wrote the source's WAL.
    :param authorizer: who may come in; by default whoever is on this machine.
    :param max_wal_senders: how many clients at once.
    :param wal_sender_timeout: seconds; 0 disables.
    :param authentication_timeout: seconds from connect to being let in.
    :param sendfile: move WAL in the kernel where the transport permits it.
    :param cold_read_rate: bytes per second, see `GivingWay`.
    :param slots: replication slots; by default temporary ones only, a hundred.
    :param pump: sends in threads to clients that are far behind; by default the reactor's thread does all.
    :param read: reads in threads what is not in memory; by default the reactor's thread pool.
    :ivar now: tells the time of day, in seconds since 1970.
    :ivar console: answers clients that want SQL; ``None``: they are refused.
    :ivar giving_way: who reads cold WAL, to those who are level.
    :ivar stopping: no new client is let in.
    :ivar timer: what all streams share.
    :ivar logged: what is logged of each connection.  May be replaced at any time.
    :ivar strangers: bounds what is logged of clients that are not let in.
    :ivar tls: what clients may encrypt with; ``None``: nothing.  May be replaced at any time.
    """

    noisy = False
    _log = Logger()

    def __init__(
        self,
        reactor: IServerReactor,
        source: IWalSource,
        dialect: Dialect | None = None,
        authorizer: IAuthorizer | None = None,
        *,
        max_wal_senders: int = 100,
        wal_sender_timeout: float = 60.0,
        authentication_timeout: float = 60.0,
        sendfile: bool = True,
        cold_read_rate: int = 0,
        slots: ReplicationSlots | None = None,
        pump: RunInThread | None = None,
        read: RunInThread | None = None,
    ) -> None:
        self.reactor = reactor
        self.now = time_of_day(reactor)
        self.source = source
        self._dialect = dialect
        self.authorizer: IAuthorizer = LocalAuthorizer() if authorizer is None else authorizer
        self.slot_table = SlotTable(max_wal_senders)
        self.giving_way = GivingWay(source, self.slot_table, reactor, cold_read_rate)
        self.wal_sender_timeout = wal_sender_timeout
        self.authentication_timeout = authentication_timeout
        self.sendfile = sendfile
        self._pump = pump
        self._read = read or self._run_in_thread
        if slots is None:
            slots = ReplicationSlots(None, 100, reactor, self._run_in_thread)
        self.slots = slots
        self.console: IConsole | None = None
        self.stopping = False
        # Shared by the streams that there are, and closed with the last of them.
        self._pipes: Callable[[], KernelPipes | None] = lambda: None
        self.timer = SharedTimer(reactor)
        self._idle_sockets = IdleSockets(reactor, lambda: len(self._connections) >= _WORTH_RESTING)
        self.tls: IServerTls | None = None
        self._connections: dict[WalSender, None] = {}  # in the order in which they came
        self._waiting: WaitingRoom[WalSender] = WaitingRoom(max_wal_senders + _MORE_WAITING)
        self._closing: set[WalSender] = set()  # driven out, but their sockets are not closed yet
        self._driven_out = 0
        self.strangers = LineLimit(reactor)
        self.logged = Logged()
        self._tell_again_at = 0.0
        self._by_process: dict[int, WalSender] = {}
        self._when_empty: list[Deferred[None]] = []

    @property
    def dialect(self) -> Dialect:
        """How clients are spoken to; may be replaced, for those that come later."""
        if self._dialect is None:
            if not self.source.ready:  # nobody is let in, and what turns them away is the same for all
                return dialect_of(_ANY_VERSION, "little")
            self._dialect = dialect_of(self.source.server_version, self.source.byte_order)
        return self._dialect

    @dialect.setter
    def dialect(self, dialect: Dialect) -> None:
        self._dialect = dialect

    def buildProtocol(self, addr: IAddress | None) -> WalSender | None:  # type: ignore[override]
        """
        See `twisted.internet.interfaces.IProtocolFactory`.

        Nobody is refused here, as `connection_made` sees to it that not too many wait to be let in; unless
        so many come in one turn of the reactor that those who make room for them keep too many descriptors.
        """
        return WalSender(self) if len(self._closing) < _MOST_CLOSING else None

    def consumer(self, transport: IClientTransport) -> IWalConsumer:
        """Return what carries a stream over *transport*."""
        page_cache = PageCache(self._read, self.giving_way.due)
        if self.sendfile and is_bare_socket(transport, self.reactor):
            pipes = self._pipes()
            if pipes is None:
                pipes = KernelPipes()
                self._pipes = ref(pipes)
            return KernelConsumer(self.reactor, transport, page_cache, pipes, self._pump_for_many)
        if getattr(transport, "TLS", False):
            # Without OpenSSL, which only who encrypts needs, there is no such module.
            from walsender.sender.tls_writer import TlsWriter, can_encrypt  # noqa: PLC0415

            if can_encrypt(transport):
                return TransportConsumer(TlsWriter(transport), page_cache)
        return TransportConsumer(transport, page_cache)

    def idle_socket(
        self, transport: IClientTransport, received: Callable[[bytes], object]
    ) -> IdleSocket | None:
        """Return how reading from *transport*, for *received*, may rest; ``None``: not at all."""
        if not is_bare_socket(transport, self.reactor):
            return None
        return IdleSocket(transport, received, self._idle_sockets)

    def _pump_for_many(self) -> RunInThread | None:
        """Return what sends in threads; a client that is alone is served as fast without."""
        return self._pump if len(self._connections) > 1 else None

    def _run_in_thread(self, function: Callable[..., object], *arguments: object) -> Deferred[object]:
        return deferToThreadPool(self.reactor, self.reactor.getThreadPool(), function, *arguments)

    def connection_made(self, connection: WalSender) -> None:
        """
        *connection* has begun; if too many wait to be let in, another one ends.

        Source: PostgreSQL, src/backend/postmaster/postmaster.c, canAcceptConnections, where the newcomer
        goes.
        """
        self._connections[connection] = None
        driven_out = self._waiting.enter(connection, connection.transport.getPeer())
        if driven_out is not None:
            self._tell_of_flood(driven_out)
            self._closing.add(driven_out)
            driven_out.give_way()

    def _tell_of_flood(self, driven_out: WalSender) -> None:
        """Log that somebody floods us, and not as often as they do it."""
        self._driven_out += 1
        now = self.reactor.seconds()
        if now >= self._tell_again_at:
            self._tell_again_at = now + _TELL_EVERY
            self._log.warn(
                "more than {limit} clients wait to be let in; dropping the oldest of those from {origin}, "
                "which has most of them ({count} since the start)",
                limit=self._waiting.limit,
                origin=origin(driven_out.transport.getPeer()),
                count=self._driven_out,
            )

    def startFactory(self) -> None:
        """Let clients in, after `shut_down` again."""
        self.stopping = False

    def limit_descriptors(self, limit: int, others: int = 0) -> None:
        """
        Let no more clients wait than descriptors are left for, so that those who are in never lack any.

        :param limit: how many this process may have, ``RLIMIT_NOFILE``.
        :param others: how many are for clients of something else.
        """
        needed = _OTHER_DESCRIPTORS + _MOST_CLOSING + _PER_WALSENDER * self.slot_table.limit + others
        left = limit - needed
        if left < _LEAST_WAITING:
            self._log.warn(
                "{limit} open files are not enough for max_wal_senders = {senders}: {needed} may be needed",
                limit=limit,
                senders=self.slot_table.limit,
                needed=needed + _LEAST_WAITING,
            )
        self._waiting.limit = min(self._waiting.limit, max(left, _LEAST_WAITING))

    def let_in(self, connection: WalSender) -> None:
        """*connection* has been let in."""
        assert connection.session is not None, "it has just got it"
        self._waiting.leave(connection)
        self._by_process[connection.session.entry.process_id] = connection

    def connection_lost(self, connection: WalSender) -> None:
        """*connection* is over."""
        self._waiting.leave(connection)
        self._closing.discard(connection)
        self._connections.pop(connection, None)
        if connection.session is not None:
            self._by_process.pop(connection.session.entry.process_id, None)
        if not self._connections:
            waiting, self._when_empty = self._when_empty, []
            for deferred in waiting:
                deferred.callback(None)

    def cancel(self, request: CancelRequest) -> None:
        """
        End what is done for the client that *request* names, if it has that client's key.

        Source: PostgreSQL, src/backend/storage/ipc/procsignal.c, SendCancelRequest.
        """
        connection = self._by_process.get(request.process_id)
        if connection is None or connection.session is None:
            complaint = "PID {pid} in cancel request did not match any process"
        elif compare_digest(connection.session.cancel_key, request.key):
            connection.cancel()
            return
        else:
            complaint = "wrong key in cancel request for process {pid}"
        if self.strangers.permits():
            self._log.info(complaint, pid=request.process_id)

    def terminate(self, process_id: int) -> bool:
        """End a connection, a stream at its message boundary; return whether there is one of that number."""
        connection = self._by_process.get(process_id)
        if connection is not None:
            connection.shut_down()
        return connection is not None

    def cancel_query(self, process_id: int) -> bool:
        """End what is done for a client; return whether there is one of that number."""
        connection = self._by_process.get(process_id)
        if connection is not None:
            connection.cancel()
        return connection is not None

    def shut_down(self, *, drain: bool = False) -> Deferred[None]:
        """
        End every connection in good order; fires when all are gone.

        :param drain: streams send all there is now, and wait until it is confirmed.
            May be followed by a call without, which ends the waiting.
        """
        self.stopping = True
        for connection in self._streams_last():
            connection.shut_down(drain=drain)
        if not self._connections:
            return succeed(None)
        gone: Deferred[None] = Deferred()
        self._when_empty.append(gone)
        return gone

    def abort(self) -> None:
        """Drop every connection that is left."""
        for connection in self._streams_last():
            connection.abort("terminating connection: shutdown")

    def _streams_last(self) -> list[WalSender]:
        """Return all connections; who waits to drop a slot must not get it because its owner is sent away."""
        return sorted(self._connections, key=lambda connection: connection.is_streaming)
