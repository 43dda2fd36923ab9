"""
The run-time parameters of one connection: what it may set, what the greeting reports, what SHOW shows.

A walsender has no server behind it, so most of these are constants that
clients have come to read; the rest are facts about the WAL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from walsender.errors import InvalidParameterValue, UnrecognizedParameter
from walsender.sender.parameter_table import PARAMETERS, Parameter, duration_text, seconds
from walsender.settings.values import quoted_element
from walsender.wire import clean_application_name, truncation_notice

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from walsender.source import IWalSource
    from walsender.wire import NoticeResponse
    from walsender.wire.dialect import Dialect

_PARAMETERS: Final = {parameter.name.lower(): parameter for parameter in PARAMETERS}

_NOT_PARAMETERS: Final = frozenset({"user", "database", "replication", "options"})

_PLAIN_NAME: Final = re.compile("[a-z_][a-z0-9_$]*")


def server_version_text(version: int) -> str:
    """Return 180000 as ``18.0`` and 90600 as ``9.6.0``: clients compare majors only."""
    if version >= 100000:
        return f"{version // 10000}.0"
    return f"{version // 10000}.{version // 100 % 100}.0"


def size_text(size: int) -> str:
    """Return a size in bytes as SHOW prints it: ``16MB``, ``1GB``; pg_receivewal reads no other unit."""
    return f"{size >> 30}GB" if size >= 1 << 30 else f"{size >> 20}MB"


def _find(name: str) -> Parameter:
    parameter = _PARAMETERS.get(name.lower())
    if parameter is None:
        raise UnrecognizedParameter(f'unrecognized configuration parameter "{name}"')
    return parameter


class SessionParameters:
    """
    The parameters of one connection.

    :param source: where facts about the WAL come from; it is *ready*.
    :param wal_sender_timeout: in seconds, until the client sets its own.
    :param encoding: of texts; that of a walsender says that it does not know.
    """

    def __init__(
        self,
        dialect: Dialect,
        source: IWalSource,
        user: str,
        *,
        max_wal_senders: int,
        max_replication_slots: int,
        wal_sender_timeout: float,
        encoding: str = "SQL_ASCII",
    ) -> None:
        self._dialect = dialect
        modern = dialect.copy_both
        self._values: dict[str, str] = {
            parameter.name: parameter.value for parameter in PARAMETERS if parameter.value is not None
        } | {
            "client_encoding": encoding,
            "server_encoding": encoding,
            "data_directory_mode": f"{source.directory_mode:04o}",
            # Until 9.1 a walsender let in superusers only.
            "is_superuser": "off" if modern else "on",
            "max_replication_slots": str(max_replication_slots),
            "max_wal_senders": str(max_wal_senders),
            "server_version": server_version_text(dialect.version),
            "server_version_num": str(dialect.version),
            "session_authorization": user,
            # Off was the default until 9.1.
            "standard_conforming_strings": "on" if modern else "off",
            "wal_block_size": str(source.geometry.page_size),
            "wal_segment_size": size_text(source.geometry.segment_size),
            "wal_sender_timeout": duration_text(wal_sender_timeout),
        }
        self._at_start = dict(self._values)

    @property
    def application_name(self) -> str:
        """As the client gave it, cleaned."""
        return self._values["application_name"]

    @property
    def wal_sender_timeout(self) -> float:
        """What holds for this connection, in seconds; 0 disables."""
        return seconds("wal_sender_timeout", self._values["wal_sender_timeout"])

    @property
    def reported(self) -> Mapping[str, str]:
        """The values that ParameterStatus may report."""
        return self._values

    def set(self, name: str, value: str) -> NoticeResponse | None:
        """
        Set a parameter; return what the client is told about it besides.

        :raises walsender.errors.WalsenderError: there is no such parameter, it cannot have that value,
            or a client may not set it.

        Texts: PostgreSQL, src/backend/utils/misc/guc.c.
        """
        parameter = _find(name)
        parsed = parameter.parsed(value, self._values.get(parameter.name, ""))
        notice = None
        if parameter.name == "application_name":
            notice = truncation_notice(parsed)
            parsed = clean_application_name(parsed, self._dialect.version)
        self._values[parameter.name] = parsed
        return notice

    def set_list(self, name: str, values: Sequence[str]) -> NoticeResponse | None:
        """
        Set a parameter as ``SET name TO value, …`` does.

        :raises walsender.errors.WalsenderError: as `set`, or there is more than one value and may not be.
        """
        parameter = _find(name)
        if parameter.name == "search_path":
            values = [value if _PLAIN_NAME.fullmatch(value) else quoted_element(value) for value in values]
        elif len(values) > 1 and not parameter.is_list:
            raise InvalidParameterValue(f"SET {name} takes only one argument")
        return self.set(name, ", ".join(values))

    def set_at_start(self, name: str, value: str) -> NoticeResponse | None:
        """Set what a start-up packet asks for; RESET comes back to it."""
        if name in _NOT_PARAMETERS:
            return None
        notice = self.set(name, value)
        self._at_start = dict(self._values)
        return notice

    def reset(self, name: str | None) -> None:
        """
        Undo what has been set since the start-up packet.

        :param name: ``None``: of all parameters.
        :raises walsender.errors.WalsenderError: there is no such parameter, or a client may not set it.
        """
        if name is None:
            self._values = dict(self._at_start)
            return
        parameter = _find(name)
        parameter.check_settable()
        self._values[parameter.name] = self._at_start[parameter.name]

    def restore(self, values: Mapping[str, str]) -> None:
        """Take all values back to *values*, which `reported` gave earlier."""
        self._values = dict(values)

    def show(self, name: str) -> tuple[str, str]:
        """
        Return the canonical name of a parameter and its value.

        :raises walsender.errors.WalsenderError: there is none of that name, or it is not shown.
        """
        parameter = _find(name)
        value = self._values.get(parameter.name)
        if value is None:
            raise parameter.may_not_be_shown()
        return parameter.name, value

    def show_all(self) -> list[tuple[str, str, str]]:
        """Return name, value and an empty description of every parameter, by name."""
        return [(name, self._values[name], "") for name in sorted(self._values, key=str.lower)]
