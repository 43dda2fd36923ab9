"""
What one session of the console knows and does, statement by statement; how statements come in, and how
their results go out, is `walsender.console.phase`.

A query is read, computed and put into bytes in a thread, from a `Snapshot`; what acts, acts in the reactor's.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from walsender.console.errors import InTransaction, NoSavepoint, NoTransaction, ReadOnly, TransactionAborted
from walsender.console.functions import functions
from walsender.console.relations import HINT, relation
from walsender.console.results import Bound, Result, check_formats, encoded, text_type, texts
from walsender.console.snapshot import ConsoleSession, Snapshot
from walsender.errors import (
    FeatureNotSupported,
    UnrecognizedParameter,
    WalsenderError,
)
from walsender.sender.parameter_table import seconds
from walsender.sql import (
    Action,
    Budget,
    Column,
    Discard,
    Environment,
    Query,
    Reset,
    SetParameter,
    Show,
    Statement,
    Transaction,
    Unsupported,
    prepared,
    text_of,
)
from walsender.sql.budget import MAX_SECONDS
from walsender.sql.times import of_unix_time, zone_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from twisted.internet.defer import Deferred

    from walsender.console.actions import Actions
    from walsender.sender.parameters import SessionParameters
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.sql import PgType, Prepared

# What a session has that never changes here.
_CONSTANTS: Final = {
    "transaction_isolation": "read committed",
    "default_transaction_isolation": "read committed",
    "transaction_deferrable": "off",
}


class IServer(Protocol):
    """What a session needs of the console that it belongs to."""

    def snapshot(self) -> Snapshot:
        """Return the server as it is now."""

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function in a thread, after those of other sessions."""


class Statements:
    """
    One session's statements.

    :ivar status: as ReadyForQuery tells it: ``I`` idle, ``T`` in a transaction, ``E`` in one that has failed.
    """

    def __init__(
        self,
        server: IServer,
        actions: Actions,
        parameters: SessionParameters,
        entry: WalSenderEntry,
        database: str,
        server_address: tuple[str | None, int | None],
    ) -> None:
        self._server = server
        self._actions = actions
        self._parameters = parameters
        self._entry = entry
        self._database = database
        self._server_address = server_address
        self.status = b"I"
        self._before: dict[str, str] = {}  # the parameters when the transaction began
        self._savepoints: list[tuple[str, dict[str, str]]] = []
        self._local: dict[str, str] | None = None  # the parameters without what SET LOCAL has changed
        self._budget: Budget | None = None
        self.forget_statements: Callable[[str], None] = lambda _: None
        self.activity = ConsoleSession(entry, database)

    # Running one

    async def run(self, bound: Bound) -> Result:
        """
        Run a statement.

        :raises WalsenderError: it fails.
        """
        statement = bound.statement
        self.check(statement)
        match statement:
            case Query():
                return await self._query(statement, bound)
            case Show():
                return self._show(statement)
            case SetParameter() | Reset():
                return self._set(statement)
            case Transaction():
                return self._transaction(statement)
            case Discard():
                return self._discard(statement)
            case Unsupported():
                raise _unsupported(statement)

    def check(self, statement: Statement) -> None:
        """
        Check that a statement may come now.

        :raises TransactionAborted: the transaction has failed.
        """
        ends = isinstance(statement, Transaction) and statement.command in {
            "commit",
            "rollback",
            "rollback to",
        }
        if self.status == b"E" and not ends:
            raise TransactionAborted(
                "current transaction is aborted, commands ignored until end of transaction block"
            )

    def failed(self) -> None:
        """A statement has failed, and with it the transaction."""
        if self.status == b"T":
            self.status = b"E"

    def statement_ended(self) -> None:
        """A statement outside of a transaction block is over, and what was for the transaction only."""
        if self.status == b"I" and self._local is not None:
            self._parameters.restore(self._local)
            self._local = None

    def in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function in a thread."""
        return self._server.run(function, *arguments)

    def cancel(self) -> None:
        """End the query that runs."""
        if self._budget is not None:
            self._budget.cancelled = True

    async def describe(
        self, statement: Statement, declared: Sequence[PgType | None]
    ) -> tuple[tuple[PgType, ...], tuple[Column, ...] | None]:
        """Return the types of a statement's parameters, and its columns; ``None``: it has no rows."""
        if isinstance(statement, Query):
            environment = self._environment(list(declared), ())
            ready: Prepared = await self._run(environment, prepared, statement, environment)
            return tuple(one for one in environment.parameter_types if one is not None), ready.columns
        columns = _show_columns(statement) if isinstance(statement, Show) else None
        return tuple(one for one in declared if one is not None), columns

    # Queries

    def _environment(self, types: list[PgType | None], values: Sequence[Any]) -> Environment:
        snapshot = self._with_parameters(self._server.snapshot())
        shown = {name.lower(): value for name, value, _ in self._shown_rows(snapshot)}

        def show(name: str) -> str:
            found = shown.get(name.lower())
            if found is None:
                raise UnrecognizedParameter(f'unrecognized configuration parameter "{name}"')
            return found

        version = f"PostgreSQL {self._parameters.reported['server_version']} (walsender)"
        return Environment(
            of_unix_time(snapshot.now),
            Budget(self._seconds()),
            zone_of(self._parameters.reported["TimeZone"]),
            lambda name: relation(name, snapshot, self._database),
            functions(snapshot, self._entry, self._database, version, self._server_address, show),
            types,
            values,
            relations_hint=HINT,
        )

    def _seconds(self) -> float:
        """Return how long a statement may take: less than the console permits if the client wants that."""
        wanted = seconds("statement_timeout", self._parameters.reported["statement_timeout"])
        return min(wanted, MAX_SECONDS) if wanted else MAX_SECONDS

    async def _run(self, environment: Environment, function: Callable[..., Any], *arguments: Any) -> Any:
        self._budget = environment.budget
        try:
            return await self._server.run(function, *arguments)
        finally:
            self._budget = None

    async def _query(self, query: Query, bound: Bound) -> Result:
        environment = self._environment(list(bound.types), bound.values)
        ready: Prepared = await self._run(environment, prepared, query, environment)
        check_formats(ready.columns, bound.formats)
        if ready.source_action is not None:
            action: Action = await self._run(environment, ready.source_action)
            environment.action_row = await self._actions.perform(action)
        rows: Sequence[Sequence[Any]] = await self._run(environment, ready.rows)
        if any(isinstance(value, Action) for row in rows[:1] for value in row):
            rows = [
                [await self._acted(value, column) for value, column in zip(row, ready.columns, strict=True)]
                for row in rows
            ]
        values = await self._run(environment, encoded, rows, ready.columns, bound.formats, environment)
        return Result("SELECT", ready.columns, values)

    async def _acted(self, value: Any, column: Column) -> Any:
        if not isinstance(value, Action):
            return value
        result = await self._actions.perform(value)
        if not value.function.columns:
            return result[0]
        # One value for the whole row, as PostgreSQL writes one.
        texts = (
            "" if one is None else text_of(one, kind.type, zone_of("UTC"))
            for one, kind in zip(result, value.function.columns, strict=True)
        )
        return f"({','.join(texts)})"

    # Parameters

    def _with_parameters(self, snapshot: Snapshot) -> Snapshot:
        """Add the session's own parameters to what ``pg_settings`` shows; leave out what is not for all."""
        return replace(
            snapshot,
            conninfo=self._actions.conninfo(snapshot.conninfo),
            settings=tuple(
                sorted(
                    self._actions.settings(snapshot.settings, self._parameters.show_all()),
                    key=lambda one: one.name.lower(),
                )
            ),
        )

    def _shown_rows(self, snapshot: Snapshot) -> list[tuple[str, str, str]]:
        rows = {one.name: (one.name, one.shown, one.short_desc) for one in snapshot.settings}
        rows |= {name: (name, value, "") for name, value in _CONSTANTS.items()}
        return [rows[name] for name in sorted(rows, key=str.lower)]

    def _show(self, statement: Show) -> Result:
        rows = self._shown_rows(self._with_parameters(self._server.snapshot()))
        if statement.name == "all":
            return texts("SHOW", _show_columns(statement), rows)
        for name, value, _ in rows:
            if name.lower() == statement.name.lower():
                return texts("SHOW", (Column(name, text_type()),), [(value,)])
        name, value = self._parameters.show(statement.name)
        return texts("SHOW", (Column(name, text_type()),), [(value,)])

    def _set(self, statement: SetParameter | Reset) -> Result:
        before = dict(self._parameters.reported)
        if isinstance(statement, Reset):
            self._parameters.reset(None if statement.name == "all" else statement.name)
            return Result("RESET")
        if statement.name in _CONSTANTS:
            return Result("SET")
        if statement.values is None:
            self._parameters.reset(statement.name)
        else:
            self._parameters.set_list(statement.name, statement.values)
        if statement.is_local and self._local is None:
            self._local = before
        self._entry.application_name = self._parameters.application_name
        return Result("SET")

    # Transactions

    def _transaction(self, statement: Transaction) -> Result:
        if statement.read_write:
            raise ReadOnly("cannot set transaction read-write mode during recovery")
        tag = statement.command.upper()
        match statement.command:
            case "set":
                return Result("SET")
            case "begin" | "start transaction":
                if self.status == b"T":
                    return Result(tag, warning=("25001", "there is already a transaction in progress"))
                self.status = b"T"
                self._before = dict(self._parameters.reported)
                return Result(tag)
            case "commit" | "rollback":
                return self._end(statement.command)
        if self.status == b"I":
            raise NoTransaction(
                f"{tag.replace('RELEASE', 'RELEASE SAVEPOINT')} can only be used in transaction blocks"
            )
        return self._savepoint(statement)

    def _end(self, command: str) -> Result:
        if self.status == b"I":
            warning = ("25P01", "there is no transaction in progress")
            return Result(command.upper(), warning=warning)
        undone = command == "rollback" or self.status == b"E"
        if undone:
            self._parameters.restore(self._before)
        elif self._local is not None:
            self._parameters.restore(self._local)
        self._local = None
        self._savepoints.clear()
        self.status = b"I"
        self._entry.application_name = self._parameters.application_name
        return Result("ROLLBACK" if undone else "COMMIT")

    def _savepoint(self, statement: Transaction) -> Result:
        name = statement.name
        if statement.command == "savepoint":
            self._savepoints.append((name, dict(self._parameters.reported)))
            return Result("SAVEPOINT")
        places = [place for place, (known, _) in enumerate(self._savepoints) if known == name]
        if not places:
            raise NoSavepoint(f'savepoint "{name}" does not exist')
        if statement.command == "release":
            del self._savepoints[places[-1] :]
            return Result("RELEASE")
        self._parameters.restore(self._savepoints[places[-1]][1])
        del self._savepoints[places[-1] + 1 :]
        self.status = b"T"
        return Result("ROLLBACK")

    def _discard(self, statement: Discard) -> Result:
        if statement.everything:
            if self.status != b"I":
                raise InTransaction("DISCARD ALL cannot run inside a transaction block")
            self._parameters.reset(None)
            self._entry.application_name = self._parameters.application_name
        if statement.everything or statement.tag.startswith("DEALLOCATE"):
            self.forget_statements(statement.name)
        return Result(statement.tag)


def _unsupported(statement: Unsupported) -> WalsenderError:
    first = statement.tag.partition(" ")[0]
    if first in {
        "EXPLAIN",
        "DECLARE",
        "FETCH",
        "MOVE",
        "PREPARE",
        "EXECUTE",
        "COPY",
        "CALL",
        "DO",
        "LOAD",
        "SET",
    }:
        return FeatureNotSupported(
            f"{statement.tag} is not supported by the console of walsender",
            hint="See SHOW ALL, pg_settings." if first == "SET" else None,
        )
    if first in {"LISTEN", "NOTIFY", "VACUUM", "ANALYZE", "CHECKPOINT", "CLUSTER", "REINDEX", "LOCK"}:
        return ReadOnly(f"cannot execute {statement.tag} during recovery")
    return ReadOnly(f"cannot execute {statement.tag} in a read-only transaction")


def _show_columns(statement: Show) -> tuple[Column, ...]:
    names = ("name", "setting", "description") if statement.name == "all" else (statement.name,)
    return tuple(Column(name, text_type()) for name in names)
