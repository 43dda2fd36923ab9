"""
WAL records: their headers in three layouts, and both checksums.

Nothing here reads files or allocates by a length that a file states: a record's
header is judged first, and its body is checked piece by piece.
"""

from __future__ import annotations

import functools
import struct
from typing import Final, NamedTuple

import google_crc32c

from walsender.errors import DataCorrupted

from .page import RecordLayout, WalFormat

RECORD_ALIGNMENT: Final = 8

_XLOG_RESOURCE_MANAGER: Final = 0
_KIND_MASK: Final = 0xF0
_SWITCH: Final = 0x40
_OVERWRITE_CONTRECORD: Final = 0xD0

_HEADERS: Final = {
    # crc, previous as two words, (transaction), total length, data length, info, manager
    RecordLayout.CRC_FIRST: "III4xIIBB6x",
    # total length, (transaction), data length, info, manager, previous, crc
    RecordLayout.LENGTH_FIRST: "I4xIBB2xQI4x",
    # total length, (transaction), previous, info, manager, crc
    RecordLayout.MODERN: "I4xQBB2xI",
}

# One backup block of WAL before 9.5: its header and a whole data page, of the largest
# size that a server can be built with (WAL does not tell which).
_MAX_BACKUP_BLOCK: Final = 24 + 32768

if google_crc32c.implementation != "c":  # pragma: no cover: a broken installation
    # A Python loop would take seconds per segment, on the way to every standby.
    raise ImportError("google-crc32c is installed without its C extension")


def aligned(offset: int) -> int:
    """Return *offset* rounded up to where a record can begin."""
    return -(-offset // RECORD_ALIGNMENT) * RECORD_ALIGNMENT


class RecordHeader(NamedTuple):
    """
    One record's header.

    A tuple, since one is made for each record that is checked, thousands in a row, and a frozen
    dataclass takes four times as long to make.

    :ivar total_length: bytes of header and body, without padding to the next record.
    :ivar data_length: bytes of the resource manager's data (before 9.5), else 0.
    :ivar previous: LSN at which the record before this one begins.
    :ivar crc: the checksum that the record should have.
    """

    total_length: int
    data_length: int
    previous: int
    info: int
    resource_manager: int
    crc: int

    @property
    def is_switch(self) -> bool:
        """Whether the rest of the segment after this record is unused (XLOG_SWITCH)."""
        return self.resource_manager == _XLOG_RESOURCE_MANAGER and self.info & _KIND_MASK == _SWITCH

    @property
    def is_overwrite(self) -> bool:
        """Whether this record says that the one before was abandoned (XLOG_OVERWRITE_CONTRECORD)."""
        return (
            self.resource_manager == _XLOG_RESOURCE_MANAGER
            and self.info & _KIND_MASK == _OVERWRITE_CONTRECORD
        )


class RecordParser:
    """
    Reads the records of one format.

    :ivar header_size: bytes of a record's header, with its padding.
    """

    def __init__(self, wal_format: WalFormat) -> None:
        order = "<" if wal_format.byte_order == "little" else ">"
        self._layout = layout = wal_format.record_layout
        self._length = struct.Struct(order + "I")
        self._length_offset = 16 if layout is RecordLayout.CRC_FIRST else 0
        self._header = struct.Struct(order + _HEADERS[layout])
        self.header_size = wal_format.record_header_size
        self._max_length = wal_format.max_record_size
        self._max_images = wal_format.max_backup_blocks * _MAX_BACKUP_BLOCK
        assert self._header.size == self.header_size

    def stated_length(self, data: bytes, offset: int) -> int | None:
        """
        Return the length that the record at *offset* in *data* states, or ``None`` if *data* ends before it.

        From 9.3 on only the length is sure to be on the record's first page, the rest may be on the next.
        """
        offset += self._length_offset
        if offset + 4 > len(data):
            return None
        length: int = self._length.unpack_from(data, offset)[0]
        return length

    def check_length(self, stated: int) -> None:
        """
        Accept a record's stated length if any record can have it.

        :raises DataCorrupted: it is shorter than a header, or longer than records get.  0 is what stands
            where WAL ends in a new or zeroed file.
        """
        if stated < self.header_size:
            raise DataCorrupted(f"invalid record length: expected at least {self.header_size}, got {stated}")
        if stated > self._max_length:
            raise DataCorrupted(f"record length {stated} too long")

    def parse(self, data: bytes) -> RecordHeader:
        """
        Return the header with which *data* begins, judged by what it says itself.

        :raises DataCorrupted: *data* ends inside it, or no record can have such lengths.

        Source: PostgreSQL, xlogreader.c, ValidXLogRecordHeader; before 9.5 xlog.c, RecordIsValid.
        """
        if len(data) < self.header_size:
            raise DataCorrupted("record header is cut off")
        fields = self._header.unpack_from(data)
        if self._layout is RecordLayout.MODERN:
            total, previous, info, manager, crc = fields
            self.check_length(total)
            return RecordHeader(total, 0, previous, info, manager, crc)
        if self._layout is RecordLayout.CRC_FIRST:
            crc, high, low, total, length, info, manager = fields
            previous = high << 32 | low
        else:
            total, length, info, manager, previous, crc = fields
        self.check_length(total)
        header = RecordHeader(total, length, previous, info, manager, crc)
        if not 0 <= total - self.header_size - length <= self._max_images:
            raise DataCorrupted(f"invalid record length {total} for {length} bytes of data")
        if (length == 0) != header.is_switch:
            raise DataCorrupted("invalid xlog switch record" if length else "record with zero length")
        return header

    def check(self, data: bytes) -> RecordHeader:
        """
        Return the header of the whole record *data*, whose checksum is right.

        :param data: exactly one record, page headers taken out.
        :raises DataCorrupted: the lengths are impossible, disagree with *data*, or the checksum is wrong.
        """
        header = self.parse(data)
        if header.total_length != len(data):
            raise DataCorrupted(f"record states {header.total_length} bytes and has {len(data)}")
        checksum = self.checksum()
        checksum.update(data[self.header_size :])
        if checksum.finish(data) != header.crc:
            raise DataCorrupted("incorrect resource manager data checksum in record")
        return header

    def checksum(self) -> RecordChecksum:
        """Return a checksum for one record."""
        return RecordChecksum(self._layout)


class RecordChecksum:
    """
    One record's checksum, fed with the body in pieces and finished with the header.

    Both checksums cover the body first and the header last, without the checksum itself.
    """

    def __init__(self, layout: RecordLayout) -> None:
        self._layout = layout
        self._crc = 0 if layout is RecordLayout.MODERN else 0xFFFFFFFF

    def update(self, data: bytes) -> None:
        """Take the next piece of the body (the bytes after the header)."""
        if self._layout is RecordLayout.MODERN:
            self._crc = google_crc32c.extend(self._crc, data)
        else:
            self._crc = _extend_legacy(self._crc, data)

    def finish(self, header: bytes) -> int:
        """Return the checksum, given the record's first bytes; the object is used up."""
        if self._layout is RecordLayout.MODERN:
            return int(google_crc32c.extend(self._crc, header[:20]))
        part = header[4:32] if self._layout is RecordLayout.CRC_FIRST else header[:24]
        return _extend_legacy(self._crc, part) ^ 0xFFFFFFFF


def legacy_crc(data: bytes) -> int:
    """
    Return the CRC that PostgreSQL used in WAL before 9.5.

    The table of the reflected Ethernet polynomial, applied as if it were not reflected: no
    standard CRC, and no library has it.

    Source: PostgreSQL 9.4, src/include/utils/pg_crc.h, COMP_CRC32.
    """
    return _extend_legacy(0xFFFFFFFF, data) ^ 0xFFFFFFFF


@functools.cache
def _byte_table() -> tuple[int, ...]:
    table = []
    for number in range(256):
        crc = number
        for _ in range(8):
            crc = crc >> 1 ^ (0xEDB88320 if crc & 1 else 0)
        table.append(crc)
    return tuple(table)


@functools.cache
def _word_tables() -> tuple[tuple[int, ...], tuple[int, ...]]:
    """
    Return tables that take four bytes in one step: by the high and by the low half of the state.

    A step is linear over XOR, so 32 images of single bits make both tables.  Four times as fast as
    byte by byte, for half a megabyte of checked WAL the difference between 60 and 15 ms.
    """
    table = _byte_table()
    images = []
    for bit in range(32):
        crc = 1 << bit
        for _ in range(4):
            crc = table[crc >> 24] ^ crc << 8 & 0xFFFFFFFF
        images.append(crc)

    def combined(bits: list[int]) -> tuple[int, ...]:
        sums = [0]
        for image in bits:
            sums += [image ^ other for other in sums]
        return tuple(sums)

    return combined(images[16:]), combined(images[:16])


def _extend_legacy(crc: int, data: bytes) -> int:
    """Continue a legacy CRC (not yet inverted) over *data*."""
    whole = len(data) & ~3
    if whole:
        high, low = _word_tables()
        for (word,) in _BIG_WORD.iter_unpack(data[:whole]):
            crc ^= word
            crc = high[crc >> 16] ^ low[crc & 0xFFFF]
    table = _byte_table()
    for byte in data[whole:]:
        crc = table[crc >> 24 ^ byte] ^ crc << 8 & 0xFFFFFFFF
    return crc


_BIG_WORD: Final = struct.Struct(">I")
