"""
What the log says of one connection: who it is, what it was told, how it ends.

Each event has the connection itself as its ``session``, for `walsender.server_log`; other observers
have what is said of it at the beginning of the line.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

from walsender.sender.peer import peer_address, peer_text
from walsender.wire import decode_text, encode_text, printable

if TYPE_CHECKING:
    from collections.abc import Collection

    from twisted.internet.interfaces import IReactorTime
    from twisted.python.failure import Failure

    from walsender.auth import Authenticated, TlsInfo
    from walsender.errors import WalsenderError
    from walsender.lsn import LSN
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.interfaces import IClientTransport
    from walsender.sender.slot_table import WalSenderEntry

LINES_A_MINUTE: Final = 100
"""How many of the clients that are not let in have a line of their own when they go."""

_LONGEST: Final = 2000  # characters, or bytes, of what quotes a client
_MAY_BE_SECRET: Final = re.compile(rb"password|://[^/\s]*@", re.IGNORECASE)
_HEADER_SIZE: Final = 5  # bytes: a message's type and length


@dataclass(frozen=True, slots=True)
class Logged:
    """
    What is logged of each connection, beside errors; by default nothing.

    :ivar connections: of ``receipt``, ``authentication`` and ``authorization``, as ``log_connections``.
    :ivar disconnections: as ``log_disconnections``.
    :ivar replication_commands: as ``log_replication_commands``.
    """

    connections: Collection[str] = ()
    disconnections: bool = False
    replication_commands: bool = False


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
    One connection's lines; a `walsender.server_log.ILogSession`.

    :param factory: says what is logged, and bounds how often it is said that a stranger has gone.
    :ivar process_id: by which the connection is known, in the table of walsenders too.
    :ivar started_at: when it began, in seconds since 1970.
    :ivar user: who it wants to be, or is; ``None``: not known yet.
    :ivar database: empty: it wants replication; ``None``: not known yet.
    :ivar entry: the client's entry in the table, once it is let in.
    :ivar statement: what it has asked for, and what has not been answered yet.
    """

    _log = Logger()

    def __init__(self, transport: IClientTransport, factory: WalSenderFactory) -> None:
        self._transport = transport
        self._factory = factory
        self.user: str | None = None
        self._ended = False
        self.process_id = factory.slot_table.new_process_id()
        self.started_at = factory.now()
        self._begun = factory.reactor.seconds()
        self.database: str | None = None
        self.entry: WalSenderEntry | None = None
        self.statement: bytes | str = b""

    # walsender.server_log.ILogSession

    @property
    def application_name(self) -> str | None:
        """As the session has it."""
        return None if self.entry is None else self.entry.application_name

    @property
    def host(self) -> str:
        """The address that it comes from."""
        host, _ = peer_address(self._transport.getPeer())
        return "[local]" if host is None else str(host)

    @property
    def port(self) -> int:
        """The port that it comes from; -1 at a unix socket."""
        return peer_address(self._transport.getPeer())[1]

    @property
    def backend_type(self) -> str:
        """What a server has for such a client."""
        if self.database is None:
            return "not initialized"
        return "client backend" if self.database else "walsender"

    def __str__(self) -> str:
        """Who this is: address, user and application name."""
        where = peer_text(self._transport.getPeer())
        if self.entry is None:
            return where
        return f"{where} {printable(self.entry.user)} {printable(self.entry.application_name)}".rstrip()

    @property
    def _where(self) -> str:
        port = f" port={self.port}" if self.port >= 0 else ""
        return f"host={self.host}{port}"

    # What happens

    def received(self) -> None:
        """Log that somebody has connected."""
        if "receipt" in self._factory.logged.connections:
            self._info("connection received: {where}", where=self._where)

    def authenticated(self, how: Authenticated | None) -> None:
        """
        Log how the client has shown who it is.

        Source: PostgreSQL, src/backend/libpq/auth.c, set_authn_id and ClientAuthentication.
        """
        if how is not None and "authentication" in self._factory.logged.connections:
            self._info(
                'connection authenticated: {kind}="{name}" method={method}{where}',
                kind="user" if how.identity is None else "identity",
                name=printable((self.user or "") if how.identity is None else how.identity),
                method=how.method,
                where=printable(f" ({how.where})" if how.where else ""),
            )

    def authorized(self, application_name: str, tls: TlsInfo | None) -> None:
        """
        Log that the client is whom it says it is.

        Source: PostgreSQL, src/backend/utils/init/postinit.c, PerformAuthentication.
        """
        if "authorization" in self._factory.logged.connections:
            database = f" database={printable(self.database)}" if self.database else ""
            name = f" application_name={printable(application_name)}" if application_name else ""
            self._info(
                "{kind}connection authorized: user={user}{database}{name}{tls}",
                kind="" if self.database else "replication ",
                user=printable(self.user or ""),
                database=database,
                name=name,
                tls="" if tls is None else f" SSL enabled ({tls.cipher})",
            )

    def command(self, text: bytes) -> None:
        """Log a command of replication."""
        if self._factory.logged.replication_commands:
            command = printable(decode_text(text[:_LONGEST]))
            more = "..." if len(text) > _LONGEST else ""
            self._info("received replication command: {command}{rest}", command=command, rest=more)

    def disconnected(self) -> None:
        """
        Log that the client, who had been let in, has gone.

        Source: PostgreSQL, src/backend/tcop/postgres.c, log_disconnections.
        """
        if self.entry is not None and self._factory.logged.disconnections:
            milliseconds = max(0, int((self._factory.reactor.seconds() - self._begun) * 1000))
            seconds, milliseconds = divmod(milliseconds, 1000)
            minutes, seconds = divmod(seconds, 60)
            hours, minutes = divmod(minutes, 60)
            self._info(
                "disconnection: session time: {time} user={user} database={database} {where}",
                time=f"{hours}:{minutes:02}:{seconds:02}.{milliseconds:03}",
                user=printable(self.entry.user),
                database=printable(self.database or ""),
                where=self._where,
            )

    def error(self, error: WalsenderError, severity: str) -> None:
        """Log what the client is told, and what it is not; with it what it had asked for is over."""
        statement, self.statement = self._quotable_statement(), b""
        texts = [printable(text) for text in (error.detail, error.log_detail) if text is not None]
        detail = "; ".join(texts)
        self._log.error(
            "{session} {severity}: {text}{more}",
            session=self,
            severity=severity,
            sqlstate=error.sqlstate,
            text=printable(error.message[:_LONGEST]),  # "message" is a word of Twisted's older observers
            more=f" ({detail})" if detail else "",
            detail=detail,
            hint=error.hint,
            statement=statement,
            position=error.position if statement else 0,
        )

    def _quotable_statement(self) -> str:
        """Return the beginning of what the client has asked for, unless it may have a password in it."""
        text = self.statement
        if _MAY_BE_SECRET.search(encode_text(text) if isinstance(text, str) else text):
            return ""
        more = "..." if len(text) > _LONGEST else ""
        text = text[:_LONGEST]
        return (text if isinstance(text, str) else decode_text(text)) + more

    def mistake(self, failure: Failure) -> None:
        """Log a mistake of ours, whole."""
        self._log.failure("{session} internal error", failure, session=self)

    def started(self, lsn: LSN, timeline: int) -> None:
        """Log that WAL is on its way."""
        self._info("started streaming WAL at {lsn} on timeline {timeline}", lsn=lsn, timeline=timeline)

    def waits(self, lsn: LSN, why: str) -> None:
        """Log that a client is held up, and by what."""
        self._info("waiting for WAL at {lsn}, which {why}", lsn=lsn, why=why)

    def goes_on(self, lsn: LSN) -> None:
        """Log that it is not any more."""
        self._info("streaming goes on at {lsn}", lsn=lsn)

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
        if self.entry is not None or self._factory.strangers.permits():
            self._info("{text}", text=printable(message))

    def _info(self, form: str, **fields: object) -> None:
        self._log.info(f"{{session}} {form}", session=self, **fields)
