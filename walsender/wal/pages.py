"""
The pages of one timeline's WAL, in order, whichever files hold them.

Only pages that are really there count: of this cluster, at this address, on a timeline
that may have written them.  A recycled or preallocated file therefore has no pages.
"""

from __future__ import annotations

import errno
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from walsender.errors import DataCorrupted, WalFileError, file_error

from .compressed import CannotDecompress
from .page import CONTINUES_RECORD, PageHeader, header_read_size, parse_page_header
from .segment import PARTIAL, segment_name

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from .directory import WalDirectory
    from .files import FileOperations, Identity
    from .segment import WalIdentity

_CHUNK_PAGES: Final = 16
_MOST_OPEN: Final = 4

# What reading a directory, a pipe or a socket under a segment's name ends with.
_NO_ORDINARY_FILE: Final = {errno.EISDIR, errno.ESPIPE, errno.EINVAL, errno.ENXIO, errno.ELOOP}


@dataclass(frozen=True, slots=True)
class SegmentFile:
    """
    A segment's file, of which the size may be asked while it is open.

    :param segment_size: bytes.
    """

    name: str
    descriptor: int
    identity: Identity
    files: FileOperations
    segment_size: int

    @property
    def whole(self) -> bool:
        """
        Whether it has its full size.

        :raises WalFileError: that cannot be found out.
        """
        try:
            return self.files.size(self.descriptor, self.segment_size) >= self.segment_size
        except CannotDecompress:
            return False  # which is noted when it is read
        except OSError as error:
            raise file_error(f'could not stat file "pg_wal/{self.name}"', error) from error

    @property
    def complete(self) -> bool:
        """Whether it has its full size, and its final name (not ``.partial``)."""
        return not self.name.endswith(PARTIAL) and self.whole


class PageReader:
    """
    Reads pages of *timeline* and its ancestors; a context manager, since it keeps files open.

    A segment that the listing does not have, or has under its ``.partial`` name, is looked for by
    name, so that growth is seen without a new listing.

    :param last: number of the last segment; what follows is as if it was not there.
    :ivar touched: the files from which something was read, by segment number.
    :ivar damaged: of those the ones that cannot be decompressed, and why.
    """

    def __init__(
        self, files: FileOperations, directory: WalDirectory, timeline: int, *, last: int | None = None
    ) -> None:
        assert directory.identity is not None  # without a segment there are no pages to ask for
        self.identity: WalIdentity = directory.identity
        self.geometry = self.identity.geometry
        self.timeline = timeline
        self.touched: dict[int, SegmentFile] = {}
        self.damaged: dict[str, CannotDecompress] = {}
        self._files = files
        self._last_segment = math.inf if last is None else last
        self._directory = directory
        self._history = directory.history(timeline)
        self._has_history = timeline == 1 or timeline in directory.histories
        self._settled_from = self._first_own_position()
        self._open: dict[int, SegmentFile | None] = {}
        self._chunk_start = self._chunk_end = 0
        self._chunk = b""
        self._last: tuple[int, tuple[PageHeader, bytes] | None] = (-1, None)
        self._header_size = header_read_size(self.identity.format)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all files; the reader may be used again."""
        while self._open:
            self._close(self._open.popitem()[1])

    def _close(self, file: SegmentFile | None) -> None:
        if file is not None:
            self._files.close(file.descriptor)

    def _first_own_position(self) -> float:
        """Return from where on every page carries the timeline's own number, as far as is known."""
        if not self._has_history:
            return math.inf
        begin = self.geometry.position(self._history.begin)
        if self._history.entries and not self._history.entries[-1].exact:
            return begin + self.geometry.segment_size
        return begin

    def segment(self, number: int) -> SegmentFile | None:
        """
        Return the file that holds segment *number*, or ``None`` if there is none (any more).

        :raises WalFileError: it is there and cannot be opened.
        """
        if number > self._last_segment:
            return None
        if number in self._open:
            return self._open[number]
        while len(self._open) >= _MOST_OPEN:
            self._close(self._open.pop(next(iter(self._open))))
        timeline = self._directory.timeline_on_line(self.timeline, number)
        self._open[number] = file = self._open_segment(segment_name(timeline, number, self.geometry))
        return file

    def _open_segment(self, name: str) -> SegmentFile | None:
        """Return the best file of the segment *name*; a plain one that is not whole may be being unpacked."""
        plain: SegmentFile | None = None
        try:
            for form in self._directory.forms:
                if plain is not None and form.endswith(PARTIAL):
                    break
                file = self._open_file(name + form)
                if file is None:
                    continue
                if form:
                    self._close(plain)
                    return file
                plain = file
                if plain.whole:
                    break
        except WalFileError:
            self._close(plain)
            raise
        return plain

    def _open_file(self, name: str) -> SegmentFile | None:
        try:
            descriptor = self._files.open(f"{self._directory.path}/{name}")
        except OSError as error:
            if error.errno == errno.ENOENT or error.errno in _NO_ORDINARY_FILE:
                return None
            raise file_error(f'could not open file "pg_wal/{name}"', error) from error
        try:
            identity = self._files.identity(descriptor)
        except OSError as error:
            self._files.close(descriptor)
            raise file_error(f'could not stat file "pg_wal/{name}"', error) from error
        return SegmentFile(name, descriptor, identity, self._files, self.geometry.segment_size)

    def header(self, position: int) -> PageHeader | None:
        """
        Return the header of the page that begins at *position*, or ``None`` if no such page is there.

        :raises WalFileError: the file is there and cannot be read.
        """
        if self._chunk_start <= position < self._chunk_end:
            offset = position - self._chunk_start
            return self._judge(position, self._chunk[offset : offset + self._header_size])
        return self._judge(position, self._read(position, self._header_size))

    def page(self, position: int) -> tuple[PageHeader, bytes] | None:
        """
        Return the page that begins at *position*, shorter where its file ends, or ``None``.

        :raises WalFileError: the file is there and cannot be read.
        """
        if position == self._last[0]:
            return self._last[1]  # asked for each of its records
        page_size = self.geometry.page_size
        if not self._chunk_start <= position < self._chunk_end:
            segment_end = self.geometry.segment_start(self.geometry.segment_number(position) + 1)
            self._chunk = self._read(position, min(_CHUNK_PAGES * page_size, segment_end - position))
            self._chunk_start, self._chunk_end = position, position + len(self._chunk)
        offset = position - self._chunk_start
        page = self._chunk[offset : offset + page_size]
        header = self._judge(position, page)
        self._last = position, None if header is None else (header, page)
        return self._last[1]

    def is_zero(self, start: int, end: int) -> bool:
        """Return whether all bytes of one segment from *start* to *end* are there and zero."""
        while start < end:
            data = self._read(start, min(end - start, 1 << 20))
            if not data or data.count(0) != len(data):
                return False
            start += len(data)
        return True

    def timelines_blurred(self, number: int) -> bool:
        """
        Return whether segment *number* begins on an older timeline and nobody knows where that ends.

        The copy with which a new timeline begins may hold pages of the old one beyond the end
        that only the history file tells (and not exactly before 9.3).
        """
        start = self.geometry.segment_start(number)
        header = self.header(start)
        if header is None or header.timeline == self.timeline:
            return False
        earliest, latest = self._timelines_at(start)
        return earliest != latest

    def _read(self, position: int, length: int) -> bytes:
        """Return what one segment's file has at *position*; nothing where there is no file."""
        number = self.geometry.segment_number(position)
        file = self.segment(number)
        if file is None:
            return b""
        is_new = self.touched.get(number) is not file
        self.touched[number] = file
        offset = position - self.geometry.segment_start(number)
        length = min(length, self.geometry.segment_size - offset)
        try:
            if is_new:
                # Expands all of a compressed file: if it is damaged further on, nothing of it counts.
                self._files.size(file.descriptor, self.geometry.segment_size)
            return self._files.read(file.descriptor, length, offset)
        except CannotDecompress as error:
            self.damaged[file.name] = error
            return b""
        except OSError as error:
            if error.errno in _NO_ORDINARY_FILE:
                return b""
            raise file_error(f'could not read file "pg_wal/{file.name}"', error) from error

    def _judge(self, position: int, data: bytes) -> PageHeader | None:
        """Return the header with which *data* begins if it belongs at *position*."""
        try:
            header = parse_page_header(data, self.identity.format, self.geometry)
        except DataCorrupted:
            return None
        if header.address != self.geometry.lsn(position):
            return None
        if header.long is not None and header.long.system_identifier != self.identity.system_identifier:
            return None
        if header.overwrites and header.flags & CONTINUES_RECORD:
            return None
        earliest, latest = self._timelines_at(position)
        return header if earliest <= header.timeline <= latest else None

    def _timelines_at(self, position: int) -> tuple[int, int]:
        """
        Return the lowest and highest timeline that the page at *position* can carry.

        They are one where the history says it exactly.  The page that holds a switch point was
        begun by the older timeline and keeps its number.
        """
        if position >= self._settled_from:
            return self.timeline, self.timeline
        if not self._has_history:
            # Nothing tells what was before; PostgreSQL takes any older timeline too.
            return 1, self.timeline
        lsn = self.geometry.lsn(position)
        latest = earliest = self._history.timeline_at(lsn)
        number = self.geometry.segment_number(position)
        for entry in reversed(self._history.entries):
            switch_number = self.geometry.segment_number(self.geometry.position(entry.switchpoint))
            if switch_number < number:
                break
            if not entry.exact and switch_number == number:
                earliest = min(earliest, entry.timeline)
        return earliest, latest
