"""For every version: primary, archive, walsender and standbys of it, and all clients that there are."""

from __future__ import annotations

import select
import shutil
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from matrix_sources import WITH_CLIENTS, WITH_TLS
from psycopg2.extras import PhysicalReplicationConnection

from walsender.lsn import LSN
from walsender.testing.cascade import Cascade
from walsender.testing.certificates import Authority
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, started
from walsender.testing.processes import WalsenderProcess, conninfo
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from conftest import CommandArchive
    from matrix_sources import Source

    from walsender.testing.postgres import PostgresInstallation


def test_cascade(
    installation: PostgresInstallation, space: Path, note_wal: Callable[[Path, WalsenderProcess], None]
) -> None:
    """
    Standbys with slots and feedback follow an archive as it grows, and two promotions, and equal the primary.

    The archive is written by pg_receivewal, that of the newest version where the version has none to hand.
    """
    with ExitStack() as stack:
        cascade = Cascade(installation, space, stack)
        cascade.write().stop()
        cascade.check_equal(1)
        note_wal(min(cascade.archive.glob("00000001*")), cascade.walsender)
        for timeline in (2, 3):
            cascade.lose_primary(killed=False)
            cascade.promote()
            cascade.write().stop()
            cascade.check_equal(timeline)
        assert "Traceback" not in cascade.walsender.log_text(), cascade.walsender.log_text()


def test_archive_command(archive: CommandArchive, server: WalsenderProcess, space: Path) -> None:
    """A standby streams what an archive_command has left, and equals the primary."""
    with started(archive.follow(server, space / "standby")) as standby:
        standby.wait_for_replay(archive.end)
        assert standby.sql(PgBench.CONTENTS) == archive.contents


if WITH_TLS:  # only the whole matrix has any

    @pytest.mark.parametrize("source", WITH_TLS, indirect=True, ids=str)
    def test_tls(archive: CommandArchive, space: Path) -> None:
        """A standby that wants our certificate, and is asked for its own, equals the primary."""
        authority = Authority(space)
        certificate, key = authority.issue("localhost", "server")
        mine, my_key = authority.issue("standby")
        (space / "hba").write_text("hostssl replication standby all cert\n")
        archive.installation.account.own(my_key)
        options = {
            "ssl": "on",
            "ssl_cert_file": certificate,
            "ssl_key_file": key,
            "ssl_ca_file": authority.path,
            "hba_file": space / "hba",
            "state_directory": space / "state",
        }
        settings = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        with WalsenderProcess(archive.directory, *settings, log_file=space / "walsender.log") as server:
            following = conninfo(
                host="localhost",
                port=str(server.port),
                user="standby",
                sslmode="verify-full",
                sslrootcert=str(authority.path),
                sslcert=str(mine),
                sslkey=str(my_key),
            )
            backup, directory = archive.backup, space / "standby"
            follower = Cluster.standby(archive.installation, backup, directory, primary_conninfo=following)
            with started(follower) as standby:
                standby.wait_for_replay(archive.end)
                assert standby.sql(PgBench.CONTENTS) == archive.contents
                encrypted = standby.sql("SELECT conninfo FROM pg_stat_wal_receiver")
                assert "sslmode=verify-full" in encrypted
            assert "Traceback" not in server.log_text()


@pytest.mark.parametrize("receiver", WITH_CLIENTS, ids=str)
def test_pg_receivewal(
    archive: CommandArchive,
    server: WalsenderProcess,
    space: Path,
    receiver: Source,
    record_property: Callable[[str, object], None],
) -> None:
    """pg_receivewal of any version receives the WAL of its own and of older ones, and refuses newer ones."""
    target = space / "target"
    target.mkdir()
    first = archive.segments()[0]
    shutil.copy(first, target)  # it goes on behind this
    options = ("--no-loop", f"--endpos={LSN(archive.whole[1] - 1)}")
    receiving = receiver.installation()
    with PgReceiveWal(receiving, target, server.conninfo(), *options) as program:
        status = program.wait()
    if receiving.major < archive.installation.major:
        assert status == 1
        assert "incompatible server version" in program.log_text()
        record_property("result", "too new for it")
        return
    assert status == 0, program.log_tail()
    for path in archive.segments():
        assert (target / path.name).read_bytes() == path.read_bytes()


def test_psycopg2(archive: CommandArchive, server: WalsenderProcess) -> None:
    """Its physical replication cursor makes a slot, reads the stream, and moves the slot by its feedback."""
    start, end = archive.whole
    connect: Any = psycopg2.connect  # its annotations know ordinary connections
    with closing(connect(server.conninfo(), connection_factory=PhysicalReplicationConnection)) as connection:
        cursor = connection.cursor()
        cursor.create_replication_slot("cursor")
        cursor.start_replication(slot_name="cursor", start_lsn=str(start), timeline=1)
        received = b""
        while start + len(received) < end:
            message = cursor.read_message()
            if message is None:
                assert select.select([cursor], [], [], 30)[0], server.log_tail()
                continue
            assert message.data_start == start + len(received)
            assert message.wal_end == end
            received += message.payload
        assert received == b"".join(path.read_bytes() for path in archive.segments())
        cursor.send_feedback(write_lsn=end, flush_lsn=end, apply_lsn=end, reply=True, force=True)
        # The answer is a keepalive, which is no message of WAL.
        assert select.select([cursor], [], [], 30)[0]
        assert cursor.read_message() is None
        with RawClient(server.host, server.port).ready() as client:
            (refused, _) = client.query("DROP_REPLICATION_SLOT cursor")
            assert refused.fields()["C"] == "55006"
            if archive.installation.major >= 15:
                row = client.query("READ_REPLICATION_SLOT cursor")[1]
                assert row.values() == ["physical", str(end), "1"]
    with closing(connect(server.conninfo(), connection_factory=PhysicalReplicationConnection)) as again:
        again.cursor().drop_replication_slot("cursor")
