"""Which descriptors this process has open."""

from __future__ import annotations

import gc
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from twisted.trial.unittest import SynchronousTestCase


def open_descriptors() -> set[str]:
    """Return what is open."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 (names are wanted)


def watch_descriptors(test: SynchronousTestCase) -> set[str]:
    """Return what is open; none of it that earlier tests left as garbage is closed before *test* ends."""
    gc.disable()
    test.addCleanup(gc.enable)
    return open_descriptors()
