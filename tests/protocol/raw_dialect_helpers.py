"""What the tests of 9.0, 9.1 and 9.2 share: WAL that is really of those versions, and servers of it."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

from first_dialect_wal import SEGMENT, SYSTEM
from protocol_helpers import (
    COPY_BOTH,
    COPY_OUT,
    Client,
    ClockReactor,
    ProtocolTestCase,
    Server,
    copy_data,
    query,
)

from walsender.sender.states import FIRST, REPORTING, State
from walsender.testing.wal_maker import WalMaker
from walsender.wire.dialect import dialect_of

if TYPE_CHECKING:
    from pathlib import Path

VERSIONS = (90000, 90100, 90200)
REPLYING = (90100, 90200)

NOW = "40420f0000000000"  # one second after 2000-01-01, in microseconds, little-endian
END = 0x1007598  # where `short_wal` ends


@cache
def short_wal(version: int, byte_order: str = "little") -> WalMaker:
    """Segment 1, some pages of it."""
    maker = WalMaker(version, segment_size=SEGMENT, system_identifier=SYSTEM, byte_order=byte_order)  # type: ignore[arg-type]
    for _ in range(30):
        maker.record(1000)
    return maker


@cache
def two_segments(version: int) -> WalMaker:
    """All of segment 1, mostly unused behind a switch, and some pages of segment 2."""
    maker = WalMaker(version, segment_size=SEGMENT, system_identifier=SYSTEM)
    maker.record(1000)
    maker.switch()
    for _ in range(30):
        maker.record(1000)
    return maker


@cache
def boundary_wal(version: int) -> WalMaker:
    """The last segment of log file 0 and some pages of the first of log file 1."""
    maker = WalMaker(version, segment_size=SEGMENT, system_identifier=SYSTEM, start=0xFE000000)
    maker.record(1000)
    maker.switch()
    for _ in range(30):
        maker.record(1000)
    return maker


def begun(version: int) -> bytes:
    """Return what begins a stream."""
    return COPY_OUT if version == 90000 else COPY_BOTH


def header(length: str, start: str, end: str, time: str = NOW) -> bytes:
    """Return a header: CopyData's type and length, ``w``, start, end, time, each as it is on the wire."""
    return b"d" + bytes.fromhex(length) + b"w" + bytes.fromhex(start + end + time)


def status(write: str, flush: str, replay: str) -> bytes:
    """Return a status update of 33 bytes: three positions as on the wire, and the time."""
    return copy_data(b"r" + bytes.fromhex(write + flush + replay + "a086010000000000"))


class RawDialectTestCase(ProtocolTestCase):
    """Serves WAL of an old version in that version's dialect."""

    def server(self, maker: WalMaker, path: Path | None = None, **options: object) -> Server:
        """Return a server of what *maker* has written."""
        reactor = ClockReactor()
        source = self.directory_source(maker, reactor, path)
        return Server(
            source, dialect_of(source.server_version, source.byte_order), reactor=reactor, **options
        )

    def stream(self, maker: WalMaker, start: str, **options: object) -> tuple[Server, Client]:
        """Return a server of *maker*'s WAL and a client that has sent START_REPLICATION."""
        self.path = self.directory()
        server = self.server(maker, self.path, **options)
        client = server.started()
        client.send(query(f"START_REPLICATION {start}"))
        return server, client

    def assertEnds(self, server: Server, client: Client, *states: State) -> None:
        """Check that the connection is closed and freed, and its way through the table."""
        self.assertTrue(client.is_closed)
        self.assertEqual(0, len(server.factory.slot_table))
        self.assertEqual([State.STARTUP, State.AUTHENTICATION, State.COMMAND, *states], client.states)
        self.assertLegal(REPORTING if server.factory.dialect.copy_both else FIRST, client.states)
