"""What the tests of what is told over HTTP share: a server that is looked at."""

from __future__ import annotations

from typing import Any

from walsender.console import ServerView
from walsender.lsn import LSN
from walsender.replication_slots import Availability, ReplicationSlot
from walsender.sender import SlotTable
from walsender.sender.slot_table import STREAMING, WalSenderEntry
from walsender.settings import Settings
from walsender.settings.description import describe
from walsender.testing.source import ScriptedSource
from walsender.upstream import NotReceiving, ReceiverStatus
from walsender.wal import FORMATS, WalDirectory, WalIdentity

END = 0x500000
RECEIVING = ReceiverStatus(
    1,
    LSN(0x200000),
    LSN(END),
    LSN(END),
    1000.5,
    1001.5,
    LSN(END + 0x100),
    "relay_slot",
    "host=primary port=5432",
)


class Watched:
    """
    A server of five segments, a standby and a client that reports little, and three slots.

    :ivar upstream: a connection string; empty: it is no relay.
    """

    def __init__(self, *options: tuple[str, str]) -> None:
        self.source = ScriptedSource(END)
        self.table = SlotTable(10)
        self.receiver: ReceiverStatus | None = None
        self.outage: NotReceiving | None = None
        self.upstream = ""
        self.certificate_end: float | None = None
        self.availability = {"used": Availability("extended", 0x300000), "gone": Availability("lost")}
        self.standby = WalSenderEntry(
            *(7, "10.0.0.1", 4000, 900.0, "repl", 'st"1', STREAMING, LSN(0x480000)),
            *(LSN(0x470000), LSN(0x460000), LSN(0x450000), 0.5, 1.5, 2.5, 999.0),
            start_lsn=LSN(0x100000),
        )
        self.client = WalSenderEntry(8, "[local]", -1, 901.0, "repl", "pg_receivewal")
        for entry in (self.standby, self.client):
            self.table.reserve(entry)
        self.slots: Any = [
            ReplicationSlot("used", temporary=False, restart_lsn=LSN(0x300000), owner=7),
            ReplicationSlot("gone", temporary=False, invalidation_reason="wal_removed", inactive_since=900.5),
            ReplicationSlot("new", temporary=True),
        ]
        settings = describe(Settings.load([("wal_directory", "/"), *options]))
        identity = WalIdentity(self.source.system_identifier, FORMATS[-1], self.source.geometry)
        directory = WalDirectory("/wal", identity, ranges={1: (range(1, 3), range(4, 6))})
        self.view = ServerView(
            self.source,
            self.table,
            self.slots,
            800.0,
            settings=lambda: settings,
            receiver=lambda: self.receiver,
            not_receiving=lambda: self.outage,
            conninfo=lambda: self.upstream,
            directory=lambda: directory,
            certificate_end=lambda: self.certificate_end,
            availability=lambda: self.availability,
        )
