"""
`Fetching`: WAL that is not in the directory, from whoever still has it.

A reader that needs a missing segment waits while it is fetched, and what it will need
next is fetched ahead.  However many readers want a segment, it is fetched once.  When
nobody wants it any more, that is given up.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from twisted.internet.defer import CancelledError, Deferred, DeferredList, DeferredLock
from twisted.logger import Logger
from twisted.python.failure import Failure

from walsender.errors import WalsenderError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from walsender.lsn import Geometry
    from walsender.source.segment_file import OpenSegment

AT_ONCE: Final = 3
"""So many segments are fetched at the same time: enough to hide an archive's latency, few enough to bear."""

# What is fetched ahead of one reader, and what waits to be read in all.  Fast readers are kept
# busy by some segments of the usual 16 MB; what they leave unread costs disk.
_AHEAD: Final = 64 << 20  # bytes
_MOST_AHEAD: Final = 8  # segments
_MOST_IN_ALL: Final = 1 << 30  # bytes

Names = tuple[str, ...]
"""The files of which any holds what is wanted, the best first."""

T = TypeVar("T")


class NotFetched(Exception):
    """
    Nobody has a file.

    :param answers: what each said who was asked; ``""``: nobody was.
    """

    def __init__(self, answers: str = "") -> None:
        super().__init__(answers)
        self._answers = answers

    def sought(self, subject: str = "It") -> str:
        """Return a sentence for a detail: who was asked and what each said; ``""`` if nobody was."""
        if not self._answers:
            return ""
        return f"{subject} is not in the directory, and was not found elsewhere: {self._answers}."


class IWalProvider(Protocol):
    """Somebody who may have WAL files."""

    @property
    def description(self) -> str:
        """Who it is, for messages."""

    def fetch(self, name: str, directory: str) -> Deferred[bool]:
        """
        Make the file *name* in *directory*; fires with whether it has that file.

        May be cancelled, and fires only when nothing is written there any more.  Fails with
        `walsender.errors.WalsenderError` when it could not be found out.
        """


class IShelf(Protocol):
    """Where fetched segments are kept."""

    def begin(self) -> Deferred[str]:
        """Return a new directory to fetch into."""

    def keep(self, directory: str, name: str) -> Deferred[OpenSegment | None]:
        """
        Take over what has come, if it is good; fires with ``None`` if it can be opened by name.

        Fails with `walsender.errors.WalFileError`.
        """

    def read(self, directory: str, name: str) -> Deferred[bytes]:
        """
        Return what is in a small file that has come.

        Fails with `walsender.errors.WalFileError`.
        """

    def discard(self, directory: str) -> Deferred[None]:
        """Remove a directory and what is left in it."""

    def close(self) -> Deferred[None]:
        """Leave nothing behind."""


class IReaders(Protocol):
    """What is held, and who reads."""

    @property
    def geometry(self) -> Geometry:
        """As `walsender.source.IWalSource`."""

    def segment_names(self, timeline: int, number: int) -> Names:
        """Return the files that *timeline*'s bytes of a segment could be read from."""

    def is_missing(self, timeline: int, number: int) -> bool:
        """Return whether *timeline* has such a segment, and no file of it is held."""

    def segments_read(self) -> Iterable[tuple[int, int]]:
        """Return timeline and number of each segment that is open, or asked for."""


@dataclass(eq=False)
class _Job:
    """One segment that is fetched, or waits for its turn or its reader."""

    names: Names
    waiting: list[Deferred[OpenSegment | None]] = field(default_factory=list)
    running: Deferred[Any] | None = None
    segment: OpenSegment | None = None  # fetched ahead


class Fetching:
    """
    Fetches segments for readers.

    :param call_soon: has something called in the reactor's thread; is called from any thread, as a reader
        may let go of a segment in another.
    :ivar providers: who is asked, in this order; may be changed at any time.
    """

    _log = Logger()

    def __init__(
        self,
        call_soon: Callable[[Callable[[], object]], object],
        shelf: IShelf,
        readers: IReaders,
        providers: Sequence[IWalProvider] = (),
    ) -> None:
        self._call_soon = call_soon
        self._shelf = shelf
        self._readers = readers
        self.providers = providers
        self._jobs: dict[Names, _Job] = {}
        self._beginning = DeferredLock()
        self._running: set[Deferred[Any]] = set()
        self._reading: set[Deferred[Any]] = set()
        self._complaints: dict[str, str] = {}
        self._reviewing = False
        self._stopping = False

    def start(self) -> None:
        """Begin."""
        self._stopping = False

    def stop(self) -> Deferred[None]:
        """Give up all that is under way; fires when nothing runs any more and nothing is left behind."""
        self._stopping = True
        jobs = list(self._jobs.values())
        waiting = [deferred for job in jobs for deferred in job.waiting]
        self._give_up(jobs)
        for reading in list(self._reading):
            reading.cancel()
        for deferred in waiting:
            deferred.errback(NotFetched())
        ended = DeferredList(list(self._running))
        return ended.addCallback(lambda _: self._shelf.close())

    def get(self, timeline: int, number: int) -> Deferred[OpenSegment | None]:
        """
        Return a missing segment, or ``None`` when it is no longer missing; may be cancelled.

        Fails with `NotFetched`.
        """
        return self._get(self._readers.segment_names(timeline, number))

    def restore(self, name: str) -> Deferred[bool]:
        """Get one file, for nobody in particular; fires with whether it is there now.  May be cancelled."""

        def failed(failure: Failure) -> bool:
            failure.trap(NotFetched)
            return False

        return self._get((name,)).addCallbacks(lambda _: True, failed)

    def _get(self, names: Names) -> Deferred[OpenSegment | None]:
        waiting: Deferred[OpenSegment | None] = Deferred(lambda _: self._left(names, waiting))
        if self._stopping or not self.providers:
            waiting.errback(NotFetched())
            return waiting
        job = self._jobs.setdefault(names, _Job(names))
        if job.segment is not None:
            del self._jobs[names]
            waiting.callback(job.segment)
        else:
            job.waiting.append(waiting)
        self._pump()
        return waiting

    def read(self, name: str, keep: Callable[[bytes], Deferred[T]]) -> Deferred[T]:
        """
        Get a small file's content, for nobody in particular; fires with what *keep* makes of it.

        Fails with `NotFetched`.

        :param keep: fails with `walsender.errors.WalsenderError` if it is not what it should be.
        """

        async def take(directory: str, name: str) -> T:
            return await keep(await self._shelf.read(directory, name))

        result: Deferred[T] = Deferred()
        if self._stopping or not self.providers:
            result.errback(NotFetched())
            return result
        reading = Deferred.fromCoroutine(
            self._fetch((name,), lambda directory, name: Deferred.fromCoroutine(take(directory, name)))
        )
        self._running.add(reading)
        self._reading.add(reading)

        def ended(outcome: T | Failure) -> None:
            self._running.discard(reading)
            self._reading.discard(reading)
            result.callback(self._explained(outcome))
            self._pump()

        reading.addBoth(ended)
        return result

    def read_ahead(self, timeline: int, number: int) -> None:
        """Fetch what a reader of that segment will need next, as far as it is missing."""
        if self._stopping or not self.providers:
            return
        readers = self._readers
        most = max(1, _MOST_IN_ALL // readers.geometry.segment_size)
        for following in range(number + 1, number + 1 + self._window):
            if not readers.is_missing(timeline, following):
                continue
            names = readers.segment_names(timeline, following)
            if names not in self._jobs and len(self._jobs) < most:
                self._jobs[names] = _Job(names)
        self._pump()

    def review_soon(self) -> None:
        """A reader may have gone; called from anywhere: a destructor, and that in any thread."""
        if not self._reviewing and self._jobs and not self._stopping:
            self._reviewing = True
            self._call_soon(self._review)

    # Inside

    @property
    def _window(self) -> int:
        return max(1, min(_MOST_AHEAD, _AHEAD // self._readers.geometry.segment_size))

    def _review(self) -> None:
        """Give up what nobody wants."""
        self._reviewing = False
        if self._stopping:
            return
        wanted = {
            self._readers.segment_names(timeline, number + step)
            for timeline, number in self._readers.segments_read()
            for step in range(self._window + 1)
        }
        self._give_up([job for job in self._jobs.values() if not job.waiting and job.names not in wanted])
        self._pump()

    def _left(self, names: Names, waiting: Deferred[OpenSegment | None]) -> None:
        job = self._jobs.get(names)
        if job is not None and waiting in job.waiting:
            job.waiting.remove(waiting)
            self.review_soon()

    def _give_up(self, jobs: list[_Job]) -> None:
        """Forget jobs; what is under way of them has directories of its own, and is in nobody's way."""
        for job in jobs:
            del self._jobs[job.names]
            job.waiting = []
        for job in jobs:
            if job.running is not None:
                job.running.cancel()

    def _pump(self) -> None:
        """Begin what may be begun, what somebody waits for first."""
        while len(self._running) < AT_ONCE and not self._stopping:
            idle = [job for job in self._jobs.values() if job.running is None and job.segment is None]
            if not idle:
                return
            self._start(next((job for job in idle if job.waiting), idle[0]))

    def _start(self, job: _Job) -> None:
        running: Deferred[OpenSegment | None] = Deferred.fromCoroutine(
            self._fetch(job.names, self._shelf.keep)
        )
        job.running = running
        self._running.add(running)
        running.addBoth(self._fetched, job, running)

    def _fetched(
        self, result: OpenSegment | Failure | None, job: _Job, running: Deferred[OpenSegment | None]
    ) -> None:
        self._running.discard(running)
        job.running = None
        if self._jobs.get(job.names) is job:
            if job.waiting or not result or isinstance(result, Failure):
                del self._jobs[job.names]
            else:
                job.segment = result
                self.review_soon()  # whoever it was for may have gone meanwhile
        outcome = self._explained(result)
        waiting, job.waiting = job.waiting, []
        for deferred in waiting:
            deferred.callback(outcome)
        self._pump()

    def _explained(self, result: T | Failure) -> T | Failure:
        """Return a result; as `NotFetched`, if it is a failure."""
        if not isinstance(result, Failure) or result.check(NotFetched):
            return result
        if not result.check(CancelledError):
            self._log.failure("fetching WAL failed", result)
        return Failure(NotFetched())

    async def _fetch(self, names: Names, keep: Callable[[str, str], Deferred[T]]) -> T:
        """
        Ask one after another for one file after another.

        :param keep: takes over the file that has come, by directory and name.
        """
        sought = []
        for provider in list(self.providers):
            answer = f"{provider.description} does not have it"
            for name in names:
                try:
                    kept = await self._fetch_from(provider, name, keep)
                except WalsenderError as error:
                    answer = error.message
                    if not answer.startswith(provider.description):
                        answer = f"{provider.description}: {answer}"
                    self._complain(provider, answer, error)
                    continue
                if kept:
                    self._complaints.pop(provider.description, None)
                    self._log.info(
                        'fetched WAL file "{name}" ({provider})', name=name, provider=provider.description
                    )
                    return kept[0]
            sought.append(answer)
        raise NotFetched("; ".join(sought))

    async def _fetch_from(
        self, provider: IWalProvider, name: str, keep: Callable[[str, str], Deferred[T]]
    ) -> tuple[T] | None:
        """Ask one for one file; return what became of it, or ``None`` if there is none."""
        # One after another, or threads would decide who is asked for what first.
        directory = await self._beginning.run(self._shelf.begin)
        try:
            if not await provider.fetch(name, directory):
                return None
            return (await keep(directory, name),)
        finally:
            await self._shelf.discard(directory)

    def _complain(self, provider: IWalProvider, complaint: str, error: WalsenderError) -> None:
        """Say what is wrong, once while it stays the same."""
        if self._complaints.get(provider.description) != complaint:
            self._complaints[provider.description] = complaint
            self._log.error(
                "cannot fetch WAL: {complaint}{more}",
                complaint=complaint,
                more=error.more,
                detail=error.detail,
                hint=error.hint,
            )
