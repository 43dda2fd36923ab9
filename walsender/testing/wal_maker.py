"""
Makes WAL of every era, for tests.

This is the writing side, on purpose written apart from ``walsender.wal``, which reads: its tables,
arithmetic and checksums are its own, so that a mistake on one side shows against the other.
What it writes for 16 and 18 is read by ``pg_waldump`` in our tests.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import google_crc32c

MAGICS: Final = {
    80400: 0xD063,
    90000: 0xD064,
    90100: 0xD066,
    90200: 0xD071,
    90300: 0xD075,
    90400: 0xD07E,
    90500: 0xD087,
    90600: 0xD093,
    100000: 0xD097,
    110000: 0xD098,
    120000: 0xD101,
    130000: 0xD106,
    140000: 0xD10D,
    150000: 0xD110,
    160000: 0xD113,
    170000: 0xD116,
    180000: 0xD118,
    190000: 0xD121,
}
"""The page magic that `WalMaker` writes for each release."""

_NOOP: Final = 0x20
_SWITCH: Final = 0x40
_OVERWRITE: Final = 0xD0

_CONTINUES: Final = 0x0001
_LONG: Final = 0x0002

_V9_3: Final = 90300
_V9_4: Final = 90400
_V9_5: Final = 90500
_V11: Final = 110000
_V19: Final = 190000

_SHORT_DATA: Final = 255


@dataclass(frozen=True, slots=True)
class MadeRecord:
    """Where a record was put, as positions: its first byte, and where the next one may begin."""

    begin: int
    end: int


class WalMaker:
    """
    Writes one cluster's WAL into memory, and from there into a directory.

    :ivar position: where the next record goes; the end of valid WAL.
    :ivar timeline: the timeline being written.
    :ivar records: all records of that timeline and its ancestors, oldest first.

    :param version: PG_VERSION_NUM of a major release, a key of `MAGICS`.
    :param start: position (a count of bytes, not an LSN) of the first segment; segment 1 if not given.
    """

    def __init__(
        self,
        version: int = 180000,
        *,
        byte_order: Literal["little", "big"] = "little",
        segment_size: int = 1 << 20,
        page_size: int = 8192,
        system_identifier: int = 7300000000000000001,
        start: int | None = None,
        timeline: int = 1,
    ) -> None:
        self.version = version
        self.byte_order = byte_order
        self.segment_size = segment_size
        self.page_size = page_size
        self.system_identifier = system_identifier
        self.timeline = timeline
        self.position = segment_size if start is None else start
        self.records: list[MadeRecord] = []
        self.histories: dict[int, bytes] = {}
        self._order = "<" if byte_order == "little" else ">"
        self._segments: dict[tuple[int, int], bytearray] = {}
        self._newest_timeline = timeline
        self._first_segment = {timeline: self.position // segment_size}

    # What a test asks about.

    def lsn(self, position: int) -> tuple[int, int]:
        """Return the two halves of the LSN at *position*."""
        per_log_file = 1 << 32
        if self.version < _V9_3:
            per_log_file = 0xFFFFFFFF // self.segment_size * self.segment_size
        return position // per_log_file, position % per_log_file

    def name(self, number: int, timeline: int | None = None) -> str:
        """Return a segment's file name."""
        log_id, offset = self.lsn(number * self.segment_size)
        return f"{timeline or self.timeline:08X}{log_id:08X}{offset // self.segment_size:08X}"

    def image(self, number: int, timeline: int | None = None) -> bytearray:
        """Return a segment's bytes, to look at or to spoil."""
        return self._segments[timeline or self.timeline, number]

    @property
    def last_number(self) -> int:
        """The number of the segment that holds the last byte written."""
        return (self.position - 1) // self.segment_size

    # What the server does.

    def record(
        self,
        length: int = 64,
        *,
        manager: int = 0,
        info: int = _NOOP,
        body: bytes | None = None,
        images: int = 0,
    ) -> MadeRecord:
        """
        Write one record of *length* bytes, header included, and return where it is.

        :param body: what follows the header, instead of *length* bytes of filling.
        :param images: before 9.5: how many whole pages of data to add as backup blocks.
        """
        if body is None:
            body = self._filling(length)
        data_length = len(body)
        if images:
            info |= 0x0F & ~(0x0F >> images)
            block = bytes(20) + struct.pack(self._order + "HH", 0, 0) + bytes([images]) * 8192
            body += block * images
        record = self._place(self._finished(manager, info, body, data_length))
        self.records.append(record)
        return record

    def fill_to(self, position: int, length: int = 1000) -> None:
        """Write records of about *length* bytes until the next one would go beyond *position*."""
        while self.position + length + 2 * self.page_size // 100 < position:
            self.record(length)

    def switch(self) -> MadeRecord:
        """Write an XLOG_SWITCH record and leave the rest of the segment unused, as the era does it."""
        record = self.record(info=_SWITCH, body=b"")
        end = (record.begin // self.segment_size + 1) * self.segment_size
        page = -(-self.position // self.page_size) * self.page_size
        while page < end:
            if self.version >= _V11:
                self._bytes_at(page, self.page_size)[:] = bytes(self.page_size)
            elif self.version >= _V9_4:
                self._begin_page(page)
            page += self.page_size
        self.position = end
        return record

    def abandon(self, length: int, *, kept_pages: int = 1) -> MadeRecord:
        """
        Crash inside a record and recover: write *kept_pages* of it, then the note that it is abandoned.

        :returns: the XLOG_OVERWRITE_CONTRECORD record.
        """
        abandoned = self.record(length)
        self.records.pop()
        page = (abandoned.begin // self.page_size + kept_pages) * self.page_size
        assert page < abandoned.end  # else there is nothing to abandon
        for spoilt in range(page, abandoned.end, self.page_size):
            self._bytes_at(spoilt, self.page_size)[:] = bytes(self.page_size)
        self._begin_page(page, flags=0x0004 if self.version >= _V19 else 0x0008)
        self.position = page + self._header_size(page)
        high, low = self.lsn(abandoned.begin)
        body = bytes([255, 16]) + struct.pack(self._order + "Qq", high << 32 | low, 1)
        return self.record(info=_OVERWRITE, body=body)

    def fork(self, at: int | None = None, reason: str = "no recovery target specified") -> int:
        """
        Promote: begin a new timeline at the record end *at* (default: here), and go on writing there.

        Its first segment is a copy of the old timeline's, with what servers of the era leave in it.
        """
        at = self.position if at is None else at
        old, self._newest_timeline = self.timeline, self._newest_timeline + 1
        new = self._newest_timeline
        number, offset = divmod(at, self.segment_size)
        if offset:
            image = bytearray(self.image(number))
            page = offset // self.page_size * self.page_size
            last = image[page:offset] + bytes(page + self.page_size - offset)
            image[page : page + self.page_size] = last
            if self.version >= _V9_5:
                rest = self.segment_size - page - self.page_size
                image[page + self.page_size :] = last * (rest // self.page_size)
            self._segments[new, number] = image
        parent = self.histories.get(old, b"")
        self.histories[new] = parent + (b"\n" if parent else b"") + self._history_line(old, at, reason)
        self._first_segment[new] = number
        self.records = [record for record in self.records if record.end <= at]
        self.timeline, self.position = new, at
        return new

    def recycle(self, count: int = 1) -> None:
        """Give the next *count* segments the oldest one's content, as a checkpoint renames files."""
        oldest = min(number for timeline, number in self._segments if timeline == self.timeline)
        for number in range(self.last_number + 1, self.last_number + 1 + count):
            self._segments[self.timeline, number] = bytearray(self.image(oldest))

    def preallocate(self, count: int = 1) -> None:
        """Create the next *count* segments, all zero."""
        for number in range(self.last_number + 1, self.last_number + 1 + count):
            self._segments[self.timeline, number] = bytearray(self.segment_size)

    # Into files.

    def files(self, *, partial: bool = False) -> dict[str, bytes]:
        """
        Return all segments and histories by name.

        :param partial: give the segment that holds the last byte written its ``.partial`` name.
        """
        files = {}
        for (timeline, number), image in sorted(self._segments.items()):
            growing = partial and (timeline, number) == (self.timeline, self.last_number)
            files[self.name(number, timeline) + (".partial" if growing else "")] = bytes(image)
        for timeline, content in self.histories.items():
            files[f"{timeline:08X}.history"] = content
        return files

    def write(self, directory: str | Path, *, partial: bool = False) -> list[str]:
        """Write `files` to *directory* and return their names."""
        files = self.files(partial=partial)
        for name, content in files.items():
            Path(directory, name).write_bytes(content)
        return list(files)

    # Bytes.

    def _history_line(self, old: int, at: int, reason: str) -> bytes:
        high, low = self.lsn(at)
        if self.version < _V9_3:
            place = self.name((at - 1) // self.segment_size, old)
        elif self.version >= _V19:
            place = f"{high:X}/{low:08X}"
        else:
            place = f"{high:X}/{low:X}"
        return f"{old}\t{place}\t{reason}\n".encode()

    def _filling(self, length: int) -> bytes:
        """Return a body that makes a record of *length* bytes, well-formed for readers that look inside."""
        data = length - self._record_header_size
        if self.version < _V9_5:
            return self._pattern(max(data, 1))
        if data == 0:
            return b""
        if data <= _SHORT_DATA + 2:
            size = max(data - 2, 0)
            return bytes([255, size]) + self._pattern(size)
        size = data - 5
        return b"\xfe" + struct.pack(self._order + "I", size) + self._pattern(size)

    def _pattern(self, size: int) -> bytes:
        """Return bytes that tell records apart and contain no zeros."""
        seed = len(self.records) % 199 + 1
        return (bytes(range(seed, 256)) * (size // (256 - seed) + 1))[:size]

    @property
    def _record_header_size(self) -> int:
        return 24 if self.version >= _V9_5 else 32

    def _header_size(self, page: int) -> int:
        short = 24 if self.version >= _V9_3 else 16
        return short if page % self.segment_size else short + 16

    def _bytes_at(self, position: int, size: int) -> memoryview:
        """Return *size* writable bytes at *position* on the timeline being written."""
        number, offset = divmod(position, self.segment_size)
        key = self.timeline, number
        if key not in self._segments:
            self._segments[key] = bytearray(self.segment_size)
        return memoryview(self._segments[key])[offset : offset + size]

    def _begin_page(self, page: int, flags: int = 0, remaining: int = 0) -> None:
        """Make the page at *page* an empty one."""
        order, (high, low) = self._order, self.lsn(page)
        first = page % self.segment_size == 0
        info = flags | (_LONG if first else 0)
        magic = MAGICS[self.version]
        if self.version >= _V9_3:
            header = struct.pack(order + "HHIQI4x", magic, info, self.timeline, high << 32 | low, remaining)
        else:
            header = struct.pack(order + "HHIII", magic, info, self.timeline, high, low)
        if first:
            header += struct.pack(order + "QII", self.system_identifier, self.segment_size, self.page_size)
        if self.version < _V9_3 and remaining:
            header += struct.pack(order + "I", remaining)
        self._bytes_at(page, self.page_size)[:] = header.ljust(self.page_size, b"\0")

    def _next_begin(self) -> int:
        """Return where a record written now would begin."""
        position = self.position
        room = -position % self.page_size
        if self.version < _V9_3 and 0 < room < self._record_header_size:
            position += room
        if position % self.page_size == 0:
            position += self._header_size(position)
        return position

    def _finished(self, manager: int, info: int, body: bytes, data_length: int) -> bytes:
        """Return a whole record that points back to the last one and has its checksum."""
        order = self._order
        high, low = self.lsn(self.records[-1].begin) if self.records else (0, 0)
        previous = high << 32 | low
        total = self._record_header_size + len(body)
        transaction = 0
        if self.version >= _V9_5:
            head = struct.pack(order + "IIQBBxx", total, transaction, previous, info, manager)
            crc = google_crc32c.extend(google_crc32c.value(body), head)
            return head + struct.pack(order + "I", crc) + body
        if self.version >= _V9_3:
            head = struct.pack(order + "IIIBBxxQ", total, transaction, data_length, info, manager, previous)
            return head + struct.pack(order + "I4x", _old_crc(body + head)) + body
        head = struct.pack(order + "IIIIIBB6x", high, low, transaction, total, data_length, info, manager)
        return struct.pack(order + "I", _old_crc(body + head)) + head + body

    def _place(self, record: bytes) -> MadeRecord:
        """Lay a record down over as many pages as it takes."""
        begin = place = self._next_begin()
        page = place // self.page_size * self.page_size
        if place == page + self._header_size(page) and self.position != place:
            self._begin_page(page)
        while True:
            room = page + self.page_size - place
            self._bytes_at(place, min(room, len(record)))[:] = record[:room]
            place += min(room, len(record))
            record = record[room:]
            if not record:
                break
            page = place
            self._begin_page(page, _CONTINUES, len(record))
            place += self._header_size(page) + (4 if self.version < _V9_3 else 0)
        self.position = -(-place // 8) * 8
        return MadeRecord(begin, self.position)


def _table_entry(number: int) -> int:
    for _ in range(8):
        number = (number >> 1) ^ (0xEDB88320 if number & 1 else 0)
    return number


_TABLE: Final = [_table_entry(number) for number in range(256)]


def _old_crc(data: bytes) -> int:
    """Return the checksum of WAL before 9.5, byte by byte as its definition goes."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc >> 24) ^ byte] ^ ((crc << 8) & 0xFFFFFFFF)
    return crc ^ 0xFFFFFFFF
