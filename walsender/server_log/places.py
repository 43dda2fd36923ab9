"""
Where lines go: the file, the standard output or the syslog that twistd has been told.

twistd says the place (``--logfile``, ``--nodaemon``, ``--syslog``), and we write what it would: it
gives an observer of ours no other way to its file.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import syslog
from typing import TYPE_CHECKING, Any, Final, Protocol, TextIO

from twisted.python.logfile import LogFile

from walsender.errors import ConfigurationError

from .levels import syslog_priority

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_TWISTDS_PREFIX: Final = "twisted"


class ILogPlace(Protocol):
    """Takes lines."""

    @property
    def keeps_time(self) -> bool:
        """Whether it notes the time of each line by itself."""

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """Write *lines* of one message."""


class FilePlace:
    """
    A file, which is rotated as twistd does it: at SIGUSR1, and when it has a megabyte.

    :raises walsender.errors.ConfigurationError: it cannot be opened.
    """

    keeps_time = False

    def __init__(self, path: str, call_in_reactor: Callable[..., object]) -> None:
        try:
            self._file = LogFile.fromFullPath(path)
        except OSError as error:
            raise ConfigurationError(f'could not open log file "{path}": {error.strerror}') from error
        if not signal.getsignal(signal.SIGUSR1):
            signal.signal(signal.SIGUSR1, lambda *_: call_in_reactor(self._file.rotate))

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """See `ILogPlace`."""
        self._file.write("".join(f"{line}\n" for line in lines).encode(errors="backslashreplace"))
        self._file.flush()


class StreamPlace:
    """
    Standard output, perhaps with systemd's journal behind it.

    The journal notes the time, and takes a line's priority from its beginning.
    """

    def __init__(self, stream: TextIO, journal_stream: str | None = None) -> None:
        self._stream = stream
        self.keeps_time = journal_stream is not None and journal_stream == _identity(stream)

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """See `ILogPlace`."""
        mark = f"<{syslog_priority(severity)}>" if self.keeps_time else ""
        text = "".join(f"{mark}{line}\n" for line in lines)
        encoding = self._stream.encoding or "utf-8"
        self._stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        self._stream.flush()


class SyslogPlace:
    """Syslog, and what takes its place."""

    keeps_time = True

    def __init__(self, name: str) -> None:
        syslog.openlog(name, syslog.LOG_PID, syslog.LOG_DAEMON)

    def write(self, severity: str, lines: Sequence[str]) -> None:
        """See `ILogPlace`."""
        for line in lines:
            syslog.syslog(syslog_priority(severity), line)


def _identity(stream: TextIO) -> str | None:
    """Return what ``JOURNAL_STREAM`` would name *stream*: device and inode."""
    with contextlib.suppress(OSError, ValueError):
        status = os.fstat(stream.fileno())
        return f"{status.st_dev}:{status.st_ino}"
    return None


def place_for(twistd: Mapping[str, Any], call_in_reactor: Callable[..., object]) -> ILogPlace | None:
    """
    Return where twistd has been told to log.

    :param twistd: its options.
    :returns: ``None``: it has an observer already (``--logger``), or has to refuse something itself.
    :raises walsender.errors.ConfigurationError: the file cannot be opened.

    Source: Twisted, src/twisted/scripts/_twistd_unix.py, UnixAppLogger.
    """
    file, foreground = twistd.get("logfile"), bool(twistd.get("nodaemon"))
    if twistd.get("logger"):
        return None
    if twistd.get("syslog"):
        name = str(twistd.get("prefix") or _TWISTDS_PREFIX)
        return SyslogPlace("walsender" if name == _TWISTDS_PREFIX else name)
    if file == "-" and not foreground:
        return None
    if file == "-" or (foreground and not file):
        return StreamPlace(sys.stdout, os.environ.get("JOURNAL_STREAM"))
    return FilePlace(os.path.abspath(file or "twistd.log"), call_in_reactor)  # noqa: PTH100 (no links resolved)
