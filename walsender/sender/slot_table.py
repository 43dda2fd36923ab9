"""
The table of walsenders: one entry per connection, shared by all, held by the factory.

What is shown of a standby anywhere is read from here and kept nowhere else.
(Not to be mixed up with replication slots, which survive their connection.)
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from walsender.errors import TooManyConnections
from walsender.lsn import INVALID_LSN, LSN

if TYPE_CHECKING:
    from collections.abc import Iterator

# States as pg_stat_replication shows them.
STARTUP: Final = "startup"
CATCHUP: Final = "catchup"
STREAMING: Final = "streaming"
STOPPING: Final = "stopping"

_MAX_PROCESS_ID: Final = (1 << 31) - 1


@dataclass(slots=True, eq=False)
class WalSenderEntry:
    """
    What is known of one walsender.

    :ivar process_id: names the connection, as a backend's pid does; unique among live ones.
    :ivar address: the client's numeric address, or ``[local]``.
    :ivar port: the client's port, or -1 for a unix socket.
    :ivar started_at: seconds since 1970, as all times here.
    :ivar state: as ``pg_stat_replication.state``.
    :ivar sent_lsn: end of what has been given to the transport; 0 before a start.
    :ivar write_lsn: as the standby reported it; likewise *flush_lsn* and *replay_lsn*.
    :ivar write_lag: seconds from when WAL was here to when the standby reported to have written it, or
        ``None``; likewise *flush_lag* and *replay_lag*.
    :ivar xmin: the oldest transaction that the standby's queries need, by hot standby feedback:
        epoch in the high half, as in a `FullTransactionId`; 0 for none.  It outlives the stream.
    :ivar catalog_xmin: the same for catalogs only.
    :ivar reply_time: the standby's clock in its last report; ``None`` before one.
    :ivar start_lsn: where the stream began; 0 before a start.
    """

    process_id: int
    address: str
    port: int
    started_at: float
    user: str = ""
    application_name: str = ""
    state: str = STARTUP
    sent_lsn: LSN = INVALID_LSN
    write_lsn: LSN = INVALID_LSN
    flush_lsn: LSN = INVALID_LSN
    replay_lsn: LSN = INVALID_LSN
    write_lag: float | None = None
    flush_lag: float | None = None
    replay_lag: float | None = None
    reply_time: float | None = None
    xmin: int = 0
    catalog_xmin: int = 0
    start_lsn: LSN = INVALID_LSN
    _sent_before: int = 0

    def __copy__(self) -> WalSenderEntry:
        """As `copy.copy`, in a sixth of its time: who looks at a thousand standbys holds up the reactor."""
        return WalSenderEntry(*_all_fields(self))

    @property
    def sent_bytes(self) -> int:
        """How much WAL the connection has been sent, by its addresses."""
        return self._sent_before + self.sent_lsn - self.start_lsn

    @property
    def activity(self) -> str:
        """What the process title says of this walsender, as PostgreSQL words it."""
        return f"streaming {self.sent_lsn}" if self.sent_lsn else self.state

    def reset(self) -> None:
        """Forget the stream that has ended."""
        self.state = STARTUP
        self._sent_before = self.sent_bytes
        self.start_lsn = self.sent_lsn = self.write_lsn = self.flush_lsn = self.replay_lsn = INVALID_LSN
        self.write_lag = self.flush_lag = self.replay_lag = None
        self.reply_time = None


_all_fields: Final = attrgetter(*(field.name for field in fields(WalSenderEntry)))


class SlotTable:
    """
    All walsenders of one server.

    :param limit: ``max_wal_senders``.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._entries: dict[int, WalSenderEntry] = {}
        self._last_process_id = 0
        self._sent_before = 0

    @property
    def sent_bytes(self) -> int:
        """How much WAL has been sent to all, those who have left too."""
        return self._sent_before + sum(entry.sent_bytes for entry in self)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[WalSenderEntry]:
        return iter(self._entries.values())

    def new_process_id(self) -> int:
        """Return an identifier that no live walsender has."""
        while True:
            self._last_process_id = self._last_process_id % _MAX_PROCESS_ID + 1
            if self._last_process_id not in self._entries:
                return self._last_process_id

    def reserve(self, entry: WalSenderEntry) -> None:
        """
        Enter *entry*.

        :raises walsender.errors.TooManyConnections: every place is taken.  The
            text is that of current servers; older dialects word it themselves.

        Source: PostgreSQL, src/backend/storage/lmgr/proc.c, InitProcess.
        """
        if len(self._entries) >= self.limit:
            raise TooManyConnections(
                f'number of requested standby connections exceeds "max_wal_senders" (currently {self.limit})'
            )
        self._entries[entry.process_id] = entry

    def free(self, entry: WalSenderEntry) -> None:
        """Give the place back; harmless when it is not held."""
        if self._entries.get(entry.process_id) is entry:
            del self._entries[entry.process_id]
            self._sent_before += entry.sent_bytes

    def oldest_sent(self) -> LSN:
        """
        Return the lowest sent position over all entries that have one; 0 if none has.

        Source: PostgreSQL 9.0, src/backend/replication/walsender.c, GetOldestWALSendPointer.
        """
        return min((entry.sent_lsn for entry in self if entry.sent_lsn), default=INVALID_LSN)

    def oldest_transactions(self) -> tuple[int, int]:
        """
        Return the oldest transaction that any standby needs, and the oldest for catalogs; 0 for none.

        As 64-bit ids, so that those of two epochs compare.
        """
        return (
            min((entry.xmin for entry in self if entry.xmin), default=0),
            min((entry.catalog_xmin for entry in self if entry.catalog_xmin), default=0),
        )

    def activity(self) -> str:
        """Return one line on what all walsenders do, for the process title."""
        if len(self._entries) == 1:
            return next(iter(self)).activity
        oldest = self.oldest_sent()
        standbys = f"{len(self._entries)} standbys"
        return f"{standbys}, streaming {oldest}" if oldest else standbys
