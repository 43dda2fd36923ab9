"""
Bugs, one at a time, in code that has none of them.

A simulator that does not find these finds nothing.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from twisted.internet.defer import Deferred, succeed

from walsender.replication_slots import ReplicationSlots
from walsender.replication_slots.storage import SlotStorage
from walsender.source import RelayShelf, TimelineEnd
from walsender.source.durable_files import DurableFiles
from walsender.source.follower import Follower
from walsender.source.held import HeldWal
from walsender.source.permits import TellingWriter
from walsender.source.relay import RelaySource
from walsender.upstream import Commit, SegmentWriter
from walsender.upstream.reception import Reception
from walsender.wal import TimelineHistory, segment_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PAGE = 8192


@contextmanager
def flush_reported_before_fsync() -> Iterator[None]:
    """What has come is told to the upstream as flushed."""
    tell = Reception._tell_status

    def told(self: Reception, **options: bool) -> None:
        self._flushed = self._received
        tell(self, **options)

    with patch.object(Reception, "_tell_status", told):
        yield


@contextmanager
def rename_before_fsync() -> Iterator[None]:
    """A segment gets its final name, and then it is synced."""

    def complete(self: SegmentWriter) -> None:
        if not self._is_complete:
            self._rename(segment_name(self._timeline, self._number, self._geometry))
            self._completed.append(self._number)
        self._sync()
        self.close()

    with patch.object(SegmentWriter, "_complete", complete):
        yield


@contextmanager
def page_past_flush_sent() -> Iterator[None]:
    """Standbys may have one page more than what is durable."""
    end_of = HeldWal.end_of

    def further(self: HeldWal, timeline: int) -> TimelineEnd:
        end = end_of(self, timeline)
        return end if end.next_timeline else TimelineEnd(end.position + PAGE)

    with patch.object(HeldWal, "end_of", further):
        yield


@contextmanager
def history_written_late() -> Iterator[None]:
    """A timeline counts as known two seconds before its history file is there."""
    keep = RelaySource.keep_history

    def late(self: Any, timeline: int, content: bytes) -> Deferred[None]:
        history = TimelineHistory.parse(timeline, content)
        self._directory = self._directory.with_history(history, content)
        self._run_commit._process.callLater(2.0, keep, self, timeline, content)
        return succeed(None)

    with patch.object(RelaySource, "keep_history", late):
        yield


@contextmanager
def slot_not_synced() -> Iterator[None]:
    """A slot's new file takes the place of the old one before its content is on disk."""
    save = SlotStorage.save

    def unsynced(self: Any, state: Any) -> None:
        with patch.object(self._files, "sync", lambda _: None):
            save(self, state)

    with patch.object(SlotStorage, "save", unsynced):
        yield


@contextmanager
def no_fsync_at_start() -> Iterator[None]:
    """What is found at the start is announced as it is."""
    with (
        patch.object(DurableFiles, "_write_again", lambda _self, _name: None),
        patch.object(Follower, "_make_durable", lambda _self, _end: True),
    ):
        yield


@contextmanager
def failed_fsync_retried() -> Iterator[None]:
    """An fsync that has failed is tried once more on the same file."""

    def sync(self: SegmentWriter) -> None:
        if self._unsynced:
            try:
                self._files.sync_data(self._descriptor)
            except OSError:
                with suppress(OSError):
                    self._files.sync_data(self._descriptor)
            self._unsynced = False

    with patch.object(SegmentWriter, "_sync_file", sync):
        yield


@contextmanager
def sent_before_fsync() -> Iterator[None]:
    """The thread of the commits sends to level standbys, and then it makes durable what they have got."""

    def commit(self: Any, pieces: Any, behind: int = 0) -> Commit:
        data = b"".join(pieces)
        writer = self._writer
        sent = self._durable(Commit(writer._position + len(data), writer._identity, newest=data))
        done: Commit = writer.commit(pieces, behind)
        done.sent = sent
        return done

    with patch.object(TellingWriter, "commit", commit):
        yield


@contextmanager
def slots_hold_nothing() -> Iterator[None]:
    """WAL is removed without a look at the slots."""
    with patch.object(ReplicationSlots, "needs", lambda _self: {}):
        yield


@contextmanager
def fetched_without_a_durable_name() -> Iterator[None]:
    """A segment that was fetched is served before the directory is synced."""

    def give_name(self: Any, directory: str, name: str, _held: int) -> None:
        self._files.rename(f"{directory}/{name}", f"{self._path}/{name}")

    with patch.object(RelayShelf, "_give_name", give_name):
        yield


PLANTED: dict[str, tuple[Callable[[], Any], str]] = {
    "flush reported before fsync": (flush_reported_before_fsync, r"\(as flushed\) was promised"),
    "rename before fsync": (rename_before_fsync, "without being whole and right"),
    "page past the flush position sent": (
        page_past_flush_sent,
        "nobody has written|sends wrong|was promised",
    ),
    "history file written late": (history_written_late, r"was told of timeline .*\.history could be lost"),
    "slot file not synced": (slot_not_synced, "the slot .* is lost"),
    "no fsync at start": (no_fsync_at_start, "was promised .* could take that away"),
    "failed fsync retried": (failed_fsync_retried, "was promised .* could take that away"),
    "sent before fsync": (sent_before_fsync, "was promised"),
    "slots hold nothing": (slots_hold_nothing, "removes WAL before segment .* slot standby"),
    "fetched without a durable name": (
        fetched_without_a_durable_name,
        "was promised .* could take that away",
    ),
}
"""Each bug, and what the simulator says of it."""
