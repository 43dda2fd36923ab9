"""
One writer: whoever writes a directory holds the lock on ``walsender.lock`` in it.

That is the state directory, and a relay's WAL directory too.

The lock is the kernel's (flock) and goes with the process that holds it, so there
is none to be removed after a crash.  The file stays: if it were removed, two
processes could each hold the lock of a file of that name.  What it says is only
for the message to whoever comes second.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final, Self

from walsender.errors import ConfigurationError

LOCK_NAME: Final = "walsender.lock"

_MAX_PID_TEXT: Final = 20  # bytes


class StateLock:
    """The lock on a directory, held from `acquire` to `release`."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    @classmethod
    def acquire(cls, directory: str, what: str = "state") -> Self:
        """
        Lock *directory*, which is made if only its last part is missing.

        :param what: kind of directory, for messages.
        :raises ConfigurationError: that is not possible, or somebody else holds the lock.
        """
        try:
            Path(directory).mkdir(mode=0o700, exist_ok=True)
            descriptor = os.open(Path(directory, LOCK_NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(directory, error, what) from error
        try:
            _lock(descriptor, fcntl.LOCK_EX, directory, what)
            os.ftruncate(descriptor, 0)
            # On a full disk there is no room for it, and the lock is held all the same.
            with contextlib.suppress(OSError):
                os.write(descriptor, f"{os.getpid()}\n".encode("ascii"))
        except OSError as error:
            os.close(descriptor)
            raise _unusable(directory, error, what) from error
        except ConfigurationError:
            os.close(descriptor)
            raise
        return cls(descriptor)

    @staticmethod
    def check(directory: str, what: str = "state") -> None:
        """
        Check that *directory* could be locked now; nothing is made.

        :param what: kind of directory, for messages.
        :raises ConfigurationError: as `acquire`.
        """
        path = Path(directory, LOCK_NAME)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            _check_can_be_made(path, what)
            return
        except OSError as error:
            raise _unusable(directory, error, what) from error
        try:
            # Shared: two who only ask are not in each other's way.
            _lock(descriptor, fcntl.LOCK_SH, directory, what)
        finally:
            os.close(descriptor)

    def release(self) -> None:
        """Give the lock back; once."""
        os.close(self._descriptor)


def _lock(descriptor: int, operation: int, directory: str, what: str) -> None:
    try:
        fcntl.flock(descriptor, operation | fcntl.LOCK_NB)
    except BlockingIOError as error:
        text = os.pread(descriptor, _MAX_PID_TEXT, 0).strip()
        holder = f"process {int(text)}" if text.isdigit() else "another process"
        raise ConfigurationError(f'{what} directory "{directory}" is in use by {holder}') from error


def _check_can_be_made(path: Path, what: str) -> None:
    """Complain as making *path*, and its directory if need be, would."""
    directory = path.parent
    above = directory if os.path.lexists(directory) else directory.parent
    try:
        os.close(os.open(above, os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        raise _unusable(str(directory), error, what) from error
    if not os.access(above, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f'could not use {what} directory "{directory}": "{above}" cannot be written to'
        )


def _unusable(directory: str, error: OSError, what: str) -> ConfigurationError:
    return ConfigurationError(f'could not use {what} directory "{directory}": {error.strerror}')
