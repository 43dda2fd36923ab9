"""The settings of the log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from walsender.errors import ConfigurationError

from .setting import Setting
from .values import Assignment, Boolean, Enumeration, String

LEVELS: Final = (
    *("debug5", "debug4", "debug3", "debug2", "debug1", "info", "notice"),
    *("warning", "error", "log", "fatal", "panic"),
)
"""
Of messages, from what is rarely wanted to what always is; ``log`` is what an administrator should know.

Source: PostgreSQL's documentation, "When to Log", and src/include/utils/elog.h.
"""

_ASPECTS: Final = ("receipt", "authentication", "authorization")


@dataclass(frozen=True, slots=True)
class Aspects:
    """
    What of a connection is logged; a ``tuple`` of words.

    Source: PostgreSQL 18, src/backend/tcop/backend_startup.c, validate_log_connections_options.
    """

    @property
    def values(self) -> str:
        """The possible values, for the reference."""
        return "`on`, `off`, `all`, list of " + ", ".join(f"`{word}`" for word in _ASPECTS)

    def parse(self, given: Assignment) -> tuple[str, ...]:
        """Return the words, in their order."""
        words = [word.strip().lower() for word in given.text.split(",")] if given.text.strip() else []
        if not words or words == ["all"]:
            return _ASPECTS if words else ()
        if set(words) <= set(_ASPECTS):
            return tuple(word for word in _ASPECTS if word in words)
        try:
            return _ASPECTS if Boolean().parse(given) else ()
        except ConfigurationError as error:
            text = f"Available values: on, off, all, or a list of {', '.join(_ASPECTS)}."
            raise given.invalid(text) from error


LOG_SETTINGS: Final = (
    Setting(
        "log_destination",
        Enumeration(("stderr", "jsonlog")),
        "FORM",
        "stderr: lines of text; jsonlog: JSON; where to is said to twistd (--logfile, --syslog)",
        "stderr",
    ),
    Setting(
        "log_line_prefix",
        String(),
        "PREFIX",
        "what stands before each line of text, with PostgreSQL's %-escapes",
        "%m [%p] %q%u@%h %a ",
    ),
    Setting(
        "log_min_messages",
        Enumeration(LEVELS),
        "LEVEL",
        "the lowest level of messages that are logged",
        "warning",
    ),
    Setting(
        "log_min_error_statement",
        Enumeration(LEVELS),
        "LEVEL",
        "from which level on an error is logged with the statement or command that caused it",
        "error",
    ),
    Setting(
        "log_connections",
        Aspects(),
        "WORDS",
        "what of each new connection is logged: on, off, or of receipt, authentication, authorization",
        "off",
    ),
    Setting(
        "log_disconnections",
        Boolean(),
        "on|off",
        "log the end of each session, and how long it was",
        "off",
    ),
    Setting(
        "log_replication_commands",
        Boolean(),
        "on|off",
        "log each replication command",
        "off",
    ),
)
