"""
Whether WAL is good from one place to its end, record by record.

Serving WAL needs less: the end is found from its last pages, and a standby checks each
record itself.  This is for those who want to know before they rely on a directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from walsender.errors import DataCorrupted

from .pages import PageReader
from .record import RECORD_ALIGNMENT
from .records import RecordReader, Stop
from .segment import segment_name

if TYPE_CHECKING:
    from .directory import WalDirectory
    from .end import EndOfWal
    from .files import FileOperations
    from .records import Chain


@dataclass(frozen=True, slots=True)
class VerifiedWal:
    """
    What was found to be good.

    :ivar begin: position of the first record; *end*, if there is none.
    :ivar end: position up to which WAL is good, and will be served.
    """

    begin: int
    end: int
    records: int


def verify_wal(files: FileOperations, directory: WalDirectory, end: EndOfWal, start: int) -> VerifiedWal:
    """
    Check every record from *start* to the end of WAL, along the history of the timeline that ends there.

    This takes about a second for 300,000 records, and belongs in no reactor's thread.

    :param end: from `walsender.wal.find_current_end`.
    :param start: position; the first record that begins on its page, or later, is the first one.
        It must be held: `WalDirectory.earliest`.
    :raises DataCorrupted: there is something that is no good record, and it is not the end: the message says
        in which file, where in it, and why.
    :raises WalFileError: a file cannot be read.
    """
    with PageReader(files, directory, end.timeline) as pages:
        return _Verification(pages, directory, end).run(start)


class _Verification:
    """One check, from one end to the other."""

    def __init__(self, pages: PageReader, directory: WalDirectory, end: EndOfWal) -> None:
        self._pages = pages
        self._directory = directory
        self._geometry = pages.geometry
        self._records = RecordReader(pages)
        self._end = end
        # The last segment of an archive may end inside a record.
        self._last_place = min(end.position, end.position if end.next_record is None else end.next_record)

    def run(self, start: int) -> VerifiedWal:
        """Return what is good."""
        begin = self._first_record(start)
        if begin is None:
            return VerifiedWal(self._end.position, self._end.position, 0)
        position, last, good = begin, None, 0
        while True:
            chain = self._records.chain(position, last, self._limit(position))
            good += chain.good
            position, last = chain.following, chain.last
            if chain.stop is Stop.SWITCH:
                assert last is not None, "the switch record itself"
                position = self._geometry.segment_end(last)
                if position < self._last_place:
                    continue
            elif position < self._last_place:
                self._refuse_at(chain)
            self._check_behind(position, chain)
            return VerifiedWal(begin, self._end.position, good)

    def _first_record(self, start: int) -> int | None:
        """Return where the first record begins, on the page of *start* or later; ``None`` if none does."""
        page = self._geometry.page_start(start)
        while page < self._last_place:
            if self._pages.header(page) is None:
                self._refuse(page, "WAL page is missing or not valid")
            begin, _ = self._records.find_start(page, page, page)
            if begin is not None:
                return begin if begin < self._last_place else None
            page += self._geometry.page_size
        return None

    def _limit(self, position: int) -> int:
        """Return the first page that no record which begins at *position* or before the end can be on."""
        last = self._geometry.segment_end(max(position, self._end.position))
        return last + self._pages.identity.format.max_record_size

    def _check_behind(self, position: int, chain: Chain) -> None:
        """
        Refuse an end that is none: something is wrong there, and good records follow.

        Where a server has ended, the rest of its last page is zero.  What follows then is of no account:
        after a crash a server writes over what it could not recover, and need not have come as far again.
        """
        page = self._geometry.page_start(position)
        if page < position:
            found = self._pages.page(page)
            rest = b"" if found is None else found[1][position - page :]
            if rest.count(0) == len(rest):
                return
            page += self._geometry.page_size
            for begin in range(position + RECORD_ALIGNMENT, page, RECORD_ALIGNMENT):
                self._refuse_if_good(begin, chain)
        number = self._geometry.segment_number(page)
        run = self._directory.run_of(self._pages.timeline, number)
        end = self._geometry.segment_start(number + 1 if run is None else run.stop)
        while page < end:
            first, _ = self._records.find_start(page, page, page)
            if first is not None:
                self._refuse_if_good(first, chain)
            page += self._geometry.page_size

    def _refuse_if_good(self, begin: int, chain: Chain) -> None:
        """Refuse the end of *chain* if there is a good record at *begin*."""
        try:
            self._records.read(begin, None, self._limit(begin))
        except DataCorrupted:
            return
        self._refuse_at(chain, f"; but good WAL follows at {self._geometry.lsn(begin)}")

    def _refuse_at(self, chain: Chain, more: str = "") -> NoReturn:
        """Refuse the record, or what stands in its place, at the end of *chain*."""
        if chain.stop is Stop.SWITCH:
            assert chain.last is not None, "the switch record itself"
            self._refuse(self._geometry.segment_end(chain.last), "WAL page is missing or not valid" + more)
        begin = self._records.begin_of(chain.following)
        if chain.stop is Stop.INCOMPLETE:
            # Not the record is wrong but the first page that is not there, or not whole.
            page = self._geometry.page_start(begin)
            while (found := self._pages.page(page)) and len(found[1]) == self._geometry.page_size:
                page += self._geometry.page_size
            begin = page
        self._refuse(begin, chain.reason + more)

    def _refuse(self, position: int, reason: str) -> NoReturn:
        number = self._geometry.segment_number(position)
        file = self._pages.segment(number)
        if file is None:
            name, reason = segment_name(self._pages.timeline, number, self._geometry), "it is missing"
        else:
            name = file.name
            if name in self._pages.damaged:
                reason = self._pages.damaged[name].message
        offset = position - self._geometry.segment_start(number)
        raise DataCorrupted(
            f'file "pg_wal/{name}", offset {offset} (LSN {self._geometry.lsn(position)}): {reason}'
        )
