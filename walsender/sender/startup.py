"""From a start-up packet to a session: who it is, whether it may come in, what it is greeted with."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

from walsender.auth import ConnectionRequest
from walsender.errors import (
    CannotConnectNow,
    FeatureNotSupported,
    TooManyConnections,
)
from walsender.sender.commands import CommandAnswers
from walsender.sender.parameters import SessionParameters
from walsender.sender.peer import peer_address, peer_user_id
from walsender.sender.slot_table import WalSenderEntry
from walsender.wire import (
    AUTHENTICATION_OK,
    BackendKeyData,
    ReadyForQuery,
    ReplicationMode,
    StartupMessage,
    negotiate,
    parse_options,
)
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.auth import IAuthenticationClient, TlsInfo
    from walsender.sender.connection_log import ConnectionLog
    from walsender.sender.factory import WalSenderFactory
    from walsender.sender.interfaces import IClientTransport, IConsole, IConversation
    from walsender.sender.protocol import WalSender

_NO_SQL: Final = (
    "Connect with replication=true; for SQL and logical decoding connect to the PostgreSQL server itself."
)


@dataclass(slots=True, eq=False)
class Session:
    """
    An admitted client.

    :ivar entry: its place in the table of walsenders.
    :ivar answers: who answers its commands.
    :ivar cancel_key: what a CancelRequest must know; empty: nothing can.
    :ivar console: makes what answers its SQL; ``None``: it says commands of replication.
    """

    entry: WalSenderEntry
    parameters: SessionParameters
    answers: CommandAnswers
    cancel_key: bytes
    console: Callable[[WalSender], IConversation] | None = None


async def open_session(
    factory: WalSenderFactory,
    message: StartupMessage,
    transport: IClientTransport,
    client: IAuthenticationClient,
    tls: TlsInfo | None,
    log: ConnectionLog,
) -> Session:
    """
    Let a client in, or not.

    Waits for nothing but the authorizer.

    What it is told on the way is written; the order is the dialect's.  If this
    raises, no entry of the slot table is held.

    :param tls: ``None`` if the connection is not encrypted.
    :raises walsender.errors.WalsenderError: it may not come in, or not now.  Every error is fatal here.

    Source: PostgreSQL, src/backend/tcop/postgres.c, PostgresMain, and utils/init/postinit.c, InitPostgres.
    """
    dialect, source, write = factory.dialect, factory.source, transport.write
    log.user = message.user
    mode = dialect.replication_mode(message.parameters.get("replication", "false"))
    minor, negotiation = negotiate(message.version, message.extensions)
    if negotiation is not None:
        write(negotiation.encode())
    host, port = peer_address(transport.getPeer())
    request = ConnectionRequest(
        host,
        message.user,
        message.database,
        replication=mode is ReplicationMode.PHYSICAL,
        tls=tls,
        peer_uid=peer_user_id(transport),
    )
    log.database = "" if request.replication else request.database or request.user
    if factory.stopping:
        raise CannotConnectNow("the database system is shutting down")
    if not source.ready:
        raise CannotConnectNow("the database system is starting up")
    log.authenticated(await factory.authorizer.authenticate(request, client))
    log.authorized(message.parameters.get("application_name", ""), tls)
    if mode is ReplicationMode.NONE and factory.console is not None and isinstance(dialect, ModernDialect):
        return _open_console(factory, factory.console, message, transport, request, port, minor, log)
    if mode is not ReplicationMode.PHYSICAL:
        raise NotForSessions("walsender serves physical replication connections only", hint=_NO_SQL)
    entry = WalSenderEntry(
        log.process_id,
        request.host,
        port,
        factory.now(),
        request.user,
    )
    if dialect.reserves_before_authentication:
        _reserve(factory, entry)
    try:
        write(AUTHENTICATION_OK.encode())
        parameters = _session_parameters(factory, message, write)
        entry.application_name = parameters.application_name
        write(dialect.greeting(parameters.reported))
        if not factory.authorizer.may_replicate(request):
            raise dialect.may_not_replicate()  # noqa: TRY301 (the entry must be freed as after any other)
        if not dialect.reserves_before_authentication:
            _reserve(factory, entry)
    except BaseException:
        factory.slot_table.free(entry)
        raise
    key = b""
    if dialect.sends_key_data:
        key = _send_key(entry, minor, write)
    write(ReadyForQuery().encode())
    answers = CommandAnswers(source, dialect, parameters, factory.slots, entry, write)
    return Session(entry, parameters, answers, key)


def _send_key(entry: WalSenderEntry, minor: int, write: Callable[[bytes], object]) -> bytes:
    """Tell the client by which key its requests can be cancelled, and return it."""
    key = secrets.token_bytes(32 if minor >= 2 else 4)
    write(BackendKeyData(entry.process_id, key).encode())
    return key


def _open_console(
    factory: WalSenderFactory,
    console: IConsole,
    message: StartupMessage,
    transport: IClientTransport,
    request: ConnectionRequest,
    port: int,
    minor: int,
    log: ConnectionLog,
) -> Session:
    """Let in a client that wants SQL; it takes no place in the table of walsenders."""
    console.check_room()
    dialect, write = factory.dialect, transport.write
    entry = WalSenderEntry(log.process_id, request.host, port, factory.now(), request.user)
    write(AUTHENTICATION_OK.encode())
    parameters = _session_parameters(factory, message, write, encoding="UTF8")
    entry.application_name = parameters.application_name
    write(dialect.greeting(parameters.reported))
    key = _send_key(entry, minor, write)
    write(ReadyForQuery().encode())
    host, server_port = peer_address(transport.getHost())
    opened = partial(
        console.session,
        dialect=dialect,
        parameters=parameters,
        entry=entry,
        database=request.database or request.user,
        server_address=(None if host is None else str(host), server_port if server_port >= 0 else None),
        may_administer=factory.authorizer.may_administer(request),
    )
    answers = CommandAnswers(factory.source, dialect, parameters, factory.slots, entry, write)
    return Session(entry, parameters, answers, key, opened)


class NotForSessions(FeatureNotSupported, severity="FATAL"):
    """The client wants an ordinary session."""


def _reserve(factory: WalSenderFactory, entry: WalSenderEntry) -> None:
    try:
        factory.slot_table.reserve(entry)
    except TooManyConnections as error:
        raise factory.dialect.too_many_connections(error) from None


def _session_parameters(
    factory: WalSenderFactory,
    message: StartupMessage,
    write: Callable[[bytes], object],
    encoding: str = "SQL_ASCII",
) -> SessionParameters:
    parameters = SessionParameters(
        factory.dialect,
        factory.source,
        message.user,
        max_wal_senders=factory.slot_table.limit,
        max_replication_slots=factory.slots.limit,
        wal_sender_timeout=factory.wal_sender_timeout,
        encoding=encoding,
    )
    # Later wins: what is named in the packet itself over what is in its options.
    options = parse_options(message.parameters.get("options", ""))
    for name, value in (*options, *message.parameters.items()):
        if (notice := parameters.set_at_start(name, value)) is not None:
            write(notice.encode())
    return parameters
