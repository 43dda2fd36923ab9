"""What the log says of one connection: who it is, what it was told, how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from walsender.sender.peer import peer_text
from walsender.wire import printable

if TYPE_CHECKING:
    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from walsender.errors import WalsenderError
    from walsender.lsn import LSN
    from walsender.sender.interfaces import IClientTransport
    from walsender.sender.slot_table import WalSenderEntry

LINES_A_MINUTE: Final = 100
"""How many of the clients that are not let in have a line of their own when they go."""

_LONGEST: Final = 2000  # characters of a text that may quote what the client has said
_HEADER_SIZE: Final = 5  # bytes: a message's type and length


class LineLimit:
    """
    So many lines in a minute, and then how many there would have been.

    What a stranger can make us write must not fill the disk, nor cost more than its connection.
    """

    _log = Logger()

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._minute = 0
        self._lines = 0

    def permits(self) -> bool:
        """Return whether one more line may be written."""
        minute = int(self._clock.seconds() // 60)
        if minute != self._minute:
            left_out = self._lines - LINES_A_MINUTE
            if left_out > 0:
                self._log.info("{count} clients more have gone before they were let in", count=left_out)
            self._minute, self._lines = minute, 0
        self._lines += 1
        return self._lines <= LINES_A_MINUTE


class ConnectionLog:
    """
    One connection's lines.

    :param strangers: bounds how often it is said that a client who never came in has gone.
    :ivar entry: the client's entry in the table, once it is let in.
    """

    _log = Logger()

    def __init__(self, transport: IClientTransport, strangers: LineLimit) -> None:
        self._transport = transport
        self._strangers = strangers
        self._ended = False
        self.entry: WalSenderEntry | None = None

    @property
    def client(self) -> str:
        """Who this is: address, user and application name."""
        where = peer_text(self._transport.getPeer())
        if self.entry is None:
            return where
        return f"{where} {printable(self.entry.user)} {printable(self.entry.application_name)}".rstrip()

    def error(self, error: WalsenderError, severity: str) -> None:
        """Log, in one line, what the client is told."""
        details = [printable(text) for text in (error.detail, error.log_detail) if text is not None]
        detail = f" ({'; '.join(details)})" if details else ""
        self._log.error(
            "{client} {severity}: {message}{detail}",
            client=self.client,
            severity=severity,
            message=printable(error.message[:_LONGEST]),
            detail=detail,
        )

    def mistake(self, failure: Failure) -> None:
        """Log a mistake of ours, whole."""
        self._log.failure("internal error while serving {client}", failure, client=self.client)

    def started(self, lsn: LSN, timeline: int) -> None:
        """Log that WAL is on its way."""
        self._log.info(
            "{client} started streaming WAL at {lsn} on timeline {timeline}",
            client=self.client,
            lsn=lsn,
            timeline=timeline,
        )

    def cut_off(self, pending: int) -> None:
        """Log that the client has gone after *pending* bytes of a message."""
        if pending >= _HEADER_SIZE:
            self._say("incomplete message from client")
        elif pending:
            self._say("unexpected EOF within message length word")

    def ended(self, reason: str) -> None:
        """Log why the connection ends, once however many ways lead there."""
        if not self._ended:
            self._ended = True
            self._say(reason)

    def silence(self) -> None:
        """Do not log why the connection ends: somebody else does."""
        self._ended = True

    def _say(self, message: str) -> None:
        if self.entry is None and not self._strangers.permits():
            return
        self._log.info("{client} {message}", client=self.client, message=printable(message))
