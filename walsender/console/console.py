"""`Console`: makes a session for each client that wants SQL, and holds what they share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, DeferredLock

from walsender.errors import TooManyConnections

from .actions import Actions
from .phase import ConsolePhase
from .snapshot import ServerView, Snapshot, take
from .statements import Statements

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.console.actions import IConnections
    from walsender.sender.parameters import SessionParameters
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.wire.dialect import Dialect

    from .phase import IPhaseHost

MAX_SESSIONS: Final = 20
"""How many clients of the console there may be at once; they are beside those of ``max_wal_senders``."""


class Console:
    """
    All sessions of one server.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param now: seconds since 1970.
    :param reload: reads the configuration again; ``None``: nobody can.
    """

    def __init__(
        self,
        view: ServerView,
        connections: IConnections,
        run_in_thread: Callable[..., Deferred[Any]],
        now: Callable[[], float],
        reload: Callable[[], object] | None = None,
    ) -> None:
        self._view = view
        self._connections = connections
        self._run_in_thread = run_in_thread
        self._now = now
        self._reload = reload
        self._sessions: dict[WalSenderEntry, Statements] = {}
        # One statement at a time: they share one interpreter with everybody else, and never all its threads.
        self._turn = DeferredLock()

    def check_room(self) -> None:
        """
        Check that one more client can have a session.

        :raises TooManyConnections: there are too many.
        """
        if len(self._sessions) >= MAX_SESSIONS:
            raise TooManyConnections("sorry, too many clients already")

    def session(
        self,
        host: IPhaseHost,
        dialect: Dialect,
        parameters: SessionParameters,
        entry: WalSenderEntry,
        database: str,
        server_address: tuple[str | None, int | None],
        *,
        may_administer: bool,
    ) -> ConsolePhase:
        """Return the session of a client that has been let in."""
        actions = Actions(
            entry,
            parameters,
            self._view.source,
            self._view.slots,
            self._connections,
            may_administer=may_administer,
            reload=self._reload,
            reserved_names=getattr(dialect, "reserved_slot_names", ()),
            warn=lambda *told: phase.warn(*told),  # noqa: PLW0108 (it is made below)
        )
        statements = Statements(self, actions, parameters, entry, database, server_address)
        self._sessions[entry] = statements
        phase = ConsolePhase(
            host,
            statements,
            lambda: dict(parameters.reported),
            dialect.parameters_changed,
            self._now,
            lambda: self._sessions.pop(entry, None),
        )
        return phase

    # walsender.console.statements.IServer

    def snapshot(self) -> Snapshot:
        """Return the server as it is now."""
        return take(self._view, self._now(), [one.activity for one in self._sessions.values()])

    def run(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Call a function in a thread, after those of other sessions."""
        return self._turn.run(self._run_in_thread, function, *arguments)
