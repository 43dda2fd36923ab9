"""The demo's directory: what a demo that was killed has left is removed, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walsender.demo.scratch import scratch
from walsender.testing.processes import source_environment

_HOLDS = """
import sys
from walsender.demo.scratch import scratch
with scratch(print) as space:
    (space / "some" ).mkdir()
    (space / "some" / "file").touch()
    print(space, flush=True)
    sys.stdin.read()
"""


class ScratchTests(SynchronousTestCase):
    """In a directory for temporary files of their own, since real demos may run beside."""

    def setUp(self) -> None:
        """Make it."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.place = Path(made.name)
        self.place.chmod(0o755)
        self.patch(tempfile, "tempdir", made.name)

    def other(self) -> tuple[subprocess.Popen[str], Path]:
        """Return another demo that has its directory, and that."""
        child = subprocess.Popen(
            [sys.executable, "-c", _HOLDS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | source_environment() | {"TMPDIR": str(self.place)},
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        self.addCleanup(child.stdin.close)
        self.addCleanup(child.stdout.close)
        self.addCleanup(child.wait)
        self.addCleanup(child.kill)
        return child, Path(child.stdout.readline().strip())

    def test_whatIsLeftIsRemoved(self) -> None:
        """The directory of a process that was killed goes, once it has been killed."""
        child, left = self.other()
        removed: list[Path] = []
        with scratch(removed.append) as space:
            self.assertTrue((left / "some" / "file").exists())
        self.assertEqual(removed, [])
        self.assertFalse(space.exists())

        child.send_signal(signal.SIGKILL)
        child.wait()
        self.assertTrue(left.exists())
        with scratch(removed.append) as space:
            self.assertTrue(space.is_dir())
            self.assertFalse(left.exists())
        self.assertEqual(removed, [left])

    def test_nothingElseIs(self) -> None:
        """A file, a link and a directory of another name stay."""
        kept = self.place / "kept"
        kept.mkdir()
        (self.place / "walsender-demo-file").touch()
        (self.place / "walsender-demo-link").symlink_to(kept)
        with scratch(lambda path: self.fail(str(path))):
            pass
        self.assertEqual(
            sorted(path.name for path in self.place.iterdir()),
            ["kept", "walsender-demo-file", "walsender-demo-link"],
        )
