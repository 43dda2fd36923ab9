"""`LibpqConnector` over a scripted libpq: host after host, and nobody waits too long."""

from __future__ import annotations

import errno
import os
import socket
from typing import Any

from descriptor_helpers import open_descriptors, watch_descriptors
from libpq_helpers import Connection, WatchingReactor
from psycopg import pq
from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from walsender.upstream import IUpstreamConnector, IUpstreamSession, UpstreamError
from walsender.upstream.conninfo import parse_conninfo
from walsender.upstream.libpq import LibpqConnector

READING = pq.PollingStatus.READING
WRITING = pq.PollingStatus.WRITING
FAILED = pq.PollingStatus.FAILED
OK = pq.PollingStatus.OK

THREE_HOSTS = "host=a,b,c port=1 connect_timeout=5"
REFUSED = b'connection to server at "a", port 1 failed: Connection refused\n\tIs the server running?\n'


class Connecting(Connection):
    """A connection on its way: each poll takes the next of *polls*, a status, or a status and an address."""

    def __init__(self, conninfo: bytes, polls: list[Any], address: str) -> None:
        super().__init__()
        self.conninfo = parse_conninfo(conninfo.decode())
        self.polls = polls
        self.at(address)
        self.nonblocking = None

    def at(self, address: str) -> None:
        """Go to another host, with another socket, as libpq does."""
        hosts, addresses = self.conninfo["host"].split(","), self.conninfo["hostaddr"].split(",")
        self.host = hosts[addresses.index(address)].encode()
        self.hostaddr = address.encode()
        self.port = self.conninfo["port"].split(",")[0].encode()
        self._socket.close()
        self._peer.close()
        self._socket, self._peer = socket.socketpair()

    def connect_poll(self) -> int:
        """See PGconn."""
        poll = self.polls.pop(0)
        if isinstance(poll, tuple):
            poll, address = poll
            self.at(address)
        if poll == FAILED:
            self.status = pq.ConnStatus.BAD
        return poll


class Libpq:
    """Takes the place of the class PGconn: each connection begins with the next of *scripts*."""

    def __init__(self, *scripts: Any) -> None:
        self.scripts = [*scripts]
        self.connections: list[Connecting] = []

    def connect_start(self, conninfo: bytes) -> Connecting:
        """See PGconn."""
        address, *polls = self.scripts.pop(0)
        connection = Connecting(conninfo, polls, address)
        if not polls:
            connection.status = pq.ConnStatus.BAD
            connection.error_message = REFUSED
        self.connections.append(connection)
        return connection


class ConnectTests(SynchronousTestCase):
    """From a connection string to a session."""

    def begin(
        self, *scripts: Any, conninfo: str = "host=a,b,c port=1 connect_timeout=5", **options: Any
    ) -> None:
        """Begin to connect."""
        self.descriptors = watch_descriptors(self)
        self.reactor = WatchingReactor()
        self.reactor.unanswered = {"silent", "quiet"}
        self.reactor.names = {"a": ["192.0.2.1"], "b": ["192.0.2.2"], "c": ["192.0.2.3"]}
        self.libpq = Libpq(*scripts)
        connector = LibpqConnector(self.reactor, conninfo, pgconn=self.libpq, **options)  # type: ignore[arg-type]
        verifyObject(IUpstreamConnector, connector)
        self.answer: Deferred[IUpstreamSession] = connector.connect()
        self.addCleanup(self.answer.addErrback, lambda _: None)
        self.addCleanup(self.answer.cancel)

    def name(self, conninfo: str, name: str) -> str | None:
        """Return the name by which the upstream knows us, if there is no other."""
        self.begin(("192.0.2.1", FAILED), conninfo=conninfo, name=name)
        return self.libpq.connections[0].conninfo.get("fallback_application_name")

    def test_name(self) -> None:
        """The upstream knows us by ``cluster_name``, unless the connection string has a name."""
        self.assertEqual("walsender", self.name("host=a", ""))
        self.assertEqual("relay1", self.name("host=a", "relay1"))
        self.assertEqual("own", self.name("host=a fallback_application_name=own", "relay1"))

    def all_closed(self) -> None:
        """Check that nothing is left of the attempt."""
        self.assertTrue(all(connection.finished for connection in self.libpq.connections))
        left = (self.reactor.readers, self.reactor.writers, self.reactor.getDelayedCalls())
        self.assertEqual(left, ({}, {}, []))
        self.assertEqual(self.descriptors, open_descriptors())

    def connected(self) -> None:
        """Check that there is a session and nothing else, and end it."""
        session = self.successResultOf(self.answer)
        self.assertEqual((len(self.reactor.readers), self.reactor.writers), (1, {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        session.close()
        self.all_closed()

    def refused(self) -> str:
        """Return the error, and check that nothing is left."""
        error = self.failureResultOf(self.answer, UpstreamError).value
        self.all_closed()
        self.assertEqual(error.sqlstate, "")
        return error.message

    def test_connects(self) -> None:
        """Libpq is polled when the socket is what it waits for, beginning with writable."""
        self.begin(("192.0.2.1", READING, WRITING, READING, OK))
        for happens in ("writable", "readable", "writable", "readable"):
            self.assertEqual(len(self.reactor.readers) + len(self.reactor.writers), 1)
            getattr(self.reactor, happens)()
        self.connected()

    def test_hangUp(self) -> None:
        """A refused attempt, a lost connection to the reactor, lets libpq go to the next host."""
        self.begin(("192.0.2.1", (WRITING, "192.0.2.2"), (WRITING, "192.0.2.3"), OK))
        for _ in range(3):
            self.reactor.hang_up()
        self.connected()

    def test_anotherSocket(self) -> None:
        """The socket of the next host is watched, and not that of the last."""
        self.begin(("192.0.2.1", (WRITING, "192.0.2.2"), OK))
        (before,) = self.reactor.writers
        inode = os.fstat(before).st_ino
        self.reactor.writable()
        (after,) = self.reactor.writers
        self.assertNotEqual(os.fstat(after).st_ino, inode)
        self.assertEqual(os.fstat(after).st_ino, os.fstat(self.libpq.connections[0].socket).st_ino)
        self.reactor.writable()
        self.connected()

    def test_silentHost(self) -> None:
        """A host that does not answer in time is left out, the ones behind it are tried, each in its time."""
        self.begin(("192.0.2.1", (WRITING, "192.0.2.2"), READING), ("192.0.2.3", OK))
        self.reactor.advance(4)
        self.reactor.writable()  # host b has its own five seconds
        self.reactor.advance(4)
        self.assertEqual(len(self.libpq.connections), 1)
        self.reactor.advance(1)
        first, second = self.libpq.connections
        self.assertTrue(first.finished)
        self.assertEqual((second.conninfo["host"], second.conninfo["hostaddr"]), ("c", "192.0.2.3"))
        self.reactor.writable()
        self.connected()

    def test_progressIsNoExcuse(self) -> None:
        """A host that answers slowly has its time once, not once for each answer."""
        self.begin(("192.0.2.1", READING, READING, READING), ("192.0.2.2", OK))
        self.reactor.advance(2)
        self.reactor.writable()
        self.reactor.advance(2)
        self.reactor.readable()
        self.reactor.advance(1)
        self.assertEqual(len(self.libpq.connections), 2)

    def test_allSilent(self) -> None:
        """When nobody answers, the error names everybody, and what libpq said of those who refused."""
        self.begin(("192.0.2.1", (WRITING, "192.0.2.2"), READING), ("192.0.2.3", READING))
        self.libpq.connections[0].error_message = REFUSED
        self.reactor.writable()
        self.reactor.pump([5, 5])
        self.assertEqual(
            self.refused(),
            'connection to server at "a", port 1 failed: Connection refused; '
            'connection to server at "b" (192.0.2.2), port 1 failed: timeout expired; '
            'connection to server at "c" (192.0.2.3), port 1 failed: timeout expired',
        )

    def test_failed(self) -> None:
        """What libpq says is joined to one line, without guesses and severities."""
        self.begin(("192.0.2.1", FAILED))
        self.libpq.connections[0].error_message = (
            REFUSED + b'connection to server at "b", port 1 failed: FATAL:  password authentication failed\n'
        )
        self.reactor.hang_up()
        self.assertEqual(
            self.refused(),
            'connection to server at "a", port 1 failed: Connection refused; '
            'connection to server at "b", port 1 failed: password authentication failed',
        )

    def test_failedAtOnce(self) -> None:
        """Libpq may give up before there is a socket."""
        self.begin(("192.0.2.1",))
        self.assertEqual(self.refused(), 'connection to server at "a", port 1 failed: Connection refused')

    def test_namesThatDoNotExist(self) -> None:
        """Without one address there is nothing to try; with one, what is missing is said at the end."""
        self.begin(conninfo="host=x,y")
        self.assertEqual(
            self.refused(),
            'could not translate host name "x" to an address; '
            'could not translate host name "y" to an address',
        )
        self.begin(("192.0.2.1",), conninfo="host=x,a")
        self.assertEqual(
            self.refused(),
            'could not translate host name "x" to an address; '
            'connection to server at "a", port 1 failed: Connection refused',
        )

    def test_defaultTimeout(self) -> None:
        """Without a timeout of the user's, the caller's counts; 0 is for ever."""
        self.begin(("192.0.2.1", OK), conninfo="host=a", connect_timeout_s=7)
        self.reactor.advance(7)
        self.assertIn("timeout expired", self.refused())
        self.begin(("192.0.2.1", OK), conninfo="host=a", connect_timeout_s=0)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.begin(("192.0.2.1", OK), conninfo="host=a connect_timeout=0", connect_timeout_s=7)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """Whoever cancels gets nothing, and nothing is left."""
        self.begin(("192.0.2.1", READING, OK))
        self.reactor.writable()
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.all_closed()

    def test_cancelWhileLookingUp(self) -> None:
        """The same before any name has become an address, and a late answer finds nobody."""
        self.begin(conninfo="host=silent,quiet")
        self.answer.cancel()
        self.failureResultOf(self.answer, CancelledError)
        self.all_closed()

    def test_noDescriptorLeft(self) -> None:
        """Without a descriptor to watch the connection by, there is an error of one line."""

        def none_left(descriptor: int) -> int:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

        self.begin(("192.0.2.1", READING))
        self.patch(os, "dup", none_left)
        self.reactor.writable()
        self.assertEqual(self.refused(), "could not watch the connection: Too many open files")
