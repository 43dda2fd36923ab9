"""Work in a few threads: how many, in which order, and what becomes of those who do not wait."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from walsender.auth.few_threads import FewThreads

if TYPE_CHECKING:
    from collections.abc import Callable


class FewThreadsTests(SynchronousTestCase):
    """Runs functions in threads that are none."""

    def setUp(self) -> None:
        """Begin with nothing to do."""
        self.begun: list[tuple[Deferred[Any], Callable[..., Any], tuple[Any, ...]]] = []
        self.threads = FewThreads(self.run_in_thread, 2)

    def run_in_thread(self, function: Callable[..., Any], *arguments: Any) -> Deferred[Any]:
        """Take note of what a thread begins with."""
        self.begun.append((Deferred(), function, arguments))
        return self.begun[-1][0]

    def ask(self, number: int) -> Deferred[int]:
        """Have *number* made positive."""
        return Deferred.fromCoroutine(self.threads.run(abs, number))

    def end(self, at: int) -> None:
        """Let the function that was begun as number *at* return."""
        done, function, arguments = self.begun[at]
        done.callback(function(*arguments))

    @property
    def numbers(self) -> list[int]:
        """What has been begun with."""
        return [arguments[0] for _, _, arguments in self.begun]

    def test_limit(self) -> None:
        """Two at a time, in the order in which they came."""
        results = [self.ask(number) for number in (-1, -2, -3, -4)]
        self.assertEqual([-1, -2], self.numbers)
        self.end(1)
        self.assertEqual([-1, -2, -3], self.numbers)
        self.end(0)
        self.end(2)
        self.end(3)
        self.assertEqual([1, 2, 3, 4], [self.successResultOf(result) for result in results])

    def test_gone(self) -> None:
        """Who does not wait any more is not begun with; who runs keeps the place until the end."""
        running, second, waiting, last = (self.ask(number) for number in (-1, -2, -3, -4))
        waiting.cancel()
        running.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.failureResultOf(running, CancelledError)
        self.assertEqual([-1, -2], self.numbers)
        self.end(0)
        self.assertEqual([-1, -2, -4], self.numbers)
        self.end(1)
        self.end(2)
        self.assertEqual([2, 4], [self.successResultOf(second), self.successResultOf(last)])

    def test_errors(self) -> None:
        """An error is told and frees the place; nobody hears of that of one who has gone."""
        failing, gone, third = (self.ask(number) for number in (-1, -2, -3))
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        for done, _, _ in self.begun[:]:
            done.errback(ZeroDivisionError())
        self.failureResultOf(failing, ZeroDivisionError)
        self.end(2)
        self.assertEqual(3, self.successResultOf(third))
        self.assertEqual([], self.flushLoggedErrors())
