"""A relay between a real primary and real standbys."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, started
from walsender.testing.processes import WalsenderProcess, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation

UPSTREAMS = "SELECT count(*), min(application_name) FROM pg_stat_replication"


@pytest.mark.parametrize("sendfile", ["on", "off"], ids=["sendfile", "transport"])
def test_relayFeedsStandbys(installation: PostgresInstallation, space: Path, sendfile: str) -> None:
    """Under load standbys and a pg_receivewal behind a relay stay level, and the primary sees one client."""
    with ExitStack() as stack:
        primary = stack.enter_context(
            started(Cluster.create(installation, space / "primary", segment_size_mb=1))
        )
        PgBench.initialise(primary)
        (space / "wal").mkdir()
        relay = stack.enter_context(
            WalsenderProcess(
                space / "wal",
                "--primary-conninfo",
                primary.conninfo(),
                "--sendfile",
                sendfile,
                log_file=space / "walsender.log",
            )
        )
        wait_until(lambda: primary.sql(UPSTREAMS) == "1|walsender", 30, "the relay to connect", logs=[relay])
        backup = primary.base_backup(space / "backup")
        standbys = [
            stack.enter_context(
                started(
                    Cluster.standby(
                        installation, backup, space / f"standby{number}", primary_conninfo=relay.conninfo()
                    )
                )
            )
            for number in range(2)
        ]
        copy = space / "copy"
        receiver = stack.enter_context(PgReceiveWal(installation, copy, relay.conninfo()))
        receiver.wait_for_start()
        with PgBench(primary, "--client=4", "--time=5") as load:
            assert load.wait(60) == 0, load.log_tail()
        assert primary.sql(UPSTREAMS) == "1|walsender"
        end = primary.flush_lsn()
        for standby in standbys:
            standby.wait_for_replay(end)
            assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
        compared = 0
        for path in sorted((space / "wal").glob("00000001" + "?" * 16)):
            original = primary.data_directory / "pg_wal" / path.name
            if original.exists():
                assert path.read_bytes() == original.read_bytes(), path.name
                compared += 1
        assert compared > 3
        assert "Traceback" not in relay.log_text(), relay.log_text()
