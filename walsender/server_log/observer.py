"""`ServerLog`: the observer that makes lines of events."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from twisted.logger import ILogObserver
from zope.interface import implementer

from .forms import json_lines, text_lines
from .levels import is_logged, severity_of
from .line_prefix import LinePrefix
from .record import Record

if TYPE_CHECKING:
    from .places import ILogPlace


@implementer(ILogObserver)
class ServerLog:
    """
    Writes what happens, as PostgreSQL would.

    :param place: where to.
    """

    def __init__(self, place: ILogPlace) -> None:
        self._place = place
        self._minimum = "WARNING"
        self._minimum_with_statement = "ERROR"
        self._prefix: LinePrefix | None = LinePrefix("")

    def configure(
        self,
        *,
        destination: str,
        line_prefix: str,
        min_messages: str,
        min_error_statement: str = "error",
        asked_for: bool = True,
    ) -> None:
        """
        Write so from now on.

        :param destination: ``jsonlog`` or ``stderr``.
        :param min_messages: the lowest level that is written.
        :param min_error_statement: the lowest with which the statement is written that it is about.
        :param asked_for: the prefix stays as it is; otherwise it has no time where the place keeps it.
        """
        self._minimum = min_messages
        self._minimum_with_statement = min_error_statement
        if self._place.keeps_time and not asked_for:
            line_prefix = line_prefix.removeprefix("%m ")
        self._prefix = None if destination == "jsonlog" else LinePrefix(line_prefix)

    def __call__(self, event: dict[str, Any]) -> None:
        """See `ILogObserver`."""
        severity = severity_of(event)
        if not is_logged(severity, self._minimum):
            return
        record = Record.of(event, severity)
        if not is_logged(severity, self._minimum_with_statement):
            record = replace(record, statement=None)
        lines = json_lines(record) if self._prefix is None else text_lines(record, self._prefix)
        self._place.write(severity, lines)
