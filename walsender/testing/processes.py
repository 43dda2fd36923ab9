"""
Real processes for tests, the demo and the benchmarks, none of which outlives us.

Each child has its own session, so that a Ctrl-C at the terminal reaches us and
not it; its output goes to a file, which every failure quotes.  It ends with its
context manager, at interpreter exit, and (Linux) by the kernel if we are killed.
The kernel's promise hangs on the *thread* that started the child: start
children from a thread that lives as long as they shall.

Waiting is for a condition with a deadline (`wait_until`), never for a time.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pwd
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Protocol, Self, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from types import TracebackType

T = TypeVar("T")

_LAUNCHER: Final = Path(__file__).with_name("_launcher.py")
_TAIL_LINES: Final = 25


class HasLog(Protocol):
    """Whatever can show the end of its log when a wait fails."""

    def log_tail(self) -> str:
        """Return the last lines of the log, headed by whose log it is."""


class TimedOutError(Exception):
    """Something that was waited for did not happen in time; the text quotes the logs."""


class ProgramError(Exception):
    """A program ended with an unexpected status, or too early; the text quotes its output."""


def wait_until(
    condition: Callable[[], T],
    timeout_s: float,
    what: str,
    *,
    logs: Iterable[HasLog] = (),
    interval_s: float = 0.02,
) -> T:
    """
    Return the first true value of *condition*, asking again every *interval_s*.

    :param what: what is waited for, in words that complete "waited for …".
    :param logs: whose logs a failure quotes.
    :raises TimedOutError: it stayed false for *timeout_s* seconds.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        # Before it is asked: what has come while this process stood still has come in time.
        is_over = time.monotonic() > deadline
        if value := condition():
            return value
        if is_over:
            tails = "".join(f"\n{each.log_tail()}" for each in logs)
            raise TimedOutError(f"waited {timeout_s:g} s in vain for {what}{tails}")
        time.sleep(interval_s)


@dataclass(frozen=True, slots=True)
class Account:
    """
    The operating system user that programs run as.

    :ivar user_id: or -1 to stay who we are.
    :ivar group_id: or -1 likewise.
    """

    user_id: int = -1
    group_id: int = -1

    @classmethod
    def for_postgres(cls) -> Account:
        """Return ourselves or, since PostgreSQL refuses root, ``postgres`` or ``nobody`` in its place."""
        if os.geteuid() != 0:
            return cls()
        for name in ("postgres", "nobody"):
            with contextlib.suppress(KeyError):
                entry = pwd.getpwnam(name)
                return cls(entry.pw_uid, entry.pw_gid)
        raise ProgramError("PostgreSQL refuses root, and there is neither a user postgres nor a nobody")

    def own(self, path: Path) -> None:
        """Give *path*, and all below it, to this account."""
        if self.user_id < 0:
            return
        os.lchown(path, self.user_id, self.group_id)
        for directory, names, files in os.walk(path):
            for name in (*names, *files):
                os.lchown(os.path.join(directory, name), self.user_id, self.group_id)  # noqa: PTH118 (hot)


OURSELVES: Final = Account()


@contextlib.contextmanager
def workspace(prefix: str = "walsender-") -> Iterator[Path]:
    """
    Give a new directory that belongs to PostgreSQL's account, and remove it at the end.

    Its path is short, since the path of a Unix socket has a limit of 107 bytes.
    """
    path = Path(tempfile.mkdtemp(prefix=prefix))
    try:
        path.chmod(0o755)
        Account.for_postgres().own(path)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def clean_environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return our environment without libpq's and locale variables, which would change what programs do."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C"} | dict(more or {})


def launch_command(
    arguments: Sequence[str | Path], account: Account, death_signal: signal.Signals = signal.SIGKILL
) -> list[str]:
    """Return the command line that runs *arguments* as *account*, bound to this process's life."""
    launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(int(death_signal))]
    return [*launcher, str(account.user_id), str(account.group_id), *map(str, arguments)]


def run_program(
    arguments: Sequence[str | Path],
    *,
    account: Account = OURSELVES,
    directory: Path | None = None,
    standard_input: str = "",
    timeout_s: float = 120,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    """
    Run a program to its end and return its output as text.

    :raises ProgramError: *check* is set and the exit status is not 0, or it took too long.
    """
    try:
        done = subprocess.run(  # noqa: S603 (our own argument list)
            launch_command(arguments, account),
            cwd=directory or "/",
            env=clean_environment(),
            input=standard_input,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ProgramError(f"{arguments[0]} did not end within {timeout_s:g} s") from error
    if check and done.returncode != 0:
        command = " ".join(map(str, arguments))
        raise ProgramError(f"{command} ended with status {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def is_alive(process: int) -> bool:
    """Return whether a process of that id runs: not whether its parent has noticed its end."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


_live: Final[weakref.WeakSet[ChildProcess]] = weakref.WeakSet()


class ChildProcess:
    """
    A running program whose output goes to a file.

    :ivar name: what failures call it.
    :ivar log_file: where its standard error goes, and its standard output unless *stdout* says otherwise.
    """

    #: What ends this kind of program in order, and what the kernel sends it if we die.
    stop_signal: signal.Signals = signal.SIGTERM
    death_signal: signal.Signals = signal.SIGKILL

    def __init__(
        self,
        name: str,
        arguments: Sequence[str | Path],
        log_file: Path,
        *,
        account: Account = OURSELVES,
        environment: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> None:
        self.name = name
        self.log_file = log_file
        with log_file.open("ab") as log:
            self._log_start = log.tell()
            self.popen: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 (our own argument list)
                launch_command(arguments, account, self.death_signal),
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                cwd="/",
                env=clean_environment(environment),
                start_new_session=True,
            )
        _live.add(self)

    @property
    def pid(self) -> int:
        """The process id, which is also that of its session and group."""
        return self.popen.pid

    def running(self) -> bool:
        """Return whether it has not ended."""
        return self.popen.poll() is None

    def check_running(self) -> bool:
        """
        Return true; for use inside conditions.

        :raises ProgramError: the program has ended.
        """
        if not self.running():
            raise ProgramError(f"{self.name} ended with status {self.popen.returncode}\n{self.log_tail()}")
        return True

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the process itself; none is sent to one that has ended."""
        self.popen.send_signal(number)

    def wait(self, timeout_s: float = 60) -> int:
        """
        Wait for its end and return the exit status, or minus the number of the signal that killed it.

        :raises TimedOutError: it still runs after *timeout_s*.
        """
        try:
            return self.popen.wait(timeout_s)
        except subprocess.TimeoutExpired as error:
            message = f"{self.name} still runs after {timeout_s:g} s\n{self.log_tail()}"
            raise TimedOutError(message) from error

    def stop(self, timeout_s: float = 60) -> None:
        """End it in order, by force after *timeout_s*; harmless if it has ended already."""
        if self.running():
            self.signal(self.stop_signal)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.popen.wait(timeout_s)
        self.destroy()

    def destroy(self) -> None:
        """Kill it and its process group; harmless if it has ended already."""
        if self.running():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self.popen.wait()
        for pipe in (self.popen.stdin, self.popen.stdout):
            _close(pipe)
        _live.discard(self)

    def log_text(self) -> str:
        """Return what this process (not an earlier one with the same file) has logged."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def log_tail(self) -> str:
        """Return the last lines of the log, headed by the name."""
        lines = self.log_text().splitlines()[-_TAIL_LINES:]
        return "\n".join([f"--- {self.name} ---", *lines])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _close(pipe: IO[bytes] | None) -> None:
    if pipe is not None:
        with contextlib.suppress(BrokenPipeError):
            pipe.close()


@atexit.register
def _end_all() -> None:
    for process in list(_live):
        process.destroy()


_LISTENING: Final = re.compile(r"walsender listening on ([\d.]+|\[[0-9a-f:]+\]):(\d+)\s*$", re.MULTILINE)

_TWISTD: Final = ("-c", "from twisted.scripts.twistd import run; run()", "--nodaemon", "--pidfile=")


class WalsenderProcess(ChildProcess):
    """
    A ``twistd -n walsender`` of this environment, as the current user, ready to be connected to.

    The environment's ``WALSENDER_TEST_OPTIONS`` come before its own options, which count more.

    :param launcher: a command that becomes the one behind it, as ``nice`` does.
    :param strict: bytes that are compared with texts are errors, which those of Twisted's unix sockets are.
    :ivar host: the numeric address that it listens on.
    :ivar port: the TCP port that it listens on.
    """

    def __init__(
        self,
        directory: Path,
        *options: str,
        log_file: Path,
        listen: str = "tcp:0:interface=127.0.0.1",
        timeout_s: float = 60,
        launcher: Sequence[str | Path] = (),
        strict: bool = True,
    ) -> None:
        python = [sys.executable, *(["-bb"] if strict else [])]
        all_options = [*shlex.split(os.environ.get("WALSENDER_TEST_OPTIONS", "")), *options]
        walsender = ["walsender", "--wal-directory", str(directory), "--listen", listen, *all_options]
        super().__init__(
            "walsender",
            [*launcher, *python, *_TWISTD, *walsender],
            log_file,
            environment=source_environment(),
        )
        try:
            match = wait_until(self._listening, timeout_s, "walsender to listen", logs=[self])
        except BaseException:
            self.destroy()
            raise
        assert match is not None
        self.host = match[1].strip("[]")
        self.port = int(match[2])

    def _listening(self) -> re.Match[str] | None:
        self.check_running()
        return _LISTENING.search(self.log_text())

    def conninfo(self, **more: str) -> str:
        """Return the libpq connection string by which a standby or a client reaches it."""
        return conninfo(host=self.host, port=str(self.port), user="postgres", **more)


def conninfo(**parameters: str) -> str:
    """Return a libpq connection string of *parameters*, each value quoted."""
    quoted = {name: value.replace("\\", "\\\\").replace("'", "\\'") for name, value in parameters.items()}
    return " ".join(f"{name}='{value}'" for name, value in quoted.items())


def source_environment() -> dict[str, str]:
    """Return what lets a child import this very package when it is not installed but run from its source."""
    root = Path(__file__).parents[2]
    if (root / "twisted" / "__init__.py").exists():  # site-packages: importable as it is
        return {}
    return {"PYTHONPATH": os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))}
