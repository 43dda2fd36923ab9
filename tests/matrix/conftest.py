"""
Every PostgreSQL that public packages carry; ``tox -e matrix`` runs this, the ordinary run has a part of it.

A server of an npm package has no client programs: those of the wheel's newest version are used with it.
At the end of a run the table of docs/compatibility.md is printed.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import pytest
from matrix_sources import COMPLETE, SOURCES, Source

from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PgBench, PostgresInstallation, started
from walsender.testing.processes import WalsenderProcess, wait_until, workspace
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

collect_ignore: Final = [] if COMPLETE else ["test_barman.py"]


@pytest.fixture(scope="session", params=SOURCES, ids=str)
def source(request: pytest.FixtureRequest) -> Source:
    """Each PostgreSQL in turn."""
    found: Source = request.param
    return found


@pytest.fixture(scope="session")
def installation(source: Source) -> PostgresInstallation:
    """The programs of `source`."""
    return source.installation()


@pytest.fixture
def space() -> Iterator[Path]:
    """A directory of PostgreSQL's for one test."""
    with workspace() as path:
        yield path


@dataclass(frozen=True, slots=True)
class CommandArchive:
    """
    What an ``archive_command`` has left of a primary that is gone: whole segments, the last one switched.

    :ivar backup: from which all of it can be replayed.
    :ivar end: where the last record ends.
    :ivar contents: the primary's last answer to `PgBench.CONTENTS`.
    """

    installation: PostgresInstallation
    directory: Path
    backup: Path
    end: LSN
    contents: str

    def segments(self) -> list[Path]:
        """Return the segments in order."""
        return sorted(path for path in self.directory.glob("0*") if len(path.name) == 24)

    @property
    def whole(self) -> tuple[LSN, LSN]:
        """Where the first segment begins and the last one ends, which is that of the WAL: it was switched."""
        first, *others = self.segments()
        size = first.stat().st_size
        start = (int(first.name[8:16], 16) << 32) + int(first.name[16:], 16) * size
        return LSN(start), LSN(start + (len(others) + 1) * size)

    def follow(self, server: WalsenderProcess, directory: Path) -> Cluster:
        """Return a standby of the backup that follows *server*, not started yet."""
        following = server.conninfo()
        return Cluster.standby(self.installation, self.backup, directory, primary_conninfo=following)


@pytest.fixture(scope="session")
def archive(installation: PostgresInstallation) -> Iterator[CommandArchive]:
    """An archive of `installation`."""
    with workspace("walsender-matrix-") as space:
        directory = space / "archive"
        directory.mkdir()
        installation.account.own(directory)
        command = f"cp %p {directory}/%f.copying && mv {directory}/%f.copying {directory}/%f"
        size_mb = 4 if installation.major >= 11 else 16
        settings = {"archive_mode": "on", "archive_command": command}
        with started(
            Cluster.create(installation, space / "primary", segment_size_mb=size_mb, settings=settings)
        ) as primary:
            backup = primary.base_backup(space / "backup")
            PgBench.initialise(primary)
            primary.sql("UPDATE pgbench_accounts SET abalance = aid")
            contents = primary.sql(PgBench.CONTENTS)
            end = LSN.parse(primary.sql("SELECT pg_switch_wal()"))
            last = primary.sql(f"SELECT pg_walfile_name('{end}')")
            wait_until((directory / last).exists, 60, f"{last} to be archived", logs=[primary])
            primary.stop("immediate")
        yield CommandArchive(installation, directory, backup, end, contents)


@pytest.fixture
def server(archive: CommandArchive, space: Path) -> Iterator[WalsenderProcess]:
    """Walsender over `archive`."""
    with WalsenderProcess(
        archive.directory, "--state-directory", str(space / "state"), log_file=space / "walsender.log"
    ) as process:
        yield process
        assert "Traceback" not in process.log_text(), process.log_text()


# The table of results


@pytest.fixture(autouse=True)
def noted(request: pytest.FixtureRequest, record_property: Callable[[str, object], None]) -> None:
    """Note for the table which programs a test has run with which WAL."""
    source: Source = request.getfixturevalue("source")
    record_property("source", str(source))
    record_property("version", request.getfixturevalue("installation").version)
    test = request.node.originalname.removeprefix("test_")
    other = request.node.callspec.params.get("receiver")
    record_property("test", f"{test} {other}" if other else test)


@pytest.fixture
def note_wal(record_property: Callable[[str, object], None]) -> Callable[[Path, WalsenderProcess], None]:
    """Note for the table what the WAL in a file says, and what a client of its server is told."""

    def note(segment: Path, server: WalsenderProcess) -> None:
        (magic,) = struct.unpack("=H", segment.read_bytes()[:2])
        record_property("magic", f"{magic:04X}")
        with RawClient(server.host, server.port) as client:
            told = [message.body for message in client.until(b"Z") if message.kind == b"S"]
            (version,) = (
                body.split(b"\0")[1].decode() for body in told if body.startswith(b"server_version\0")
            )
            row = next(message for message in client.query("IDENTIFY_SYSTEM") if message.kind == b"D")
        record_property("told", f"{version}, {len(told)} parameters, {len(row.values())} columns")

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    rows: dict[str, dict[str, str]] = {}
    tests: list[str] = []
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            told = dict(getattr(report, "user_properties", ()))
            if "test" not in told or (report.when != "call" and report.passed):
                continue
            row = rows.setdefault(told["source"], {})
            row.update({name: told[name] for name in ("version", "magic", "told") if name in told})
            row[told["test"]] = told.get("result", "yes") if outcome == "passed" else outcome
            tests += [told["test"]] if told["test"] not in tests else []
    if not rows:
        return
    columns = ["version", "magic", "told", *sorted(tests)]
    terminalreporter.section("compatibility")
    terminalreporter.line("| from | " + " | ".join(columns) + " |")
    terminalreporter.line("|---" * (len(columns) + 1) + "|")
    for name, row in sorted(rows.items(), key=lambda named: float(named[1]["version"])):
        terminalreporter.line("| " + " | ".join([name, *(row.get(column, "") for column in columns)]) + " |")
