"""
Real twistd processes, in the foreground and as daemons, and what the tests of both share.

A daemon is nobody's child.  `adopting` makes its way out of twistd lead to us, so that its
exit status can be waited for as that of any child.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from walsender.testing.processes import (
    OURSELVES,
    clean_environment,
    launch_command,
    source_environment,
    wait_until,
)
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator, Mapping, Sequence
    from types import TracebackType

RUN: Final = "from twisted.scripts.twistd import run; run()"

# Root may read everything; without its capabilities it is as bound by modes as anybody.
WITHOUT_PRIVILEGES: Final = (
    "import ctypes, struct; ctypes.CDLL(None).capset(struct.pack('Ii', 0x20080522, 0), bytes(24)); "
)

# As systemd starts a program: sockets from descriptor 3 on, and whose they are.
_ACTIVATE: Final = (
    "import fcntl, os, sys; given = [int(number) for number in sys.argv[1].split()]; "
    "[os.set_inheritable(each, False) for each in given]; "
    "apart = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 100) for each in given]; "  # of each other too
    "[os.dup2(each, place) for place, each in enumerate(apart, 3)]; "
    "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(given)), LISTEN_FDNAMES=sys.argv[2]); "
    "os.execv(sys.argv[3], sys.argv[3:])"
)

_PR_SET_CHILD_SUBREAPER: Final = 36
_DEADLINE_S: Final = 60.0
_LISTENING: Final = re.compile(r"walsender listening on (.+)$", re.MULTILINE)


@contextlib.contextmanager
def adopting() -> Iterator[None]:
    """Become the parent of what our children leave behind."""
    libc = ctypes.CDLL(None)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield
    finally:
        libc.prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@contextlib.contextmanager
def small_place() -> Iterator[Path]:
    """Give a new directory of our own, with a path short enough for sockets, and remove it."""
    path = Path(tempfile.mkdtemp(prefix="walsender-"))
    try:
        yield path
    finally:
        # What a test has closed, an ordinary user must open again to remove it.
        for directory, names, _ in os.walk(path):
            for name in names:
                Path(directory, name).chmod(0o700)
        shutil.rmtree(path)


def make_wal(directory: Path, segments: float = 1.5, maker: WalMaker | None = None) -> WalMaker:
    """Write so many segments of 1 MB into the new *directory*, and return what made them."""
    maker = WalMaker() if maker is None else maker
    maker.fill_to(maker.position + int(segments * maker.segment_size), 60_000)
    directory.mkdir(exist_ok=True)
    maker.write(directory)
    return maker


def command(
    place: Path, *, daemon: bool, name: str = "walsender", code: str = "", strict: bool = True
) -> list[str]:
    """
    Return the command that runs twistd, up to its own last option.

    :param place: where its pid file and log go.
    :param code: Python to run first.
    :param strict: comparing bytes with text is an error; Twisted does so for unix sockets.
    """
    return [
        *(sys.executable, *(("-bb",) if strict else ()), "-c", code + RUN),
        *(() if daemon else ("--nodaemon",)),
        *(f"--pidfile={place / name}.pid", f"--logfile={place / name}.log"),
    ]


class Refusals:
    """
    One start that cannot work, tried in the foreground, then as a daemon.

    Not at the same time: each tries the ports that it is to listen on, and may find the other's.

    :ivar foreground: exit status, standard output and standard error.
    :ivar daemon: the same.
    :ivar left: names of pid files that were left behind.
    :ivar logs: what was logged.
    """

    def __init__(self, place: Path, options: Sequence[str], code: str = "") -> None:
        if not {"-l", "--config-file"}.intersection(options):
            # Whoever has the port that is the default is none of our business.
            options = ("-l", "tcp:0:interface=127.0.0.1", *options)
        self.foreground, self.daemon = (
            self._start(
                place, [*command(place, daemon=daemon, name=name, code=code), "walsender", *options], name
            )
            for name, daemon in (("foreground", False), ("daemon", True))
        )
        self.left = [path.name for path in place.glob("*.pid")]
        self.logs = "".join(path.read_text() for path in place.glob("*.log"))

    @staticmethod
    def _start(place: Path, arguments: Sequence[str], name: str) -> tuple[int, str, str]:
        try:
            done = subprocess.run(
                arguments,
                cwd=place,
                env=clean_environment(source_environment()),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=_DEADLINE_S,
                check=False,
            )
        finally:
            _kill_daemon(place / f"{name}.pid")
        return done.returncode, done.stdout, done.stderr


def _kill_daemon(pid_file: Path) -> None:
    """A start that was to fail and did not has left a process."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(int(pid_file.read_text()), signal.SIGKILL)


class Twistd:
    """
    A twistd that works, in the foreground or (inside `adopting`) as a daemon, once it listens.

    :param expected: how often the log will say that it listens.
    :param code: Python to run first.
    :param passed: listening sockets by name, which it is given as systemd would.
    :ivar pid: the process that serves.
    """

    def __init__(
        self,
        place: Path,
        options: Sequence[str | Path],
        *,
        daemon: bool = False,
        strict: bool = True,
        expected: int = 1,
        environment: dict[str, str] | None = None,
        passed: Mapping[str, socket.socket] | None = None,
        code: str = "",
    ) -> None:
        self.pid_file = place / "walsender.pid"
        self.log_file = place / "walsender.log"
        self._status: int | None = None
        arguments: list[str | Path] = [*command(place, daemon=daemon, strict=strict, code=code), *options]
        descriptors = [each.fileno() for each in (passed or {}).values()]
        if passed:
            numbers = " ".join(map(str, descriptors))
            arguments = [sys.executable, "-c", _ACTIVATE, numbers, ":".join(passed), *arguments]
        self._process = subprocess.Popen(
            arguments if daemon else launch_command(arguments, OURSELVES),
            cwd=place,
            env=clean_environment({**source_environment(), **(environment or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=descriptors,
        )
        self.pid = self._process.pid
        try:
            if daemon:
                assert self._process.wait(_DEADLINE_S) == 0, self.log_text()
                self.pid = int(self.pid_file.read_text())
            wait_until(
                lambda: self._check_running() and len(self.listening()) >= expected,
                _DEADLINE_S,
                "walsender to listen",
                logs=[self],
            )
        except BaseException:
            self.kill()
            raise

    def log_text(self) -> str:
        """Return the whole log."""
        return self.log_file.read_text() if self.log_file.exists() else ""

    def log_tail(self) -> str:
        """See `walsender.testing.processes.HasLog`."""
        return self.log_text()

    def listening(self) -> list[str]:
        """Return the addresses that it says it listens on."""
        return _LISTENING.findall(self.log_text())

    @property
    def port(self) -> int:
        """The first TCP port that it listens on."""
        return int(next(address for address in self.listening() if "unix" not in address).rpartition(":")[2])

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Wait until the log has *text*."""
        wait_until(lambda: self.log_text().count(text) >= times, _DEADLINE_S, f"{text!r}", logs=[self])

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def ended(self) -> bool:
        """Return whether it has ended."""
        if self._status is None:
            if self.pid == self._process.pid:
                self._status = self._process.poll()
            else:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
                self._status = os.waitstatus_to_exitcode(status) if pid else None
        return self._status is not None

    def wait(self) -> int:
        """Wait for its end, and return the exit status or minus the number of the signal that killed it."""
        wait_until(self.ended, _DEADLINE_S, "walsender to end", logs=[self])
        assert self._status is not None
        return self._status

    def kill(self) -> None:
        """End it by force; harmless if it has ended."""
        with contextlib.suppress(OSError):
            if not self.ended():
                self.signal(signal.SIGKILL)
                self.wait()

    def _check_running(self) -> bool:
        assert not self.ended(), f"ended with status {self._status}\n{self.log_text()}"
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
