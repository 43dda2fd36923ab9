"""
WAL records: their headers in three layouts, and both checksums.

Nothing here reads files or allocates by a length that a file states: a record's
header is judged first, and its body is checked piece by piece.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Final

import google_crc32c

from walsender.errors import DataCorrupted
from walsender.lsn import LSN

from .page import RecordLayout, WalFormat

RECORD_ALIGNMENT: Final = 8

_XLOG_RESOURCE_MANAGER: Final = 0
_KIND_MASK: Final = 0xF0
_SWITCH: Final = 0x40
_OVERWRITE_CONTRECORD: Final = 0xD0

# One backup block of WAL before 9.5: its header and a whole data page, of the largest
# size that a server can be built with (WAL does not tell which).
_MAX_BACKUP_BLOCK: Final = 24 + 32768

if google_crc32c.implementation != "c":  # pragma: no cover: a broken installation
    # A Python loop would take seconds per segment, on the way to every standby.
    raise ImportError("google-crc32c is installed without its C extension")


def aligned(offset: int) -> int:
    """Return *offset* rounded up to where a record can begin."""
    return -(-offset // RECORD_ALIGNMENT) * RECORD_ALIGNMENT


@dataclass(frozen=True, slots=True)
class RecordHeader:
    """
    One record's header.

    :ivar total_length: bytes of header and body, without padding to the next record.
    :ivar data_length: bytes of the resource manager's data (before 9.5), else 0.
    :ivar previous: where the record before this one begins.
    :ivar crc: the checksum that the record should have.
    """

    total_length: int
    data_length: int
    previous: LSN
    info: int
    resource_manager: int
    crc: int

    @property
    def is_switch(self) -> bool:
        """Whether the rest of the segment after this record is unused (XLOG_SWITCH)."""
        return self._is(_SWITCH)

    @property
    def is_overwrite(self) -> bool:
        """Whether this record says that the one before was abandoned (XLOG_OVERWRITE_CONTRECORD)."""
        return self._is(_OVERWRITE_CONTRECORD)

    def _is(self, kind: int) -> bool:
        return self.resource_manager == _XLOG_RESOURCE_MANAGER and self.info & _KIND_MASK == kind


@functools.cache
def _layout(wal_format: WalFormat) -> tuple[RecordLayout, struct.Struct, struct.Struct, int]:
    """Return the record layout, the header's struct, a length's struct and the length's offset."""
    order = "<" if wal_format.byte_order == "little" else ">"
    length = struct.Struct(order + "I")
    layout = wal_format.record_layout
    if layout is RecordLayout.CRC_FIRST:
        # crc, previous as two words, (transaction), total length, data length, info, manager
        return layout, struct.Struct(order + "III4xIIBB6x"), length, 16
    if layout is RecordLayout.LENGTH_FIRST:
        # total length, (transaction), data length, info, manager, previous, crc
        return layout, struct.Struct(order + "I4xIBB2xQI4x"), length, 0
    # total length, (transaction), previous, info, manager, crc
    return layout, struct.Struct(order + "I4xQBB2xI"), length, 0


def total_length(data: bytes, offset: int, wal_format: WalFormat) -> int | None:
    """
    Return the length that the record at *offset* in *data* states, or ``None`` if *data* ends before it.

    From 9.3 on only the length is sure to be on the record's first page; the header may go on on the next.
    """
    _, _, length, at = _layout(wal_format)
    if offset + at + 4 > len(data):
        return None
    return int(length.unpack_from(data, offset + at)[0])


def check_total_length(stated: int, wal_format: WalFormat) -> None:
    """
    Accept a record's stated length if any record can have it.

    :raises DataCorrupted: it is shorter than a header, or longer than records get.  0 is what stands
        where WAL ends in a new or zeroed file.
    """
    if stated < wal_format.record_header_size:
        raise DataCorrupted(
            f"invalid record length: expected at least {wal_format.record_header_size}, got {stated}"
        )
    if stated > wal_format.max_record_size:
        raise DataCorrupted(f"record length {stated} too long")


def parse_record_header(data: bytes, offset: int, wal_format: WalFormat) -> RecordHeader:
    """
    Return the header at *offset* in *data*, judged by what it says itself.

    :raises DataCorrupted: *data* ends inside it, or no record can have such lengths.

    Source: PostgreSQL, xlogreader.c, ValidXLogRecordHeader; before 9.5 xlog.c, RecordIsValid.
    """
    layout, header, _, _ = _layout(wal_format)
    if offset + header.size > len(data):
        raise DataCorrupted("record header is cut off")
    fields = header.unpack_from(data, offset)
    if layout is RecordLayout.MODERN:
        total, previous, info, manager, crc = fields
        parsed = RecordHeader(total, 0, LSN(previous), info, manager, crc)
        check_total_length(total, wal_format)
        return parsed
    if layout is RecordLayout.CRC_FIRST:
        crc, high, low, total, length, info, manager = fields
        previous = high << 32 | low
    else:
        total, length, info, manager, previous, crc = fields
    parsed = RecordHeader(total, length, LSN(previous), info, manager, crc)
    check_total_length(total, wal_format)
    images = total - header.size - length
    if not 0 <= images <= wal_format.max_backup_blocks * _MAX_BACKUP_BLOCK:
        raise DataCorrupted(f"invalid record length {total} for {length} bytes of data")
    if (length == 0) != parsed.is_switch:
        raise DataCorrupted("invalid xlog switch record" if length else "record with zero length")
    return parsed


class RecordChecksum:
    """
    One record's checksum, fed with the body in pieces and finished with the header.

    Both checksums cover the body first and the header last, without the checksum itself.
    """

    def __init__(self, wal_format: WalFormat) -> None:
        self._format = wal_format
        self._legacy = wal_format.legacy_crc
        self._crc = 0xFFFFFFFF if self._legacy else 0

    def update(self, data: bytes) -> None:
        """Take the next piece of the body (the bytes after the header)."""
        self._crc = (_extend_legacy if self._legacy else google_crc32c.extend)(self._crc, data)

    def finish(self, header: bytes) -> int:
        """Return the checksum, given the record's header; the object is used up."""
        layout = self._format.record_layout
        if layout is RecordLayout.MODERN:
            return int(google_crc32c.extend(self._crc, header[:20]))
        part = header[4:32] if layout is RecordLayout.CRC_FIRST else header[:24]
        return _extend_legacy(self._crc, part) ^ 0xFFFFFFFF


def check_record(data: bytes, wal_format: WalFormat) -> RecordHeader:
    """
    Return the header of the whole record *data*, whose checksum is right.

    :param data: exactly one record, page headers taken out.
    :raises DataCorrupted: the lengths are impossible, disagree with *data*, or the checksum is wrong.
    """
    header = parse_record_header(data, 0, wal_format)
    if header.total_length != len(data):
        raise DataCorrupted(f"record states {header.total_length} bytes and has {len(data)}")
    size = wal_format.record_header_size
    checksum = RecordChecksum(wal_format)
    checksum.update(data[size:])
    if checksum.finish(data[:size]) != header.crc:
        raise DataCorrupted("incorrect resource manager data checksum in record")
    return header


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
