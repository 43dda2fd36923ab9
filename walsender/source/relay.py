"""
`RelaySource`: WAL that a receiver makes durable in a directory of its own.

The directory is looked at once, at the start; from then on nobody else writes there,
and what the receiver has committed is shown without looking.  A new timeline is shown
when it is durable up to where it begins: before that the old one is still the newest
that standbys can have.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from walsender.errors import WalFileError, file_error
from walsender.source.durable_files import DurableFiles
from walsender.source.follower import Follower, Look, remembered
from walsender.source.held import HeldWal
from walsender.source.newest import NewestWal
from walsender.source.permits import Permits, TellingWriter
from walsender.source.removal import SegmentRemover
from walsender.timings import Stopwatch
from walsender.upstream import Commit, GroupCommit, Room, SegmentWriter
from walsender.upstream.segment_writer import REPLACEMENT
from walsender.wal import (
    CoveredFile,
    EndOfWal,
    SyncFailed,
    TimelineHistory,
    WalDirectory,
    check_whole,
    history_name,
    parse_file_name,
    segment_name,
)
from walsender.wal.segment import FileKind, base_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.python.failure import Failure

    from walsender.lsn import Geometry
    from walsender.source.segment_file import OpenSegment
    from walsender.upstream.group_commit import IAttendant
    from walsender.wal import Identity, WalIdentity, WritableFiles

# A look finds nothing too if somebody replaces a file meanwhile (compresses it, say), and a directory
# that was taken for empty would be gone on with at the upstream's newest segment.
_LOOKS: Final = 3


class RelaySource(HeldWal):
    """
    Serves what a receiver keeps here.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param run_commit: likewise, with one thread of its own: commits are done one after another.
    :param files: the disk.
    :param path: the WAL directory, which nobody else writes.
    :ivar attendant: the thread of *run_commit*, if it can wait for an upstream.
    :ivar room: for what is received.
    :ivar restore: gets a segment by its file's name from an archive into the directory; fires with whether
        it is there.
    :ivar receive: counts how long it takes until what has come is durable.
    :ivar remove_unneeded: removes WAL; fires with why the rest stays, or nothing if something is gone.
    """

    _log = Logger()

    def __init__(
        self,
        run_in_thread: Callable[..., Deferred[Any]],
        run_commit: Callable[..., Deferred[Any]],
        files: WritableFiles,
        path: str,
        *,
        directory_mode: int = 0o700,
    ) -> None:
        super().__init__(
            run_in_thread, Follower(files, path, sync=True, alone=True), directory_mode=directory_mode
        )
        self._run_commit = run_commit
        self._files = files
        self._path = path
        self._directory = WalDirectory(path)
        self._received: list[CoveredFile] = []
        self._unshown: dict[int, int] = {}  # timeline: up to where it is durable
        self._distrusted: set[Identity] = set()
        self._durable = DurableFiles(files, path, self._forget)
        self._remover = SegmentRemover(files, path, self._forget)
        self.room = Room(files, path)
        self.remove_unneeded: Callable[[], Deferred[str]] = lambda: succeed("No WAL is ever removed.")
        self.restore: Callable[[str], Deferred[bool]] = lambda _: succeed(False)
        self.receive = Stopwatch()
        self._receiving = 0  # the timeline
        self._receiving_at = 0
        self._leaving: list[tuple[int, int]] = []
        self.attendant: IAttendant | None = None
        self._permits = self.permits = Permits()
        self._ahead = 0  # the flush position, while the reactor has not heard of it

    def start(self) -> Deferred[None]:
        """
        Look what is held, and make it durable; fires when that can be served and gone on with.

        After a stop somebody else may have written here, so nothing that was known counts.
        """
        self._look, self._directory = None, WalDirectory(self._path)
        self._ahead = 0
        self._follower.begin()
        self._received.clear()
        self._unshown.clear()
        self._leaving.clear()
        self._receiving = self._receiving_at = 0
        started: Deferred[Look | None] = self._run_commit(self._first_look)
        return started.addCallback(self._begin)

    def _first_look(self) -> Look | None:
        """Clear up what a crash has left, then look; in a thread."""
        try:
            self._remover.begin(self._files.list_directory(self._path))
            self._durable.clear_up()
            self._files.sync_directory(self._path)
        except OSError as error:
            path = error.filename or self._path  # of a file of another user's, perhaps
            kind = "directory" if path == self._path else "file"
            raise file_error(f'could not use {kind} "{path}"', error) from error
        try:
            for _ in range(_LOOKS):
                if (look := self._follower.look(listing=True, skip_gap=False)) is not None:
                    return look
            return None
        except SyncFailed as error:
            self._durable.renew(error.identity)
            raise

    def _open(self, timeline: int, number: int) -> Deferred[OpenSegment]:
        return super()._open(timeline, number).addErrback(self._not_opened)

    def _not_opened(self, failure: Failure) -> Failure:
        """A file that cannot be synced is not served; for the next who wants it there will be a copy."""
        if isinstance(failure.value, SyncFailed):
            number = self.geometry.segment_number(self._receiving_at)
            busy = segment_name(self._receiving, number, self.geometry) if self._receiving else ""
            renewed = self._run_commit(self._durable.renew, failure.value.identity, busy)
            renewed.addCallback(self._renewed)
            renewed.addErrback(lambda reason: self._log.failure("copying a WAL file failed", reason))
        return failure

    def _renewed(self, names: list[str]) -> None:
        """Let the copies prove themselves when they are opened."""
        assert self._look is not None, "somebody has opened a file"
        copied = {base_name(name) for name in names}
        validated = {base: file for base, file in self._look.validated.items() if base not in copied}
        self._look = replace(self._look, validated=validated)

    def _begin(self, look: Look | None) -> None:
        if look is not None:
            self._directory = look.directory
            self._take_over(look)

    # walsender.upstream.receiver.IWalKeeper

    @property
    def identity(self) -> WalIdentity | None:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        return self._directory.identity

    @property
    def held_timeline(self) -> int:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        return 0 if self._look is None else self._look.end.timeline

    @property
    def held_position(self) -> int:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        return 0 if self._look is None else self._look.end.position

    def known_history(self, timeline: int) -> bytes | None:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        return self._directory.history_content(timeline)

    def durable_on(self, timeline: int, start: int) -> int:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        if self._look is None:
            return start
        held = self._look.end
        if timeline == held.timeline:
            return max(start, held.position)
        switch = self._look.directory.history(held.timeline).switchpoint(timeline)
        left = start if switch is None else self.geometry.position(switch[0])
        return max(start, left, self._unshown.get(timeline, 0))

    def keep_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        history = TimelineHistory.parse(timeline, content)

        def kept(_: None) -> None:
            self._directory = self._directory.with_history(history, content)

        written: Deferred[None] = self._run_commit(
            self._durable.write_history, history_name(timeline), content
        )
        return written.addCallback(kept)

    def keep_found_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `walsender.source.histories.IHistoryKeeper`."""
        return Deferred.fromCoroutine(self._keep_found(timeline, content))

    async def _keep_found(self, timeline: int, content: bytes) -> None:
        history = await self._run_in_thread(self._follower.check_history, self._directory, timeline, content)
        known = self.known_history(timeline)
        if known is None:
            await self.keep_history(timeline, content)
        elif known != content:  # the upstream has given it, and no WAL has come since
            history, content = TimelineHistory.parse(timeline, known), known
        assert self._look is not None, "a client has asked for it"
        self._look = replace(self._look, directory=self._look.directory.with_history(history, content))

    def fill(self, timeline: int, start: int, until: int) -> Deferred[bool]:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        if self._look is None:
            return succeed(False)
        return Deferred.fromCoroutine(self._fill(timeline, start, until))

    async def _fill(self, timeline: int, start: int, until: int) -> bool:
        """Restore one whole segment after the other; the first one may be here."""
        geometry = self.geometry
        first = number = geometry.segment_number(start)
        while (end := geometry.segment_start(number + 1)) <= until:
            name = segment_name(timeline, number, geometry)
            durable = self.durable_on(timeline, geometry.segment_start(number))
            is_here = number == first and await self._run_commit(self._is_whole, name, durable, end)
            if not (is_here or await self.restore(name)):
                break
            identity = await self._run_commit(self._files.path_identity, f"{self._path}/{name}")
            self._kept(timeline, Commit(end, self.identity, [CoveredFile(name, identity)]))
            number += 1
        return number > first

    def _is_whole(self, name: str, durable: int, end: int) -> bool:
        """
        Return whether a segment is all here, although WAL does not count to its *end*; in a thread.

        Its last record ends in the next one, and was not found whole at the start.  Or the upstream has
        switched to the next one, and removed this before it has sent what is unused in it.
        """
        assert self._look is not None, "something is held"
        file = self._look.validated.get(name)
        if file is None:
            return False  # nobody has made it durable
        try:
            if file.name != name:
                return file.identity not in self._distrusted and self._durable.complete(file.name, durable)
            check_whole(self._files, self._path, name, self._directory, end)
        except (WalFileError, OSError):
            return False
        return True

    # walsender.source.shelves.IFetchingKeeper

    def needed_until(self, name: str) -> tuple[WalDirectory, int]:
        """See `walsender.source.shelves.INeeds`: a new timeline's history is here before its WAL."""
        return self._directory, super().needed_until(name)[1]

    def held_of(self, name: str) -> int:
        """See `walsender.source.shelves.IFetchingKeeper`."""
        file = parse_file_name(name, self.geometry)
        number = file.number(self.geometry)
        if any(number < run.stop - 1 for run in self._directory.ranges.get(file.timeline, ())):
            return 0  # receiving came to nothing there before it began elsewhere
        start = self.geometry.segment_start(number)
        return min(self.durable_on(file.timeline, start) - start, self.geometry.segment_size)

    def segment_fetched(self, name: str) -> None:
        """See `walsender.source.shelves.IFetchingKeeper`."""
        assert self._look is not None, "somebody reads from it"
        file = parse_file_name(name, self.geometry)
        number = file.number(self.geometry)
        self._leaving = [segment for segment in self._leaving if segment != (file.timeline, number)]
        self._directory = self._directory.with_segment(file.timeline, number, partial=False)
        directory = self._look.directory.with_segment(file.timeline, number, partial=False)
        self._look = replace(self._look, directory=directory)

    # walsender.upstream.receiver.IWalKeeper, the rest of it

    def keep_from(
        self,
        timeline: int,
        start: int,
        geometry: Geometry,
        committed: Callable[[Commit], None],
        failed: Callable[[Failure], None],
    ) -> GroupCommit:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        self._received.clear()
        self._receiving, self._receiving_at = timeline, start
        segments = SegmentWriter(
            self._files,
            self._path,
            geometry,
            timeline,
            start,
            self.durable_on(timeline, start),
            identity=self.identity,
            distrusted=self._distrusted,
            made=self._forget,
            room=self.room,
        )
        writer = TellingWriter(segments, partial(self._send, timeline))

        def done(commit: Commit) -> None:
            self._kept(timeline, commit)
            committed(commit)

        return GroupCommit(writer, self._run_commit, done, failed, self.receive, self.attendant)

    def check_room(self) -> Deferred[None]:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        if self._look is None:
            return succeed(None)  # the first segment's size is not known
        geometry = self.geometry
        number = geometry.segment_number(self.held_position)
        in_segment = self.held_position > geometry.segment_start(number)
        if in_segment and self._directory.run_of(self.held_timeline, number) is not None:
            return succeed(None)  # it has been made with its full size
        return self._run_commit(self.room.check, geometry.segment_size)

    def make_room(self) -> Deferred[str]:
        """See `walsender.upstream.receiver.IWalKeeper`."""
        return self.remove_unneeded()

    # walsender.retention.remover.IRemovableWal

    @property
    def receiving_at(self) -> int:
        """See `walsender.retention.remover.IRemovableWal`."""
        return self._receiving_at or self.held_position

    def may_remove(self) -> Deferred[bool]:
        """See `walsender.retention.remover.IRemovableWal`."""
        return self._run_commit(self._remover.may_remove)

    def has_before(self, number: int) -> bool:
        """See `walsender.retention.remover.IRemovableWal`."""
        before = self._directory.segments_before(number, self.held_timeline)
        return bool(self._leaving) or next(before, None) is not None

    def remove_before(self, number: int, at_most: int) -> Deferred[int]:
        """
        See `walsender.retention.remover.IRemovableWal`.

        From now on nobody finds them here; the files go in the thread of the commits.  Whoever brings such a
        segment back must give it its name in that thread too, or it is taken for the one that has to go.
        """
        before = self._directory.segments_before(number, self.held_timeline)
        leaving = list(islice(before, at_most))
        self._leaving += leaving
        if not self._leaving or self._look is None:
            return succeed(0)
        directory = self._directory = self._directory.without_segments(leaving)
        gone = {segment_name(*segment, self.geometry): segment for segment in self._leaving}
        validated = {base: file for base, file in self._look.validated.items() if base not in gone}
        self._look = replace(self._look, directory=directory, validated=validated)

        def removed(names: list[str], error: WalFileError | None) -> int:
            self._leaving = [segment for name, segment in gone.items() if name not in names]
            if error is not None:
                raise error
            return len(names)

        done: Deferred[tuple[list[str], WalFileError | None]] = self._run_commit(
            self._remover.remove, list(gone), directory.forms
        )
        return done.addCallback(lambda result: removed(*result))

    # Inside

    def _forget(self, identity: Identity) -> None:
        self._distrusted.discard(identity)
        self._follower.forget(identity)

    @property
    def flush_position(self) -> int:
        """See `IWalSource`."""
        return max(super().flush_position, self._ahead)

    def _send(self, timeline: int, commit: Commit) -> bool:
        """
        Send what has become durable to those who are level; in the thread of the commits.

        Only what is certain to be shown when the reactor hears of it, by `_kept`, and is in a file that
        it knows.

        :returns: whether all who wait for it have got it: those with permits are all there are.  Whoever
            begins only now learns of it by itself, since the flush position moves before they are counted.
        """
        look = self._look
        if look is None or not commit.newest or timeline != look.end.timeline:
            return False
        if commit.files or self._received:
            return False  # readers may still have another file of that segment open
        assert commit.identity is not None, "there is WAL, so it is somebody's"
        end, segment_size = look.end.position, commit.identity.geometry.segment_size
        newest = NewestWal(timeline, commit.position - len(commit.newest), commit.newest)
        in_known_segment = newest.end // segment_size == (end - 1) // segment_size
        if newest.start == max(end, self._ahead) and in_known_segment:
            self._ahead = newest.end
            waiting = self._impatient
            return self._permits.use(newest) == waiting == self._impatient
        return False

    def _take_over(self, look: Look, newest: NewestWal | None = None) -> None:
        if self._look is None or look.end.timeline != self._look.end.timeline:
            self._ahead = 0  # the thread, which may be ahead of this, goes on with what it has begun
        super()._take_over(look, newest)

    def _kept(self, timeline: int, commit: Commit) -> None:
        """Show what has become durable, if it is of the timeline that standbys can have, or its successor."""
        if commit.identity is None:
            return  # nothing has come yet
        self._receiving_at = commit.position
        self._received += commit.files
        history = self._directory.history(timeline)
        geometry = commit.identity.geometry
        held = self._look
        if commit.position < geometry.position(history.begin):
            return
        if held is not None and timeline < held.end.timeline:
            # Of a branch beside ours: the upstream's newest timeline has come from it, and will be shown.
            self._unshown[timeline] = commit.position
            self._add_files(commit.identity)
            self._received.clear()
            return
        if held is not None and (timeline, commit.position) <= (held.end.timeline, held.end.position):
            self._show_copies(held, timeline, commit.identity)
            return
        if held is not None and timeline != held.end.timeline:
            self._unshown[held.end.timeline] = held.end.position  # perhaps more than the new one has of it
        self._add_files(commit.identity)
        end = EndOfWal(
            timeline=timeline,
            position=commit.position,
            next_record=None,
            last_record=None,
            covered=tuple(self._received),
            gap_ahead=False,
            reason="received",
        )
        validated = {} if held is None else held.validated
        if self._received:  # most commits change nothing of it
            validated = remembered(validated, self._received)
        self._received.clear()
        newest = None
        if commit.newest:
            newest = NewestWal(timeline, commit.position - len(commit.newest), commit.newest)
        self._take_over(Look(self._directory, end, validated), newest)

    def _show_copies(self, held: Look, timeline: int, identity: WalIdentity) -> None:
        """Show files that are in the place of others, although nothing has come that is new."""
        names = {file.identity: file.name for file in self._received}  # the last that each was given
        if timeline != held.end.timeline or any(name.endswith(REPLACEMENT) for name in names.values()):
            return
        self._add_files(identity)
        covered = tuple(self._received)
        validated = remembered(held.validated, self._received)
        self._received.clear()
        if covered:
            self._take_over(Look(self._directory, replace(held.end, covered=covered), validated), self.newest)

    def _add_files(self, identity: WalIdentity) -> None:
        """Take over what was received into the picture of the directory."""
        if not self._received and self._directory.identity is not None:
            return
        directory = replace(self._directory, identity=identity)
        for received in self._received:
            file = parse_file_name(received.name)
            if file.kind in {FileKind.SEGMENT, FileKind.PARTIAL}:
                directory = directory.with_segment(
                    file.timeline, file.number(identity.geometry), partial=file.kind is FileKind.PARTIAL
                )
        self._directory = directory
