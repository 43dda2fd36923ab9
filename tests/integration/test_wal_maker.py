"""PostgreSQL's own reader judges what our WAL maker writes, and agrees with our reader about the end."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest

from walsender.lsn import LSN
from walsender.testing.wal_maker import MadeRecord, WalMaker
from walsender.wal import REAL_FILES, find_end, scan_directory

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation


def dumped(installation: PostgresInstallation, directory: Path, timeline: int, start: int) -> list[LSN]:
    """Return where the records begin that ``pg_waldump`` reads, from *start* to the end that it finds."""
    done = subprocess.run(
        [
            installation.program("pg_waldump"),
            *("--path", directory, "--timeline", str(timeline), "--start", str(LSN(start))),
        ],
        capture_output=True,
        text=True,
        check=False,  # it always ends by complaining about the record after the last
        timeout=60,
    )
    return [LSN.parse(text) for text in re.findall(r"lsn: ([0-9A-F]+/[0-9A-F]+)", done.stdout)]


def begins(records: list[MadeRecord]) -> list[int]:
    """Return where records begin."""
    return [record.begin for record in records]


@pytest.fixture
def maker(installation: PostgresInstallation) -> WalMaker:
    """WAL with all that a modern server does to it, on one timeline."""
    maker = WalMaker(installation.major * 10000)
    for number in range(400):
        maker.record(32 + number * 37 % 700)
    for length in (26, 24, 100_000, 50):
        maker.record(length)
    maker.switch()
    maker.record(90)
    maker.record(1_500_000)
    maker.record(70)
    maker.abandon(50_000, kept_pages=2)
    maker.record(64)
    maker.abandon(1_500_000, kept_pages=140)
    for _ in range(30):
        maker.record(64)
    return maker


def test_everyRecordIsRead(installation: PostgresInstallation, maker: WalMaker, tmp_path: Path) -> None:
    """``pg_waldump`` reads every record that was written, and our reader ends with the same one."""
    maker.write(tmp_path)
    assert dumped(installation, tmp_path, 1, maker.records[0].begin) == begins(maker.records)
    end = find_end(REAL_FILES, scan_directory(REAL_FILES, str(tmp_path)), 1)
    assert end is not None
    assert (end.position, end.last_record) == (maker.position, maker.records[-1].begin)


def test_aNewTimelineIsRead(installation: PostgresInstallation, maker: WalMaker, tmp_path: Path) -> None:
    """A new timeline's first segment, begun with the old one's pages, is read to its end by both."""
    maker.fork()
    maker.record(200)
    maker.record(20_000)
    maker.record(64)
    maker.write(tmp_path)
    last = begins(maker.records)[-8:]
    assert dumped(installation, tmp_path, 2, last[0]) == last
    end = find_end(REAL_FILES, scan_directory(REAL_FILES, str(tmp_path)), 2)
    assert end is not None
    assert (end.position, end.last_record) == (maker.position, maker.records[-1].begin)
