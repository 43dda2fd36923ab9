"""
`HistorySearch`: history files that are not held, from whoever has them.

A timeline's file is looked for when it is first missed, and then at most every few seconds while
clients ask for what it would tell.  What is found is checked and kept by the source; where nothing is
written it is kept in memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.defer import Deferred

from walsender.wal import history_name

if TYPE_CHECKING:
    from collections.abc import Sequence

    from twisted.internet.interfaces import IReactorTime

    from walsender.source.fetching import Fetching, NotFetched

# A server looks as often whether its archive has another timeline.
AGAIN: Final = 5.0  # seconds


class IHistoryKeeper(Protocol):
    """Who wants history files."""

    def keep_found_history(self, timeline: int, content: bytes) -> Deferred[None]:
        """
        Check a history file and keep it.

        Fails with `walsender.errors.WalFileError`.
        """


class HistorySearch:
    """
    Looks for history files.

    :param fetching: asks those who may have them.
    """

    def __init__(self, clock: IReactorTime, fetching: Fetching, keeper: IHistoryKeeper) -> None:
        self._clock = clock
        self._fetching = fetching
        self._keeper = keeper
        self._ended: dict[int, float] = {}
        self._waiting: dict[int, list[Deferred[bool]]] = {}
        self._in_vain: dict[int, NotFetched] = {}

    def search(self, timelines: Sequence[int], *, again: bool = True) -> Deferred[bool] | None:
        """
        Look for the files of *timelines*, one after another until one is found; fires with whether one is.

        :param again: those that were not found before too, if it is time.
        :returns: ``None`` if there is nothing to look for.
        """
        if not self._fetching.providers:
            return None
        due = [timeline for timeline in timelines if self._is_due(timeline, again=again)]
        return Deferred.fromCoroutine(self._search(due)) if due else None

    def why_missing(self, timeline: int, subject: str = "It") -> str:
        """Return a sentence that says where *timeline*'s file was looked for; ``""`` if nowhere."""
        in_vain = self._in_vain.get(timeline)
        return "" if in_vain is None else in_vain.sought(subject)

    def _is_due(self, timeline: int, *, again: bool) -> bool:
        ended = self._ended.get(timeline)
        if ended is None or timeline in self._waiting:
            return True
        return again and self._clock.seconds() - ended >= AGAIN

    async def _search(self, timelines: Sequence[int]) -> bool:
        for timeline in timelines:
            if await self._find(timeline):
                return True
        return False

    def _find(self, timeline: int) -> Deferred[bool]:
        """Look for one file, once for all who want it."""
        found: Deferred[bool] = Deferred()
        waiting = self._waiting.setdefault(timeline, [])
        waiting.append(found)
        if len(waiting) == 1:
            reading = self._fetching.read(
                history_name(timeline), lambda content: self._keeper.keep_found_history(timeline, content)
            )
            reading.addCallbacks(lambda _: None, lambda failure: failure.value).addCallback(
                self._searched, timeline
            )
        return found

    def _searched(self, in_vain: NotFetched | None, timeline: int) -> None:
        self._ended[timeline] = self._clock.seconds()
        self._in_vain.pop(timeline, None)
        if in_vain is not None:
            self._in_vain[timeline] = in_vain
        for found in self._waiting.pop(timeline):
            found.callback(in_vain is None)


__all__ = ["HistorySearch", "IHistoryKeeper"]
