"""``python -m walsender check``: what it says of directories, and with which exit status."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from walsender import check
from walsender.__main__ import main
from walsender.check import command
from walsender.check.progress import Bar
from walsender.source.running_server import RunningServer
from walsender.testing.compression import compress_file
from walsender.testing.wal_maker import WalMaker

SEGMENT = 1 << 20


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return that it is one."""
        return True


class CheckTests(SynchronousTestCase):
    def setUp(self) -> None:
        """Make four and a half segments of WAL."""
        self.path = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.path)
        self.maker = WalMaker()
        self.fill(4.5)

    def fill(self, segments: float) -> None:
        """Go on with WAL."""
        self.maker.fill_to(self.maker.position + int(segments * SEGMENT), 60_000)

    def name(self, number: int, timeline: int = 1) -> Path:
        """Return where a segment is."""
        return self.path / self.maker.name(number, timeline)

    def check(self, path: Path | None = None) -> tuple[int, list[str]]:
        """Return exit status and what is said; nothing is said to anybody else."""
        output, errors = io.StringIO(), io.StringIO()
        status = check.run(str(path or self.path), output, errors)
        self.assertEqual("", errors.getvalue())
        return status, output.getvalue().splitlines()

    def spoil(self, path: Path, offset: int) -> None:
        """Change one byte."""
        content = bytearray(path.read_bytes())
        content[offset] ^= 1
        path.write_bytes(content)

    def test_clean(self) -> None:
        """Good WAL is clean: what there is, how much of it is good, and what would be served."""
        self.maker.write(self.path)
        end = f"{0:X}/{self.maker.position:X}"
        run = "timeline 1, 000000010000000000000001 to 000000010000000000000005 (5 segments)"
        whose = f"PostgreSQL 18, system identifier {self.maker.system_identifier}, segments of 1 MB"
        expected = [
            f"{self.path}: {whose}",
            f"{run}: {len(self.maker.records)} good records from 0/100028 to {end}",
            f"would be served: 0/100000 to {end} on timeline 1",
            "clean",
        ]
        self.assertEqual((0, expected), self.check())

    def test_partialAndCompressed(self) -> None:
        """The newest segment may be partial and the others compressed; nothing of it is less checked."""
        self.maker.write(self.path, partial=True)
        for number in (1, 2, 3):
            compress_file(self.name(number), ".gz")
        status, said = self.check()
        self.assertEqual(0, status, said)
        self.assertIn(f"{len(self.maker.records)} good records", said[1])
        spoilt = self.path / f"{self.name(2).name}.gz"
        self.spoil(spoilt, spoilt.stat().st_size // 2)
        status, said = self.check()
        self.assertEqual((1, "not clean: 1 problem"), (status, said[-1]), said)
        self.assertIn(f"{self.name(2).name}.gz", said[1])

    def test_recycled(self) -> None:
        """What a server has recycled is behind the end, and no fault."""
        self.maker.recycle(2)
        self.maker.write(self.path)
        status, said = self.check()
        self.assertEqual(0, status, said)
        self.assertIn("; 2 segments behind that without WAL", said[1])

    def test_timelines(self) -> None:
        """Each timeline is checked, one that was left too; its history must be there."""
        self.maker.fork()
        self.fill(2)
        self.maker.write(self.path)
        status, said = self.check()
        self.assertEqual(0, status, said)
        self.assertIn("timeline 2, 000000020000000000000005 to 000000020000000000000007", said[2])
        self.assertRegex(said[3], r"^would be served: 0/100000 to 0/7[0-9A-F]+ on timeline 2$")
        self.spoil(self.name(2), SEGMENT // 2)
        status, said = self.check()
        self.assertEqual((1, "not clean: 1 problem"), (status, said[-1]), said)
        self.spoil(self.name(2), SEGMENT // 2)
        (self.path / "00000002.history").unlink()
        status, said = self.check()
        self.assertEqual(1, status)
        self.assertIn('timeline 2: file "pg_wal/00000002.history" is missing', said)

    def test_gapAndFault(self) -> None:
        """A gap is named, and the first bad byte of each run, whatever is wrong elsewhere."""
        self.maker.write(self.path)
        self.name(2).unlink()
        status, said = self.check()
        self.assertEqual((1, "not clean: 1 problem"), (status, said[-1]), said)
        self.assertRegex(said[2], r"^timeline 1, 0{7}10{15}1: \d+ good records from 0/100028 to 0/200000$")
        self.assertRegex(said[3], r"\(3 segments\): \d+ good records from 0/3[0-9A-F]+ to 0/5")
        self.spoil(self.name(1), 600_000)
        self.spoil(self.name(4), 600_000)
        status, said = self.check()
        self.assertEqual((1, "not clean: 3 problems"), (status, said[-1]), said)
        self.assertEqual("timeline 1: 000000010000000000000002 is missing (1 segment)", said[1])
        for line, number in ((said[2], 1), (said[3], 4)):
            self.assertRegex(
                line,
                rf'file "pg_wal/00000001000000000000000{number}", offset (5[4-9]|60)\d{{4}} \(LSN 0/{number}',
            )
            self.assertIn("checksum", line)

    def test_shortFile(self) -> None:
        """A file that is cut off is told by its size, and by the page that is not whole."""
        self.maker.write(self.path)
        os.truncate(self.name(2), SEGMENT - 1000)
        status, said = self.check()
        self.assertEqual((1, "not clean: 2 problems"), (status, said[-1]), said)
        self.assertEqual(f'file "pg_wal/{self.name(2).name}" has 1047576 bytes instead of 1048576', said[1])
        self.assertIn(f'file "pg_wal/{self.name(2).name}", offset {SEGMENT - 8192} (LSN 0/2FE000)', said[2])

    def served(self) -> list[str]:
        """Return what is said of what would be served."""
        return [line.partition(": ")[2] for line in self.check()[1] if line.startswith("would be served")]

    def test_served(self) -> None:
        """It begins behind a file that no standby can be sent: too short, or not to be decompressed."""
        self.maker.write(self.path)
        end = f"0/{self.maker.position:X} on timeline 1"
        self.assertEqual([f"0/100000 to {end}"], self.served())
        whole = self.name(2).read_bytes()
        for content in (whole[:-1000], whole[:8192], bytes(SEGMENT), b"", self.name(3).read_bytes()):
            self.name(2).write_bytes(content)
            self.assertEqual([f"0/300000 to {end}"], self.served(), len(content))
        self.name(2).write_bytes(whole)
        compress_file(self.name(4), ".gz")
        self.assertEqual([f"0/100000 to {end}"], self.served())
        spoilt = self.path / f"{self.name(4).name}.gz"
        self.spoil(spoilt, spoilt.stat().st_size // 2)
        self.assertEqual([f"0/500000 to {end}"], self.served())
        # What is sent is not changed, and so what is wrong in a record is sent as it is.
        spoilt.unlink()
        self.name(4).write_bytes(whole)
        self.spoil(self.name(3), 600_000)
        self.assertEqual([f"0/500000 to {end}"], self.served())

    def test_servedAlongTimelines(self) -> None:
        """The files of ancestors count where they are needed, and only there."""
        self.maker.fork()
        self.fill(2)
        self.maker.write(self.path)
        end = f"0/{self.maker.position:X} on timeline 2"
        self.assertEqual([f"0/100000 to {end}"], self.served())
        os.truncate(self.name(5), 1000)  # which timeline 2 has a copy of
        self.assertEqual([f"0/100000 to {end}"], self.served())
        os.truncate(self.name(4), 1000)
        self.assertEqual([f"0/500000 to {end}"], self.served())

    def test_twoClusters(self) -> None:
        """WAL of two clusters in one directory is not clean."""
        self.maker.write(self.path)
        other = WalMaker(system_identifier=1)
        other.fill_to(3 * SEGMENT, 60_000)
        self.name(9).write_bytes(other.image(2))
        status, said = self.check()
        self.assertEqual((1, "not clean: 1 problem"), (status, said[-1]), said)
        self.assertIn("holds WAL of two clusters", said[0])

    def test_noWal(self) -> None:
        """An archive without WAL is not clean."""
        status, said = self.check()
        self.assertEqual(1, status)
        self.assertIn("contains no WAL segment", said[0])

    def test_notChecked(self) -> None:
        """What cannot be looked at has a status of its own: no directory, a running server's, wrong usage."""
        self.maker.write(self.path)
        server = RunningServer(7, self.path / "postmaster.pid")
        for path, found, reason in (
            (self.path / "none", None, "No such file or directory"),
            (self.path, server, "belongs to a running PostgreSQL server (process 7)"),
        ):
            self.patch(command, "running_server", lambda _, found=found: found)
            errors = io.StringIO()
            self.assertEqual(2, check.run(str(path), io.StringIO(), errors))
            self.assertIn(reason, errors.getvalue())
            self.assertEqual(1, errors.getvalue().count("\n"))
        self.patch(sys, "stderr", io.StringIO())
        self.assertEqual(2, self.assertRaises(SystemExit, main, ["check"]).code)

    def test_interrupted(self) -> None:
        """Ctrl-C ends it with a line and the shell's status for that."""
        self.maker.write(self.path)

        class Impatient(io.StringIO):
            def write(self, text: str) -> int:
                raise KeyboardInterrupt

        errors = io.StringIO()
        self.assertEqual(130, check.run(str(self.path), Impatient(), errors))
        self.assertEqual("walsender check: interrupted\n", errors.getvalue())

    def test_bar(self) -> None:
        """In a terminal a bar moves, and leaves no trace."""
        self.maker.write(self.path)
        screen = Screen()
        self.assertEqual(0, check.run(str(self.path), io.StringIO(), screen))
        self.assertIn("%", screen.getvalue())
        self.assertTrue(screen.getvalue().endswith("\r\x1b[2K"))

    def test_barMoves(self) -> None:
        """The bar shows the segments in their order, each with how many were read before it."""
        self.maker.write(self.path)
        self.name(3).unlink()
        shown: list[tuple[int, str]] = []
        self.patch(Bar, "show", lambda _, done, name: shown.append((done, name)))
        self.assertEqual(1, check.run(str(self.path), io.StringIO(), Screen()))
        names = [self.name(number).name for number in (1, 2, 4, 5)]
        self.assertEqual(list(enumerate(names)), list(dict.fromkeys(shown)))


class BarTests(SynchronousTestCase):
    def test_picture(self) -> None:
        """It is drawn ten times a second at most, and never past its end."""
        now = 0.0
        screen = Screen()
        bar = Bar(screen, 4, lambda: now)
        bar.show(1, "A")
        bar.show(2, "B")
        now = 0.2
        bar.show(8, "C")
        self.assertEqual(
            f"\r\x1b[2K[{'#' * 10}{' ' * 30}]  25% A\r\x1b[2K[{'#' * 40}] 100% C", screen.getvalue()
        )
