"""Archives that pg_receivewal or an archive command has compressed, served to real clients."""

from __future__ import annotations

import contextlib
import shutil
import signal
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from test_pg_receivewal import same_files, start_at

from walsender.lsn import LSN
from walsender.testing.archives import CONTENTS, SEGMENT_SIZE, Archive
from walsender.testing.compression import COMPRESS, compress_file
from walsender.testing.postgres import Cluster, PgReceiveWal, started
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from conftest import Serve

    from walsender.testing.installation import PostgresInstallation

INSERT = (
    "INSERT INTO contents SELECT g, repeat(md5(g::text), 3), 0"
    " FROM generate_series((SELECT coalesce(max(id), 0) + 1 FROM contents),"
    " (SELECT coalesce(max(id), 0) + 4000 FROM contents)) AS g"
)


def compress_some(archive: Archive, directory: Path) -> Archive:
    """Copy an archive, and compress of every four segments three, each in its way; the newest one too."""
    shutil.copytree(archive.directory, directory)
    for place, name in enumerate(archive.segments()):
        form = (*COMPRESS, "")[place % 4]
        path = directory / name
        if path.suffix == ".partial":
            # As the program leaves it: no further than WAL goes, and the suffix stands last.
            end = archive.end % SEGMENT_SIZE
            path.write_bytes(path.read_bytes()[:end])
            compress_file(path.rename(path.with_suffix("")), ".gz").rename(path.with_suffix(".gz.partial"))
        elif form:
            compress_file(path, form)
    for path in directory.glob("*.history"):
        compress_file(path, ".gz")
    archive.installation.account.own(directory)
    return replace(archive, directory=directory)


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_identicalFiles(archive: Archive, serve: Serve, space: Path, sendfile: str) -> None:
    """What a receiver gets from a mix of plain and compressed segments is what was compressed."""
    server = serve(compress_some(archive, space / "mixed"), "--sendfile", sendfile)
    segments = archive.segments()
    with start_at(server, space / "target", archive, segments[0]) as receiver:
        assert receiver.wait() == 0, receiver.log_tail() + server.log_tail()
    same_files(archive, space / "target", segments)


def test_standbyFollowsAFork(fork: Archive, serve: Serve, space: Path) -> None:
    """A standby reaches the end of a compressed archive, over a timeline whose history is compressed too."""
    server = serve(compress_some(fork, space / "mixed"))
    standby = Cluster.standby(
        fork.installation, fork.backup, space / "standby", primary_conninfo=server.conninfo()
    )
    with started(standby):
        standby.wait_for_replay(fork.end)
        assert standby.received_lsn() == fork.end
        assert standby.sql(CONTENTS) == fork.contents
        assert standby.sql("SELECT received_tli FROM pg_stat_wal_receiver") == "2"


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_whatPgReceivewalCompresses(installation: PostgresInstallation, space: Path, sendfile: str) -> None:
    """
    A standby follows a directory that pg_receivewal --compress writes, and reaches the primary's end.

    The receiver is stopped and started again in mid-segment, once plain and once compressed: it
    then writes that segment anew.
    """
    archive = space / "archive"
    with ExitStack() as stack:
        settings = {"autovacuum": "off"}
        primary = Cluster.create(installation, space / "primary", segment_size_mb=1, settings=settings)
        stack.enter_context(started(primary))
        primary.sql("CREATE TABLE contents (id int PRIMARY KEY, payload text NOT NULL, version int NOT NULL)")
        primary.sql("SELECT pg_create_physical_replication_slot('archive', true)")

        def receive(*options: str) -> PgReceiveWal:
            receiver = PgReceiveWal(
                installation, archive, primary.conninfo(), "--no-loop", "--slot=archive", *options
            )
            receiver.wait_for_start()
            return stack.enter_context(receiver)

        def stop(receiver: PgReceiveWal) -> None:
            receiver.signal(signal.SIGINT)
            assert receiver.wait() == 0, receiver.log_tail()

        receiver = receive("--compress=gzip:1")
        backup = primary.base_backup(space / "backup")
        primary.sql(INSERT)
        wait_until(lambda: any(archive.glob("*.gz")), 60, "a compressed segment", logs=[receiver])
        walsender = stack.enter_context(
            WalsenderProcess(archive, "--sendfile", sendfile, log_file=space / "walsender.log")
        )
        standby = Cluster.standby(
            installation, backup, space / "standby", primary_conninfo=walsender.conninfo()
        )
        stack.enter_context(started(standby))
        for options in (["--compress=9"], [], ["--compress=1"]):
            primary.sql(INSERT)
            end = primary.flush_lsn()
            # What is not yet out of the compressor comes when its file is finished.
            stop(receiver)
            receiver = receive(*options)
            primary.sql(INSERT)
            standby.wait_for_replay(end)
            if not options:
                wait_until(
                    lambda: any(not path.suffix for path in archive.iterdir()),
                    60,
                    "a segment that is not compressed",
                    logs=[receiver],
                )
        primary.sql(INSERT)
        primary.stop()
        receiver.wait()
        standby.wait_for_replay(LSN(primary_end(primary, installation)))
        assert standby.sql("SELECT count(*) FROM contents") == str(8 * 4000)
        assert {path.suffix for path in archive.iterdir()} >= {"", ".gz", ".partial"}
        assert "Traceback" not in walsender.log_text(), walsender.log_text()


def primary_end(primary: Cluster, installation: PostgresInstallation) -> int:
    """Return where a stopped primary's WAL ends."""
    pg_wal = primary.data_directory / "pg_wal"
    control = installation.run("pg_controldata", primary.data_directory).stdout
    name = next(line.split()[-1] for line in control.splitlines() if "REDO WAL file" in line)
    return installation.last_record(pg_wal / name)[1]


def memory(process: WalsenderProcess) -> int:
    """Return how many bytes of memory a process has that are not the page cache's."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) << 10


def expanded(process: WalsenderProcess) -> int:
    """Return how many files without a name it has open, descriptors counted once per file."""
    files = set()
    for path in Path(f"/proc/{process.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed just now
            files.add(str(path.readlink()))
    return sum("(deleted)" in file for file in files)


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_memory(space: Path, sendfile: str) -> None:
    """Clients all over a compressed archive cost no memory for it, and nothing is left when they are gone."""
    wal = space / "wal"
    wal.mkdir()
    maker = WalMaker(segment_size=8 << 20)
    maker.fill_to(maker.position + 12 * maker.segment_size, 4_000_000)
    maker.write(wal)
    names = sorted(path.name for path in wal.iterdir())
    for name in names:
        compress_file(wal / name, ".lz4")
    with WalsenderProcess(wal, "--sendfile", sendfile, log_file=space / "walsender.log") as process:
        before = memory(process)
        clients = []
        try:
            for number in range(1, len(names)):
                client = RawClient("127.0.0.1", process.port).ready()
                clients.append(client)
                client.send(b"Q", f"START_REPLICATION 0/{number << 23:X}\0".encode())
                assert [message.kind for message in client.until(b"d")] == [b"W", b"d"]
            # Each reads a segment and has opened the next one; all of them together are 96 MB.
            assert expanded(process) >= len(names) - 1
            assert memory(process) - before < 48 << 20
        finally:
            for client in clients:
                client.socket.close()
                client.__exit__(None, None, None)
        wait_until(lambda: expanded(process) <= 2, 60, "the expanded files to be closed", logs=[process])
        assert "Traceback" not in process.log_text(), process.log_text()
