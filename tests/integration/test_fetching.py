"""Real standbys that need WAL from before the directory begins."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from walsender.testing.archives import CONTENTS, Archive
from walsender.testing.postgres import Cluster, PgBench, started
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve

    from walsender.testing.installation import PostgresInstallation


def newest_only(archive: Archive, directory: Path, *, timeline: int = 1) -> Archive:
    """Return an archive whose directory has the newest segments and the histories only."""
    directory.mkdir()
    names = archive.segments(timeline)[-2:]
    names += [path.name for path in archive.directory.glob("*.history")]
    for name in names:
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
    """The same over two timelines."""
    short = newest_only(fork, space / "short", timeline=2)
    server = serve(short, "--restore-command", f'cp "{fork.directory}/%f" "%p"')
    follow(fork, space, server.conninfo())


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
        wait_until(refused, 30, "a refusal")
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
        start = f"{int(name[8:16], 16):X}/{int(name[16:], 16) << 20:X}"
        answer = client.query(f"START_REPLICATION {start} TIMELINE 1")
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
        client.send(b"Q", f"START_REPLICATION 0/{int(name[16:], 16) << 20:X} TIMELINE 1\0".encode())
        wait_until(lambda: len(pids.read_text().split()) >= 1, 30, "the command to begin", logs=[server])
        server.signal(signal.SIGTERM)
        assert server.wait() == 0, server.log_tail()
        assert "Traceback" not in server.log_text(), server.log_text()

    def gone(pid: int) -> bool:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        return False

    for pid in map(int, pids.read_text().split()):
        wait_until(lambda pid=pid: gone(pid), 10, "the command to end")


def switch(cluster: Cluster, segments: int) -> None:
    """Let some segments be written."""
    for _ in range(segments):
        cluster.sql("CREATE TABLE IF NOT EXISTS filler (x text); INSERT INTO filler VALUES ('x')")
        cluster.sql("SELECT pg_switch_wal()")


class TestRelay:
    """A relay that was begun late."""

    def relay(self, stack: ExitStack, space: Path, primary: Cluster, *options: str) -> WalsenderProcess:
        """Start one with an empty directory, and let it have its first WAL."""
        (space / "wal").mkdir(exist_ok=True)
        relay = stack.enter_context(
            WalsenderProcess(
                space / "wal",
                "--primary-conninfo",
                primary.conninfo(),
                *options,
                log_file=space / "walsender.log",
            )
        )
        wait_until(
            lambda: "started streaming WAL from the upstream" in relay.log_text(), 30, "WAL", logs=[relay]
        )
        return relay

    def test_fromTheUpstream(self, installation: PostgresInstallation, space: Path) -> None:
        """Started at a primary on timeline 3, empty, it serves a standby in the middle of timeline 1."""
        with ExitStack() as stack:
            settings = {"wal_keep_size": "1GB", "autovacuum": "off"}
            if installation.major < 13:
                settings = {"wal_keep_segments": "1000", "autovacuum": "off"}
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
            assert primary.sql("SELECT timeline_id FROM pg_control_checkpoint()") in {"1", "2", "3"}
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
                30,
                "the second connection to be closed",
                logs=[relay],
            )
            assert "Traceback" not in relay.log_text(), relay.log_text()
