"""Does a live PostgreSQL server write a WAL directory?  Then it recycles files that we read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class RunningServer(NamedTuple):
    """A server that holds the data directory around a ``pg_wal``."""

    process_id: int
    pid_file: Path


def running_server(wal_directory: str) -> RunningServer | None:
    """
    Return the server that writes *wal_directory*, if one lives.

    Where pg_wal is a symbolic link, the server's data directory is the link's parent.
    """
    path = Path(wal_directory)
    for parent in dict.fromkeys((path.parent, path.resolve().parent)):
        pid_file = parent / "postmaster.pid"
        process_id = _running_postmaster(pid_file)
        if process_id is not None:
            return RunningServer(process_id, pid_file)
    return None


def _running_postmaster(pid_file: Path) -> int | None:
    """
    Return the process that holds the data directory, if it lives.

    Source: PostgreSQL, src/backend/utils/init/miscinit.c, CreateLockFile: the number is negative for a
    backend that runs alone, and one's own or one's parent's number is left over from before a
    restart of the machine, which gives out the same small numbers again.
    """
    try:
        process_id = abs(int(pid_file.read_text(encoding="ascii").split()[0]))
    except (OSError, ValueError, IndexError):
        return None
    return process_id if process_id not in {0, os.getpid(), os.getppid()} and _lives(process_id) else None


def _lives(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except PermissionError:
        return True  # it is somebody else's, so it is there
    except (OSError, OverflowError):
        return False
    return True
