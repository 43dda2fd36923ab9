"""
What the receiver knows about a connection to the upstream, and nothing else.

libpq is behind these interfaces in production, an in-memory session in the simulator;
the receiver cannot tell which it has.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IPushProducer
from zope.interface import Attribute, Interface

from walsender.errors import WalsenderError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

#: One row of a result: its values as the server sends them, ``None`` for NULL.
Row = tuple[bytes | None, ...]


class UpstreamError(WalsenderError):
    """
    The upstream refused something, or the connection to it is gone.

    *message* is one line without a severity in front of it; *detail* and *hint* are the server's.

    :ivar sqlstate: the server's; ``""`` where the failure is libpq's or our own.
    """

    def __init__(
        self, message: str, sqlstate: str = "", *, detail: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, detail=detail, hint=hint)
        self.sqlstate = sqlstate


class IUpstreamConnector(Interface):
    """Opens connections to the upstream."""

    def connect() -> Deferred[IUpstreamSession]:
        """
        Open one physical replication connection.

        The Deferred may be cancelled.  It fails with `UpstreamError`.
        """


@dataclass(slots=True)
class Taken:
    """
    What another thread has read.

    :ivar messages: bodies of CopyData.
    :ivar ended: the server's copying is over behind them.
    :ivar failure: the connection has failed behind them.
    :ivar said: what the server said beside, with how severe that is.
    """

    messages: list[bytes | memoryview] = field(default_factory=list)
    ended: bool = False
    failure: UpstreamError | None = None
    said: list[tuple[str, UpstreamError]] = field(default_factory=list)


class IUpstreamSession(IPushProducer):
    """
    One open connection to the upstream.

    It is at command level, or streaming.  All methods are called, and all
    Deferreds fire, in the reactor's thread.  After `close` nothing is called
    any more, and every method but `close` is without effect; a Deferred that
    was outstanding fails with `UpstreamError`.

    ``pauseProducing`` and ``resumeProducing`` may be called at any time, from inside a receiver's method
    too: while paused nothing is read from the socket, and nothing that has been read is delivered.
    ``stopProducing`` is `close`.
    """

    server_version = Attribute("``int``, as libpq's PQserverVersion: 180004, 90601.")
    description = Attribute("``str``: where it leads, for a log: ``host=... port=...``; no secrets.")

    def execute(command: str) -> Deferred[list[Row]]:
        """
        Send one simple query; a Deferred fires with the rows of its (last) result.

        It fails with `UpstreamError`.  The session stays usable unless it is lost.
        Not while another command is under way or while streaming.
        """

    def start_streaming(command: str, receiver: ICopyReceiver) -> Deferred[bool]:
        """
        Send *command* (START_REPLICATION); a Deferred says whether there is a stream.

        True: the server answered CopyBothResponse, and *receiver* is called once the Deferred has fired.
        False: that timeline has no more WAL, and ``receiver.stream_ended`` has been called.
        It fails with `UpstreamError`.  The session stays usable unless it is lost.
        """

    def send(data: bytes) -> None:
        """Send one CopyData: a status update or feedback.  Without effect unless streaming."""

    def end_streaming() -> None:
        """Send our CopyDone.  The server's end comes as ``receiver.stream_ended``."""

    # To be read by another thread while nothing else is to be done: `attended`, then `take`, and perhaps
    # `confirm`, there, then `deliver` here, any number of times; and in the end `released`.

    readable = Attribute(
        "What that thread can wait for, as its way of waiting knows it; ``None``: it must not read now."
    )

    def attended(recall: Callable[[], None]) -> None:
        """
        Nothing is read here from now on.

        :param recall: is called when that thread is no longer to wait.
        """

    def take() -> Taken:
        """Return what has come; in another thread.  Without effect when closed or paused."""

    def confirm(data: bytes) -> bool:
        """
        Send one CopyData, in that thread; return whether all of it has gone.

        Otherwise it is closed, broken or too slow: the reactor's thread is to go on, once it is released.
        """

    def deliver(taken: Taken) -> None:
        """Give the receiver what was taken, but for ``batch_received``, which comes later."""

    def released() -> None:
        """Read here again, and go on with what came last."""

    def close() -> None:
        """Tell the server that we leave, and close.  A second call is harmless."""


class ICopyReceiver(Interface):
    """
    Takes what the server sends while it streams.

    Any method may pause, end or close the session, and that holds from the next message on.  Must not raise.
    """

    def wal_message_received(body: bytes | memoryview) -> None:
        """
        One CopyData has come; *body* is what it holds, from the byte on that says which kind it is.

        It stays as it is, and may be kept.
        """

    def batch_received() -> None:
        """
        All that one read of the socket brought has been delivered, or a part of it that was large enough.

        Not called when the read brought nothing.
        """

    def stream_ended(rows: Sequence[Row]) -> None:
        """
        Both sides have sent CopyDone; the session is at command level again.

        :param rows: of the result that followed: the next timeline and the position
            where it begins, at the end of a historic timeline; empty if none followed.
        """

    def session_lost(error: UpstreamError) -> None:
        """
        The connection is gone, or an ERROR ended the stream (*error* has the server's SQLSTATE then).

        Either way the session is closed.  The last call that this receiver gets.
        """
