"""``verify_wal``: the WAL of a dead server is checked before the start, record by record."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from twistd_helpers import Refusals, Twistd, make_wal, small_place
from versions import newest_at_least

from walsender.lsn import LSN
from walsender.testing.compression import compress_file
from walsender.testing.postgres import Cluster, started
from walsender.testing.processes import WalsenderProcess, run_program
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from walsender.testing.installation import PostgresInstallation

MIB = 1 << 20
OPTION = '(parameter "verify_wal" from command line option --verify-wal)'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of our own with a valid ``wal`` in it, from 0/100000 to 0/37…."""
    with small_place() as path:
        make_wal(path / "wal", 2.5)
        yield path


def refusal(place: Path, *options: str) -> str:
    """Return the one line with which a start over ``wal`` ends, in the foreground and as a daemon."""
    refusals = Refusals(place, ["-D", "wal", *options])
    assert refusals.foreground == refusals.daemon
    status, output, line = refusals.foreground
    assert (status, output, refusals.left) == (1, "", [])
    assert line.count("\n") == 1
    return line.removeprefix("walsender: ").strip()


def check(directory: Path) -> tuple[int, list[str]]:
    """Return exit status and lines of ``python -m walsender check``."""
    done = run_program(
        [sys.executable, "-bb", "-m", "walsender", "check", directory],
        directory=Path(__file__).parents[2],
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


def spoil(path: Path, offset: int) -> None:
    """Change one byte of a file."""
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_good(place: Path) -> None:
    """A start over good WAL says what it has checked."""
    for options in (["--verify-wal", "on"], ["--verify-wal=0/200000"]):
        with Twistd(place, ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1", *options]) as twistd:
            twistd.wait_for_log("verified WAL from 0/")
            assert "records are good" in twistd.log_text()


def test_notAsked(place: Path) -> None:
    """By default nothing is checked: WAL with a fault in its middle is served."""
    spoil(place / "wal" / "000000010000000000000002", MIB // 2)
    with Twistd(place, ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1"]) as twistd:
        assert "verified" not in twistd.log_text()


def test_bad(place: Path) -> None:
    """A fault ends the start; from behind it on there is none."""
    name = "000000010000000000000002"
    spoil(place / "wal" / name, MIB // 2 + 4000)
    line = refusal(place, "--verify-wal", "on")
    expected = (
        rf'WAL in "{place}/wal" is not good: file "pg_wal/{name}", offset (\d+) \(LSN 0/([0-9A-F]+)\): '
        rf"incorrect resource manager data checksum in record at 0/\2 {re.escape(OPTION)}"
    )
    match = re.fullmatch(expected, line)
    assert match is not None, line
    assert int(match[2], 16) == 2 * MIB + int(match[1])
    assert int(match[1]) <= MIB // 2 + 4000 < int(match[1]) + 60_000
    with Twistd(
        place, ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1", "--verify-wal=0/300000"]
    ) as twistd:
        twistd.wait_for_log("verified WAL from 0/3")


def test_compressed(place: Path) -> None:
    """What is compressed is checked too, and a file that is damaged itself is named, the newest one too."""
    names = sorted(path.name for path in (place / "wal").iterdir())
    for name in names:
        compress_file(place / "wal" / name, ".gz")
    for name in reversed(names[1:]):
        path = place / "wal" / f"{name}.gz"
        good = path.read_bytes()
        spoil(path, len(good) - 6)  # in the checksum
        line = refusal(place, "--verify-wal", "on")
        assert f'could not decompress file "pg_wal/{name}.gz": ' in line
        path.write_bytes(good)
    with Twistd(
        place, ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1", "--verify-wal=on"]
    ) as twistd:
        twistd.wait_for_log("verified WAL from 0/1")


def test_notHeld(place: Path) -> None:
    """WAL that is not there cannot be checked."""
    for lsn in ("0/80000", "1/0"):
        line = refusal(place, "--verify-wal", lsn)
        assert re.fullmatch(
            rf'WAL directory "{place}/wal" has no WAL at {lsn}: it goes from 0/100000 to 0/3[0-9A-F]+ on '
            rf"timeline 1 {re.escape(OPTION)}",
            line,
        ), line


def test_badValue(place: Path) -> None:
    """A value that is neither a position nor a switch is refused."""
    assert refusal(place, "--verify-wal", "5") == (
        'invalid value for parameter "verify_wal": "5" in command line option --verify-wal. '
        "Available values: off, on, an LSN such as 0/3000028."
    )


@newest_at_least
def test_deadServer(installation: PostgresInstallation, space: Path) -> None:
    """
    The pg_wal of a killed server, with recycled files in it, is good to its end, and served up to there.

    A wrong byte is found where pg_waldump finds it.
    """
    settings = {"autovacuum": "off", "wal_keep_size": "0", "min_wal_size": "32MB", "max_wal_size": "64MB"}
    with started(
        Cluster.create(installation, space / "primary", segment_size_mb=1, settings=settings)
    ) as primary:
        primary.sql("CREATE TABLE t (id int, payload text)")
        for _ in range(3):
            primary.sql("INSERT INTO t SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 30000) AS g")
            primary.sql("CHECKPOINT")
        begin = LSN.parse(primary.sql("SELECT redo_lsn FROM pg_control_checkpoint()"))
        primary.sql("INSERT INTO t SELECT g, repeat(md5(g::text), 4) FROM generate_series(1, 15000) AS g")
        end = primary.flush_lsn()
        newest = primary.sql("SELECT pg_walfile_name(pg_current_wal_flush_lsn())")
        primary.kill()
        shutil.copytree(primary.data_directory / "pg_wal", space / "wal")
    names = sorted(path.name for path in (space / "wal").iterdir() if path.is_file())
    assert names[-1] > newest, "no recycled files, so this is no test"
    status, said = check(space / "wal")
    assert (status, said[-1]) == (0, "clean"), said
    assert "behind that without WAL" in said[1]
    with WalsenderProcess(space / "wal", "--verify-wal", "on", log_file=space / "walsender.log") as process:
        match = re.search(r"verified WAL from (\S+) to (\S+): \d+ records", process.log_text())
        assert match is not None, process.log_text()
        assert LSN.parse(match[2]) >= end
        with RawClient("127.0.0.1", process.port).ready() as client:
            row = next(message for message in client.query("IDENTIFY_SYSTEM") if message.kind == b"D")
            assert row.values()[2] == match[2]
    with small_place() as place:
        shutil.copytree(space / "wal", place / "wal")
        installation.account.own(place)
        place.chmod(0o755)
        range_ = (f"--path={place / 'wal'}", f"--start={begin}", f"--end={end}")
        listing = installation.run("pg_waldump", *range_).stdout
        records = [
            LSN.parse(lsn)
            for total, lsn in re.findall(
                r"len \(rec/tot\): +\d+/ *(\d+),.* lsn: ([0-9A-F]+/[0-9A-F]+)", listing
            )
            if int(total) > 100
        ]
        wrong = records[len(records) // 2]
        place_of_byte = wrong + 30  # in the body of a record of that length
        name = f"{1:08X}{place_of_byte // MIB // 4096:08X}{place_of_byte // MIB % 4096:08X}"
        spoil(place / "wal" / name, place_of_byte % MIB)
        told = installation.run("pg_waldump", "--quiet", *range_, check=False).stderr
        assert re.search(rf"checksum in record at {wrong}$", told.strip()), told
        assert f"(LSN {wrong}): incorrect " in refusal(place, "--verify-wal", str(begin))
        status, said = check(place / "wal")
        assert (status, said[-1]) == (1, "not clean: 1 problem"), said
        assert f"(LSN {wrong}): incorrect " in said[1]
