"""
Connecting through libpq, without anybody waiting.

All that libpq can do about reaching a server is left to it: hosts tried in turn, ``target_session_attrs``,
TLS, authentication, password and service files.  Ours are the two things that it leaves to
whoever uses its asynchronous calls: looking up names, and giving up on a host that does not answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import pq
from twisted.internet.defer import Deferred
from zope.interface import implementer

from walsender.upstream.conninfo import (
    Target,
    connect_timeout,
    conninfo_for,
    effective_options,
    parse_conninfo,
    resolved,
    targets_of,
)
from walsender.upstream.interfaces import IUpstreamConnector, IUpstreamSession, UpstreamError
from walsender.upstream.libpq_errors import failure_lines
from walsender.upstream.libpq_session import LibpqSession
from walsender.upstream.socket_watch import IUpstreamReactor, SocketWatch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from psycopg.pq.abc import PGconn
    from twisted.internet.interfaces import IDelayedCall

__all__ = ["LibpqConnector", "LibpqSession"]

_FAILED: Final = pq.PollingStatus.FAILED
_READING: Final = pq.PollingStatus.READING
_WRITING: Final = pq.PollingStatus.WRITING
_OK: Final = pq.PollingStatus.OK


@implementer(IUpstreamConnector)
class LibpqConnector:
    """
    Opens replication connections to where a libpq connection string leads.

    :param conninfo: libpq's connection string.  ``replication`` and ``dbname`` are set here, and
        ``application_name`` is *name* unless the user has another.
    :param name: ``cluster_name``; empty: ``walsender``.
    :param connect_timeout_s: how long each host is tried if the user has set no ``connect_timeout``; 0 is
        for as long as it takes.
    :param pgconn: libpq's connections; tests bring their own.
    :raises ConfigurationError: libpq cannot parse *conninfo*.

    Source of the name: PostgreSQL, src/backend/replication/walreceiver.c, WalReceiverMain.
    """

    def __init__(
        self,
        reactor: IUpstreamReactor,
        conninfo: str,
        *,
        name: str = "",
        connect_timeout_s: float = 60,
        pgconn: type[PGconn] = pq.PGconn,
    ) -> None:
        self._reactor = reactor
        self._parameters = parse_conninfo(conninfo)
        if name:
            self._parameters.setdefault("fallback_application_name", name)
        self._connect_timeout_s = connect_timeout_s
        self._pgconn = pgconn

    def connect(self) -> Deferred[IUpstreamSession]:
        """See `IUpstreamConnector`."""
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> IUpstreamSession:
        options = effective_options(self._parameters)
        timeout_s = connect_timeout(options, self._connect_timeout_s)
        wanted = targets_of(options)
        targets, failures = await resolved(self._reactor, wanted, timeout_s)
        if wanted and not targets:
            raise UpstreamError("; ".join(failures))
        attempt = _Attempt(self._reactor, self._pgconn, self._parameters, targets, failures, timeout_s)
        return await attempt.start()


class _Attempt:
    """
    One attempt to connect, to the end of the list of hosts.

    A host that does not answer in time is left out by starting again, behind it.
    """

    def __init__(
        self,
        reactor: IUpstreamReactor,
        pgconn: type[PGconn],
        parameters: dict[str, str],
        targets: Sequence[Target],
        failures: Sequence[str],
        timeout_s: float,
    ) -> None:
        self._reactor = reactor
        self._pgconn = pgconn
        self._parameters = parameters
        self._targets = targets
        self._current = 0
        self._failures = [*failures]
        self._timeout_s = timeout_s
        self._timer: IDelayedCall | None = None
        self._watch = SocketWatch(reactor, self._poll)
        self._connection: PGconn | None = None
        self._done: Deferred[IUpstreamSession] = Deferred(lambda _: self._abandon())

    def start(self) -> Deferred[IUpstreamSession]:
        """Begin; the Deferred fires with a session, fails with `UpstreamError`, or is cancelled."""
        self._start()
        return self._done

    def _start(self) -> None:
        """Try the hosts from the current one on."""
        targets = self._targets[self._current :]
        self._connection = connection = self._pgconn.connect_start(conninfo_for(self._parameters, targets))
        if connection.status == pq.ConnStatus.BAD:
            self._fail()
        else:
            self._start_timer()
            self._wait_for(_WRITING)

    def _poll(self) -> None:
        """Something has happened to the socket."""
        assert self._connection is not None, "the watch is closed when there is none"
        status = self._connection.connect_poll()
        if status == _OK:
            self._succeed()
        elif status in {_READING, _WRITING}:
            self._wait_for(status)
        else:
            self._fail()

    def _wait_for(self, status: int) -> None:
        assert self._connection is not None
        try:
            # Perhaps another socket than before: libpq may have gone on to the next host.
            self._watch.open(self._connection.socket)
        except OSError as error:
            self._failures.append(f"could not watch the connection: {error.strerror}")
            self._fail()
            return
        self._watch.want(read=status == _READING, write=status == _WRITING)
        current = self._index()
        if current != self._current:
            self._current = current
            self._start_timer()

    def _index(self) -> int:
        """Return which of the targets libpq is busy with."""
        assert self._connection is not None
        host, address, port = (
            value.decode(errors="replace")
            for value in (self._connection.host, self._connection.hostaddr, self._connection.port)
        )
        for offset in range(len(self._targets)):
            # From the current one on, and round: some of target_session_attrs make libpq begin again.
            index = (self._current + offset) % len(self._targets)
            target = self._targets[index]
            if (
                target.host in {"", host}
                and target.address in {"", address}
                and (not target.port or target.port == port)
            ):
                return index
        return self._current

    def _start_timer(self) -> None:
        self._stop_timer()
        if self._timeout_s:
            self._timer = self._reactor.callLater(self._timeout_s, self._time_is_up)

    def _stop_timer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def _time_is_up(self) -> None:
        assert self._connection is not None
        self._failures += failure_lines(self._connection.error_message)
        where = f"connection to {self._targets[self._current]}" if self._targets else "connection"
        self._failures.append(f"{where} failed: timeout expired")
        if self._current + 1 < len(self._targets):
            self._abandon()
            self._current += 1
            self._start()
        else:
            self._give_up()

    def _succeed(self) -> None:
        connection, self._connection = self._connection, None
        assert connection is not None
        self._abandon()
        try:
            session = LibpqSession(self._reactor, connection)
        except OSError as error:
            connection.finish()
            self._failures = [f"could not watch the connection: {error.strerror}"]
            self._give_up()
        else:
            self._done.callback(session)

    def _fail(self) -> None:
        """None of the hosts would have us."""
        assert self._connection is not None
        self._failures += failure_lines(self._connection.error_message)
        self._give_up()

    def _give_up(self) -> None:
        self._abandon()
        self._done.errback(UpstreamError("; ".join(self._failures)))

    def _abandon(self) -> None:
        """Let go of everything."""
        self._stop_timer()
        self._watch.close()
        if self._connection is not None:
            self._connection.finish()
            self._connection = None
