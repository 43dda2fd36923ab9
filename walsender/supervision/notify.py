"""
What systemd is told, and how: lines of text in one datagram to the socket that it names.

Source: systemd, sd_notify(3) and sd_watchdog_enabled(3).
"""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING, Final

from twisted.logger import Logger

if TYPE_CHECKING:
    from collections.abc import MutableMapping

_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")


class ServiceManager:
    """
    The one who started us and wants to hear how we are.

    :param address: of its socket: a path, or ``@`` and an abstract name.
    :ivar watchdog: seconds after which it takes silence for death; 0: never.
    """

    _log = Logger()

    def __init__(self, address: str, watchdog: float = 0.0) -> None:
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.watchdog = watchdog
        self._is_deaf = False
        self._socket = socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> ServiceManager | None:
        """
        Return who *environment* names, if it names one; what it says of it is taken out.

        A program that we start is not to speak for us.  Call it before the program becomes a daemon: the
        process that was started is the one that is meant.
        """
        address, period, whose = (environment.pop(name, "") for name in _VARIABLES)
        if not address.startswith(("/", "@")):
            return None
        ours = whose in {"", str(os.getpid())}
        watchdog = int(period) / 1e6 if ours and period.isascii() and period.isdecimal() else 0.0
        return cls(address, watchdog)

    def tell(self, *lines: str) -> None:
        """
        Tell it; without waiting, since it may be busy or gone.

        :param lines: assignments as ``READY=1``.
        """
        try:
            self._socket.sendto("\n".join(lines).encode(errors="replace"), self._address)
        except OSError as error:
            if not self._is_deaf:
                self._log.warn("could not notify the service manager: {error}", error=error.strerror)
            self._is_deaf = True
        else:
            self._is_deaf = False

    def close(self) -> None:
        """Say no more."""
        self._socket.close()


def reloading_now() -> tuple[str, str]:
    """Return what is told before a reload; the time lets systemd tell an answer from an older one."""
    return "RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}"
