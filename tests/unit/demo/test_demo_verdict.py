"""What the demo says in the end, when something is not as it should be."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from walsender.demo.stage import Stage
from walsender.lsn import LSN

END = LSN(0x3000100)
SEGMENT = "000000010000000000000003"


class Server:
    """A server that has all WAL, and these rows."""

    def __init__(self, contents: str) -> None:
        self._contents = contents

    def flush_lsn(self) -> LSN:
        """Return the end."""
        return END

    def wait_for_replay(self, lsn: LSN, timeout_s: float) -> None:
        """It has been replayed."""

    def sql(self, query: str) -> str:
        """Return the rows."""
        return self._contents


class Program:
    """A load that can be stopped, or a directory's end that has been reached."""

    def stop(self) -> None:
        """It is."""

    def lsn(self) -> LSN:
        """Return the end."""
        return END


class VerdictTests(SynchronousTestCase):
    """`Stage.verdict`, over servers that are not there."""

    def verdict(self, *standbys: str, copy: bytes = b"WAL", kills: int = 0) -> tuple[bool, str]:
        """Return it, and what is said."""
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        space = Path(made.name)
        for name, file, content in (
            ("copy", f"{SEGMENT}.partial", copy),
            ("relay", SEGMENT, b"WAL"),
            ("relay", "000000010000000000000002", b"earlier"),
        ):
            (space / name).mkdir(exist_ok=True)
            (space / name / file).write_bytes(content)
        stage: Any = Stage.__new__(Stage)
        stage.load = stage._written = Program()
        stage._relay, stage._space, stage._kills = None, space, kills
        stage._primary = Server("7|all")
        stage._standbys = dict(zip(("left", "right"), map(Server, standbys), strict=True))
        said: list[str] = []
        return stage.verdict(said.append), said[0]

    def test_equal(self) -> None:
        """Equal standbys and an equal copy are praised."""
        equal, said = self.verdict("7|all", "7|all", kills=2)
        self.assertTrue(equal)
        praise = "walsender demo: both standbys equal the primary: 7 rows at 0/3000100"
        self.assertEqual(said, f"{praise}; the relay was killed 2 times")

    def test_different(self) -> None:
        """Who is different is named."""
        for standbys, copy, named in (
            (("7|all", "7|others"), b"WAL", "standby right"),
            (("6|all", "7|all"), b"WAL", "standby left"),
            (("7|all", "7|all"), b"WAX", "pg_receivewal's copy"),
        ):
            self.assertEqual(
                self.verdict(*standbys, copy=copy),
                (False, f"walsender demo: NOT as the primary at 0/3000100: {named}"),
            )
