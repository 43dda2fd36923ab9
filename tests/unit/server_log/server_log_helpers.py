"""What the tests of the log share: a place that keeps lines, and somebody to tell of."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from twisted.logger import Logger, LogPublisher

from walsender.server_log import ServerLog

if TYPE_CHECKING:
    from collections.abc import Sequence

#: 2026-11-23 05:00:00.250 UTC
NOW = 1795410000.25


@dataclass
class Kept:
    """A place that keeps what is written, each message with its level."""

    keeps_time: bool = False
    written: list[tuple[str, list[str]]] = field(default_factory=list)

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """See `walsender.server_log.ILogPlace`."""
        self.written.append((severity, list(lines)))

    @property
    def lines(self) -> list[str]:
        """All lines."""
        return [line for _, lines in self.written for line in lines]


@dataclass
class Somebody:
    """A client to tell of."""

    process_id: int = 7
    user: str | None = "replicator"
    database: str | None = ""
    application_name: str | None = "standby1"
    host: str = "192.0.2.1"
    port: int = 40112
    started_at: float = NOW - 60
    backend_type: str = "walsender"

    def __str__(self) -> str:
        """As other observers see it."""
        return "192.0.2.1:40112"


def logging_to(place: Kept, **more: str) -> tuple[Logger, ServerLog]:
    """Return a logger whose events go, by a log of ours, to *place*."""
    log = ServerLog(place)
    options = {"destination": "stderr", "line_prefix": "", "min_messages": "warning", **more}
    log.configure(**options)  # type: ignore[arg-type]
    return Logger("walsender.test", observer=LogPublisher(log)), log
