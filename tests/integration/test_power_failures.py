"""
A power failure takes nothing back that a relay has said: the real program on a real file system.

``tox -e power`` runs this, as root, with ``WALSENDER_POWER_FAILURES`` failures.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest
from crash_helpers import CrashingRelay, check_synchronous_commits, check_what_clients_have
from losing_disk import LosingDisk

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

FAILURES: Final = int(os.environ["WALSENDER_POWER_FAILURES"])
DISK_MB: Final = 1024


@pytest.fixture
def disk(space: Path, stack: ExitStack) -> LosingDisk:
    """A disk for a relay's directory."""
    return stack.enter_context(LosingDisk(space, DISK_MB))


def lose_power(disk: LosingDisk, relay: CrashingRelay) -> None:
    """Let the relay's machine lose its power, and bring the disk back."""
    disk.fail()
    relay.kill()
    disk.unmount()
    disk.mount()


def test_whatIsLost(disk: LosingDisk) -> None:
    """The disk does what these tests are about: what was synced stays, what was only written goes."""
    for name in ("synced", "written"):
        with (disk.path / name).open("wb", buffering=0) as file:
            file.write(bytes(8192))
            if name == "synced":
                os.fsync(file.fileno())
    (disk.path / "synced").rename(disk.path / "renamed")
    disk.fail()
    disk.unmount()
    disk.mount()
    assert {path.name for path in disk.path.iterdir()} == {"synced", "lost+found"}


def test_whatClientsHave(space: Path, disk: LosingDisk, stack: ExitStack) -> None:
    """When the power is back, the relay's directory holds every byte that a client had got from it."""
    check_what_clients_have(space, stack, disk.path / "wal", lambda relay: lose_power(disk, relay), FAILURES)


def test_synchronousCommits(space: Path, disk: LosingDisk, stack: ExitStack) -> None:
    """With the relay as synchronous standby, whatever commit came back is there when the power is back."""
    check_synchronous_commits(
        space, stack, disk.path / "wal", lambda relay: lose_power(disk, relay), 100 * FAILURES
    )
