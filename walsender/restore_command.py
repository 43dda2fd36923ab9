"""
``restore_command``: what an administrator has set to get a WAL file out of an archive.

PostgreSQL's setting with PostgreSQL's meaning, so that what restores WAL for a server restores
it for us.  The command runs in a thread and not through the reactor's own processes: those
need the reactor to have SIGCHLD, which an embedding program may have for itself.

Source: PostgreSQL, src/backend/access/transam/xlogarchive.c, RestoreArchivedFile.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import threading
from typing import IO, TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError, Deferred

from walsender.errors import ConfigurationError, WalFileError

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import IDelayedCall, IReactorTime

# In place of %r, the oldest file that must stay in the archive: all must.
_NOTHING_TO_REMOVE: Final = "0" * 24

# A command that does not end when it is asked to is made to after this time.
_PATIENCE: Final = 1.0  # seconds

# What the shell, as PostgreSQL, takes for more than "there is no such file": 126 and 127 are
# its own, from 128 on a signal has ended what it ran.
_HIGHEST_NOT_FOUND: Final = 125

_LAST_WORDS: Final = 1000  # bytes
_PLACEHOLDER: Final = re.compile("%(.?)", re.DOTALL)

# Those that run, by their leaders; of one that is listed the number is not another's.
_running: Final[set[int]] = set()


def fill_in(command: str, name: str, path: str) -> str:
    """
    Return *command* with its placeholders replaced.

    :param name: of the file that is wanted, for ``%f``.
    :param path: where to copy it to, for ``%p``.
    :raises ConfigurationError: there is a placeholder that nobody knows.

    Source: PostgreSQL, src/common/percentrepl.c, replace_percent_placeholders.
    """
    values = {"f": name, "p": path, "r": _NOTHING_TO_REMOVE, "%": "%"}

    def value(match: re.Match[str]) -> str:
        letter = match[1]
        if letter not in values:
            raise ConfigurationError(
                f'invalid value for parameter "restore_command": "{command}": '
                + (
                    f'String contains unexpected placeholder "%{letter}".'
                    if letter
                    else 'String ends unexpectedly after escape character "%".'
                )
            )
        return values[letter]

    return _PLACEHOLDER.sub(value, command)


def kill_commands() -> None:
    """Kill all commands that run, with what they have started; out of a signal's handler, too."""
    for process_id in tuple(_running):
        with contextlib.suppress(OSError):
            os.killpg(process_id, signal.SIGKILL)


class RestoreCommand:
    """
    Gets files by running a command.

    :param run_in_thread: as `twisted.internet.threads.deferToThread`; each command has a thread for as
        long as it runs.
    :param command: the setting.
    :raises ConfigurationError: it has a placeholder that nobody knows.
    """

    description: Final = "restore_command"

    def __init__(
        self, clock: IReactorTime, run_in_thread: Callable[..., Deferred[Any]], command: str
    ) -> None:
        self._clock = clock
        self._run_in_thread = run_in_thread
        self._command = command
        fill_in(command, "", "")

    def fetch(self, name: str, directory: str) -> Deferred[bool]:
        """See `walsender.source.fetching.IWalProvider`."""
        return Deferred.fromCoroutine(self._fetch(name, directory))

    async def _fetch(self, name: str, directory: str) -> bool:
        run = _Run(fill_in(self._command, name, f"{directory}/{name}"), directory)
        ended: Deferred[Any] = self._run_in_thread(run.execute)
        waiting: Deferred[Any] = Deferred()
        ended.addBoth(_pass_on, waiting)
        try:
            status, words = await waiting
        except CancelledError:
            await self._stop(run, ended)
            raise
        if status < 0:
            raise WalFileError(f"restore_command was terminated by signal {-status}{words}")
        if status > _HIGHEST_NOT_FOUND:
            raise WalFileError(f"restore_command failed with exit status {status}{words}")
        return bool(status == 0)

    async def _stop(self, run: _Run, ended: Deferred[Any]) -> None:
        """End a command, and all that it has started; PostgreSQL sends SIGTERM to the same."""
        run.signal(signal.SIGTERM)
        timer: IDelayedCall = self._clock.callLater(_PATIENCE, run.signal, signal.SIGKILL)
        try:
            await ended
        finally:
            if timer.active():
                timer.cancel()


class _Run:
    """One command, in a session and process group of its own."""

    def __init__(self, command: str, directory: str) -> None:
        self._command = command
        self._directory = directory
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def execute(self) -> tuple[int, str]:
        """Run it to its end; return its exit status, or minus a signal, and what it said last."""
        with self._output() as output:
            with self._lock:
                if self._stopped:
                    return -signal.SIGTERM, ""
                process = self._process = self._start(output)
                _running.add(process.pid)
            # Not reaped before nobody can signal it any more: the number may be another's then.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
            with self._lock:
                self._process = None
                _running.discard(process.pid)
                status = process.wait()
            return status, _last_words(output)

    def _output(self) -> IO[bytes]:
        """Make a file without a name, where there is room for WAL: nowhere else need anything be writable."""
        try:
            return tempfile.TemporaryFile(dir=self._directory)
        except OSError as error:
            raise _cannot_run(error) from error

    def _start(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(  # noqa: S602 -- a shell command is what the setting is
                self._command,
                shell=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=self._directory,
                start_new_session=True,
            )
        except OSError as error:
            raise _cannot_run(error) from error

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of it, if it runs; it does not begin any more."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                os.killpg(self._process.pid, number)


def _cannot_run(error: OSError) -> WalFileError:
    return WalFileError(f"could not run restore_command: {error.strerror}")


def _last_words(output: IO[bytes]) -> str:
    """Return the last line of what a command has written, to stand behind a message."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _LAST_WORDS))
    lines = output.read().decode("utf-8", "replace").split("\n")
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f": {last}" if last else ""


def _pass_on(result: object, waiting: Deferred[Any]) -> None:
    waiting.callback(result)
