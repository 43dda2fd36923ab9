"""Which signals a program of its own takes over."""

from __future__ import annotations

import signal
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walsender.signals import SignalHandlers


class SignalHandlersTests(SynchronousTestCase):
    """`SignalHandlers`."""

    def setUp(self) -> None:
        """Let nothing that a test does outlive it."""
        before = signal.getsignal(signal.SIGUSR1)
        self.addCleanup(signal.signal, signal.SIGUSR1, before)
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)
        nobody: Any = None
        service: Any = _Service()
        self.handlers = SignalHandlers(nobody, service)
        self.addCleanup(self.handlers.restore)

    def test_rotatingWithoutALogFileDoesNotEndTheProgram(self) -> None:
        """That is what the system does with SIGUSR1 if nobody has taken it; all standbys would be lost."""
        self.handlers.install()
        self.assertTrue(callable(signal.getsignal(signal.SIGUSR1)))

    def test_logFileThatIsRotatedGoesOnBeingRotated(self) -> None:
        """Who has one has taken the signal before."""
        signal.signal(signal.SIGUSR1, _rotate)
        self.handlers.install()
        self.assertIs(_rotate, signal.getsignal(signal.SIGUSR1))

    def test_signalsAreGivenBack(self) -> None:
        """A program in which the service was stopped has its own again."""
        before = _handlers()
        for _ in range(2):
            self.handlers.install()
        self.assertFalse(set(before) & set(_handlers()))
        self.handlers.restore()
        self.assertEqual(before, _handlers())


def _handlers() -> list[Any]:
    names = ("HUP", "TERM", "INT", "USR1", "USR2", "QUIT")
    return [signal.getsignal(signal.Signals[f"SIG{name}"]) for name in names]


class _Service:
    """Can be asked to reload."""

    def reload(self) -> None:
        """See `walsender.signals.IControllable`."""


def _rotate(_number: int, _frame: object) -> None:
    """Rotate a log file."""
