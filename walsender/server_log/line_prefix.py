"""
``log_line_prefix``: what stands before each line.

Source: PostgreSQL, src/backend/utils/error/elog.c, log_status_format.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Final

from walsender.wire import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .record import ILogSession, Record

_ESCAPE: Final = re.compile(r"%(-?[0-9]*)(.?)", re.DOTALL)
_UNKNOWN: Final = "[unknown]"
_STARTED_AT: Final = time.time()


def timestamp(seconds: float, *, milliseconds: bool = True) -> str:
    """Return a time as PostgreSQL's log has it, in the time zone of the environment."""
    local = time.localtime(seconds)
    fraction = f".{int(seconds % 1 * 1000):03}" if milliseconds else ""
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}{fraction} {local.tm_zone}"


def session_id(session: ILogSession | None) -> str:
    """Return what no other session has, one of before a restart neither."""
    if session is None:
        return f"{int(_STARTED_AT):x}.{os.getpid():x}"
    return f"{int(session.started_at):x}.{session.process_id:x}"


def _remote(session: ILogSession) -> str:
    return f"{session.host}({session.port})" if session.port >= 0 else session.host


def _name(name: str | None) -> str:
    return printable(name) if name else _UNKNOWN


# Of a message; and of the session that it is about, nothing without one.
_OF_RECORD: Final[dict[str, Callable[[Record], str]]] = {
    "m": lambda record: timestamp(record.time),
    "t": lambda record: timestamp(record.time, milliseconds=False),
    "n": lambda record: f"{record.time:.3f}",
    "p": lambda record: str(os.getpid() if record.session is None else record.session.process_id),
    "b": lambda record: backend_type(record.session),
    "c": lambda record: session_id(record.session),
    "s": lambda record: timestamp(
        _STARTED_AT if record.session is None else record.session.started_at, milliseconds=False
    ),
    "e": lambda record: record.sqlstate or "00000",
    "%": lambda _: "%",
}
_OF_SESSION: Final[dict[str, Callable[[ILogSession], str]]] = {
    "u": lambda session: _name(session.user),
    "d": lambda session: _name(session.database),
    "a": lambda session: _name(session.application_name),
    "r": _remote,
    "h": lambda session: session.host,
}


def backend_type(session: ILogSession | None) -> str:
    """Return who says it, as ``pg_stat_activity`` would name it."""
    return "postmaster" if session is None else session.backend_type


class LinePrefix:
    """
    A prefix that is to be filled in.

    :param text: as PostgreSQL takes it: ``%m``, ``%-10u``; what is not known gives nothing.
    """

    def __init__(self, text: str) -> None:
        self._parts: list[tuple[str, str, int]] = []
        end = 0
        for match in _ESCAPE.finditer(text):
            width = int(match[1]) if match[1] not in {"", "-"} else 0
            self._parts.append((text[end : match.start()], match[2], width))
            end = match.end()
        self._rest = text[end:]

    def fill(self, record: Record) -> str:
        """Return what stands before *record*."""
        filled = []
        for literal, letter, width in self._parts:
            filled.append(literal)
            if letter == "q":
                if record.session is None:
                    return "".join(filled)
                continue
            value = ""
            if letter in _OF_RECORD:
                value = _OF_RECORD[letter](record)
            elif record.session is not None and letter in _OF_SESSION:
                value = _OF_SESSION[letter](record.session)
            elif letter not in _OF_SESSION:
                continue  # PostgreSQL ignores it too
            filled.append(value.ljust(-width) if width < 0 else value.rjust(width))
        return "".join(filled) + self._rest
