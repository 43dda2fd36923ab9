"""
The few statements of SQL that clients send on any connection, whatever it is for.

PostgreSQL refuses all SQL on a connection for physical replication.  Drivers and
pools that know nothing of replication set parameters first all the same, and libpq
asks servers before 14 whether they are in recovery when it looks for a standby; those are
understood, in the forms that they send, and nothing else.  This is no parser of SQL.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias

from walsender.wire.body import decode_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.wire.reports import NoticeResponse

# Possessive repeats (+ behind the repeat): nothing is tried twice, so that no text takes
# more than linear time.
_WORD: Final = rb"[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*+"
_STRING: Final = rb"'(?:[^']|'')*+'"
_VALUE: Final = rb"(?:%b|\"[^\"]++\"|%b|[+-]?[0-9.]++)" % (_STRING, _WORD)
_END: Final = rb"\s*+;?\s*+\Z"

_SET: Final = re.compile(
    rb"\s*+SET\s++(?:SESSION\s++)?(?P<name>%b)\s*+(?:=|TO(?=[\s'\"]))\s*+(?P<values>%b(?:\s*+,\s*+%b)*+)%b"
    % (_WORD, _VALUE, _VALUE, _END),
    re.IGNORECASE,
)
_ONE_VALUE: Final = re.compile(_VALUE)
_RESET: Final = re.compile(rb"\s*+RESET\s++(?P<name>%b)%b" % (_WORD, _END), re.IGNORECASE)
_SET_CONFIG: Final = re.compile(
    rb"\s*+SELECT\s++(?:pg_catalog\.)?set_config\s*+\(\s*+(?P<name>%b)\s*+,\s*+(?P<value>%b)"
    rb"\s*+,\s*+'?(?P<local>true|false|t|f)'?\s*+\)%b" % (_STRING, _STRING, _END),
    re.IGNORECASE,
)
_IN_RECOVERY: Final = re.compile(
    rb"\s*+SELECT\s++(?:pg_catalog\.)?pg_is_in_recovery\s*+\(\s*+\)%b" % _END, re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class SetParameter:
    """
    ``SET name TO value [, …]``, also with ``=``.

    :ivar values: as written, without quotes; a bare word is in lower case.
    """

    keyword: ClassVar[str] = "SET"
    name: str
    values: tuple[str, ...]
    notices: tuple[NoticeResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class ResetParameter:
    """
    ``RESET name``, ``RESET ALL``, or ``SET name TO DEFAULT``.

    :ivar name: ``None``: all that the client may set.
    """

    keyword: ClassVar[str] = "RESET"
    name: str | None
    tag: str = "RESET"
    notices: tuple[NoticeResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectSetConfig:
    """
    ``SELECT pg_catalog.set_config('name', 'value', is_local)``.

    :ivar local: for the transaction only, which ends with the statement.
    """

    keyword: ClassVar[str] = "SELECT"
    name: str
    value: str
    local: bool
    notices: tuple[NoticeResponse, ...] = ()


@dataclass(frozen=True, slots=True)
class SelectIsInRecovery:
    """``SELECT pg_catalog.pg_is_in_recovery()``."""

    keyword: ClassVar[str] = "SELECT"
    notices: tuple[NoticeResponse, ...] = ()


SessionStatement: TypeAlias = SetParameter | ResetParameter | SelectSetConfig | SelectIsInRecovery


def _unquoted(value: bytes) -> str:
    if value.startswith((b"'", b'"')):
        return decode_text(value[1:-1].replace(b"''", b"'") if value.startswith(b"'") else value[1:-1])
    return decode_text(value.lower())


def _set(match: re.Match[bytes]) -> SessionStatement:
    name = decode_text(match["name"])
    values = _ONE_VALUE.findall(match["values"])
    if len(values) == 1 and values[0].lower() == b"default":
        return ResetParameter(name, "SET")
    return SetParameter(name, tuple(map(_unquoted, values)))


def _reset(match: re.Match[bytes]) -> SessionStatement:
    name = decode_text(match["name"])
    return ResetParameter(None if name.lower() == "all" else name)


def _set_config(match: re.Match[bytes]) -> SessionStatement:
    local = match["local"][:1] in b"tT"
    return SelectSetConfig(_unquoted(match["name"]), _unquoted(match["value"]), local)


_STATEMENTS: Final[tuple[tuple[re.Pattern[bytes], Callable[[re.Match[bytes]], SessionStatement]], ...]] = (
    (_SET, _set),
    (_RESET, _reset),
    (_SET_CONFIG, _set_config),
    (_IN_RECOVERY, lambda _: SelectIsInRecovery()),
)


def parse_session_statement(text: bytes) -> SessionStatement | None:
    """Return the statement that *text* is; ``None``: none of those that are understood here."""
    for pattern, make in _STATEMENTS:
        match = pattern.match(text)
        if match is not None:
            return make(match)
    return None
