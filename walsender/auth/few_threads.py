"""
`FewThreads`: work that strangers may ask for, in a few of a pool's threads at most.

Whoever is asked for a password can have it hashed again and again, and a system that is asked for the
name of a user may hang.  The pool does other work, such as syncing replication slots, which must not
stand behind thousands of such jobs.  Of a client that has gone nothing is begun any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from twisted.internet.defer import Deferred, DeferredSemaphore

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec

    P = ParamSpec("P")

T = TypeVar("T")


class FewThreads:
    """
    Calls functions in threads, a few at a time; the others wait for their turn.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`.
    :param limit: how many at a time.
    """

    def __init__(self, run_in_thread: Callable[..., Deferred[Any]], limit: int) -> None:
        self._run_in_thread = run_in_thread
        self._places = DeferredSemaphore(limit)

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """
        Return what *function* returns.

        Cancelled before its turn, it is not called at all.  Cancelled later, it keeps its place until it
        has returned: no thread can be stopped.
        """
        await self._places.acquire()
        running = self._run_in_thread(function, *args, **kwargs)
        done: Deferred[Any] = Deferred()
        running.addBoth(self._leave).chainDeferred(done)
        result: T = await done
        return result

    def _leave(self, result: object) -> object:
        self._places.release()
        return result
