"""A disk that loses at one moment all that was not made safe on it, as at a power failure."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from pathlib import Path

# Linux calls it EXT4_IOC_SHUTDOWN; file systems test their own crashes with it.
_EXT4_IOC_SHUTDOWN: Final = 0x8004587D
_NOLOGFLUSH: Final = struct.pack("I", 2)  # not even the journal's buffered part gets to the disk


class LosingDisk:
    """
    An ext4 file system on a loop device, for root.

    :ivar path: where it is mounted.
    """

    def __init__(self, space: Path, megabytes: int) -> None:
        self._image = space / "disk.image"
        self.path = space / "disk"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(megabytes << 20)
        subprocess.run(["mkfs.ext4", "-q", "-F", self._image], check=True)
        self.mount()

    def mount(self) -> None:
        """Bring it back, as after a restart of the machine: the journal is replayed."""
        subprocess.run(["mount", "-o", "loop", self._image, self.path], check=True)

    def fail(self) -> None:
        """
        Lose the power: from now on nothing gets to the device, and what is in memory only is gone.

        Whoever uses it gets EIO.
        """
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _EXT4_IOC_SHUTDOWN, _NOLOGFLUSH)
        finally:
            os.close(descriptor)

    def unmount(self) -> None:
        """Take it away; nobody may use it any more."""
        subprocess.run(["umount", self.path], check=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.path.is_mount():
            self.unmount()
