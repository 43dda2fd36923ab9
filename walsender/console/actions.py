"""
What the console can be told to do, by PostgreSQL's functions for it, and who may tell it.

All of it happens in the reactor's thread, once for each call.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from walsender.console.errors import InsufficientRight, NullNotAllowed
from walsender.console.functions import CANCEL, CREATE_SLOT, DROP_SLOT, RELOAD, SET_CONFIG, TERMINATE
from walsender.lsn import INVALID_LSN
from walsender.sender.commands import reserved_from
from walsender.sender.parameter_table import PARAMETERS, seconds
from walsender.settings.description import SettingDescription

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from walsender.replication_slots import ReplicationSlots
    from walsender.sender.parameters import SessionParameters
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.source import IWalSource
    from walsender.sql import Action

_INTERNAL: Final = frozenset(one.name for one in PARAMETERS if one.parse is None)


class IConnections(Protocol):
    """Those who are connected."""

    def terminate(self, process_id: int) -> bool:
        """End a connection; return whether there is one of that number."""

    def cancel_query(self, process_id: int) -> bool:
        """End what is done for a client; return whether there is one of that number."""


class Actions:
    """
    What one session may do.

    :param may_administer: whether it may act at all.
    :param reload: reads the configuration again; ``None``: nobody can.
    :param reserved_names: which names of slots the server keeps for itself.
    """

    def __init__(
        self,
        entry: WalSenderEntry,
        parameters: SessionParameters,
        source: IWalSource,
        slots: ReplicationSlots,
        connections: IConnections,
        *,
        may_administer: bool,
        reload: Callable[[], object] | None,
        reserved_names: Sequence[str] = (),
        warn: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        self._entry = entry
        self._parameters = parameters
        self._source = source
        self._slots = slots
        self._connections = connections
        self._may_administer = may_administer
        self._reload = reload
        self._reserved_names = reserved_names
        self._warn = warn

    async def perform(self, action: Action) -> tuple[Any, ...]:
        """
        Do it, and return its result, as a row.

        :raises WalsenderError: it cannot be done, or not by this user.
        """
        name, arguments = action.function.name, action.arguments
        if name == SET_CONFIG:
            return (self._set_config(*arguments),)
        if not self._may_administer:
            raise InsufficientRight(
                f"permission denied for function {name}",
                detail="Only who may also replicate may change something here.",
            )
        if action.function.strict and None in arguments:
            return (None,) * max(1, len(action.function.columns))
        match name:
            case _ if name == CREATE_SLOT:
                return await self._create_slot(*arguments)
            case _ if name == DROP_SLOT:
                await self._slots.drop(arguments[0], self._entry.process_id)
                return ("",)
            case _ if name == RELOAD:
                if self._reload is not None:
                    self._reload()
                return (self._reload is not None,)
            case _ if name == TERMINATE:
                return (self._found(self._connections.terminate, arguments[0]),)
        assert name == CANCEL, "there is no other"
        return (self._found(self._connections.cancel_query, arguments[0]),)

    def _found(self, act: Callable[[int], bool], process_id: int) -> bool:
        found = act(process_id)
        if not found:
            self._warn("01000", f"PID {process_id} is not a PostgreSQL backend process")
        return found

    def _set_config(self, name: str | None, value: str | None, is_local: bool | None) -> str:
        if name is None:
            raise NullNotAllowed("SET requires parameter name")
        before = dict(self._parameters.reported)
        if value is None:
            self._parameters.reset(name)
        else:
            self._parameters.set(name, value)
        shown = self._parameters.show(name)[1]
        if is_local:  # until the end of the transaction, which comes with the statement
            self._parameters.restore(before)
        self._entry.application_name = self._parameters.application_name
        return shown

    async def _create_slot(
        self, name: str, reserve: bool = False, temporary: bool = False
    ) -> tuple[Any, ...]:
        restart_lsn = reserved_from(self._source) if reserve else INVALID_LSN
        await self._slots.create(
            name,
            self._entry.process_id,
            temporary=temporary,
            restart_lsn=restart_lsn,
            reserved=self._reserved_names,
        )
        return name, int(restart_lsn) or None

    # Who sees which settings

    def settings(
        self, settings: Sequence[SettingDescription], parameters: Sequence[tuple[str, str, str]]
    ) -> Iterator[SettingDescription]:
        """Give all settings that this user may see, and the session's parameters that are none of them."""
        values = {name: value for name, value, _ in parameters}
        for one in settings:
            own = values.pop(one.name, one.shown)
            if own != one.shown and one.name not in _INTERNAL:
                milliseconds = round(
                    seconds(one.name, own) * 1000
                )  # times are all that a session can set too
                yield replace(one, setting=str(milliseconds), shown=own, source="session")
            elif self._may_administer:
                yield one
            elif one.name not in _HIDDEN:
                yield replace(one, sourcefile=None, sourceline=None)
        for name, value in values.items():
            yield _of_parameter(name, value)

    def conninfo(self, conninfo: str | None) -> str | None:
        """Return what this user may see of the upstream's connection string."""
        return conninfo if self._may_administer else None


_HIDDEN: Final = frozenset(
    (
        "primary_conninfo",
        "restore_command",  # it may have a password in it
        "config_file",
        "hba_file",
        "ident_file",
        "wal_directory",
        "state_directory",
        "auth_file",
    )
)


def _of_parameter(name: str, value: str) -> SettingDescription:
    """Return a parameter of a session as ``pg_settings`` shows it."""
    vartype = "bool" if value in {"on", "off"} else "integer" if value.lstrip("-").isdecimal() else "string"
    unit, setting = None, value
    if name == "wal_segment_size":
        unit, vartype = "B", "integer"
        size = value.rstrip("MGB")
        setting = str(int(size) << (30 if value.endswith("GB") else 20))
    context = "internal" if name in _INTERNAL else "user"
    source = "default" if context == "internal" else "session"
    return SettingDescription(name, setting, value, unit, "session", "", context, vartype, source)
