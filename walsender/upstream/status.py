"""What a receiver does at the moment, for who wants to show it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from walsender.lsn import LSN


@dataclass(frozen=True, slots=True)
class ReceiverStatus:
    """
    A stream from the upstream; times are seconds since 1970.

    :ivar start_lsn: where the stream began.
    :ivar written_lsn: end of what has come.
    :ivar flushed_lsn: end of what is durable of it.
    :ivar sent_at: when the upstream sent its last message, by its clock; ``None`` before the first.
    :ivar received_at: when that came.
    :ivar upstream_end: up to where the upstream had WAL then.
    :ivar slot_name: empty: it uses none.
    :ivar upstream: where it leads, ``host=… port=…``.
    """

    timeline: int
    start_lsn: LSN
    written_lsn: LSN
    flushed_lsn: LSN
    sent_at: float | None
    received_at: float | None
    upstream_end: LSN
    slot_name: str
    upstream: str

    @property
    def upstream_address(self) -> dict[str, str]:
        """The parts of *upstream*: ``host`` and ``port``, as far as they are known."""
        return dict(part.partition("=")[::2] for part in self.upstream.split())

    @property
    def lag(self) -> int:
        """How much of the upstream's WAL is not durable here, in bytes."""
        return max(0, self.upstream_end - self.flushed_lsn)


@dataclass(frozen=True, slots=True)
class NotReceiving:
    """
    That nothing comes from the upstream.

    :ivar since: when that began, in seconds since 1970.
    :ivar error: what has gone wrong last, in one line; empty: nothing yet.
    """

    since: float
    error: str = ""
