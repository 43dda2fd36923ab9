"""WAL that is really of 9.0, for the tests of the first dialect: 16 MB segments, made once."""

from __future__ import annotations

from functools import cache

from walsender.testing.wal_maker import WalMaker

SEGMENT = 16 << 20
LOG_FILE = 0xFF000000  # bytes that one log id addresses: 255 segments
SYSTEM = 0xFEDCBA9876543210  # beyond 63 bits: must come out unsigned


@cache
def short_wal(byte_order: str = "little") -> WalMaker:
    """Segment 1, some pages of it."""
    maker = WalMaker(90000, segment_size=SEGMENT, system_identifier=SYSTEM, byte_order=byte_order)  # type: ignore[arg-type]
    for _ in range(30):
        maker.record(1000)
    return maker


@cache
def long_wal() -> WalMaker:
    """All of segment 1 and 2, mostly unused behind a switch, and some pages of segment 3."""
    maker = WalMaker(90000, segment_size=SEGMENT, system_identifier=SYSTEM)
    for _ in range(2):
        maker.record(1000)
        maker.switch()
    for _ in range(30):
        maker.record(1000)
    return maker


@cache
def boundary_wal() -> WalMaker:
    """The last segment of log file 0 and some pages of the first of log file 1."""
    maker = WalMaker(90000, segment_size=SEGMENT, system_identifier=SYSTEM, start=0xFE000000)
    maker.record(1000)
    maker.switch()
    for _ in range(30):
        maker.record(1000)
    return maker


def content(maker: WalMaker, start: int, end: int) -> bytes:
    """Return what was made between two positions (counts of bytes, not LSNs)."""
    data = b""
    while start < end:
        number, offset = divmod(start, SEGMENT)
        piece = bytes(maker.image(number)[offset : min(SEGMENT, offset + end - start)])
        data += piece
        start += len(piece)
    return data
