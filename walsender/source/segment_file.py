"""
Open segment files: shared by all standbys that read them, closed when the last one lets go.

The file belongs to the object.  `SegmentFiles` remembers it weakly, readers hold
it strongly, so the descriptor is closed at the moment when the last reader drops
it; no count is kept that could go wrong on an error path.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, NamedTuple

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from walsender.wal import REAL_FILES, CoveredFile, base_name, turn_read_ahead_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from walsender.wal import FileOperations, Identity


class OpenSegment:
    """
    One WAL segment, open for reading, of which the kernel reads nothing ahead.

    :ivar descriptor: file descriptor.
    :ivar name: name of the file, without directory; for messages.
    :ivar start: position of the file's first byte.
    :ivar end: position after its last byte (of the segment, not of what is valid in it).
    :ivar identity: device and inode.
    :ivar retired: another file has taken this one's name; what is below the flush
        position is still right here, but it will not grow.
    :ivar nameless: it never had a name that could be taken.
    :ivar in_memory: for readers: ranges that have been seen in the page cache, start to end and when.
    """

    __slots__ = (
        "__weakref__",
        "_files",
        "descriptor",
        "end",
        "identity",
        "in_memory",
        "name",
        "nameless",
        "retired",
        "start",
    )

    def __init__(self, files: FileOperations, descriptor: int, name: str, start: int, end: int) -> None:
        turn_read_ahead_off(descriptor)  # first: looking whether a page is in memory would begin it
        self._files = files
        self.descriptor = descriptor
        self.name = name
        self.start = start
        self.end = end
        self.retired = self.nameless = False
        self.identity: Identity = (0, 0)
        self.in_memory: dict[int, tuple[int, float]] = {}

    @classmethod
    def of_descriptor(cls, descriptor: int, name: str, start: int, end: int) -> OpenSegment:
        """
        Return the segment that an open file is, for a source of one's own.

        :param descriptor: of a file that is as long as the segment; it belongs to the segment from now on.
        :param name: of the segment, 24 hexadecimal digits.
        :param start: position of the file's first byte.
        :param end: position after its last byte.
        """
        return cls(REAL_FILES, descriptor, name, start, end)

    def __del__(self) -> None:
        self._files.close(self.descriptor)


class WalSlice(NamedTuple):
    """
    A piece of one open segment.

    :ivar segment: whose it is.
    :ivar offset: of its first byte in the file.
    :ivar length: bytes, at least 1.
    """

    segment: OpenSegment
    offset: int
    length: int


class SegmentFiles:
    """
    The segments that are open now, by timeline and segment number.

    :param open_segment: opens one, off the reactor's thread, as a Deferred, which may be cancelled.
    :param released: called whenever one is closed, from wherever its last reader drops it.
    """

    def __init__(
        self,
        open_segment: Callable[[int, int], Deferred[OpenSegment]],
        released: Callable[[], None] = lambda: None,
    ) -> None:
        self._open_segment = open_segment
        self._released = released
        self._open: weakref.WeakValueDictionary[tuple[int, int], OpenSegment] = weakref.WeakValueDictionary()
        self._opening: dict[tuple[int, int], list[Deferred[OpenSegment]]] = {}
        self._openings: dict[tuple[int, int], Deferred[None]] = {}

    def get(self, timeline: int, number: int) -> Deferred[OpenSegment]:
        """
        Return the open segment; it is opened once, however many ask at the same time.

        May be cancelled; when nobody waits for it any more, opening it is.
        """
        key = (timeline, number)
        segment = self._open.get(key)
        if segment is not None and not segment.retired:
            return succeed(segment)
        waiting: Deferred[OpenSegment] = Deferred(lambda _: self._left(key, waiting))
        if key in self._opening:
            self._opening[key].append(waiting)
            return waiting
        self._opening[key] = [waiting]
        opening = maybeDeferred(self._open_segment, timeline, number).addBoth(self._opened, key)
        if key in self._opening:
            self._openings[key] = opening
        return waiting

    def _opened(self, result: OpenSegment | Failure, key: tuple[int, int]) -> None:
        self._openings.pop(key, None)
        if isinstance(result, OpenSegment):
            self._open[key] = result
            weakref.finalize(result, self._released).atexit = False
        for waiting in self._opening.pop(key):
            waiting.callback(result)

    def _left(self, key: tuple[int, int], waiting: Deferred[OpenSegment]) -> None:
        """Somebody no longer wants what is being opened."""
        waiting_now = self._opening.get(key, [])
        if waiting in waiting_now:
            waiting_now.remove(waiting)
            if not waiting_now and key in self._openings:
                self._openings[key].cancel()

    def read(self) -> set[tuple[int, int]]:
        """Return timeline and number of what is open or being opened."""
        return {*self._open, *self._opening}

    def in_use(self) -> frozenset[CoveredFile]:
        """Return the files that are open and current, by name and identity."""
        return frozenset(
            CoveredFile(segment.name, segment.identity)
            for segment in self._open.values()
            if not (segment.retired or segment.nameless)
        )

    def retire(self, files: frozenset[CoveredFile]) -> None:
        """Retire what is open of *files*."""
        identities = {file.identity for file in files}
        for segment in self._open.values():
            if segment.identity in identities:
                segment.retired = True

    def retire_others(self, name: str, identity: Identity) -> None:
        """
        Retire what is open of a segment and is not the file that has its name now.

        :param name: the segment's.
        """
        for segment in self._open.values():
            if segment.identity != identity and base_name(segment.name) == name:
                segment.retired = True


class Cursor:
    """
    One reader's place in a timeline: keeps its segment open, and the next one.

    :param open_segment: as `walsender.source.IWalSource.open_segment`, for one timeline.
    :param segment_size: bytes.
    """

    def __init__(self, open_segment: Callable[[int], Deferred[OpenSegment]], segment_size: int) -> None:
        self._open_segment = open_segment
        self._segment_size = segment_size
        self._segment: OpenSegment | None = None
        self._next: OpenSegment | None = None
        self._ahead_of: OpenSegment | None = None
        self._opening: set[Deferred[OpenSegment]] = set()
        self._closed = False

    def slice(self, start: int, end: int) -> WalSlice | None:
        """
        Return the slice from *start* to *end* or to its segment's end; ``None`` if that is not open yet.

        A file that was retired after `covers` had said yes is still right up to there.

        :param start: position; less than *end*.
        """
        segment = self._at(start)
        if segment is None:
            return None
        return WalSlice(segment, start - segment.start, min(end, segment.end) - start)

    def _at(self, position: int) -> OpenSegment | None:
        """Return the open segment that holds *position*, which becomes the current one."""
        segment = self._segment
        if segment is None or not segment.start <= position < segment.end:
            following = self._next
            if following is None or not following.start <= position < following.end:
                return None
            segment = self._segment = following
            self._next = None
        return segment

    def open(self, start: int, end: int) -> Deferred[None]:
        """
        Open what is needed to slice from *start* to *end*, at most two segments.

        Fails as `walsender.source.IWalSource.open_segment` does.
        """
        first = start // self._segment_size
        last = (end - 1) // self._segment_size

        def opened_first(segment: OpenSegment) -> Deferred[None] | None:
            if self._closed:
                return None
            self._segment = segment
            if last == first:
                return None
            return self._opened(last).addCallback(opened_last)

        def opened_last(segment: OpenSegment) -> None:
            if not self._closed:
                self._next = segment

        return self._opened(first).addCallback(opened_first)

    def _opened(self, number: int) -> Deferred[OpenSegment]:
        """Return a segment, as long as `close` is not called."""
        opening = self._open_segment(number)
        self._opening.add(opening)

        def done(result: OpenSegment | Failure) -> OpenSegment | Failure:
            self._opening.discard(opening)
            return result

        return opening.addBoth(done)

    def read_ahead(self, limit: int) -> None:
        """
        Open the segment after the current one in the background, if there is WAL of it below *limit*.

        So that a reader does not stop at each segment's end for a trip to the
        thread pool.  A failure is met again, and reported, when that segment is needed.
        """
        segment = self._segment
        if segment is None or segment is self._ahead_of or segment.end >= limit:
            return
        self._ahead_of = segment

        def opened(following: OpenSegment) -> None:
            if self._segment is segment:
                self._next = following

        self._opened(segment.end // self._segment_size).addCallbacks(opened, lambda _: None)

    def covers(self, start: int, end: int) -> bool:
        """Whether all from *start* to *end* can be sliced, from files that still have their names."""
        segment = self._at(start)
        if segment is None or segment.retired:
            return False
        if end <= segment.end:
            return True
        following = self._next
        return following is not None and not following.retired and following.start == segment.end

    def close(self) -> None:
        """Let go of the files, for good."""
        self._closed = True
        self._segment = self._next = self._ahead_of = None
        for opening in list(self._opening):
            opening.cancel()
