"""PostgreSQL's message levels: their order in the log, and what Twisted's and syslog's are beside them."""

from __future__ import annotations

import syslog
from typing import TYPE_CHECKING, Any, Final

from twisted.logger import LogLevel

from walsender.settings.log_settings import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

_RANKS: Final = {level.upper(): rank for rank, level in enumerate(LEVELS)}

_OF_TWISTED: Final = {
    LogLevel.debug: "DEBUG1",
    LogLevel.info: "LOG",
    LogLevel.warn: "WARNING",
    LogLevel.error: "ERROR",
    LogLevel.critical: "FATAL",
}

# What Twisted says of its ports and factories is for who looks for a mistake.
_OURS: Final = ("walsender", "stdout", "stderr")

# Source: PostgreSQL, src/backend/utils/error/elog.c, send_message_to_server_log.
_PRIORITIES: Final = {
    "INFO": syslog.LOG_INFO,
    "LOG": syslog.LOG_INFO,
    "NOTICE": syslog.LOG_NOTICE,
    "WARNING": syslog.LOG_NOTICE,
    "ERROR": syslog.LOG_WARNING,
    "FATAL": syslog.LOG_ERR,
    "PANIC": syslog.LOG_CRIT,
}


def severity_of(event: Mapping[str, Any]) -> str:
    """Return PostgreSQL's level of *event*; a mistake that the program survives is an ERROR."""
    severity = event.get("severity")
    if severity in _RANKS:
        return str(severity)
    severity = _OF_TWISTED.get(event.get("log_level", LogLevel.info), "LOG")
    if severity == "FATAL" and "log_failure" in event:
        return "ERROR"
    if severity == "LOG" and not str(event.get("log_namespace")).startswith(_OURS):
        return "DEBUG1"
    return severity


def is_logged(severity: str, minimum: str) -> bool:
    """Return whether ``log_min_messages`` lets a message through; *minimum* in any case."""
    return _RANKS[severity] >= _RANKS[minimum.upper()]


def syslog_priority(severity: str) -> int:
    """Return what *severity* is to syslog and to systemd's journal, as PostgreSQL has it."""
    return _PRIORITIES.get(severity, syslog.LOG_DEBUG)
