"""Freed memory is used again, and not asked of the kernel anew."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from unittest import skipUnless

from twisted.trial.unittest import TestCase

# What waits for the disk, six times: allocated by messages, freed by commits.  Prints the page faults of the
# last five.
FAULTS = """
import resource, sys
from walsender.upstream.kept_memory import keep_freed_memory

def commit():
    messages = [bytearray(131_100) for _ in range(64)]

if sys.argv[1] == "kept":
    keep_freed_memory(16 << 20)
commit()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    commit()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    """Return how many pages the commits had to be given."""
    environment = dict(os.environ)
    for name in [*filter(re.compile("MALLOC_|GLIBC_TUNABLES").match, environment)]:
        del environment[name]
    command = [sys.executable, "-c", FAULTS, how]
    return int(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)


@skipUnless(platform.libc_ver()[0] == "glibc", "another C library")
class KeptMemoryTests(TestCase):
    def test_whatIsFreedIsUsedAgain(self) -> None:
        """A commit's memory is the next one's; without being told, glibc gives it back each time."""
        self.assertLess(faults("kept") * 10, faults("given back"))
