"""Real standbys that need WAL from before the directory begins."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from relay_helpers import assert_same_segments, make_relay, wait_for_streaming
from versions import newest_at_least

from walsender.lsn import LSN
from walsender.testing.archives import CONTENTS, Archive
from walsender.testing.postgres import Cluster, PgBench, started
from walsender.testing.processes import WalsenderProcess, is_alive, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve

    from walsender.testing.installation import PostgresInstallation


def newest_only(archive: Archive, directory: Path, *, timeline: int = 1) -> Archive:
    """Return an archive whose directory has the newest segments only."""
    directory.mkdir()
    for name in archive.segments(timeline)[-2:]:
        os.link(archive.directory / name, directory / name)
    archive.installation.account.own(directory)
    return replace(archive, directory=directory)


def follow(archive: Archive, space: Path, conninfo: str) -> None:
    """Let a standby go from the base backup to the end, and look what is in it."""
    standby = Cluster.standby(
        archive.installation, archive.backup, space / "standby", primary_conninfo=conninfo
    )
    with started(standby):
        standby.wait_for_replay(archive.end)
        assert standby.sql(CONTENTS) == archive.contents


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_restoredForADirectory(archive: Archive, serve: Serve, space: Path, sendfile: str) -> None:
    """A standby replays all of an archive of which the server has the end only, where nothing is written."""
    short = newest_only(archive, space / "short")
    before = sorted(path.name for path in short.directory.iterdir())
    command = f'cp "{archive.directory}/%f" "%p"'
    server = serve(short, "--restore-command", command, "--sendfile", sendfile)
    follow(archive, space, server.conninfo())
    assert sorted(path.name for path in short.directory.iterdir()) == before
    assert f'fetched WAL file "{archive.segments()[1]}" (restore_command)' in server.log_text()


def test_restoredOverAFork(fork: Archive, serve: Serve, space: Path) -> None:
    """The same over two timelines; the history of the second comes from the archive, too."""
    short = newest_only(fork, space / "short", timeline=2)
    before = sorted(path.name for path in short.directory.iterdir())
    server = serve(short, "--restore-command", f'cp "{fork.directory}/%f" "%p"')
    follow(fork, space, server.conninfo())
    assert sorted(path.name for path in short.directory.iterdir()) == before
    assert 'fetched WAL file "00000002.history" (restore_command)' in server.log_text()


def test_reload(archive: Archive, serve: Serve, space: Path) -> None:
    """A standby that was refused is served when the setting has been changed."""
    short = newest_only(archive, space / "short")
    configuration = space / "walsender.conf"
    configuration.write_text("restore_command = 'exit 1'\n")
    server = serve(short, "--config-file", str(configuration))
    standby = Cluster.standby(
        archive.installation,
        archive.backup,
        space / "standby",
        primary_conninfo=server.conninfo(),
        settings={"wal_retrieve_retry_interval": "200ms"},
    )

    def refused() -> bool:
        log = standby.log_file
        return log.exists() and "restore_command does not have it" in log.read_text()

    def set_it_right() -> None:
        # The standby's start waits for WAL that it needs to be consistent.
        wait_until(refused, 60, "a refusal")
        configuration.write_text(f'restore_command = \'cp "{archive.directory}/%f" "%p"\'\n')
        server.signal(signal.SIGHUP)

    helper = threading.Thread(target=set_it_right)
    helper.start()
    with started(standby):
        helper.join()
        standby.wait_for_replay(archive.end)
        assert "has already been removed" in standby.log_file.read_text()
        assert standby.sql(CONTENTS) == archive.contents


def test_wrongCommand(archive: Archive, space: Path) -> None:
    """A placeholder that nobody knows ends the start with one line."""
    with pytest.raises(Exception, match='String contains unexpected placeholder "%x"') as refused:
        WalsenderProcess(archive.directory, "--restore-command", "get %x", log_file=space / "walsender.log")
    assert "Traceback (most recent call last)" not in str(refused.value)
    assert 'parameter "restore_command" from command line option --restore-command' in str(refused.value)


def test_damaged(archive: Archive, serve: Serve, space: Path) -> None:
    """A damaged file is refused with the reason, and the server lives."""
    short = newest_only(archive, space / "short")
    name = archive.segments()[2]
    spoilt = space / "spoilt"
    spoilt.mkdir()
    content = bytearray((archive.directory / name).read_bytes())
    content[8192 * 20 : 8192 * 21] = bytes(8192)
    (spoilt / name).write_bytes(content)
    server = serve(short, "--restore-command", f'cp "{spoilt}/%f" "%p"')
    with RawClient(server.host, server.port).ready() as client:
        answer = client.query(f"START_REPLICATION {lsn_of(name)} TIMELINE 1")
    errors = [message.fields() for message in answer if message.kind == b"E"]
    assert errors[0]["C"] == "58P01"
    assert "has no valid WAL at" in errors[0]["D"]
    log = server.log_text()
    assert log.count(f'cannot fetch WAL: restore_command: file "{name}" has no valid WAL') == 1, log


def test_shutdownEndsTheCommand(archive: Archive, space: Path) -> None:
    """SIGTERM ends a command that hangs, and what it has started."""
    short = newest_only(archive, space / "short")
    pids = space / "pids"
    pids.touch()
    command = f'sleep 300 & echo $! >> "{pids}"; wait'
    server = WalsenderProcess(short.directory, "--restore-command", command, log_file=space / "walsender.log")
    with server, RawClient(server.host, server.port).ready() as client:
        name = archive.segments()[1]
        client.send(b"Q", f"START_REPLICATION {lsn_of(name)} TIMELINE 1\0".encode())
        wait_until(lambda: len(pids.read_text().split()) >= 1, 60, "the command to begin", logs=[server])
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log_tail()
        assert "Traceback" not in server.log_text(), server.log_text()
    # Not every process 1 is quick to notice whose parent it has become.
    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: not is_alive(pid), 60, "the command to end")


SEGMENT_SIZE = 1 << 20


def lsn_of(name: str) -> LSN:
    """Return where a segment begins."""
    return LSN(int(name[8:16], 16) << 32 | int(name[16:], 16) * SEGMENT_SIZE)


def stream(client: RawClient, start: LSN, end: LSN) -> bytes:
    """Return the WAL that a server sends from *start* to *end*."""
    client.send(b"Q", f"START_REPLICATION {start} TIMELINE 1\0".encode())
    received = b""
    while len(received) < end - start:
        message = client.read()
        assert message is not None
        assert message.kind in {b"W", b"d"}, message
        if message.kind == b"d" and message.body[:1] == b"w":
            received += message.body[25:]
    return received[: end - start]


def switch(cluster: Cluster, segments: int) -> None:
    """Let some segments be written."""
    for _ in range(segments):
        cluster.sql("CREATE TABLE IF NOT EXISTS filler (x text); INSERT INTO filler VALUES ('x')")
        cluster.sql("SELECT pg_switch_wal()")


@newest_at_least
class TestRelay:
    """A relay that was begun late."""

    def relay(self, stack: ExitStack, space: Path, primary: Cluster, *options: str) -> WalsenderProcess:
        """Start one, and let it have its first WAL."""
        relay = make_relay(stack, space, primary.conninfo(), *options)
        wait_for_streaming(relay, primary)
        switch(primary, 1)
        wait_until(lambda: any((space / "wal").glob("*.partial")), 60, "WAL", logs=[relay])
        received = "SELECT flush_lsn >= pg_current_wal_flush_lsn() FROM pg_stat_replication"
        wait_until(lambda: primary.sql(received) == "t", 60, "the relay to be level", logs=[relay])
        return relay

    def primary(
        self, stack: ExitStack, installation: PostgresInstallation, space: Path, **more: str
    ) -> Cluster:
        """Return one that keeps its WAL, and has some segments of it."""
        settings = {"wal_keep_size": "1GB", "autovacuum": "off", **more}
        cluster = Cluster.create(installation, space / "primary", segment_size_mb=1, settings=settings)
        stack.enter_context(started(cluster))
        switch(cluster, 6)
        return cluster

    def test_fromTheUpstream(self, installation: PostgresInstallation, space: Path) -> None:
        """Started at a primary on timeline 3, empty, it serves a standby in the middle of timeline 1."""
        with ExitStack() as stack:
            settings = {"wal_keep_size": "1GB", "autovacuum": "off"}
            primary = Cluster.create(installation, space / "one", segment_size_mb=1, settings=settings)
            stack.enter_context(started(primary))
            PgBench.initialise(primary)
            backup = primary.base_backup(space / "backup")
            switch(primary, 3)
            for name in ("two", "three"):
                following = Cluster.standby(
                    installation,
                    backup,
                    space / name,
                    primary_conninfo=primary.conninfo(),
                    name=name,
                    settings=settings,
                )
                stack.enter_context(started(following))
                following.wait_for_replay(primary.flush_lsn())
                primary.kill()
                following.promote()
                primary = following
                switch(primary, 3)
            relay = self.relay(stack, space, primary)
            standby = Cluster.standby(
                installation, backup, space / "standby", primary_conninfo=relay.conninfo()
            )
            stack.enter_context(started(standby))
            end = primary.flush_lsn()
            standby.wait_for_replay(end)
            assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
            kept = {path.name for path in (space / "wal").iterdir()}
            for timeline in ("00000001", "00000002", "00000003"):
                names = {name for name in kept if name.startswith(timeline)}
                assert any(len(name) == 24 for name in names), kept
            compared = 0
            for path in (space / "wal").glob("0" * 7 + "?" * 17):
                original = primary.data_directory / "pg_wal" / path.name
                if original.exists():
                    assert path.read_bytes() == original.read_bytes(), path.name
                    compared += 1
            assert compared > 3
            wait_until(
                lambda: primary.sql("SELECT count(*) FROM pg_stat_replication") == "1",
                60,
                "the second connection to be closed",
                logs=[relay],
            )
            assert "Traceback" not in relay.log_text(), relay.log_text()

    def test_killedWhileItFetches(self, installation: PostgresInstallation, space: Path) -> None:
        """What was half fetched never has a name, is gone at the next start, and is fetched again."""
        with ExitStack() as stack:
            primary = self.primary(stack, installation, space)
            pids = space / "pids"
            half = f'head -c 300000 "{primary.data_directory}/pg_wal/%f" > "%p"'
            command = f'{half}; echo $$ >> "{pids}"; exec sleep 99'
            relay = self.relay(stack, space, primary, "--restore-command", command)
            before = {path.name for path in (space / "wal").iterdir()}
            with RawClient(relay.host, relay.port).ready() as client:
                first = min((primary.data_directory / "pg_wal").glob("00000001" + "?" * 16)).name
                client.send(b"Q", f"START_REPLICATION {lsn_of(first)} TIMELINE 1\0".encode())
                wait_until(lambda: pids.exists() and len(pids.read_text().split()) == 3, 60, "three commands")
                relay.signal(signal.SIGKILL)
                relay.wait()
            for pid in map(int, pids.read_text().split()):
                os.kill(pid, signal.SIGKILL)
            halves = list((space / "wal" / "walsender_fetch").rglob("0000*"))
            assert [path.stat().st_size for path in halves] == [300000] * 3
            assert sorted(path.name for path in (space / "wal").iterdir()) == sorted(
                [*before, "walsender_fetch"]
            )
            relay = self.relay(stack, space, primary)
            assert "walsender_fetch" not in {path.name for path in (space / "wal").iterdir()}
            end = primary.flush_lsn()
            with RawClient(relay.host, relay.port).ready() as client:
                received = stream(client, lsn_of(first), end)
            assert_same_segments(space / "wal", primary)
            assert (space / "wal" / first).exists()
            assert received[:SEGMENT_SIZE] == (space / "wal" / first).read_bytes()
            assert "Traceback" not in relay.log_text(), relay.log_text()

    def test_downForTooLong(self, installation: PostgresInstallation, space: Path) -> None:
        """What the primary has removed while a relay was down comes from the archive, and then the rest."""
        with ExitStack() as stack:
            archive = space / "archive"
            archive.mkdir()
            installation.account.own(archive)
            command = f'cp "%p" "{archive}/%f"'
            primary = self.primary(stack, installation, space, archive_mode="on", archive_command=command)
            relay = self.relay(stack, space, primary)
            primary.sql("INSERT INTO filler VALUES ('x')")
            wait_until(lambda: any((space / "wal").glob("*.partial")), 60, "half a segment", logs=[relay])
            relay.signal(signal.SIGTERM)
            assert relay.wait() == 0
            (growing,) = (space / "wal").glob("*.partial")
            switch(primary, 5)
            self.forget_wal(primary, growing.stem)
            relay = self.relay(stack, space, primary, "--restore-command", f'cp "{archive}/%f" "%p"')
            assert f'fetched WAL file "{growing.stem}" (restore_command)' in relay.log_text()
            assert "cannot receive WAL" not in relay.log_text(), relay.log_text()
            assert not growing.exists()
            with RawClient(relay.host, relay.port).ready() as client:
                received = stream(client, lsn_of(growing.stem), primary.flush_lsn())
            assert received[:SEGMENT_SIZE] == (archive / growing.stem).read_bytes()
            assert_same_segments(space / "wal", primary)
            assert "Traceback" not in relay.log_text(), relay.log_text()

    def forget_wal(self, primary: Cluster, name: str) -> None:
        """Let a primary remove its old WAL, that segment at least."""
        primary.settings["wal_keep_size"] = "0"
        primary.stop()
        primary.start()
        switch(primary, 2)
        for _ in range(2):
            primary.sql("CHECKPOINT")
        assert not (primary.data_directory / "pg_wal" / name).exists()

    def test_restoredForARelay(self, installation: PostgresInstallation, space: Path) -> None:
        """The archive is asked before the upstream; both fail, and the standby hears what each said."""
        with ExitStack() as stack:
            primary = self.primary(stack, installation, space)
            archive = space / "archive"
            archive.mkdir()
            segments = sorted((primary.data_directory / "pg_wal").glob("00000001" + "?" * 16))
            for path in segments:
                shutil.copy(path, archive)
            missing = segments[1].name
            (archive / missing).unlink()
            self.forget_wal(primary, missing)
            relay = self.relay(stack, space, primary, "--restore-command", f'cp "{archive}/%f" "%p"')
            with RawClient(relay.host, relay.port).ready() as client:
                received = stream(client, lsn_of(segments[2].name), lsn_of(segments[4].name))
                assert received[:SEGMENT_SIZE] == (archive / segments[2].name).read_bytes()
            assert f'fetched WAL file "{segments[2].name}" (restore_command)' in relay.log_text()
            with RawClient(relay.host, relay.port).ready() as client:
                answer = client.query(f"START_REPLICATION {lsn_of(missing)} TIMELINE 1")
            (error,) = [message.fields() for message in answer if message.kind == b"E"]
            assert error["C"] == "58P01"
            assert "restore_command does not have it; the upstream does not have it." in error["D"]
            assert "The earliest WAL position that is held here is" in error["D"]
            assert "Traceback" not in relay.log_text(), relay.log_text()
