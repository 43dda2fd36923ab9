"""
WAL pages: which PostgreSQL wrote them, and what their headers say.

`WalFormat` holds all that differs between the eras of WAL at rest; nothing else in
this room asks for a version.  Only WAL of platforms with 8-byte alignment is
understood, which is every 64-bit platform.
"""

from __future__ import annotations

import enum
import functools
import struct
from dataclasses import dataclass
from typing import Final, Literal

from walsender.errors import DataCorrupted
from walsender.lsn import LSN, Geometry

CONTINUES_RECORD: Final = 0x0001
LONG_HEADER: Final = 0x0002

ByteOrder = Literal["little", "big"]

# The releases in which something changed, as PG_VERSION_NUM.
_FOUR_BACKUP_BLOCKS: Final = 90200
_REMOVABLE_HINT: Final = 90200
_LINEAR_ADDRESSES: Final = 90300  # LSNs are numbers, records flow over page ends
_SWITCH_WRITES_PAGES: Final = 90400
_MODERN_RECORDS: Final = 90500
_OVERWRITE_FLAG: Final = 100000
_SWITCH_WRITES_ZEROS: Final = 110000
_SMALLER_RECORDS: Final = 160000
_OVERWRITE_FLAG_MOVED: Final = 190000


class RecordLayout(enum.Enum):
    """The three forms that a record's header has had."""

    CRC_FIRST = enum.auto()  # 8.4 to 9.2
    LENGTH_FIRST = enum.auto()  # 9.3 and 9.4
    MODERN = enum.auto()  # from 9.5


class SwitchFill(enum.Enum):
    """What the server wrote between an XLOG_SWITCH record and the end of its segment."""

    UNWRITTEN = enum.auto()  # to 9.3: nothing; a recycled file shows its former content
    HEADERS = enum.auto()  # 9.4 to 10: empty pages, each with its header
    ZEROS = enum.auto()  # from 11: zeros, page headers too


@dataclass(frozen=True, slots=True)
class WalFormat:
    """
    How one major release writes WAL on one kind of machine.

    :ivar magic: first two bytes of every page.
    :ivar version: the release as its PG_VERSION_NUM without minor: 80400, 90600, 180000.
    :ivar name: the release as people write it: ``9.2``, ``18``.
    :ivar allowed_flags: page header bits that have a meaning; another one makes a page invalid.
    :ivar overwrite_flag: the bit that says "the record which should continue here was abandoned", or 0.

    Source: PostgreSQL, src/include/access/xlog_internal.h and xlogrecord.h of each release.
    """

    magic: int
    version: int
    name: str
    byte_order: ByteOrder
    allowed_flags: int
    overwrite_flag: int

    @property
    def high_word_first(self) -> bool:
        """Whether an LSN is two words, log file number first, rather than one 64-bit number."""
        return self.version < _LINEAR_ADDRESSES

    @property
    def short_header_size(self) -> int:
        """Bytes of a page header that is not the first in its segment."""
        return 16 if self.version < _LINEAR_ADDRESSES else 24

    @property
    def long_header_size(self) -> int:
        """Bytes of the header of a segment's first page."""
        return self.short_header_size + 16

    @property
    def continuation_size(self) -> int:
        """Bytes between the page header and the rest of a record from the page before."""
        return 4 if self.version < _LINEAR_ADDRESSES else 0

    @property
    def splits_record_headers(self) -> bool:
        """Whether a record's header may cross a page; if not, a rest too short for one is left unused."""
        return self.version >= _LINEAR_ADDRESSES

    @property
    def record_layout(self) -> RecordLayout:
        """Which form a record's header has."""
        if self.version < _LINEAR_ADDRESSES:
            return RecordLayout.CRC_FIRST
        return RecordLayout.LENGTH_FIRST if self.version < _MODERN_RECORDS else RecordLayout.MODERN

    @property
    def record_header_size(self) -> int:
        """Bytes of a record's header, with its padding."""
        return 24 if self.version >= _MODERN_RECORDS else 32

    @property
    def legacy_crc(self) -> bool:
        """Whether records carry the CRC that PostgreSQL used before CRC-32C."""
        return self.version < _MODERN_RECORDS

    @property
    def max_backup_blocks(self) -> int:
        """How many page images may follow a record's own data (0 where the length says nothing of them)."""
        if self.version >= _MODERN_RECORDS:
            return 0
        return 3 if self.version < _FOUR_BACKUP_BLOCKS else 4

    @property
    def max_record_size(self) -> int:
        """Most bytes that a record can have, header included."""
        return 1020 << 20 if self.version >= _SMALLER_RECORDS else 1 << 30

    @property
    def switch_fill(self) -> SwitchFill:
        """What follows an XLOG_SWITCH record in its segment."""
        if self.version < _SWITCH_WRITES_PAGES:
            return SwitchFill.UNWRITTEN
        return SwitchFill.HEADERS if self.version < _SWITCH_WRITES_ZEROS else SwitchFill.ZEROS

    def geometry(self, segment_size: int, page_size: int) -> Geometry:
        """
        Return this era's address arithmetic for a cluster's sizes.

        :raises ValueError: no server has such a segment or page size.
        """
        make = Geometry.skipping if self.high_word_first else Geometry.contiguous
        return make(segment_size, page_size)

    def header_size(self, page_position: int, geometry: Geometry) -> int:
        """Return how many bytes the header of the page at *page_position* has."""
        return self.short_header_size if page_position % geometry.segment_size else self.long_header_size


def _flags(version: int) -> tuple[int, int]:
    """Return the allowed flags of a release and which of them marks an overwritten record."""
    if version >= _OVERWRITE_FLAG_MOVED:
        return 0x0007, 0x0004  # the former "removable" hint is gone and its bit used again
    if version >= _OVERWRITE_FLAG:
        # 10 to 14 learnt the overwrite flag in minor releases, under the same magic.
        return 0x000F, 0x0008
    return (0x0007 if version >= _REMOVABLE_HINT else 0x0003), 0


_RELEASES: Final = (
    (0xD063, 80400, "8.4"),
    (0xD064, 90000, "9.0"),
    (0xD066, 90100, "9.1"),
    (0xD071, 90200, "9.2"),
    (0xD075, 90300, "9.3"),
    (0xD07E, 90400, "9.4"),
    (0xD087, 90500, "9.5"),
    (0xD093, 90600, "9.6"),
    (0xD097, 100000, "10"),
    (0xD098, 110000, "11"),
    (0xD101, 120000, "12"),
    (0xD106, 130000, "13"),
    (0xD10D, 140000, "14"),
    (0xD110, 150000, "15"),
    (0xD113, 160000, "16"),
    (0xD116, 170000, "17"),
    (0xD118, 180000, "18"),
    (0xD120, 190000, "19"),
    (0xD121, 190000, "19"),
)

_BYTE_ORDERS: Final[tuple[ByteOrder, ...]] = ("little", "big")

_FORMATS: Final[dict[bytes, WalFormat]] = {
    magic.to_bytes(2, order): WalFormat(magic, version, name, order, *_flags(version))
    for magic, version, name in _RELEASES
    for order in _BYTE_ORDERS
}

FORMATS: Final[tuple[WalFormat, ...]] = tuple(_FORMATS.values())
"""Every format that can be read, both byte orders."""


def identify_format(data: bytes) -> WalFormat:
    """
    Return the format of the WAL whose first bytes are *data*.

    :raises DataCorrupted: the magic number belongs to no release that we know.
    """
    magic = data[:2]
    known = _FORMATS.get(magic)
    if known is None:
        if data == magic[:1]:
            raise DataCorrupted("WAL page is too short to have a magic number")
        raise DataCorrupted(f"invalid magic number {int.from_bytes(magic, 'little'):04X} in WAL page")
    return known


@dataclass(frozen=True, slots=True)
class LongHeader:
    """What the first page of every segment says about the cluster; sizes in bytes."""

    system_identifier: int
    segment_size: int
    page_size: int


@dataclass(frozen=True, slots=True)
class PageHeader:
    """
    One page's header.

    :ivar address: where the page says it belongs, as the era writes LSNs.
    :ivar remaining: bytes, from this page on, of the record that began on an earlier one; else 0.
    :ivar data_start: offset in the page of the first byte of record data.
    :ivar long: facts about the cluster, on a segment's first page.
    """

    flags: int
    timeline: int
    address: LSN
    remaining: int
    data_start: int
    overwrites: bool
    long: LongHeader | None

    @property
    def continues(self) -> bool:
        """Whether the page begins with the rest of a record from the page before."""
        return bool(self.flags & CONTINUES_RECORD)


@functools.cache
def _structs(wal_format: WalFormat) -> tuple[struct.Struct, struct.Struct]:
    """Return the layouts of the short header (with the remaining length) and of the long rest."""
    order = "<" if wal_format.byte_order == "little" else ">"
    # magic, flags, timeline, address (one or two words), remaining length
    short = struct.Struct(order + ("HHIIII" if wal_format.high_word_first else "HHIQI"))
    return short, struct.Struct(order + "QII")  # system identifier, segment size, page size


def header_read_size(wal_format: WalFormat) -> int:
    """Return how many bytes of a page suffice for `parse_page_header`, whichever header it has."""
    return wal_format.long_header_size + wal_format.continuation_size


def parse_long_header(data: bytes, wal_format: WalFormat) -> LongHeader:
    """
    Return the facts about the cluster from a segment's first bytes.

    :raises DataCorrupted: *data* is too short, or its page has no long header.
    """
    short, long = _structs(wal_format)
    if len(data) < wal_format.long_header_size:
        raise DataCorrupted("WAL page is too short to have a long header")
    magic, flags = short.unpack_from(data)[:2]
    if magic != wal_format.magic:
        raise DataCorrupted(f"invalid magic number {magic:04X} in WAL page")
    if not flags & LONG_HEADER:
        raise DataCorrupted("first page of WAL segment has no long header")
    return LongHeader(*long.unpack_from(data, wal_format.short_header_size))


def parse_page_header(data: bytes, wal_format: WalFormat, geometry: Geometry) -> PageHeader:
    """
    Return the header that the page beginning with *data* has.

    Checked is what the header says by itself: magic, flags, a long header exactly where a
    segment begins, the cluster's sizes.  Whether the page is *where* it says, only the caller knows.

    :param data: the page, or at least its first `header_read_size` bytes (fewer at the end of a file).
    :raises DataCorrupted: this is no page of such WAL.

    Source: PostgreSQL, src/backend/access/transam/xlogreader.c, XLogReaderValidatePageHeader.
    """
    short, _ = _structs(wal_format)
    if len(data) < wal_format.short_header_size + wal_format.continuation_size:
        raise DataCorrupted("WAL page is too short to have a header")
    if wal_format.high_word_first:
        magic, flags, timeline, high, low, remaining = short.unpack_from(data)
        address = LSN(high << 32 | low)
    else:
        magic, flags, timeline, number, remaining = short.unpack_from(data)
        address = LSN(number)
    if magic != wal_format.magic:
        raise DataCorrupted(f"invalid magic number {magic:04X} in WAL page")
    if flags & ~wal_format.allowed_flags:
        raise DataCorrupted(f"invalid info bits {flags:04X} in WAL page {address}")
    at_segment_start = address.log_offset % geometry.segment_size == 0
    if at_segment_start != bool(flags & LONG_HEADER):
        raise DataCorrupted(f"invalid info bits {flags:04X} in WAL page {address}")
    long = None
    data_start = wal_format.short_header_size
    if at_segment_start:
        long = parse_long_header(data, wal_format)
        data_start = wal_format.long_header_size
        if (long.segment_size, long.page_size) != (geometry.segment_size, geometry.page_size):
            raise DataCorrupted(
                f"WAL page {address} is from a cluster with segments of {long.segment_size} bytes"
                f" and pages of {long.page_size} bytes"
            )
    if wal_format.continuation_size:
        # Before 9.3 the remaining length stands before the data that continues, if any does.
        remaining = 0
        if flags & CONTINUES_RECORD:
            if len(data) < data_start + 4:
                raise DataCorrupted(f"WAL page {address} is cut off in its header")
            remaining = int.from_bytes(data[data_start : data_start + 4], wal_format.byte_order)
            data_start += 4
    overwrites = bool(flags & wal_format.overwrite_flag)
    return PageHeader(flags, timeline, address, remaining, data_start, overwrites, long)
