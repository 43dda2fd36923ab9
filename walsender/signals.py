"""
What signals mean to the program, as PostgreSQL's postmaster and walsender have it.

* SIGHUP: read the configuration again.
* SIGTERM, SIGINT: end the streams in good order and exit with status 0; a second one drops everything.
* SIGUSR2: send all WAL and wait for the standbys first.
* SIGQUIT: exit with status 2 at once, after killing what ``restore_command`` has started.
* SIGUSR1 rotates twistd's log file; without one it does nothing, where the system would end the process.

twistd left to itself exits with 143 after SIGTERM, and a signal handler that does
more than ask the reactor to call something is not run until the reactor wakes.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.error import ReactorNotRunning

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred

    from walsender.sender import IServerReactor

_IMMEDIATE_EXIT: Final = 2


class IControllable(Protocol):
    """What can be asked of the service."""

    def drain(self) -> Deferred[None]:
        """Send everything and end; fires when that is done or takes too long."""

    def abort(self) -> None:
        """Drop all connections at once."""

    def reload(self) -> None:
        """Read the configuration again."""

    def kill_commands(self) -> None:
        """Kill what this process has started; called by a signal's handler."""


class SignalHandlers:
    """
    Turns signals into calls of *service*, from `install` until the service or the program ends.

    When a signal ends the program, the signals are given back as late as can be:
    one more of them, and the reactor's own idea of it would be the exit status.
    """

    def __init__(self, reactor: IServerReactor, service: IControllable) -> None:
        self._reactor = reactor
        self._service = service
        self._previous: dict[int, Any] = {}
        self._terminating = self._draining = False

    def install(self) -> None:
        """
        Take the signals over; in the reactor's thread, once it runs (starting it installs its own).

        Harmless when repeated.
        """
        if self._previous:
            return
        asks: dict[int, Callable[[], None]] = {
            signal.SIGHUP: self._service.reload,
            signal.SIGTERM: self._terminate,
            signal.SIGINT: self._terminate,
            signal.SIGUSR2: self._drain,
        }

        def received(number: int, _: object) -> None:
            self._reactor.callFromThread(asks[number])

        for number in asks:
            self._previous[number] = signal.signal(number, received)
        self._previous[signal.SIGQUIT] = signal.signal(signal.SIGQUIT, self._exit_at_once)
        if signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL:
            # No SIG_IGN: what restore_command starts would inherit it.
            self._previous[signal.SIGUSR1] = signal.signal(signal.SIGUSR1, lambda _number, _frame: None)

    def service_stopped(self) -> None:
        """Give the signals back, now or when the reactor has stopped."""
        if not self._terminating:
            self.restore()

    def restore(self) -> None:
        """Give the signals back; harmless when repeated."""
        while self._previous:
            number, previous = self._previous.popitem()
            signal.signal(number, previous)

    def _exit_at_once(self, _number: int, _frame: object) -> None:
        self._service.kill_commands()
        os._exit(_IMMEDIATE_EXIT)

    def _terminate(self) -> None:
        if self._terminating:
            self._service.abort()
            return
        self._terminating = True
        self._reactor.addSystemEventTrigger("after", "shutdown", self.restore)
        with suppress(ReactorNotRunning):  # somebody else has stopped it already
            self._reactor.stop()

    def _drain(self) -> None:
        if self._draining or self._terminating:
            return
        self._draining = True
        self._service.drain().addCallback(self._drained)

    def _drained(self, _: None) -> None:
        if not self._terminating:
            self._terminate()
