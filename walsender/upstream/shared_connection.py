"""
libpq's connection while another thread may read from it.

libpq leaves it to its users that one thread at a time is in it.  So whoever writes while the other may be
reading does so under a lock, which nobody holds for long: nothing here waits for the network.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Final

import psycopg

from walsender.upstream.interfaces import Taken, UpstreamError
from walsender.upstream.libpq_errors import connection_error, result_error, severity

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.pq.abc import PGconn, PGresult

# How much is taken before others have their turn.  libpq reads a quarter of a megabyte
# at once when messages are of 128 KiB, so that this matters for larger ones, and for TLS.
SHARE: Final = 2 << 20  # bytes


class SharedConnection:
    """
    One open connection.

    :param connection: libpq's, connected; ours from here on.
    :param heard: is told what the server says beside its answers, and how severe that is.
    :ivar libpq: for what is done while no other thread may read.
    """

    def __init__(self, connection: PGconn, heard: Callable[[str, UpstreamError], None]) -> None:
        self.libpq = connection
        self._heard = heard
        self._lock = Lock()
        self._taking: Taken | None = None
        self._unheard: list[tuple[str, UpstreamError]] = []
        connection.nonblocking = 1
        connection.notice_handler = self._notice

    # At any time

    def put(self, data: bytes) -> None:
        """
        Have libpq send *data* in a stream.

        :raises psycopg.Error: the connection has failed.
        """
        with self._lock:
            self.libpq.put_copy_data(data)

    def put_end(self) -> None:
        """
        Have libpq end our side of a stream.

        :raises psycopg.Error: the connection has failed.
        """
        with self._lock:
            self.libpq.put_copy_end()

    def flush(self) -> bool:
        """
        Send what libpq has gathered, as far as the socket takes it; return whether some is left.

        :raises psycopg.Error: the connection has failed.
        """
        with self._lock:
            return self.libpq.flush() == 1

    def error(self) -> UpstreamError:
        """Return why the connection has failed."""
        with self._lock:
            return connection_error(self.libpq)

    def finish(self) -> None:
        """Close the connection."""
        with self._lock:
            self.libpq.notice_handler = None
            self.libpq.finish()

    def take(self, may_take: Callable[[], bool]) -> Taken:
        """
        Read, and return what has come of a stream; in any thread.

        :param may_take: is asked when nobody else is in libpq.
        """
        taken = Taken()
        libpq = self.libpq
        with self._lock:
            if not may_take():
                return taken
            self._taking = taken
            try:
                libpq.consume_input()
            except psycopg.Error:
                taken.failure = connection_error(libpq)
            try:
                self._take_messages(taken)
            except psycopg.Error:
                taken.failure = connection_error(libpq)
            self._taking = None
        return taken

    def send(self, data: bytes, may_send: Callable[[], bool]) -> bool:
        """
        Send *data* in a stream; in any thread.

        :param may_send: is asked when nobody else is in libpq.
        :returns: whether all has gone and nothing is to be heard (`hear`).  If the connection has failed,
            whoever uses it next finds that.
        """
        with self._lock:
            if not may_send():
                return False
            taking = self._taking = Taken()  # libpq may look at what it has read before
            try:
                self.libpq.put_copy_data(data)
                is_sent = self.libpq.flush() == 0
            except psycopg.Error:
                is_sent = False
            self._taking = None
            self._unheard += taking.said
            return is_sent and not taking.said

    def hear(self) -> None:
        """Tell what the server has said while another thread sent."""
        with self._lock:
            unheard, self._unheard = self._unheard, []
        for level, notice in unheard:
            self._heard(level, notice)

    # Inside

    def _take_messages(self, taken: Taken) -> None:
        share = SHARE
        while share > 0:
            length, data = self.libpq.get_copy_data(1)
            if length <= 0:
                taken.ended = length < 0
                return
            share -= length
            taken.messages.append(data)

    def _notice(self, result: PGresult) -> None:
        """The server says something that is no answer; if another thread has read it, it is told later."""
        notice = result_error(result)
        level = severity(result)
        if self._taking is not None:
            self._taking.said.append((level, notice))
        else:
            self._heard(level, notice)


__all__ = ["SHARE", "SharedConnection"]
