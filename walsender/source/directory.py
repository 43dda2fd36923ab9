"""
`DirectorySource`: WAL from a directory that somebody else fills, served while it grows.

What blocks is the `Follower`'s and runs in the thread pool, one look at a time.  What
a look found is taken over in the reactor's thread when it is durable: a standby
is never given what a crash here could take back, and the writer of the directory
may not have synced it.  (`pg_receivewal` without ``--synchronous`` does so at
segment ends only.)

inotify makes a look happen sooner and nothing else depends on it: it overflows,
it ends with the directory, network file systems do not have it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from walsender.errors import WalFileError
from walsender.source.follower import Follower, Look, ServerRunning
from walsender.source.held import HeldWal
from walsender.wal import WalDirectory

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from walsender.source.notifier import DirectoryNotifier
    from walsender.wal import EndOfWal, FileOperations, TimelineHistory

# The directory is listed this often even if nothing says that names have changed.
LISTING_INTERVAL: Final = 5.0  # seconds

# A listing that failed is tried again after this time.
RETRY: Final = 1.0  # seconds

# A file that is written to all the time is looked at this long after the last look, not at once:
# at most so much later is WAL on its way, and a look costs a thread's turn and an fsync.
REST: Final = 0.002  # seconds

# So long a missing segment may be on its way (several archivers copy at the same
# time, not in order); then WAL is served from behind the gap.
GAP_PATIENCE: Final = 30.0  # seconds


class DirectorySource(HeldWal):
    """
    Serves the segments in one directory.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param run_look: likewise, with a thread of its own, so that readers of a slow disk do not stop
        growth from being seen; *run_in_thread* by default.
    :param delay: seconds between two looks at the newest segment.
    :param sync: make WAL durable before it is sent.
    :param directory_mode: as `IWalSource.directory_mode`.
    :param notifier: tells of changes; ``None``: they are only looked for.
    """

    _log = Logger()

    def __init__(
        self,
        clock: IReactorTime,
        run_in_thread: Callable[..., Deferred[Any]],
        files: FileOperations,
        path: str,
        *,
        run_look: Callable[..., Deferred[Any]] | None = None,
        delay: float = 0.2,
        sync: bool = True,
        directory_mode: int = 0o700,
        notifier: DirectoryNotifier | None = None,
    ) -> None:
        super().__init__(run_in_thread, Follower(files, path, sync=sync), directory_mode=directory_mode)
        self._clock = clock
        self._run_look = run_look or run_in_thread
        self.delay = delay
        self._notifier = notifier
        self._looking: Deferred[None] | None = None
        self._look_again = self._list_again = False
        self._listed_at = self._looked_at = 0.0
        self._gap_since: float | None = None
        self._complaint = ""
        self._damaged: tuple[str, ...] = ()
        self._timer: IDelayedCall | None = None
        self._running = False
        self._newest = WalDirectory(path)  # as the last listing showed it

    # Starting and stopping

    def start(self) -> Deferred[None]:
        """Begin to follow the directory; fires after the first look."""
        self._running = True
        if self._notifier is not None:
            self._notifier.start(self._changed)
        self._list_again = True
        return self._look_now()

    def stop(self) -> Deferred[None]:
        """Follow no more; fires when nothing runs any more.  What is open can still be read."""
        self._running = False
        if self._notifier is not None:
            self._notifier.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        done: Deferred[None] = Deferred()
        if self._looking is None:
            done.callback(None)
        else:
            self._looking.chainDeferred(done)
        return done

    # Inside

    def _changed(self, names: bool) -> None:
        """Something in the directory is new; *names*: there are other files than before."""
        if not self._running:
            return
        self._list_again |= names
        if self._looking is not None:
            self._look_again = True
        else:
            self._look_after(max(0.0, self._looked_at + REST - self._clock.seconds()))

    def _look_after(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(seconds, self._look_now)

    def _look_now(self) -> Deferred[None]:
        """Look, never while a look is under way; fires when what it found is taken over."""
        self._timer = None
        now = self._clock.seconds()
        listing = self._list_again or now - self._listed_at >= LISTING_INTERVAL
        self._look_again = self._list_again = False
        if listing:
            self._listed_at = now
        skip_gap = self._gap_since is not None and now - self._gap_since >= GAP_PATIENCE
        looking: Deferred[None] = Deferred()
        self._looking = looking
        self._list(listing=listing, skip_gap=skip_gap).addCallback(self._done)
        return looking

    def _list(self, *, listing: bool = True, skip_gap: bool = False) -> Deferred[None]:
        """Look, for `_look_now`; fires when what was found is taken over."""
        look: Deferred[Look | None] = self._run_look(
            self._follower.look, listing=listing, skip_gap=skip_gap, in_use=self._segments.in_use()
        )
        return look.addCallbacks(
            self._looked,
            self._look_failed,
            callbackKeywords={"listed": listing},
            errbackKeywords={"listed": listing},
        ).addErrback(self._broken)

    def _looked(self, look: Look | None, *, listed: bool) -> Deferred[None] | None:
        if listed:
            self._complain("")  # a look without listing would not meet the trouble again
        if look is None or look is self._look:
            self._list_again = True  # a file was replaced while it was looked at
            return None
        searching = self._search_histories(look) if listed else None
        if searching is None or self._look is not None:
            self._show(look)
            return None
        # Nobody has been told anything yet: let it be right from the first word on.
        return searching.addCallback(lambda found: self._list() if found else self._show(look))

    def _search_histories(self, look: Look) -> Deferred[bool] | None:
        """Look for the history of a timeline that has come without."""
        if self.histories is None:
            return None
        self._newest = look.directory
        searching = self.histories.search(self._without_history(look.directory), again=False)
        if searching is not None and self._look is not None:
            searching.addCallback(self._history_sought)
        return searching

    def keep_found_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """See `walsender.source.histories.IHistoryKeeper`; it is kept in memory only."""
        checked: Deferred[TimelineHistory] = self._run_in_thread(
            self._follower.check_history, self._newest, timeline, content
        )
        return checked.addCallback(self._follower.add_history, content)

    def _history_sought(self, found: bool) -> Deferred[None] | None:
        return self._list_soon() if found else None

    def _list_soon(self) -> Deferred[None]:
        """List the directory after what is under way; fires when what was found is taken over."""
        listed: Deferred[None] = Deferred()
        if self._looking is not None:
            waiting: Deferred[None] = Deferred()
            self._looking.chainDeferred(waiting)
            waiting.addCallback(lambda _: self._list_soon()).chainDeferred(listed)
        elif self._running:
            if self._timer is not None:
                self._timer.cancel()
            self._list_again = True
            self._look_now().chainDeferred(listed)
        else:
            listed.callback(None)
        return listed

    def _show(self, look: Look) -> None:
        self._watch_gap(look.end)
        for complaint in look.end.damaged:
            if complaint not in self._damaged:
                self._log.error("{complaint}", complaint=complaint)
        self._damaged = look.end.damaged
        self._take_over(look)

    def _watch_gap(self, end: EndOfWal) -> None:
        if not end.gap_ahead:
            self._gap_since = None
        elif self._gap_since is None:
            self._gap_since = self._clock.seconds()
            self._log.warn(
                "WAL behind {lsn} on timeline {timeline} is missing, but later segments are there",
                lsn=self.geometry.lsn(end.position),
                timeline=end.timeline,
            )

    def _look_failed(self, failure: Failure, *, listed: bool) -> None:
        """The directory or a file of it cannot be used: say so once, and try again."""
        failure.trap(WalFileError)
        if listed:
            self._listed_at += RETRY - LISTING_INTERVAL
        if failure.check(ServerRunning):
            self._segments.retire(self._segments.in_use())
        self._complain(failure.getErrorMessage())

    def _broken(self, failure: Failure) -> None:
        self._log.failure("looking at the WAL directory failed", failure)

    def _complain(self, complaint: str) -> None:
        if complaint and complaint != self._complaint:
            self._log.error("cannot follow the WAL directory: {complaint}", complaint=complaint)
        self._complaint = complaint

    def _done(self, _: None) -> None:
        looking, self._looking = self._looking, None
        assert looking is not None, "a look is ending"
        self._looked_at = self._clock.seconds()
        if self._running:
            self._look_after(REST if self._look_again else self.delay)
        looking.callback(None)
