"""
Where valid WAL ends, which is not where its files end.

The end is the end of the last good record.  Behind it stand zeros (a new file, or the
padding of a ``.partial``), pages of former use (a recycled file), repeated pages (the copy
with which a timeline begins), or garbage; whatever it is, not one byte of it is counted.

How it is found: page headers are walked to the first page that is not really there, and
then records are checked, with their checksums, from a record start some pages before.
What was found once is taken up again with ``resume``, so that following a growing file
costs only its new pages.  A newer end is never before an older one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from walsender.errors import WalFileError, file_error

from .page import SwitchFill
from .pages import PageReader
from .records import Chain, RecordReader, Stop
from .segment import PARTIAL

if TYPE_CHECKING:
    from .directory import WalDirectory
    from .files import FileOperations, Identity

CHECKED_PAGES: Final = 64
"""
How much WAL before its end is checked record by record: half a megabyte at the usual page size.

New WAL that is no more than this is checked whole, so a file that grows under watch is checked
whole in practice; and so is a ``.partial`` that is seen for the first time, since a crash may have torn
any part of it.  CRC-32C of so much takes some 10 ms, the legacy checksum some 30 ms.
"""


class CoveredFile(NamedTuple):
    """A file whose content counts, by name and by what it was when it was read."""

    name: str
    identity: Identity


@dataclass(frozen=True, slots=True)
class EndOfWal:
    """
    Where a timeline's valid WAL ended when it was looked at.

    :ivar position: first position that is not valid WAL.
    :ivar next_record: where the next record is awaited.  Before *position* where a closed segment ends
        inside a record; after it where a switch to the next segment is not written out yet; ``None``
        where no record begins in the WAL that was found.
    :ivar last_record: where the last good record begins, to which the next one must point back.
    :ivar covered: the files that hold what is new against *resume*; see `sync_covered`.
    :ivar gap_ahead: there is newer WAL of this timeline that cannot be reached from *position*: a
        segment between is missing or not whole.  It may be on its way; only time tells.
    :ivar reason: why it is no further, for a log.
    :ivar damaged: why compressed files that were needed cannot be decompressed.
    """

    timeline: int
    position: int
    next_record: int | None
    last_record: int | None
    covered: tuple[CoveredFile, ...]
    gap_ahead: bool
    reason: str
    damaged: tuple[str, ...] = ()


def find_end(
    files: FileOperations,
    directory: WalDirectory,
    timeline: int,
    *,
    resume: EndOfWal | None = None,
    last: int | None = None,
) -> EndOfWal | None:
    """
    Return where *timeline*'s valid WAL ends, or ``None`` if no segment of it has any.

    Without *resume* that is the end of the newest run of segments; with it, as far as WAL reaches
    from there without a gap.  No file content raises, and neither does a file that vanishes.  This
    blocks: it belongs in a thread.

    :param directory: a listing; it may be older than the files.
    :param resume: the former end on the same timeline, up to which all is durable: if `sync_covered` was
        false for an end, the one before is the one to go on from.
    :param last: number of the last segment that is looked at, even if there are others; ``None``: all are.
    :raises WalFileError: a file that is there cannot be opened or read.
    """
    assert resume is None or resume.timeline == timeline  # ends of two timelines have nothing in common
    if directory.identity is None:
        return _unchanged(resume)
    with PageReader(files, directory, timeline, last=last) as pages:
        return _Search(pages, directory).run(resume)


def find_current_end(
    files: FileOperations, directory: WalDirectory, *, resume: EndOfWal | None = None
) -> EndOfWal | None:
    """
    Return where the WAL of the timeline that is being written ends, which also tells that timeline.

    A timeline counts from when its first segment reaches to where it began: before that, the end would
    be before one that was announced on the timeline before, which would be taken to be held up to there.

    :param resume: the former end; its timeline is never gone back behind.
    """
    for timeline in directory.candidate_timelines:
        assert directory.identity is not None  # else there were no timelines
        if resume is not None and timeline < resume.timeline:
            break
        known = resume if resume is not None and resume.timeline == timeline else None
        end = find_end(files, directory, timeline, resume=known)
        if end is None:
            continue
        if end.position >= directory.identity.geometry.position(directory.history(timeline).begin):
            return end
    return _unchanged(resume)


def _unchanged(end: EndOfWal | None) -> EndOfWal | None:
    """Return a former end as the answer of a look that found nothing new."""
    return end and replace(end, covered=())


class SyncFailed(WalFileError):
    """
    A file could not be synced; what it holds is never to be trusted again.

    The kernel has marked its pages clean, so another fsync would succeed and mean nothing.

    :ivar identity: of the file.
    """

    def __init__(self, message: str, identity: Identity) -> None:
        super().__init__(message)
        self.identity = identity


def sync_file(files: FileOperations, descriptor: int, name: str, identity: Identity) -> None:
    """
    Make an open file's content durable.

    :raises SyncFailed: it cannot be done.
    """
    try:
        files.sync(descriptor)
    except OSError as error:
        message = file_error(f'could not fsync file "pg_wal/{name}"', error).message
        raise SyncFailed(message, identity) from error


def sync_covered(
    files: FileOperations,
    directory_path: str,
    covered: tuple[CoveredFile, ...],
    known: tuple[CoveredFile, ...] = (),
) -> bool:
    """
    Make durable what an `EndOfWal` covers, names included; only then may its position be announced.

    :param known: files whose names have been made durable already.
    :returns: false if a file is gone or is another one now.  What was validated is then not what would be
        synced: scan and search again.
    :raises SyncFailed: a file cannot be synced.
    :raises WalFileError: a file cannot be opened, or the directory not be synced.
    """
    for name, identity in covered:
        # Our `.partial` may have got its final name meanwhile.
        for candidate in (name, name.removesuffix(PARTIAL)):
            if _sync_file(files, directory_path, candidate, identity):
                break
        else:
            return False
    if not set(covered) <= set(known):
        try:
            files.sync_directory(directory_path)
        except OSError as error:
            raise file_error('could not fsync file "pg_wal"', error) from error
    return True


def _sync_file(files: FileOperations, directory_path: str, name: str, identity: Identity) -> bool:
    """Sync one file if it still is the one with *identity*, and return whether it is."""
    try:
        descriptor = files.open(f"{directory_path}/{name}")
    except FileNotFoundError:
        return False
    except OSError as error:
        raise file_error(f'could not open file "pg_wal/{name}"', error) from error
    try:
        if files.identity(descriptor) != identity:
            return False
        sync_file(files, descriptor, name, identity)
    except OSError as error:
        raise file_error(f'could not stat file "pg_wal/{name}"', error) from error
    finally:
        files.close(descriptor)
    return True


class _Search:
    """One search for the end; `_position` and its companions only ever move forward."""

    def __init__(self, pages: PageReader, directory: WalDirectory) -> None:
        self._pages = pages
        self._records = RecordReader(pages)
        self._directory = directory
        self._geometry = pages.geometry
        self._format = pages.identity.format
        self._position = 0
        self._next: int | None = None
        self._last: int | None = None
        self._reason = ""
        self._searching = True  # nothing is known yet: no end was found before

    def run(self, resume: EndOfWal | None) -> EndOfWal | None:
        """Return the end, going on from *resume* or looking for the newest segment."""
        first = 0
        if resume is not None:
            self._position, self._next, self._last = resume.position, resume.next_record, resume.last_record
            self._searching = False
            first = self._geometry.segment_number(resume.position)
        else:
            newest = self._newest_segment()
            if newest is None:
                return None
            self._position = self._geometry.segment_start(newest)
        while self._step():
            pass
        end = self._geometry.segment_number(self._position - 1) + 1
        new = resume is None or resume.position < self._position
        return EndOfWal(
            timeline=self._pages.timeline,
            position=self._position,
            next_record=self._next,
            last_record=self._last,
            covered=tuple(
                CoveredFile(file.name, file.identity)
                for number, file in sorted(self._pages.touched.items())
                if new and first <= number < end
            ),
            gap_ahead=self._gap_ahead(),
            reason=self._reason,
            damaged=tuple(error.message for error in self._pages.damaged.values()),
        )

    def _newest_segment(self) -> int | None:
        """Return the highest segment whose first page is really its own."""
        for run in reversed(self._directory.ranges.get(self._pages.timeline, ())):
            for number in reversed(run):
                if self._pages.header(self._geometry.segment_start(number)) is not None:
                    return number
        return None

    def _gap_ahead(self) -> bool:
        """Return whether the next segment that is listed beyond the end begins with WAL of its own."""
        here = self._geometry.segment_number(self._position)
        for run in self._directory.ranges.get(self._pages.timeline, ()):
            if run.stop > here + 1:
                following = max(run.start, here + 1)
                return self._pages.header(self._geometry.segment_start(following)) is not None
        return False

    def _step(self) -> bool:
        """Go on as far as one look at the pages allows; return whether another may bring more."""
        if self._next is not None and self._position < self._next:
            self._position = self._switch_tail(self._position)
            if self._position < self._next:
                return False
        begin = self._position if self._next is None else self._next
        valid_end = self._walk_headers(self._geometry.page_start(begin))
        if valid_end <= begin:
            self._reason = self._reason or "WAL page is missing or not valid"
            return False
        chain = self._checked_chain(begin, valid_end)
        if chain is None:
            # These pages are all inside one record, whose beginning we do not have.
            self._close_segment(valid_end)
            return False
        self._reason = chain.reason
        if chain.good:
            self._position = chain.following if self._searching else max(self._position, chain.following)
            self._searching = False
            self._next, self._last = chain.following, chain.last
        if chain.stop is Stop.SWITCH:
            assert chain.last is not None  # the switch record itself
            self._next = self._geometry.segment_end(chain.last)
            self._position = max(self._position, self._switch_tail(chain.following))
            return self._position == self._next
        if chain.stop is Stop.INCOMPLETE and self._close_segment(valid_end):
            self._next = chain.following
        return False

    def _walk_headers(self, page: int) -> int:
        """Return the first page from *page* on that is not there, or goes back to an older timeline."""
        timeline = 0
        while (header := self._pages.header(page)) is not None and header.timeline >= timeline:
            timeline = header.timeline
            page += self._geometry.page_size
        return page

    def _close_segment(self, valid_end: int) -> bool:
        """
        Count a closed segment to its end although its last record goes on in the next one, or do nothing.

        A segment that has its final name and size is never written again, and an archive consists of
        such.  Where a next file exists it must prove itself first: in the directory of a crashed server
        it is a recycled one, and the unfinished record will be overwritten.
        """
        number = self._geometry.segment_number(valid_end - 1)
        if self._geometry.segment_end(valid_end - 1) != valid_end:
            return False
        file = self._pages.segment(number)
        if file is None or not file.complete or self._pages.segment(number + 1) is not None:
            return False
        self._position = max(self._position, valid_end)
        return True

    def _switch_tail(self, position: int) -> int:
        """
        Return how far the unused rest of a segment, after its switch record, is there.

        In a segment that can still grow, what follows must be what the server writes there.
        """
        end = self._geometry.segment_end(position - 1)
        file = self._pages.segment(self._geometry.segment_number(position - 1))
        if file is None:
            return position
        fill = self._format.switch_fill
        if file.complete:
            return end
        if fill is SwitchFill.ZEROS:
            return end if file.whole and self._pages.is_zero(position, end) else position
        if fill is SwitchFill.HEADERS:
            page_size = self._geometry.page_size
            page = -(-position // page_size) * page_size
            if not self._pages.is_zero(position, page):
                return position
            while page < end and (header := self._pages.header(page)) is not None and not header.continues:
                if not self._pages.is_zero(page + header.data_start, page + page_size):
                    break
                page += page_size
            return page
        return position

    def _checked_chain(self, begin: int, valid_end: int) -> Chain | None:
        """
        Return the chain of good records that leads to the end before *valid_end*.

        Where little is new all of it is checked.  Otherwise the chain begins `CHECKED_PAGES` before the
        end; if no good record is there (the unused rest of a segment is long, or what looks like pages is
        garbage), ever further back.

        :returns: ``None`` if no record begins on any of the pages.
        """
        page_size = self._geometry.page_size
        known = self._next
        distance = CHECKED_PAGES * page_size
        segment = self._geometry.segment_number(valid_end - 1)
        if self._pages.timelines_blurred(segment):
            # Pages of the older timeline may follow the end here and look right in themselves.
            distance = max(distance, valid_end - self._geometry.segment_start(segment))
        if self._searching and not self._is_closed(segment):
            # A crash may have left holes anywhere in it: its writer syncs many megabytes at a time.
            first = self._geometry.segment_start(segment)
            header = self._pages.header(first)
            if header is not None and header.continues:
                first -= page_size  # the record with whose rest it begins counts too
            distance = max(distance, valid_end - first)
        floor = self._lowest_page(segment) if self._next is None else self._geometry.page_start(begin)
        chain: Chain | None = None
        is_lowest = False
        while not is_lowest:
            if known is not None and valid_end - distance <= floor:
                return self._records.chain(known, self._last, valid_end)
            start, is_lowest = self._records.find_start(valid_end - distance, floor, valid_end)
            if start is not None and (chain := self._records.chain(start, None, valid_end)).good:
                return chain
            distance *= 4
        return chain if known is None else self._records.chain(known, self._last, valid_end)

    def _is_closed(self, segment: int) -> bool:
        file = self._pages.segment(segment)
        return file is not None and not file.name.endswith(PARTIAL)

    def _lowest_page(self, segment: int) -> int:
        """Return the first page of the run that ends with *segment*, at most one longest record back."""
        most = self._format.max_record_size // self._geometry.segment_size + 1
        lowest = segment
        while lowest > max(0, segment - most) and self._pages.segment(lowest - 1) is not None:
            lowest -= 1
        return self._geometry.segment_start(lowest)
