"""
What the console shows, as it is in one moment: taken in the reactor's thread, read in another.

Everything in a `Snapshot` is a copy or never changes.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from walsender.replication_slots import Availability
from walsender.timings import Timings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from walsender.lsn import Geometry
    from walsender.replication_slots import ReplicationSlot, ReplicationSlots
    from walsender.sender import SlotTable
    from walsender.sender.slot_table import WalSenderEntry
    from walsender.settings.description import SettingDescription
    from walsender.source import IWalSource
    from walsender.upstream import NotReceiving, ReceiverStatus
    from walsender.wal import WalDirectory


@dataclass(frozen=True, slots=True)
class ServerView:
    """
    What the console sees of the server; functions are called in the reactor's thread.

    :ivar settings: those of the program.
    :ivar receiver: of a relay; ``None``: it is none, or is not receiving.
    :ivar not_receiving: why a relay is not; ``None``: it is, or is none.
    :ivar conninfo: of the upstream, without secrets.
    :ivar directory: the WAL files; ``None``: nothing is known of files.
    :ivar started_at: seconds since 1970; likewise *configured_at*.
    :ivar timings: of its disk.
    :ivar availability: of each slot, by name; whoever is not in it keeps what it has.
    :ivar certificate_end: until when our certificate is good, in seconds since 1970; ``None``: there is none.
    """

    source: IWalSource
    slot_table: SlotTable
    slots: ReplicationSlots
    started_at: float
    settings: Callable[[], Sequence[SettingDescription]] = tuple
    receiver: Callable[[], ReceiverStatus | None] = lambda: None
    not_receiving: Callable[[], NotReceiving | None] = lambda: None
    conninfo: Callable[[], str] = str
    directory: Callable[[], WalDirectory | None] = lambda: None
    configured_at: Callable[[], float] = lambda: 0.0
    timings: Timings = field(default_factory=Timings)
    certificate_end: Callable[[], float | None] = lambda: None
    availability: Callable[[], Mapping[str, Availability]] = dict

    @property
    def is_relay(self) -> bool:
        """Whether there is an upstream, connected or not."""
        return bool(self.conninfo())


@dataclass(frozen=True, slots=True)
class ConsoleSession:
    """
    One client of the console, for ``pg_stat_activity``.

    :ivar query: the last one, or that which runs.
    :ivar query_at: when it began; ``None``: there was none.
    """

    entry: WalSenderEntry
    database: str
    query: str = ""
    query_at: float | None = None
    is_active: bool = False
    in_transaction: bool = False


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    The server in one moment.

    :ivar now: seconds since 1970.
    """

    now: float
    walsenders: tuple[WalSenderEntry, ...]
    slots: tuple[ReplicationSlot, ...]
    flush_position: int
    timeline: int
    geometry: Geometry
    system_identifier: int
    settings: tuple[SettingDescription, ...]
    receiver: ReceiverStatus | None
    not_receiving: NotReceiving | None
    conninfo: str | None
    directory: WalDirectory | None
    started_at: float
    configured_at: float
    availability: Mapping[str, Availability]
    sessions: tuple[ConsoleSession, ...] = field(default=())

    def availability_of(self, slot: ReplicationSlot) -> Availability:
        """Return how sure a slot is of its WAL."""
        known = self.availability.get(slot.name)
        return Availability("reserved" if slot.restart_lsn else None) if known is None else known


def take(view: ServerView, now: float, sessions: Iterable[ConsoleSession]) -> Snapshot:
    """Return the server as it is now."""
    source = view.source
    return Snapshot(
        now,
        tuple(map(copy, view.slot_table)),
        tuple(map(copy, view.slots)),
        source.flush_position,
        source.timeline,
        source.geometry,
        source.system_identifier,
        tuple(view.settings()),
        view.receiver(),
        view.not_receiving(),
        view.conninfo(),
        view.directory(),
        view.started_at,
        view.configured_at(),
        view.availability(),
        tuple(sessions),
    )
