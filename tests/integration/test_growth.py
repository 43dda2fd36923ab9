"""
A directory that pg_receivewal fills from a live primary, while a standby streams out of it.

Seconds in the ordinary run; ``tox -e soak`` selects this file by its marker, with
``WALSENDER_SOAK_SECONDS=600``.
"""

from __future__ import annotations

import os
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from walsender.testing.growth import DelayMeter, WrittenEnd, percentile
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, PostgresInstallation, started
from walsender.testing.processes import WalsenderProcess, wait_until

if TYPE_CHECKING:
    from pathlib import Path

SOAK: Final = "WALSENDER_SOAK_SECONDS" in os.environ
DURATION_S: Final = float(os.environ.get("WALSENDER_SOAK_SECONDS", "6"))
PERIOD_S: Final = 0.01

RECEIVED: Final = "SELECT pg_last_wal_receive_lsn()"


@pytest.mark.soak
@pytest.mark.parametrize("inotify", ["on", "off"], ids=["inotify", "polling"])
@pytest.mark.parametrize("sendfile", ["on", "off"], ids=["sendfile", "transport"])
def test_standbyKeepsUpWithTheDirectory(space: Path, sendfile: str, inotify: str) -> None:
    """Of all positions seen on disk 99 % reach the standby within a second; none is missing at the end."""
    installation = PostgresInstallation.embedded(18)
    archive = space / "archive"
    with ExitStack() as stack:
        primary = stack.enter_context(
            started(Cluster.create(installation, space / "primary", segment_size_mb=4))
        )
        receiver = stack.enter_context(PgReceiveWal(installation, archive, primary.conninfo()))
        receiver.wait_for_start()
        PgBench.initialise(primary)
        backup = primary.base_backup(space / "backup")
        written = WrittenEnd(archive)
        wait_until(lambda: written.lsn() >= primary.flush_lsn() - 8, 60, "the archive", logs=[receiver])
        walsender = stack.enter_context(
            WalsenderProcess(
                archive, "--sendfile", sendfile, "--inotify", inotify, log_file=space / "walsender.log"
            )
        )
        following = walsender.conninfo()
        standby = stack.enter_context(
            started(Cluster.standby(installation, backup, space / "standby", primary_conninfo=following))
        )
        standby.wait_for_replay(primary.flush_lsn())

        session = stack.enter_context(standby.session())
        meter = DelayMeter(written.lsn, lambda: session.lsn(RECEIVED))
        with PgBench(primary, "--client=4", "--rate=400") as load:
            end = time.monotonic() + DURATION_S
            while time.monotonic() < end:
                load.check_running()
                walsender.check_running()
                meter.sample()
                time.sleep(PERIOD_S)  # the period of sampling; nothing is waited for
        last = primary.flush_lsn()
        wait_until(lambda: meter.sample()[0] >= last - 8, 60, "the archive's end", logs=[receiver])

        def level() -> bool:
            disk, received = meter.sample()
            return received >= disk

        wait_until(level, 60, "the standby to be level", logs=[walsender, standby])
        standby.wait_for_replay(last)
        assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)

        delays = meter.delays()
        spread = {f"p{percent:g}": f"{percentile(delays, percent):.3f} s" for percent in (50, 90, 99, 100)}
        print(f"sendfile {sendfile}, inotify {inotify}: {len(delays)} positions, {spread}")  # noqa: T201
        assert len(delays) > DURATION_S, "too little WAL to say anything"
        if SOAK:  # a short run on a busy machine would judge the machine
            assert percentile(delays, 99) <= 1.0, spread
