"""
The run-time parameters of one connection: what it may set, what the greeting reports, what SHOW shows.

A walsender has no server behind it, so most of these are constants that
clients have come to read; the rest are facts about the WAL.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from walsender.errors import (
    ConfigurationError,
    InvalidStartupParameter,
    UnrecognizedParameter,
    UnrecognizedStartupParameter,
)
from walsender.settings.values import Assignment, Duration
from walsender.wire import clean_application_name

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from walsender.source import IWalSource
    from walsender.wire.dialect import Dialect

# Source: PostgreSQL, src/common/encnames.c, without what separates words.
_ENCODINGS: Final = frozenset(
    [
        "abc",
        "alt",
        "big5",
        "euccn",
        "eucjis2004",
        "eucjp",
        "euckr",
        "euctw",
        "gb18030",
        "gbk",
        "iso88591",
        "iso885910",
        "iso885913",
        "iso885914",
        "iso885915",
        "iso885916",
        "iso88592",
        "iso88593",
        "iso88594",
        "iso88595",
        "iso88596",
        "iso88597",
        "iso88598",
        "iso88599",
        "johab",
        "koi8",
        "koi8r",
        "koi8u",
        "latin1",
        "latin10",
        "latin2",
        "latin3",
        "latin4",
        "latin5",
        "latin6",
        "latin7",
        "latin8",
        "latin9",
        "mskanji",
        "muleinternal",
        "shiftjis",
        "shiftjis2004",
        "sjis",
        "sqlascii",
        "tcvn",
        "tcvn5712",
        "uhc",
        "unicode",
        "utf8",
        "vscii",
        "win",
        "win1250",
        "win1251",
        "win1252",
        "win1253",
        "win1254",
        "win1255",
        "win1256",
        "win1257",
        "win1258",
        "win866",
        "win874",
        "win932",
        "win936",
        "win949",
        "win950",
        "windows1250",
        "windows1251",
        "windows1252",
        "windows1253",
        "windows1254",
        "windows1255",
        "windows1256",
        "windows1257",
        "windows1258",
        "windows866",
        "windows874",
        "windows932",
        "windows936",
        "windows949",
        "windows950",
    ]
)

# Names that the client library itself or a pooler's habit may put into a start-up
# packet and that change nothing here.
_ACCEPTED: Final = (
    "DateStyle", "IntervalStyle", "TimeZone", "default_transaction_read_only", "extra_float_digits",
    "idle_session_timeout", "lock_timeout", "search_path", "standard_conforming_strings", "statement_timeout",
)  # fmt: skip

_NOT_PARAMETERS: Final = frozenset({"user", "database", "replication", "options"})


def server_version_text(version: int) -> str:
    """Return 180000 as ``18.0`` and 90600 as ``9.6.0``: clients compare majors only."""
    if version >= 100000:
        return f"{version // 10000}.0"
    return f"{version // 10000}.{version // 100 % 100}.0"


def size_text(size: int) -> str:
    """Return a size in bytes as SHOW prints it: ``16MB``, ``1GB``; pg_receivewal reads no other unit."""
    return f"{size >> 30}GB" if size >= 1 << 30 else f"{size >> 20}MB"


def duration_text(seconds: float) -> str:
    """Return a time as SHOW prints it, in the largest unit that divides it: ``1min``, ``200ms``, ``0``."""
    milliseconds = round(seconds * 1000)
    for unit, factor in (("d", 86_400_000), ("h", 3_600_000), ("min", 60_000), ("s", 1000)):
        if milliseconds and milliseconds % factor == 0:
            return f"{milliseconds // factor}{unit}"
    return f"{milliseconds}ms" if milliseconds else "0"


class SessionParameters:
    """
    The parameters of one connection.

    :param source: where facts about the WAL come from; it is *ready*.
    :param wal_sender_timeout: the server's, in seconds; the client may choose its own.
    :ivar wal_sender_timeout: what holds for this connection, in seconds.
    """

    def __init__(
        self, dialect: Dialect, source: IWalSource, user: str, max_wal_senders: int, wal_sender_timeout: float
    ) -> None:
        self._dialect = dialect
        self._source = source
        self._max_wal_senders = max_wal_senders
        self.wal_sender_timeout = wal_sender_timeout
        modern = dialect.copy_both
        self._values: dict[str, str] = {
            "application_name": "",
            "client_encoding": "SQL_ASCII",
            "DateStyle": "ISO, MDY",
            "default_transaction_read_only": "off",
            "extra_float_digits": "1",
            "idle_session_timeout": "0",
            "in_hot_standby": "on",
            "integer_datetimes": "on",
            "IntervalStyle": "postgres",
            # Until 9.1 a walsender let in superusers only.
            "is_superuser": "off" if modern else "on",
            "lock_timeout": "0",
            "scram_iterations": "4096",
            "search_path": '"$user", public',
            "server_encoding": "SQL_ASCII",
            "server_version": server_version_text(dialect.version),
            "server_version_num": str(dialect.version),
            "session_authorization": user,
            # Off was the default until 9.1.
            "standard_conforming_strings": "on" if modern else "off",
            "statement_timeout": "0",
            "TimeZone": "UTC",
            "transaction_read_only": "on",
        }
        self._facts: dict[str, Callable[[], str]] = {
            "data_directory_mode": lambda: f"{source.directory_mode:04o}",
            "max_wal_senders": lambda: str(self._max_wal_senders),
            "wal_block_size": lambda: str(source.geometry.page_size),
            "wal_segment_size": lambda: size_text(source.geometry.segment_size),
            "wal_sender_timeout": lambda: duration_text(self.wal_sender_timeout),
        }
        self._canonical = {name.lower(): name for name in (*self._values, *self._facts)}

    @property
    def application_name(self) -> str:
        """As the client gave it, cleaned."""
        return self._values["application_name"]

    @property
    def reported(self) -> Mapping[str, str]:
        """The values that a greeting may report."""
        return self._values

    def set(self, name: str, value: str) -> None:
        """
        Set what the start-up packet asks for.

        :raises UnrecognizedStartupParameter: there is no parameter *name*.
        :raises InvalidStartupParameter: it cannot have that value, or cannot be set.

        Texts: PostgreSQL, src/backend/utils/misc/guc.c.
        """
        if name in _NOT_PARAMETERS:
            return
        canonical = self._canonical.get(name.lower())
        if canonical is None:
            raise UnrecognizedStartupParameter(f'unrecognized configuration parameter "{name}"')
        if canonical == "application_name":
            value = clean_application_name(value, self._dialect.version)
        elif canonical == "client_encoding":
            if re.sub("[^0-9a-z]", "", value.lower()) not in _ENCODINGS:
                raise InvalidStartupParameter(f'invalid value for parameter "client_encoding": "{value}"')
        elif canonical == "wal_sender_timeout":
            self.wal_sender_timeout = self._duration(name, value)
            return
        elif canonical not in _ACCEPTED:
            raise InvalidStartupParameter(f'parameter "{canonical}" cannot be changed')
        self._values[canonical] = value

    def show(self, name: str) -> tuple[str, str]:
        """
        Return the canonical name of a parameter and its value.

        :raises UnrecognizedParameter: there is none of that name.
        """
        canonical = self._canonical.get(name.lower())
        if canonical is None:
            raise UnrecognizedParameter(f'unrecognized configuration parameter "{name}"')
        fact = self._facts.get(canonical)
        return canonical, fact() if fact is not None else self._values[canonical]

    def show_all(self) -> list[tuple[str, str, str]]:
        """Return name, value and an empty description of every parameter, by name."""
        return [(*self.show(name), "") for name in sorted(self._canonical)]

    @staticmethod
    def _duration(name: str, value: str) -> float:
        try:
            return Duration(0, (1 << 31) - 1).parse(Assignment(name, value, "the start-up packet", ""))
        except ConfigurationError as error:
            raise InvalidStartupParameter(error.message, hint=error.hint) from None
