"""`Record`: what one event of Twisted's says, in PostgreSQL's terms."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from twisted.logger import formatEvent

from walsender.wire import printable

if TYPE_CHECKING:
    from collections.abc import Mapping


class ILogSession(Protocol):
    """Whom a message is about."""

    @property
    def process_id(self) -> int:
        """As ``pg_stat_replication`` shows it, and `pg_terminate_backend` takes it."""

    @property
    def user(self) -> str | None:
        """The role; ``None``: not known yet."""

    @property
    def database(self) -> str | None:
        """Of a client that wants SQL; empty: it wants replication; ``None``: not known yet."""

    @property
    def application_name(self) -> str | None:
        """As the client gives it; ``None``: not known yet."""

    @property
    def host(self) -> str:
        """Its numeric address, or ``[local]``."""

    @property
    def port(self) -> int:
        """Its port; -1 at a unix socket."""

    @property
    def started_at(self) -> float:
        """When it connected, in seconds since 1970."""

    @property
    def backend_type(self) -> str:
        """As ``pg_stat_activity.backend_type``."""


@dataclass(frozen=True, slots=True)
class Record:
    """
    One message.

    :ivar time: seconds since 1970.
    :ivar severity: PostgreSQL's level, in capitals.
    :ivar message: one line; as *detail* and *hint* without control characters.
    :ivar context: a traceback, of several lines; ``None``: there is none, as it should be.
    :ivar statement: what the client has asked for, perhaps of several lines.
    :ivar position: of the character in it that is to blame, counted from 1; 0: none.
    """

    time: float
    severity: str
    message: str
    session: ILogSession | None = None
    sqlstate: str | None = None
    detail: str | None = None
    hint: str | None = None
    context: str | None = None
    statement: str | None = None
    position: int = 0

    @classmethod
    def of(cls, event: Mapping[str, Any], severity: str) -> Record:
        """Return what *event* says."""
        failure = event.get("log_failure")
        return cls(
            event.get("log_time") or time.time(),
            severity,
            printable(_message(event)),
            event.get("session"),
            event.get("sqlstate") or ("XX000" if failure is not None else None),
            _line(event.get("detail")),
            _line(event.get("hint")),
            None if failure is None else failure.getTraceback().rstrip("\n"),
            "\n".join(map(printable, (event.get("statement") or "").split("\n"))) or None,
            event.get("position") or 0,
        )


def _line(text: object) -> str | None:
    return printable(str(text)) if text else None


def _message(event: Mapping[str, Any]) -> str:
    """Return the text without what the prefix, and lines of their own, have."""
    form = event.get("log_format")
    if isinstance(form, str):
        if "session" in event:
            form = form.removeprefix("{session} ").removeprefix("{severity}: ")
        event = {**event, "log_format": form.removesuffix("{more}")}
    text = formatEvent(dict(event))
    failure = event.get("log_failure")
    return text or ("unhandled error" if failure is None else str(failure.value))
