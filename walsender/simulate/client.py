"""A small client of the replication protocol in place of libpq; standbys use it as the relay does."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any
from typing import Protocol as Typing

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from walsender.lsn import LSN
from walsender.upstream import ICopyReceiver, IUpstreamConnector, IUpstreamSession, Row, UpstreamError
from walsender.upstream.interfaces import Taken

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from walsender.simulate.machine import Process

_PROTOCOL = 3 << 16
_WAL_HEADER = 25  # bytes: the letter, two positions and the time
_TAKEN_AT_ONCE = 0.95  # of what is said in another thread


class IWitness(Typing):
    """Who looks at what passes between a client and a server."""

    def announced(self, timeline: int, position: int) -> None:
        """IDENTIFY_SYSTEM has been answered."""

    def history_received(self, timeline: int, content: bytes) -> None:
        """TIMELINE_HISTORY has been answered."""

    def wal_received(self, timeline: int, position: int, data: bytes) -> None:
        """WAL has come."""

    def timeline_ended(self, timeline: int, next_timeline: int, position: int) -> None:
        """The server has said which timeline comes next."""

    def reported(self, timeline: int, start: int, flush: int) -> None:
        """The client is about to say what it has made durable of a stream that began at *start*."""


@implementer(IUpstreamSession)
class Session(Protocol):
    """One connection, from its start-up packet on."""

    server_version = 180000
    description = "host=simulated"

    def __init__(self, process: Process, witness: IWitness, name: str) -> None:
        self._process = process
        self._witness = witness
        self._name = name
        self._buffer = b""
        self._rows: list[Row] = []
        self._error: UpstreamError | None = None
        self._command = ""
        self._answer: Deferred[Any] | None = Deferred()
        self._receiver: ICopyReceiver | None = None
        self._streaming = False
        self._stream = (0, 0)
        self._done_sent = False
        self._paused = False
        self._closed = False
        self._batch = False
        self._attended = False
        self._when_readable: Callable[[], None] | None = None
        self._recall: Callable[[], None] = lambda: None
        self.ready: Deferred[Any] = self._answer

    # Twisted

    def connectionMade(self) -> None:
        """Say who we are."""
        pairs = {"user": "postgres", "replication": "true", "application_name": self._name}
        body = b"".join(f"{name}\0{value}\0".encode() for name, value in pairs.items()) + b"\0"
        self._write(struct.pack("!II", len(body) + 8, _PROTOCOL) + body)

    def dataReceived(self, data: bytes) -> None:
        """The server has sent something."""
        self._buffer += data
        if self._attended:
            self._call_reader()
        else:
            self._deliver()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        if not self._closed:
            self._lost(self._error or UpstreamError("server closed the connection unexpectedly"))

    # IUpstreamSession

    def execute(self, command: str) -> Deferred[list[Row]]:
        """See `IUpstreamSession`."""
        return self._begin(command)

    def start_streaming(self, command: str, receiver: ICopyReceiver) -> Deferred[bool]:
        """See `IUpstreamSession`."""
        words = command.split()
        lsn = next(word for word in words if "/" in word)
        self._stream = int(words[-1]), int(LSN.parse(lsn))
        self._receiver = receiver
        return self._begin(command)

    def send(self, data: bytes) -> None:
        """See `IUpstreamSession`."""
        if self._streaming and not self._closed:
            if data[:1] == b"r":
                _, flush = struct.unpack_from("!QQ", data, 1)
                if flush:  # who fetches a segment says nothing
                    self._witness.reported(*self._stream, flush)
            self._message(b"d", data)

    def end_streaming(self) -> None:
        """See `IUpstreamSession`."""
        if self._streaming and not self._done_sent:
            self._done_sent = True
            self._message(b"c", b"")

    # Another thread reads.

    @property
    def readable(self) -> Session | None:
        """See `IUpstreamSession`."""
        busy = self._closed or self._paused or self._done_sent
        return self if self._streaming and not busy else None

    def when_readable(self, call: Callable[[], None]) -> None:
        """See `walsender.simulate.machine.IReadable`."""
        self._when_readable = call
        if self._buffer:
            self._process.callLater(0, self._call_reader)

    def _call_reader(self) -> None:
        call, self._when_readable = self._when_readable, None
        if call is not None:
            call()

    def attended(self, recall: Callable[[], None]) -> None:
        """See `IUpstreamSession`."""
        self._attended, self._recall = True, recall

    def take(self) -> Taken:
        """See `IUpstreamSession`."""
        taken = Taken()
        while self._streaming and not (self._paused or self._closed) and (found := self._next_message()):
            kind, body, rest = found
            if kind != b"d":
                break  # it is read when this is released
            self._buffer = rest
            self._look_at(body)
            taken.messages.append(body)
        return taken

    def confirm(self, data: bytes) -> bool:
        """See `IUpstreamSession`: now and then the connection does not take it all at once."""
        if not self._streaming or self._closed:
            return False
        self.send(data)
        return self._process.random.random() < _TAKEN_AT_ONCE

    def deliver(self, taken: Taken) -> None:
        """See `IUpstreamSession`."""
        for body in taken.messages:
            if self._streaming and not self._closed:
                assert self._receiver is not None, "there is a stream"
                self._batch = True
                self._receiver.wal_message_received(body)

    def released(self) -> None:
        """See `IUpstreamSession`."""
        self._attended, self._recall = False, lambda: None
        self._deliver()

    def pauseProducing(self) -> None:
        """See `IUpstreamSession`."""
        self._paused = True
        self._recall()
        if not self._closed:
            self._transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See `IUpstreamSession`."""
        self._paused = False
        if not self._closed:
            self._transport.resumeProducing()
            self._process.callLater(0, self._deliver)

    def stopProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.close()

    def close(self) -> None:
        """See `IUpstreamSession`."""
        if self._closed:
            return
        self._closed = True
        self._recall()
        self._message(b"X", b"")
        self._transport.loseConnection()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.errback(UpstreamError("the connection was closed"))

    # Inside

    @property
    def _transport(self) -> Any:
        return self.transport

    def _write(self, data: bytes) -> None:
        self._transport.write(data)

    def _message(self, kind: bytes, body: bytes) -> None:
        self._write(kind + struct.pack("!I", len(body) + 4) + body)

    def _begin(self, command: str) -> Deferred[Any]:
        answer: Deferred[Any] = Deferred(lambda _: self._cancelled())
        if self._closed:
            answer.errback(UpstreamError("the connection is closed"))
            return answer
        assert self._answer is None, "one command at a time"
        self._rows, self._error, self._command = [], None, command
        self._answer = answer
        self._message(b"Q", command.encode() + b"\0")
        return answer

    def _cancelled(self) -> None:
        """Whoever waits does so no longer; nobody would know what the server does then."""
        self._answer = None
        self.close()

    def _deliver(self) -> None:
        while not (self._paused or self._closed or self._attended) and (found := self._next_message()):
            kind, body, self._buffer = found
            self._received(kind, body)
        batch, self._batch = self._batch, False
        if batch and self._streaming and not self._closed and self._receiver is not None:
            self._receiver.batch_received()

    def _next_message(self) -> tuple[bytes, bytes, bytes] | None:
        """Return the kind and the body of the message that the buffer begins with, and what is behind it."""
        buffer = self._buffer
        length = 1 + int.from_bytes(buffer[1:5], "big")
        if len(buffer) <= 4 or len(buffer) < length:
            return None
        return buffer[:1], buffer[5:length], buffer[length:]

    def _look_at(self, body: bytes) -> None:
        if body[:1] == b"w":
            (start,) = struct.unpack_from("!Q", body, 1)
            self._witness.wal_received(self._stream[0], start, body[_WAL_HEADER:])

    def _received(self, kind: bytes, body: bytes) -> None:
        if kind == b"D":
            self._rows.append(_row(body))
        elif kind == b"E":
            fields = {part[:1]: part[1:].decode() for part in body.split(b"\0") if part}
            self._error = UpstreamError(fields[b"M"], fields[b"C"], detail=fields.get(b"D"))
            if self._streaming:
                self._lost(self._error)
        elif kind == b"Z":
            self._command_done()
        elif kind == b"W":
            self._streaming, self._done_sent = True, False
            self._rows = []
            self._fire(True)
        elif kind == b"d":
            self._copy_data(body)
        elif kind == b"c" and self._streaming:
            self.end_streaming()

    def _copy_data(self, body: bytes) -> None:
        if not self._streaming:
            return
        self._look_at(body)
        assert self._receiver is not None, "there is a stream"
        self._batch = True
        self._receiver.wal_message_received(body)

    def _command_done(self) -> None:
        if self._error is not None:
            error = self._error
            if self._streaming:
                return
            self._fire(error)
            return
        if self._rows and self._rows[0][0] and self._command.startswith("START"):
            timeline, lsn = (value or b"" for value in self._rows[0][:2])
            position = int(LSN.parse(lsn.decode()))
            self._witness.timeline_ended(self._stream[0], int(timeline), position)
        if self._streaming or self._command.startswith("START"):
            was_streaming, self._streaming = self._streaming, False
            receiver, self._receiver = self._receiver, None
            assert receiver is not None, "there was a stream"
            self._command = ""
            receiver.stream_ended(self._rows)
            if not was_streaming:
                self._fire(False)
            return
        if self._command == "IDENTIFY_SYSTEM":
            _, timeline, lsn, *_ = (value or b"" for value in self._rows[0])
            self._witness.announced(int(timeline), int(LSN.parse(lsn.decode())))
        elif self._command.startswith("TIMELINE_HISTORY"):
            self._witness.history_received(int(self._command.split()[1]), self._rows[0][1] or b"")
        self._fire(self._rows)

    def _fire(self, result: Any) -> None:
        answer, self._answer = self._answer, None
        if answer is None:
            return
        if isinstance(result, UpstreamError):
            answer.errback(result)
        else:
            answer.callback(result)

    def _lost(self, error: UpstreamError) -> None:
        self._closed = True
        self._recall()
        streaming, self._streaming = self._streaming, False
        self._transport.loseConnection()
        receiver, self._receiver = self._receiver, None
        if streaming and receiver is not None:
            receiver.session_lost(error)
        self._fire(error)


def _row(body: bytes) -> Row:
    (count,) = struct.unpack_from("!h", body)
    values: list[bytes | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", body, at)
        at += 4
        values.append(None if length < 0 else body[at : at + length])
        at += max(length, 0)
    return tuple(values)


@implementer(IUpstreamConnector)
class Connector:
    """
    Connects to whatever server is the right one at the moment.

    :param dial: connects a session; returns false if nobody answers, or refuses.
    :param witness: returns who looks at the session.
    """

    def __init__(
        self,
        process: Process,
        dial: Callable[[Session], bool],
        witness: Callable[[], IWitness | None],
        name: str,
    ) -> None:
        self._process = process
        self._dial = dial
        self._witness = witness
        self._name = name

    def connect(self) -> Deferred[IUpstreamSession]:
        """See `IUpstreamConnector`."""
        return Deferred.fromCoroutine(self._connect())

    async def _connect(self) -> IUpstreamSession:
        pause: Deferred[None] = Deferred()
        call = self._process.callLater(0.001, pause.callback, None)
        try:
            await pause
        except CancelledError:
            call.cancel()
            raise
        witness = self._witness()
        if witness is None:
            raise UpstreamError("could not connect: connection refused")
        session = Session(self._process, witness, self._name)
        if not self._dial(session):
            raise UpstreamError("could not connect: connection refused")
        timeout = self._process.callLater(5.0, session.close)
        try:
            await session.ready
        except BaseException:
            session.close()
            raise
        finally:
            if timeout.active():
                timeout.cancel()
        return session


__all__ = ["Connector", "IWitness", "Session"]
