"""What the log says of one connection: who it is, what it was told, how it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from walsender.sender.peer import peer_text
from walsender.wire import printable

if TYPE_CHECKING:
    from twisted.python.failure import Failure

    from walsender.errors import WalsenderError
    from walsender.lsn import LSN
    from walsender.sender.interfaces import IClientTransport
    from walsender.sender.slot_table import WalSenderEntry

_HEADER_SIZE: Final = 5  # bytes: a message's type and length


class ConnectionLog:
    """
    One connection's lines.

    :ivar entry: the client's entry in the table, once it is let in.
    """

    _log = Logger()

    def __init__(self, transport: IClientTransport) -> None:
        self._transport = transport
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
            message=printable(error.message),
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
        self._log.info("{client} {message}", client=self.client, message=printable(message))
