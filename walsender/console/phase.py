"""
One client of the console: messages in, results out, by the simple and the extended protocol.

One message is answered after the other; while a statement runs in its thread, the next messages wait unread.

Source: PostgreSQL's documentation, "Message Flow"; src/backend/tcop/postgres.c.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from walsender.console.errors import (
    DuplicateStatement,
    InvalidBind,
    NoPortal,
    NoStatement,
    SeveralStatements,
    TooManyStatements,
)
from walsender.console.results import Bound, Result, check_formats, description, format_of
from walsender.errors import FeatureNotSupported, WalsenderError
from walsender.sql import BY_OID, SqlError, Statement, from_binary, parse, parse_statements
from walsender.sql.errors import TooComplex
from walsender.sql.times import zone_of
from walsender.wire import (
    CommandComplete,
    ErrorResponse,
    ExtendedQuery,
    FunctionCall,
    NoticeResponse,
    Query,
    ReadyForQuery,
    Sync,
    decode_text,
)
from walsender.wire.extended import (
    BIND_COMPLETE,
    CLOSE_COMPLETE,
    EMPTY_QUERY_RESPONSE,
    NO_DATA,
    PARSE_COMPLETE,
    PORTAL_SUSPENDED,
    Bind,
    Close,
    Describe,
    Execute,
    Parse,
    decode_extended,
    parameter_description,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from twisted.python.failure import Failure

    from walsender.console.statements import Statements
    from walsender.sender.connection_log import ConnectionLog
    from walsender.sql import Column, PgType
    from walsender.wire import FrontendMessage
    from walsender.wire.extended import ExtendedMessage

MAX_PREPARED: Final = 200
"""Prepared statements of one session."""

MAX_PORTALS: Final = 10
"""Portals of one session, each perhaps with a result that has not gone out."""

MAX_STATEMENT: Final = 64 << 10
"""Bytes of a statement."""

MAX_PREPARED_TEXT: Final = 256 << 10
"""Characters of all prepared statements of one session; what is made of each takes some forty bytes."""

MAX_KEPT: Final = 24 << 20
"""Bytes of the results of one session that have not gone out, with those of the portal that is run."""

_AT_ONCE: Final = 500  # characters: what is read in less than a millisecond is not worth a thread's turn


class IPhaseHost(Protocol):
    """
    What a session needs of the connection that it belongs to.

    :ivar log: what is logged of it.
    """

    log: ConnectionLog

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is read or written."""

    def write(self, data: bytes) -> None:
        """Send *data*."""

    def failed(self, failure: Failure) -> None:
        """A mistake of ours, or the end of the session."""

    def forget_slots(self) -> None:
        """An error has happened: temporary slots end."""

    def log_error(self, error: WalsenderError, *, fatal: bool = False) -> None:
        """Log what the client is told."""

    def input_wanted(self) -> None:
        """What had to wait has been answered: the next message may be read."""


@dataclass(slots=True)
class _Prepared:
    """A prepared statement; *statement* is ``None`` if its text is blank."""

    text: str
    statement: Statement | None
    types: tuple[PgType, ...]
    columns: tuple[Column, ...] | None


@dataclass(slots=True)
class _Portal:
    """A statement that is bound, and how much of its result has gone out."""

    prepared: _Prepared
    bound: Bound | None
    result: Result | None = None
    sent: int = 0
    kept: int = 0  # bytes of the result, as long as there is more of it to come
    formats: tuple[int, ...] = field(default=())


class ConsolePhase:
    """
    Answers one client.

    :param statements: what runs them.
    :param report: returns ParameterStatus messages for what has changed between two states of the parameters.
    :param parameters: the parameters now.
    :ivar skipping_to_sync: after an error of the extended protocol nothing is answered until Sync.
    """

    def __init__(
        self,
        host: IPhaseHost,
        statements: Statements,
        parameters: Callable[[], dict[str, str]],
        report: Callable[[dict[str, str], dict[str, str]], bytes],
        now: Callable[[], float],
        closed: Callable[[], object],
    ) -> None:
        self._host = host
        self._statements = statements
        self._parameters = parameters
        self._report = report
        self._now = now
        self._closed = closed
        self._prepared: dict[str, _Prepared] = {}
        self._portals: dict[str, _Portal] = {}
        self._running: Deferred[None] | None = None
        self.skipping_to_sync = False
        statements.forget_statements = self._forget

    @property
    def is_waiting(self) -> bool:
        """Whether a statement runs."""
        return self._running is not None

    @property
    def ready(self) -> bytes:
        """ReadyForQuery, with the state of the transaction."""
        return ReadyForQuery(self._statements.status).encode()

    def cancel(self) -> None:
        """The client wants no answer any more."""
        self._statements.cancel()

    def close(self) -> None:
        """The connection is over; harmless when repeated."""
        self._statements.cancel()
        self._closed()

    def warn(self, sqlstate: str, text: str) -> None:
        """Tell the client something besides."""
        self._host.write(NoticeResponse("WARNING", sqlstate, text).encode())

    def received(self, message: FrontendMessage) -> None:
        """Answer *message*."""
        if isinstance(message, Sync):
            self.skipping_to_sync = False
            self._statement_over()
            self._host.write(self.ready)
        elif self.skipping_to_sync:
            return
        elif isinstance(message, Query):
            self._begin(self._simple(message.text))
        elif isinstance(message, ExtendedQuery):
            self._begin(self._extended(message))
        elif isinstance(message, FunctionCall):
            self._fail(
                FeatureNotSupported("fastpath function calls are not supported by the console of walsender")
            )
            self._host.write(self.ready)
        # What is left (Flush, messages of a COPY that never was) asks for no answer.

    def _begin(self, work: Coroutine[Deferred[Any], Any, None]) -> None:
        running = Deferred.fromCoroutine(work)
        if running.called:
            running.addErrback(self._host.failed)
            return
        self._running = running
        running.addErrback(self._host.failed).addCallback(self._finished)

    def _finished(self, _: object) -> None:
        self._running = None
        if not self._host.is_closed:
            self._host.input_wanted()

    def _write(self, data: bytes) -> None:
        if not self._host.is_closed:
            self._host.write(data)

    # Errors

    def _fail(self, error: WalsenderError) -> None:
        """Tell the client what is wrong; the session goes on."""
        if self._host.is_closed:
            return
        self._statements.failed()
        self._host.log_error(error)
        self._host.forget_slots()
        report = ErrorResponse.from_error(error)
        if isinstance(error, SqlError) and error.position:
            report = replace(report, others=(("P", str(error.position)),))
        self._host.write(report.encode())

    def _statement_over(self) -> None:
        """What is not in a transaction block ends: portals, and what was set for the transaction."""
        before = self._parameters()
        self._statements.statement_ended()
        self._tell_parameters(before)
        if self._statements.status == b"I":
            self._portals.clear()

    def _tell_parameters(self, before: dict[str, str]) -> None:
        if changed := self._report(before, self._parameters()):
            self._write(changed)

    # The simple protocol

    async def _simple(self, text: bytes) -> None:
        self._portals.pop("", None)
        self._prepared.pop("", None)
        self._host.log.statement = text
        try:
            _check_length(len(text))
            statements = (
                parse_statements(decode_text(text))
                if len(text) < _AT_ONCE
                else await self._parse_in_thread(text)
            )
            if not statements:
                self._write(EMPTY_QUERY_RESPONSE)
            for statement in statements:
                result = await self._run(Bound(statement), decode_text(text))
                if result.columns is not None:
                    self._write(description(result.columns, ()))
                self._write_rows(result, 0, len(result.rows))
                self._write(CommandComplete(result.complete(len(result.rows))).encode())
        except WalsenderError as error:
            self._fail(error)
        self._host.log.statement = b""
        self._statement_over()
        self._write(self.ready)

    async def _parse_in_thread(self, text: bytes) -> list[Statement]:
        found: list[Statement] = await self._statements.in_thread(parse_statements, decode_text(text))
        return found

    async def _run(self, bound: Bound, text: str) -> Result:
        """Run a statement; what it tells besides its result is told."""
        before = self._parameters()
        statements = self._statements
        statements.activity = replace(
            statements.activity, query=text[:1024], query_at=self._now(), is_active=True
        )
        try:
            result = await statements.run(bound)
        finally:
            statements.activity = replace(
                statements.activity, is_active=False, in_transaction=statements.status != b"I"
            )
        if result.warning is not None:
            self.warn(*result.warning)
        self._tell_parameters(before)
        return result

    def _write_rows(self, result: Result, first: int, end: int) -> None:
        if end > first:
            self._write(b"".join(result.rows[first:end]))

    # The extended protocol

    async def _extended(self, message: ExtendedQuery) -> None:
        try:
            await self._answer(decode_extended(message))
        except WalsenderError as error:
            self.skipping_to_sync = True
            if error.severity == "FATAL":
                raise
            self._fail(error)
        self._host.log.statement = b""

    async def _answer(self, message: ExtendedMessage) -> None:
        match message:
            case Parse():
                await self._parse(message)
            case Bind():
                self._bind(message)
            case Describe():
                self._describe(message)
            case Execute():
                await self._execute(message)
            case Close():
                (self._portals if message.is_portal else self._prepared).pop(message.name, None)
                self._write(CLOSE_COMPLETE)

    async def _parse(self, message: Parse) -> None:
        self._host.log.statement = message.text
        if message.name and message.name in self._prepared:
            raise DuplicateStatement(f'prepared statement "{message.name}" already exists')
        self._check_room(self._prepared, message.name, MAX_PREPARED)
        _check_length(len(message.text))
        kept = sum(len(one.text) for name, one in self._prepared.items() if name != message.name)
        if kept + len(message.text) > MAX_PREPARED_TEXT:
            raise TooManyStatements(
                "too many prepared statements or portals",
                detail=f"All prepared statements of a session may have {MAX_PREPARED_TEXT} characters here.",
            )
        found = await self._statements.in_thread(parse_statements, message.text)
        if len(found) > 1:
            raise SeveralStatements("cannot insert multiple commands into a prepared statement")
        declared: list[PgType | None] = []
        for oid in message.types:
            pg_type = BY_OID.get(oid)
            if oid and pg_type is None:
                raise FeatureNotSupported(f"parameters of type with OID {oid} are not supported")
            declared.append(None if pg_type is None or pg_type.is_unknown else pg_type)
        statement = found[0] if found else None
        types: tuple[PgType, ...] = ()
        columns = None
        if statement is not None:
            self._statements.check(statement)
            types, columns = await self._statements.describe(statement, declared)
        self._prepared[message.name] = _Prepared(message.text, statement, types, columns)
        self._write(PARSE_COMPLETE)

    def _check_room(self, kept: dict[str, Any], name: str, limit: int) -> None:
        if name not in kept and len(kept) >= limit:
            raise TooManyStatements(
                "too many prepared statements or portals",
                detail=f"A session may have {limit} here.",
            )

    def _bind(self, message: Bind) -> None:
        prepared = self._find_prepared(message.statement)
        self._host.log.statement = prepared.text
        self._check_room(self._portals, message.portal, MAX_PORTALS)
        if prepared.statement is None:
            self._portals[message.portal] = _Portal(prepared, None)
            self._write(BIND_COMPLETE)
            return
        self._statements.check(prepared.statement)
        expected, given = len(prepared.types), len(message.values)
        if expected != given:
            raise InvalidBind(
                f"bind message supplies {given} parameters, but prepared statement"
                f' "{message.statement}" requires {expected}'
            )
        if len(message.formats) > 1 and len(message.formats) != given:
            raise InvalidBind(
                f"bind message has {len(message.formats)} parameter formats but {given} parameters"
            )
        values = tuple(
            None if data is None else self._value(data, pg_type, format_of(message.formats, place))
            for place, (data, pg_type) in enumerate(zip(message.values, prepared.types, strict=True))
        )
        if prepared.columns is not None:
            check_formats(prepared.columns, message.result_formats)
        bound = Bound(prepared.statement, prepared.types, values, message.result_formats)
        self._portals[message.portal] = _Portal(prepared, bound, formats=message.result_formats)
        self._write(BIND_COMPLETE)

    def _value(self, data: bytes, pg_type: PgType, form: int) -> Any:
        if form == 1:
            return from_binary(data, pg_type)
        zone = zone_of(self._parameters()["TimeZone"])
        return parse(decode_text(data), pg_type, zone, 0)

    def _find_prepared(self, name: str) -> _Prepared:
        found = self._prepared.get(name)
        if found is None:
            what = f'prepared statement "{name}"' if name else "unnamed prepared statement"
            raise NoStatement(f"{what} does not exist")
        return found

    def _find_portal(self, name: str) -> _Portal:
        found = self._portals.get(name)
        if found is None:
            raise NoPortal(f'portal "{name}" does not exist')
        return found

    def _describe(self, message: Describe) -> None:
        if message.is_portal:
            portal = self._find_portal(message.name)
            prepared, formats = portal.prepared, portal.formats
        else:
            prepared, formats = self._find_prepared(message.name), ()
            self._write(parameter_description(tuple(one.oid for one in prepared.types)))
        self._write(NO_DATA if prepared.columns is None else description(prepared.columns, formats))

    async def _execute(self, message: Execute) -> None:
        portal = self._find_portal(message.portal)
        self._host.log.statement = portal.prepared.text
        if portal.bound is None:
            self._write(EMPTY_QUERY_RESPONSE)
            return
        if portal.result is None:
            portal.result = await self._run(portal.bound, portal.prepared.text)
            portal.kept = sum(map(len, portal.result.rows)) if message.rows > 0 else 0
            if sum(one.kept for one in self._portals.values()) > MAX_KEPT:
                self._portals.pop(message.portal)
                raise TooManyStatements(
                    "too many prepared statements or portals",
                    detail=f"All portals of a session may have results of {MAX_KEPT >> 20} MB here.",
                )
        result, first = portal.result, portal.sent
        end = len(result.rows) if message.rows <= 0 else min(first + message.rows, len(result.rows))
        self._write_rows(result, first, end)
        portal.sent = end
        if 0 < message.rows == end - first:
            self._write(PORTAL_SUSPENDED)
        else:
            self._write(CommandComplete(result.complete(end - first)).encode())
            # There is no more of it, however often it is asked for.
            portal.result, portal.sent, portal.kept = replace(result, rows=()), 0, 0

    def _forget(self, name: str) -> None:
        """DEALLOCATE and DISCARD."""
        if not name:
            self._prepared.clear()
        elif self._prepared.pop(name, None) is None:
            raise NoStatement(f'prepared statement "{name}" does not exist')


def _check_length(length: int) -> None:
    if length > MAX_STATEMENT:
        raise TooComplex("statement is too long", detail=f"It may have {MAX_STATEMENT} bytes here.")
