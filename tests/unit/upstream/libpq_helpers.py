"""A reactor that moves when told to, and a libpq that says what a test has written down."""

from __future__ import annotations

import socket
from collections import deque
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import pq
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IReactorFDSet, IReactorPluggableNameResolver, IReactorTime
from twisted.internet.task import Clock
from zope.interface import implementer

from walsender.upstream import ICopyReceiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from walsender.upstream import UpstreamError


TURN = 0.001  # seconds that a reactor needs for one


@implementer(IReactorTime, IReactorFDSet, IReactorPluggableNameResolver)
class WatchingReactor(Clock):
    """A clock that remembers who watches what, and resolves what it has in *names*."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: dict[int, Any] = {}
        self.writers: dict[int, Any] = {}
        self.nameResolver = self
        self.names: dict[str, list[str]] = {}
        self.unanswered: set[str] = set()

    def callLater(self, delay: float, *args: Any, **kwargs: Any) -> Any:
        """See the interfaces; what is due at once is due in the next `turn`, never in the same."""
        return super().callLater(delay or TURN, *args, **kwargs)

    def turn(self) -> None:
        """Let what is due at once happen."""
        self.advance(TURN)

    def addReader(self, reader: Any) -> None:
        """See the interfaces."""
        self.readers[reader.fileno()] = reader

    def addWriter(self, writer: Any) -> None:
        """See the interfaces."""
        self.writers[writer.fileno()] = writer

    def removeReader(self, reader: Any) -> None:
        """See the interfaces."""
        del self.readers[reader.fileno()]

    def removeWriter(self, writer: Any) -> None:
        """See the interfaces."""
        del self.writers[writer.fileno()]

    def hang_up(self) -> None:
        """Do what a reactor does that finds the peer gone."""
        (watch,) = {*self.readers.values(), *self.writers.values()}
        self.readers.clear()
        self.writers.clear()
        watch.connectionLost(None)

    def readable(self) -> None:
        """Do what a reactor does that finds something to read."""
        (watch,) = self.readers.values()
        watch.doRead()

    def writable(self) -> None:
        """Do what a reactor does that finds room to write."""
        (watch,) = self.writers.values()
        watch.doWrite()

    def resolveHostName(self, receiver: Any, name: str) -> None:
        """See the interfaces."""
        if name not in self.unanswered:
            for address in self.names.get(name, ()):
                kind = IPv6Address if ":" in address else IPv4Address
                receiver.addressResolved(kind("TCP", address, 0))
            receiver.resolutionComplete()


class Result:
    """One result of libpq's."""

    def __init__(
        self, status: pq.ExecStatus, rows: Sequence[tuple[bytes | None, ...]] = (), **fields: str
    ) -> None:
        self.status = status
        self.rows = rows
        self.fields = fields
        self.ntuples, self.nfields = len(rows), len(rows[0]) if rows else 0
        self.error_message = b""

    def get_value(self, row: int, column: int) -> bytes | None:
        """See PGresult."""
        return self.rows[row][column]

    def error_field(self, field: pq.DiagnosticField) -> bytes | None:
        """See PGresult."""
        value = self.fields.get(field.name)
        return None if value is None else value.encode()


TUPLES = pq.ExecStatus.TUPLES_OK
COMMAND_OK = Result(pq.ExecStatus.COMMAND_OK)
COPY_BOTH = Result(pq.ExecStatus.COPY_BOTH)
COPY_IN = Result(pq.ExecStatus.COPY_IN)
END = None  # of the results
COPY_DONE = "CopyDone"


def error(message: str, sqlstate: str, severity: str = "ERROR") -> Result:
    """Return the result that reports an error of the server."""
    fields = {"MESSAGE_PRIMARY": message, "SQLSTATE": sqlstate, "SEVERITY_NONLOCALIZED": severity}
    return Result(pq.ExecStatus.FATAL_ERROR, **fields)


class Connection:
    """
    libpq's side of a session: each read brings the next of *reads* into its buffer.

    What is in a read: bytes of a message, `COPY_DONE`, results, `END` after a command's last one.
    An exception in place of a read is a connection that fails.
    """

    def __init__(self, *reads: Any, encrypted: bool = False) -> None:
        self._socket, self._peer = socket.socketpair()
        self.reads = deque(reads)
        self.buffer: deque[Any] = deque()
        self.copying = False
        self.ssl_in_use = encrypted
        self.used_gssapi = False
        self.server_version = 180004
        self.host, self.hostaddr, self.port = b"primary", b"192.0.2.1", b"5432"
        self.status = pq.ConnStatus.OK
        self.error_message = b""
        self.nonblocking = 0
        self.notice_handler: Callable[[Any], None] | None = None
        self.sent: list[Any] = []
        self.unsent = 0
        self.broken: str | None = None  # what sending fails with
        self.finished = False

    @property
    def socket(self) -> int:
        """See PGconn."""
        return self._socket.fileno()

    def _fail(self, message: str) -> None:
        self.status = pq.ConnStatus.BAD
        self.error_message = f"{message}\n\tThis probably means something.\n".encode()
        raise psycopg.OperationalError(message)

    def consume_input(self) -> None:
        """See PGconn."""
        read = self.reads.popleft() if self.reads else []
        if isinstance(read, str):
            self._fail(read)
        self.buffer += read

    def is_busy(self) -> int:
        """See PGconn."""
        if self.buffer and callable(self.buffer[0]):
            self.buffer.popleft()()
        return int(not self.buffer)

    def get_result(self) -> Result | None:
        """See PGconn."""
        assert self.buffer, "libpq would wait here"
        result = self.buffer.popleft()
        self.copying = result is COPY_BOTH
        return result

    def get_copy_data(self, asynchronous: int) -> tuple[int, memoryview]:
        """See PGconn."""
        assert asynchronous
        assert self.copying
        if not self.buffer:
            return 0, memoryview(b"")
        if isinstance(self.buffer[0], bytes):
            data = self.buffer.popleft()
            return len(data), memoryview(data)
        self.copying = False
        if self.buffer[0] is COPY_DONE:
            self.buffer.popleft()
        return -1, memoryview(b"")

    def _send(self, what: Any) -> None:
        if self.broken:
            self._fail(self.broken)
        self.sent.append(what)

    def send_query(self, command: bytes) -> None:
        """See PGconn."""
        self._send(command)

    def put_copy_data(self, data: bytes) -> int:
        """See PGconn."""
        self._send((data,))
        return 1

    def put_copy_end(self) -> int:
        """See PGconn."""
        self._send(COPY_DONE)
        return 1

    def flush(self) -> int:
        """See PGconn."""
        self.unsent = max(0, self.unsent - 1)
        return int(self.unsent > 0)

    def finish(self) -> None:
        """See PGconn."""
        assert not self.finished, "libpq frees it once"
        self.finished = True
        self._socket.close()
        self._peer.close()


@implementer(ICopyReceiver)
class Receiver:
    """
    Writes down what it is told.

    :ivar on_message: called with each message.
    """

    def __init__(self) -> None:
        self.events: list[Any] = []
        self.on_message: Callable[[bytes], None] = lambda body: None

    def wal_message_received(self, body: bytes | memoryview) -> None:
        """See `ICopyReceiver`."""
        assert memoryview(body).readonly, "it stays as it is"
        self.events.append(bytes(body))
        self.on_message(bytes(body))

    def batch_received(self) -> None:
        """See `ICopyReceiver`."""
        self.events.append("batch")

    def stream_ended(self, rows: Any) -> None:
        """See `ICopyReceiver`."""
        self.events.append(("ended", rows))

    def session_lost(self, error: UpstreamError) -> None:
        """See `ICopyReceiver`."""
        self.events.append(("lost", error.sqlstate, error.message))
