"""A real standby, bootstrapped from a base backup, whose primary is gone: our WAL is all it gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from walsender.testing.archives import CONTENTS, Archive
from walsender.testing.postgres import Cluster, started

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import Serve, Server


def follow(archive: Archive, server: Server, space: Path) -> Cluster:
    """Return a standby of *archive*'s base backup that follows *server*, not started yet."""
    return Cluster.standby(
        archive.installation, archive.backup, space / "standby", primary_conninfo=server.conninfo()
    )


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_standbyReachesTheEnd(archive: Archive, serve: Serve, space: Path, sendfile: str) -> None:
    """A standby receives the archive to its last LSN, not further, and answers as its primary did."""
    server = serve(archive, "--sendfile", sendfile)
    with started(follow(archive, server, space)) as standby:
        standby.wait_for_replay(archive.end)
        assert standby.received_lsn() == archive.end
        assert standby.sql(CONTENTS) == archive.contents


def test_standbyFollowsAFork(fork: Archive, serve: Serve, space: Path) -> None:
    """A standby of timeline 1 goes over to timeline 2 where that begins, through the archive alone."""
    server = serve(fork)
    with started(follow(fork, server, space)) as standby:
        standby.wait_for_replay(fork.end)
        assert standby.received_lsn() == fork.end
        assert standby.sql(CONTENTS) == fork.contents
        assert standby.sql("SELECT received_tli FROM pg_stat_wal_receiver") == "2"


def test_standbyComesBack(archive: Archive, serve: Serve, space: Path) -> None:
    """A standby that was killed in the middle catches up again from where its own WAL ends."""
    server = serve(archive)
    with started(follow(archive, server, space)) as standby:
        standby.wait_for_replay(archive.end)
        standby.kill()
        standby.start()
        standby.wait_for_replay(archive.end)
        assert standby.sql(CONTENTS) == archive.contents


def test_promotedStandbyTakesWrites(archive: Archive, serve: Serve, space: Path) -> None:
    """A standby fed by us alone can be promoted, and then writes."""
    server = serve(archive)
    with started(follow(archive, server, space)) as standby:
        standby.wait_for_replay(archive.end)
        standby.promote()
        standby.sql("INSERT INTO contents SELECT -1, 'after', 0")
        assert standby.sql("SELECT count(*) FROM contents WHERE id = -1") == "1"
