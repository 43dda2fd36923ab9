"""
A connection to the upstream, through libpq, driven by the reactor.

What libpq demands, and what happens when it does not get it:

* After each read of the socket everything that libpq can parse must be taken from it.  It has its own
  buffer, and TLS has another below: neither makes the socket readable again, and a message left there
  waits for the next.
* So whenever we stop before that (paused, or to let others have their turn) we come
  back by ourselves, and do not wait for the socket.
* A result may be asked for only when it is there (`is_busy`): libpq would wait for it.
* When the connection fails, what has come before is still in the buffer, and with it perhaps the
  server's reason.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final

import psycopg
from psycopg import pq
from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger
from zope.interface import implementer

from walsender.upstream.interfaces import ICopyReceiver, IUpstreamSession, Row, Taken, UpstreamError
from walsender.upstream.libpq_errors import result_error
from walsender.upstream.shared_connection import SHARE, SharedConnection
from walsender.upstream.socket_watch import IUpstreamReactor, SocketWatch

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn, PGresult
    from twisted.internet.interfaces import IDelayedCall

# libpq reads what its buffer has room for, at least 8 KiB, and a TLS record has 16: the rest stays
# with TLS, where no reactor sees it.  (Seen with libpq 17.6; 18.6 reads on by itself.)  By how much libpq's
# buffer grows in between, two reads that complete no message can leave a rest; three cannot.
_QUIET_READS: Final = 3

_ROWS: Final = {pq.ExecStatus.TUPLES_OK, pq.ExecStatus.SINGLE_TUPLE}
_DONE: Final = {pq.ExecStatus.COMMAND_OK, pq.ExecStatus.EMPTY_QUERY}


class _State(enum.Enum):
    IDLE = enum.auto()
    COMMAND = enum.auto()  # results of a command are to come
    STREAMING = enum.auto()  # both copy, or we have sent CopyDone and the server has not
    ENDING = enum.auto()  # the server's copying is over; the results that follow are to come
    CLOSED = enum.auto()


@implementer(IUpstreamSession)
class LibpqSession:
    """
    One open connection.

    :param connection: libpq's, connected; ours from here on unless an error is raised.
    :raises OSError: there is no descriptor left to watch it by.
    """

    _log = Logger()

    def __init__(self, reactor: IUpstreamReactor, connection: PGconn) -> None:
        self._reactor = reactor
        self._watch = SocketWatch(reactor, self._turn)
        self._watch.open(connection.socket)
        self._shared = SharedConnection(connection, self._hear)
        self.server_version = connection.server_version
        host, port = (value.decode(errors="replace") for value in (connection.host, connection.port))
        self.description = f"host={host} port={port}"
        # GSS encryption buffers as TLS does.
        self._quiet_reads = _QUIET_READS if connection.ssl_in_use or connection.used_gssapi else 0
        self._state = _State.IDLE
        self._answer: Deferred[list[Row] | None] | None = None
        self._receiver: ICopyReceiver | None = None
        self._rows: list[Row] = []
        self._error: UpstreamError | None = None  # what the server said of the command, or of its own end
        self._failure: UpstreamError | None = (
            None  # of the connection; what has come before is delivered first
        )
        self._copy_done_sent = False
        self._copy_done_received = False
        self._batch_open = False
        self._paused = False
        self._unsent = False
        self._again: IDelayedCall | None = None
        self._attended = self._reading = False
        self._recall: Callable[[], None] = _nothing
        self._arrange()

    # IUpstreamSession

    def execute(self, command: str) -> Deferred[list[Row]]:
        """See `IUpstreamSession`."""
        return self._send_command(command, None).addCallback(lambda rows: rows or [])

    def start_streaming(self, command: str, receiver: ICopyReceiver) -> Deferred[bool]:
        """See `IUpstreamSession`."""
        return self._send_command(command, receiver).addCallback(lambda rows: rows is None)

    def send(self, data: bytes) -> None:
        """See `IUpstreamSession`."""
        if self._state is _State.STREAMING and not self._copy_done_sent:
            try:
                self._shared.put(data)
            except psycopg.Error:
                self._failed()
            self._flush()

    def end_streaming(self) -> None:
        """See `IUpstreamSession`."""
        if self._state is _State.STREAMING and not self._copy_done_sent:
            self._send_copy_done()

    def pauseProducing(self) -> None:
        """See `IUpstreamSession`."""
        self._paused = True
        self._recall()
        self._arrange()

    def resumeProducing(self) -> None:
        """See `IUpstreamSession`."""
        if self._paused:
            self._paused = False
            self._come_back()

    def stopProducing(self) -> None:
        """See `IUpstreamSession`."""
        self.close()

    def close(self) -> None:
        """See `IUpstreamSession`."""
        answer = self._answer
        self._release(UpstreamError("the connection to the upstream has been closed"))
        if answer is not None:
            assert self._error is not None
            answer.errback(self._error)

    # Another thread reads.

    @property
    def readable(self) -> int | None:
        """
        See `IUpstreamSession`: a descriptor.

        Below TLS a message may be complete before the socket is readable.
        """
        busy = self._paused or self._failure is not None or self._again is not None or self._unsent
        other = self._reading or self._quiet_reads or self._copy_done_sent
        if self._state is not _State.STREAMING or busy or other:
            return None
        return self._watch.fileno()

    def attended(self, recall: Callable[[], None]) -> None:
        """See `IUpstreamSession`."""
        self._recall = recall
        self._attended = True
        self._arrange()

    def take(self) -> Taken:
        """See `IUpstreamSession`."""
        return self._shared.take(lambda: self._state is _State.STREAMING and not self._paused)

    def confirm(self, data: bytes) -> bool:
        """See `IUpstreamSession`."""
        return self._shared.send(data, lambda: self._state is _State.STREAMING and not self._copy_done_sent)

    def deliver(self, taken: Taken) -> None:
        """See `IUpstreamSession`."""
        for level, notice in taken.said:
            self._hear(level, notice)
        try:
            for body in taken.messages:
                if self._state is _State.STREAMING:
                    assert self._receiver is not None
                    self._batch_open = True
                    self._receiver.wal_message_received(body)
        except Exception:  # noqa: BLE001 (as in `_turn`)
            self._mistaken()
        if taken.ended and self._state is _State.STREAMING:
            self._state = _State.ENDING
        self._failure = self._failure or taken.failure

    def released(self) -> None:
        """See `IUpstreamSession`."""
        self._attended = False
        self._recall = _nothing
        self._shared.hear()
        self._turn()

    # Commands.

    def _send_command(self, command: str, receiver: ICopyReceiver | None) -> Deferred[list[Row] | None]:
        if self._state is _State.CLOSED:
            assert self._error is not None
            return fail(self._error)
        assert self._state is _State.IDLE, "one thing at a time"
        answer: Deferred[list[Row] | None] = Deferred(lambda _: self._cancelled())
        self._answer = answer
        self._receiver = receiver
        self._rows = []
        self._state = _State.COMMAND
        try:
            self._shared.libpq.send_query(command.encode())
        except psycopg.Error:
            self._failed()
        self._flush()
        return answer

    def _cancelled(self) -> None:
        """Whoever waits for the answer does so no longer; what the server does then, nobody would know."""
        self._answer = None
        self.close()

    # Reading.

    def _come_back(self) -> None:
        """Take a turn, whatever the socket says, once others have had theirs."""
        if self._again is None and self._state is not _State.CLOSED:
            self._again = self._reactor.callLater(0, self._turn_again)
        self._arrange()

    def _turn_again(self) -> None:
        self._again = None
        self._turn()

    def _turn(self) -> None:
        """Something has happened to the socket, or something was left to do."""
        if self._attended and self._failure is not None:
            self._recall()
            return
        if self._state is _State.CLOSED:
            return
        try:
            if not self._attended:
                self._reading = True  # one message after another, for whoever is called by one
                try:
                    self._read()
                finally:
                    self._reading = False
                self._end_batch()
        except psycopg.Error:
            self._lose(self._shared.error())
        except Exception:  # noqa: BLE001 (a receiver's mistake ends its connection, not the reactor's loop)
            self._mistaken()
        self._flush()

    def _mistaken(self) -> None:
        self._log.failure("mistake while receiving from {description}", description=self.description)
        self._lose(UpstreamError("internal error"))

    def _read(self) -> None:
        share = SHARE
        quiet = 0
        while not self._paused:
            if self._failure is None:
                try:
                    self._shared.libpq.consume_input()
                except psycopg.Error:
                    self._failure = self._shared.error()
            delivered = self._deliver(share)
            if self._closed() or self._paused:
                return
            share -= delivered
            if share <= 0:
                self._come_back()
                return
            if self._failure is not None:
                self._lose(self._failure)
                return
            quiet = 0 if delivered else quiet + 1
            if quiet >= self._quiet_reads:
                return

    def _deliver(self, share: int) -> int:
        """Take from libpq what it has, up to about *share* bytes, and return how much that was."""
        connection = self._shared.libpq
        delivered = 0
        while delivered < share and not self._paused and not self._closed():
            if self._state is _State.STREAMING:
                assert self._receiver is not None
                length, data = connection.get_copy_data(1)
                if length > 0:
                    delivered += length
                    self._batch_open = True
                    self._receiver.wal_message_received(data)
                elif length == 0:
                    break
                else:
                    self._state = _State.ENDING
            elif connection.is_busy() or self._state is _State.IDLE:
                break
            else:
                delivered += 1
                self._take(connection.get_result())
        return delivered

    def _take(self, result: PGresult | None) -> None:
        """One result of a command, or what follows a stream; ``None`` after the last."""
        if result is None:
            self._answered()
            return
        status = result.status
        if status in _ROWS:
            self._rows = [
                tuple(result.get_value(row, column) for column in range(result.nfields))
                for row in range(result.ntuples)
            ]
        elif status in _DONE:
            if self._state is _State.ENDING and not (self._copy_done_sent or self._copy_done_received):
                # Without CopyDone: a server's last word on its way down.
                self._lose(UpstreamError("the upstream has ended the stream"))
        elif (
            status == pq.ExecStatus.COPY_BOTH and self._state is _State.COMMAND and self._receiver is not None
        ):
            self._state = _State.STREAMING
            self._copy_done_sent = self._copy_done_received = False
            answer, self._answer = self._answer, None
            assert answer is not None, "a cancelled command has closed the session"
            answer.callback(None)
        elif status == pq.ExecStatus.COPY_IN and self._state is _State.ENDING:
            self._copy_done_received = True
            self._send_copy_done()
        elif status == pq.ExecStatus.FATAL_ERROR:
            self._error = self._error or result_error(result)
            if self._state is _State.ENDING:
                self._lose(self._error)
        else:
            name = pq.ExecStatus(status).name
            self._lose(UpstreamError(f"unexpected answer from the upstream: {name}"))

    def _answered(self) -> None:
        """The session is at command level again."""
        if self._error is not None and self._shared.libpq.status == pq.ConnStatus.BAD:
            self._lose(self._error)
            return
        self._end_batch()
        if self._closed():
            return
        receiver, rows, error = self._receiver, self._rows, self._error
        answer, self._answer = self._answer, None
        self._state = _State.IDLE
        self._receiver = self._error = None
        if error is not None:
            assert answer is not None, "an error that ends a stream has closed the session"
            answer.errback(error)
            return
        if receiver is not None:
            receiver.stream_ended(rows)
        if answer is not None:
            answer.callback(rows)

    def _end_batch(self) -> None:
        if self._batch_open:
            self._batch_open = False
            if self._receiver is not None:
                self._receiver.batch_received()

    # Writing.

    def _send_copy_done(self) -> None:
        self._copy_done_sent = True
        try:
            self._shared.put_end()
        except psycopg.Error:
            self._failed()
        self._flush()

    def _flush(self) -> None:
        """Send what libpq has gathered, as far as the socket takes it, and wait for room for the rest."""
        if self._state is not _State.CLOSED:
            try:
                self._unsent = self._shared.flush()
            except psycopg.Error:
                self._unsent = False
                self._failed()
            if self._unsent:
                # libpq reads where it cannot send; what it has read makes no socket readable for the thread.
                self._recall()
            self._arrange()

    # The connection itself.

    def _closed(self) -> bool:
        return self._state is _State.CLOSED

    def _arrange(self) -> None:
        """Watch the socket for what is of use now."""
        if self._state is not _State.CLOSED:
            waiting = self._failure is not None or self._again is not None
            idle = self._paused or self._attended or waiting
            self._watch.want(read=not idle, write=self._unsent)

    def _failed(self) -> None:
        """Sending failed; the end is told in a turn of its own, not inside somebody's call."""
        self._failure = self._failure or self._shared.error()
        self._come_back()

    def _hear(self, level: str, notice: UpstreamError) -> None:
        """The server says something that is no answer: to the log, but keep its reason for an end."""
        if level in {"FATAL", "PANIC"}:
            self._error = notice
            return
        log = self._log.warn if level == "WARNING" else self._log.info
        log(
            "{upstream} says: {severity}: {said}",
            upstream=self.description,
            severity=level,
            said=notice.message,
        )

    def _lose(self, error: UpstreamError) -> None:
        """The session is over, and whoever uses it is told, once."""
        if self._closed():
            return
        self._end_batch()
        if self._closed():
            return
        streaming = self._state in {_State.STREAMING, _State.ENDING}
        answer, receiver = self._answer, self._receiver
        self._release(self._error or error)
        assert self._error is not None
        if answer is not None:
            answer.errback(self._error)
        elif streaming:
            assert receiver is not None
            receiver.session_lost(self._error)

    def _release(self, error: UpstreamError) -> None:
        """Close everything; *error* is what is said to whoever comes later."""
        if self._state is _State.CLOSED:
            return
        self._state = _State.CLOSED
        self._recall()
        self._error = error
        self._answer = self._receiver = None
        if self._again is not None:
            self._again.cancel()
            self._again = None
        self._watch.close()
        self._shared.finish()


def _nothing() -> None:
    """Nobody is to be recalled."""
