"""
A real twistd as systemd starts it: a notify socket, a watchdog, and sockets that were listened on before.

systemd itself is played by the test: sd_notify(3), sd_listen_fds(3) and daemon(7) say how.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Self

from twistd_helpers import Twistd, adopting, make_wal, small_place

from walsender.testing.processes import wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from types import TracebackType


class Manager:
    """Hears what a service says, at a path or (with ``@``) an abstract name."""

    def __init__(self, address: str) -> None:
        self.environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000000"}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1))
        self._socket.settimeout(60)
        self.heard: list[str] = []

    def wait_for(self, line: str) -> list[str]:
        """Return the datagram that has a line, after whatever comes before."""
        while True:
            lines = self._socket.recv(4096).decode().splitlines()
            self.heard += lines
            if line in lines:
                return lines

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()


def title(pid: int) -> str:
    """Return what ps shows."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def test_foreground() -> None:
    """Who came before the start is answered; start, reload, life and end are told as they happen."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(small_place())
        make_wal(place / "wal")
        manager = stack.enter_context(Manager(f"{place}/notify"))
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        early = stack.enter_context(RawClient(*listening.getsockname()))
        options = ["walsender", "-D", "wal", "-l", "systemd:domain=INET:name=wal", "--cluster-name=main"]
        twistd = stack.enter_context(
            Twistd(place, options, environment=manager.environment, passed={"wal": listening})
        )
        assert f"MAINPID={twistd.pid}" in manager.wait_for("READY=1")
        assert "RELOADING=1" not in manager.heard
        assert early.until(b"Z", b"E")  # let in, or told to come back a little later
        with RawClient(*listening.getsockname()) as client:
            assert client.ready().query("IDENTIFY_SYSTEM")[0].kind == b"T"
        manager.wait_for("WATCHDOG=1")
        manager.wait_for("WATCHDOG=1")
        assert title(twistd.pid).startswith("walsender: main: ")
        twistd.signal(signal.SIGHUP)
        assert manager.wait_for("RELOADING=1")[1].startswith("MONOTONIC_USEC=")
        manager.wait_for("READY=1")
        twistd.signal(signal.SIGTERM)
        assert "STATUS=shutting down" in manager.wait_for("STOPPING=1")
        assert twistd.wait() == 0
        with RawClient(*listening.getsockname()):
            pass  # the port was systemd's all the time


def test_daemon() -> None:
    """A daemon tells who it is, at an abstract name too, and takes a unix socket that it is given."""
    with contextlib.ExitStack() as stack:
        place = stack.enter_context(small_place())
        make_wal(place / "wal")
        manager = stack.enter_context(Manager(f"@walsender-{os.getpid()}"))
        listening = stack.enter_context(socket.socket(socket.AF_UNIX))
        listening.bind(f"{place}/.s.PGSQL.5433")
        listening.listen()
        stack.enter_context(adopting())
        options = ["walsender", "-D", "wal", "-l", "systemd:domain=UNIX:index=0"]
        twistd = stack.enter_context(
            Twistd(
                place,
                options,
                daemon=True,
                strict=False,
                environment=manager.environment,
                passed={"x": listening},
            )
        )
        assert f"MAINPID={twistd.pid}" in manager.wait_for("READY=1")
        manager.wait_for("WATCHDOG=1")
        wait_until(lambda: title(twistd.pid) == "walsender: 0 standbys", 60, "the title", logs=[twistd])
        twistd.signal(signal.SIGTERM)
        manager.wait_for("STOPPING=1")
        assert twistd.wait() == 0
