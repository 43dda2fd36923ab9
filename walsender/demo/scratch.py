"""
The demo's directory, and what earlier ones have left.

A demo that was killed cannot clear up; its programs end with it, its files stay.
The directory of one that lives is locked, and the kernel lets go of the lock with
the process: what can be locked has been left, and the next demo removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from walsender.testing.processes import Account, workspace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PREFIX: Final = "walsender-demo-"
_REMOVAL_S: Final = 10.0


@contextlib.contextmanager
def scratch(removed: Callable[[Path], object]) -> Iterator[Path]:
    """
    Give a new directory of PostgreSQL's account, locked; remove it at the end.

    :param removed: is told of each directory that an earlier demo had left.
    """
    with contextlib.ExitStack() as stack:
        while True:
            path = stack.enter_context(workspace(_PREFIX))
            # Between its making and its lock another demo may have taken it for one that was left.
            if (descriptor := _lock(path)) is not None:
                stack.callback(os.close, descriptor)
                break
        for left in sorted(Path(tempfile.gettempdir()).glob(f"{_PREFIX}*")):
            if left != path and _remove(left):
                removed(left)
        yield path


def _lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock of a directory that is ours; none if it is gone or locked."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Others share the temporary directory, and may choose such names too.
        if os.fstat(descriptor).st_uid in {os.geteuid(), Account.for_postgres().user_id} and path.exists():
            return descriptor
    except OSError:  # locked
        pass
    os.close(descriptor)
    return None


def _remove(path: Path) -> bool:
    """Remove a directory that nobody has locked, and return whether it is gone."""
    descriptor = _lock(path)
    if descriptor is None:
        return False
    try:
        # A server that has just been orphaned may still write while it ends.
        deadline = time.monotonic() + _REMOVAL_S
        while path.exists() and time.monotonic() < deadline:
            shutil.rmtree(path, ignore_errors=True)
        return not path.exists()
    finally:
        os.close(descriptor)
