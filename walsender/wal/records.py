"""Records in their pages: finding where one begins, and reading one over page and segment ends."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from walsender.errors import DataCorrupted
from walsender.lsn import LSN

from .record import RecordHeader, RecordParser, aligned

if TYPE_CHECKING:
    from .page import PageHeader
    from .pages import PageReader

# An XLOG_OVERWRITE_CONTRECORD begins its data (after a two-byte header) with the LSN of the
# record that was abandoned.
_OVERWRITTEN_LSN: Final = slice(26, 34)


class RecordIncomplete(DataCorrupted):
    """The record's rest is not there (yet)."""


class RecordAbandoned(DataCorrupted):
    """
    The record's rest will never come: the server crashed in its middle and wrote over it.

    :ivar page: the page that says so, on which the next record begins.
    """

    def __init__(self, page: int) -> None:
        super().__init__("WAL record was abandoned")
        self.page = page


class Stop(enum.Enum):
    """Why a chain of records goes no further."""

    INVALID = enum.auto()  # what stands there is no record
    INCOMPLETE = enum.auto()  # a record may stand there, its rest is missing
    SWITCH = enum.auto()  # the segment is over


class Chain(NamedTuple):
    """A chain of good records: how many, where the last one begins, where the next one would."""

    good: int
    last: int | None
    following: int
    stop: Stop
    reason: str


class RecordReader:
    """Reads records, nothing bigger than a few pages at a time, whatever lengths they state."""

    def __init__(self, pages: PageReader) -> None:
        self._pages = pages
        self._format = pages.identity.format
        self._geometry = pages.geometry
        self._parser = RecordParser(self._format)

    def begin_of(self, position: int) -> int:
        """
        Return where the record begins that follows one which ended at *position*.

        Page headers are stepped over; before 9.3 so is the rest of a page that is too short for a header.
        """
        page = self._geometry.page_start(position)
        if not self._format.splits_record_headers:
            room = page + self._geometry.page_size - position
            if room < self._parser.header_size:
                page = position = page + self._geometry.page_size
        return position if position != page else page + self._format.header_size(page, self._geometry)

    def find_start(self, page: int, floor: int, limit: int) -> tuple[int | None, bool]:
        """
        Return where a record begins on *page* or the nearest page before that has one.

        If pages end before one is found, the first record after that place will do.

        :param floor: the first page to look at; *limit*: the first not to look at any more.
        :returns: the position, or ``None``; and whether nothing earlier can be found.
        """
        page_size = self._geometry.page_size
        page = self._geometry.page_start(max(page, floor))
        while page >= floor and (header := self._pages.header(page)) is not None:
            if (start := self._first_on(page, header)) is not None:
                return start, page == floor
            page -= page_size
        page += page_size
        while page < limit:
            header = self._pages.header(page)
            if header is not None and (start := self._first_on(page, header)) is not None:
                return start, True
            page += page_size
        return None, True

    def _first_on(self, page: int, header: PageHeader) -> int | None:
        """Return where the first record that begins on a page does, if one can."""
        start = aligned(page + header.data_start + (header.remaining if header.continues else 0))
        page_end = page + self._geometry.page_size
        room = 1 if self._format.splits_record_headers else self._parser.header_size
        return start if start + room <= page_end else None

    def read(self, begin: int, last: int | None, limit: int) -> tuple[RecordHeader, int]:
        """
        Return the header of the good record at *begin*, and its end without padding.

        :param last: where the record before begins, or ``None`` if that is not known.
        :param limit: the first page not to look at.
        :raises RecordIncomplete: the pages end before the record does.
        :raises RecordAbandoned: a later record was written over its rest.
        :raises DataCorrupted: there is no record, or not a good one; the usual end of WAL.
        """
        page = self._geometry.page_start(begin)
        found = self._pages.page(page) if page < limit else None
        if found is None:
            raise RecordIncomplete("there is no WAL page")
        page_header, data = found
        offset = begin - page
        if page_header.continues and offset < page_header.data_start + max(page_header.remaining, 1):
            raise DataCorrupted("a record continues where one should begin")
        stated = self._parser.stated_length(data, offset)
        if stated is None:
            raise RecordIncomplete("record is cut off")
        self._parser.check_length(stated)
        if offset + stated > self._geometry.page_size:
            end = self._check_pages(begin, stated, limit)
            return self._read_long(begin, last, stated), end
        if offset + aligned(stated) > len(data):
            raise RecordIncomplete("record is cut off")
        record_header = self._parser.check(data[offset : offset + stated])
        self._check_previous(record_header, begin, last)
        return record_header, begin + stated

    def read_overwrite(
        self, abandoned: int, last: int | None, page: int, limit: int
    ) -> tuple[int, RecordHeader, int]:
        """
        Return begin, header and end of the record which says that the one at *abandoned* was given up.

        :raises DataCorrupted: *page* does not begin with such a record.

        Source: PostgreSQL, src/backend/access/transam/xlogrecovery.c, VerifyOverwriteContrecord.
        """
        begin = page + self._format.header_size(page, self._geometry)
        header, end = self.read(begin, last, limit)
        found = self._pages.page(page)
        assert found is not None  # read() has just been there
        start = begin - page
        body = found[1][start : start + header.total_length][_OVERWRITTEN_LSN]
        overwritten = int.from_bytes(body, self._format.byte_order)
        if not header.is_overwrite or overwritten != self._geometry.lsn(abandoned):
            raise DataCorrupted(f"page {self._geometry.lsn(page)} does not say which record it overwrites")
        return begin, header, end

    def chain(self, position: int, last: int | None, limit: int) -> Chain:
        """
        Return the chain of good records that begins at *position*, up to a switch to the next segment.

        :param last: where the record before begins, or ``None`` if that is not known.
        :param limit: the first page not to look at.
        """
        good = 0
        while True:
            begin = self.begin_of(position)
            try:
                try:
                    header, end = self.read(begin, last, limit)
                except RecordAbandoned as abandoned:
                    begin, header, end = self.read_overwrite(begin, last, abandoned.page, limit)
            except RecordIncomplete as error:
                return Chain(good, last, position, Stop.INCOMPLETE, self._reason_at(begin, error))
            except DataCorrupted as error:
                return Chain(good, last, position, Stop.INVALID, self._reason_at(begin, error))
            good += 1
            position, last = aligned(end), begin
            if header.is_switch:
                return Chain(good, last, position, Stop.SWITCH, "the server switched to the next segment")

    def _reason_at(self, position: int, error: DataCorrupted) -> str:
        return f"{error} at {self._geometry.lsn(position)}"

    def _check_pages(self, begin: int, stated: int, limit: int) -> int:
        """
        Return where the record of *stated* bytes ends, having looked at the headers of its pages only.

        This comes before any reading: a wrong length is found out on the next page, and a record of
        which the end is missing costs no checksum each time that somebody looks.
        """
        page = self._geometry.page_start(begin)
        left = stated - (page + self._geometry.page_size - begin)
        while True:
            page += self._geometry.page_size
            header = self._pages.header(page) if page < limit else None
            if header is None:
                raise RecordIncomplete(
                    f"there is no WAL page {self._geometry.lsn(page)} for the rest of a record"
                )
            if header.overwrites:
                raise RecordAbandoned(page)
            if not header.continues or header.remaining != left:
                raise DataCorrupted(f"invalid contrecord length {header.remaining} (expected {left})")
            if header.data_start + left <= self._geometry.page_size:
                return page + header.data_start + left
            left -= self._geometry.page_size - header.data_start

    def _read_long(self, begin: int, last: int | None, stated: int) -> RecordHeader:
        """Return the header of a record over several pages that `_check_pages` has accepted."""
        size = self._parser.header_size
        checksum = self._parser.checksum()
        head = b""
        header: RecordHeader | None = None
        page = self._geometry.page_start(begin)
        offset = begin - page
        left = stated
        while left:
            found = self._pages.page(page)
            if found is None:
                raise RecordIncomplete("record's page has vanished")
            if page > begin:
                offset = found[0].data_start
            expected = min(left, self._geometry.page_size - offset)
            piece = found[1][offset : offset + expected]
            if len(piece) < expected or (expected == left and len(found[1]) < aligned(offset + left)):
                raise RecordIncomplete("record is cut off")
            left -= expected
            page += self._geometry.page_size
            if header is None:
                missing = size - len(head)
                head, piece = head + piece[:missing], piece[missing:]
                if len(head) == size:
                    header = self._parser.parse(head)
                    self._check_previous(header, begin, last)
            checksum.update(piece)
        assert header is not None  # check_length: no record is shorter than its header
        if checksum.finish(head) != header.crc:
            raise DataCorrupted("incorrect resource manager data checksum in record")
        return header

    def _check_previous(self, header: RecordHeader, begin: int, last: int | None) -> None:
        """
        Accept a record that points back to the one before.

        This is what keeps a record of the file's former use out, which is right in itself.
        """
        if last is None:
            good = self._geometry.position(header.previous) < begin
        else:
            good = header.previous == self._geometry.lsn(last)
        if not good:
            raise DataCorrupted(f"record with incorrect prev-link {LSN(header.previous)}")
