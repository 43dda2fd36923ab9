"""
Positions in WAL: log sequence numbers and the arithmetic of both address eras.

An *LSN* is what the protocol and the files write: two 32-bit halves, the log
file's number and the offset in it.  A *position* is a count of WAL bytes since
0/0.  From PostgreSQL 9.3 on the two are the same number.  Before, a log file had
255 segments of 16 MB and the last 16 MB of each 4 GB were never used, so that a
difference of two LSNs was no byte count.  `Geometry` converts between them;
everything inside this program computes with positions and turns them into
LSNs where bytes or text leave it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from walsender.errors import InvalidLSN

_LSN_TEXT: Final = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")

MIN_SEGMENT_SIZE: Final = 1 << 20
MAX_SEGMENT_SIZE: Final = 1 << 30
DEFAULT_SEGMENT_SIZE: Final = 16 << 20
DEFAULT_PAGE_SIZE: Final = 8192


class LSN(int):
    """
    A log sequence number; prints as PostgreSQL prints it (``%X/%X``).  0 means "none".

    Arithmetic returns a plain ``int``: wrap the result where it leaves a room.
    """

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> LSN:
        """
        Return the LSN that *text* spells, in any width (``0/3000060``, ``0/03000060``).

        :raises InvalidLSN: *text* is not two groups of one to eight hexadecimal digits.

        Source: PostgreSQL, src/backend/utils/adt/pg_lsn.c, pg_lsn_in_internal.
        """
        match = _LSN_TEXT.fullmatch(text)
        if match is None:
            raise InvalidLSN(f'invalid input syntax for type pg_lsn: "{text}"')
        return cls(int(match[1], 16) << 32 | int(match[2], 16))

    @property
    def log_id(self) -> int:
        """The high half: number of the (logical) log file."""
        return self >> 32

    @property
    def log_offset(self) -> int:
        """The low half: offset in bytes in the log file."""
        return self & 0xFFFFFFFF

    def __str__(self) -> str:
        return f"{self >> 32:X}/{self & 0xFFFFFFFF:X}"

    def __repr__(self) -> str:
        return f"LSN('{self}')"


INVALID_LSN: Final = LSN(0)


@dataclass(frozen=True, slots=True)
class Geometry:
    """
    How one cluster's WAL is cut into pages, segments and log files.

    :ivar segment_size: bytes; a power of two from 1 MiB to 1 GiB.
    :ivar page_size: bytes; a power of two, XLOG_BLCKSZ of the server.
    :ivar log_file_size: bytes of WAL that one value of an LSN's high half addresses.

    Use `Geometry.contiguous` or `Geometry.skipping` to make one.
    """

    segment_size: int
    page_size: int
    log_file_size: int

    def __post_init__(self) -> None:
        size = self.segment_size
        if not MIN_SEGMENT_SIZE <= size <= MAX_SEGMENT_SIZE or size & (size - 1):
            raise ValueError(f"{size} is no WAL segment size")
        if not 1024 <= self.page_size <= 65536 or self.page_size & (self.page_size - 1):
            raise ValueError(f"{self.page_size} is no WAL page size")

    @classmethod
    def contiguous(
        cls, segment_size: int = DEFAULT_SEGMENT_SIZE, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Geometry:
        """Return the geometry of WAL from PostgreSQL 9.3 on: every byte address is used."""
        return cls(segment_size, page_size, 1 << 32)

    @classmethod
    def skipping(
        cls, segment_size: int = DEFAULT_SEGMENT_SIZE, page_size: int = DEFAULT_PAGE_SIZE
    ) -> Geometry:
        """
        Return the geometry of WAL before PostgreSQL 9.3: the last segment of each log file is skipped.

        Source: PostgreSQL 9.2, src/include/access/xlog_internal.h, XLogSegsPerFile.
        """
        return cls(segment_size, page_size, 0xFFFFFFFF // segment_size * segment_size)

    @property
    def segments_per_log_file(self) -> int:
        """How many segments share one value of the middle part of a segment's name."""
        return self.log_file_size // self.segment_size

    def position(self, lsn: int) -> int:
        """
        Return the position of *lsn*: the count of WAL bytes before it.

        The end of a log file and the start of the next are one place, and an
        offset that points into the skipped part means that place too.
        """
        if self.log_file_size == 1 << 32:
            return int(lsn)
        return (lsn >> 32) * self.log_file_size + min(lsn & 0xFFFFFFFF, self.log_file_size)

    def lsn(self, position: int) -> LSN:
        """Return the LSN at *position*; at a log file's end, the start of the next."""
        if self.log_file_size == 1 << 32:
            return LSN(position)
        log_id, offset = divmod(position, self.log_file_size)
        return LSN(log_id << 32 | offset)

    def segment_number(self, position: int) -> int:
        """
        Return which segment, counted from 0 over all of WAL, holds the byte at *position*.

        Source: PostgreSQL, src/include/access/xlog_internal.h, XLByteToSeg.
        """
        return position // self.segment_size

    def segment_start(self, segment_number: int) -> int:
        """Return the position of the first byte of a segment."""
        return segment_number * self.segment_size

    def segment_end(self, position: int) -> int:
        """Return where the segment that holds the byte at *position* ends."""
        return (self.segment_number(position) + 1) * self.segment_size

    def page_start(self, position: int) -> int:
        """Return *position* rounded down to the start of its page."""
        return position & -self.page_size
