"""
How fast a backlog is received, to synced disk: a relay against PostgreSQL 18's pg_receivewal.

    python -m benchmarks.receiving

Both begin with an empty directory and the copy of one slot, which has kept the backlog, and take turns.
The time is from the moment when the slot is in use until the last byte of the backlog is on disk: for the
relay when it says so, for pg_receivewal (which syncs at each segment's end) when it has stopped at the end.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import shutil
import statistics
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from benchmarks.catch_up import FILL, SETTINGS, cpu_seconds
from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PgReceiveWal, PostgresInstallation
from walsender.testing.processes import WalsenderProcess, wait_until, workspace

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.postgres import PsqlSession

ACTIVE = "SELECT active FROM pg_replication_slots WHERE slot_name = '{}'"
FLUSHED = "SELECT coalesce(max(flush_lsn), '0/0') FROM pg_stat_replication"


def receive_by_relay(
    primary: Cluster, session: PsqlSession, space: Path, slot: str, end: LSN
) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, that a relay takes."""
    wal = space / slot
    wal.mkdir()
    upstream = ("--primary-conninfo", primary.conninfo(), "--primary-slot-name", slot)
    with WalsenderProcess(wal, *upstream, log_file=space / f"{slot}.log") as relay:
        wait_until(lambda: session.query(ACTIVE.format(slot)) == "t", 30, "the relay", interval_s=0.001)
        started = time.perf_counter()
        wait_until(lambda: session.lsn(FLUSHED) >= end, 600, "the end", logs=[relay], interval_s=0.005)
        result = time.perf_counter() - started, cpu_seconds(relay.pid)
    shutil.rmtree(wal)
    return result


def receive_by_client(
    primary: Cluster, session: PsqlSession, space: Path, slot: str, end: LSN
) -> tuple[float, float]:
    """Return the seconds, and the CPU seconds, that pg_receivewal takes."""
    wal = space / slot
    options = (f"--slot={slot}", f"--endpos={LSN(end - 8)}", "--no-loop")
    before = os.times()
    with PgReceiveWal(primary.installation, wal, primary.conninfo(), *options) as client:
        wait_until(lambda: session.query(ACTIVE.format(slot)) == "t", 30, "pg_receivewal", interval_s=0.001)
        started = time.perf_counter()
        assert client.wait(600) == 0, client.log_tail()
        seconds = time.perf_counter() - started
    after = os.times()
    shutil.rmtree(wal)
    return (
        seconds,
        after.children_user + after.children_system - before.children_user - before.children_system,
    )


def main() -> None:
    """Parse the command line, make a backlog, run, report."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--size", type=float, default=2.0, metavar="GB", help="the backlog (2)")
    parser.add_argument("--rounds", type=int, default=5, help="how often each receives (5)")
    options = parser.parse_args()
    installation = PostgresInstallation.embedded(18)
    with ExitStack() as stack:
        space = stack.enter_context(workspace())
        settings = {**SETTINGS, "max_replication_slots": "100"}
        primary = stack.enter_context(Cluster.create(installation, space / "primary", settings=settings))
        primary.start()
        primary.sql("SELECT pg_create_physical_replication_slot('backlog', true)")
        begin = primary.flush_lsn()
        while primary.flush_lsn() - begin < options.size * 1e9:
            primary.sql(FILL)
        end = primary.flush_lsn()
        size = end - begin
        primary.sql("SELECT pg_switch_wal()")
        session = stack.enter_context(primary.session())
        contenders = {"pg_receivewal": receive_by_client, "walsender, relay": receive_by_relay}
        rates: dict[str, list[float]] = {name: [] for name in contenders}
        cpu: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(options.rounds):
            for place, (name, receive) in enumerate(contenders.items()):
                slot = f"run_{number}_{place}"
                primary.sql(f"SELECT pg_copy_physical_replication_slot('backlog', '{slot}')")
                os.sync()  # what others have left to write is not this one's
                seconds, used = receive(primary, session, space, slot, end)
                rates[name].append(size / 1e6 / seconds)
                cpu[name].append(used / size * 1e9)
                wait_until(lambda s=slot: session.query(ACTIVE.format(s)) == "f", 30, "the slot")  # type: ignore[misc]
                primary.sql(f"SELECT pg_drop_replication_slot('{slot}')")
            print(
                f"round {number + 1}: " + ", ".join(f"{name} {rates[name][-1]:.0f}" for name in contenders),
                flush=True,
            )
        versions = f"Python {platform.python_version()}, Twisted {importlib.metadata.version('twisted')}"
        print(f"\nPostgreSQL {installation.version}, {versions}, {os.cpu_count()} cores")
        print(f"{size / 1e9:.2f} GB of backlog, {options.rounds} rounds\n")
        print(f"{'':20}{'MB/s':>7}  {'lowest to highest':>19}  {'ratio':>6}  {'CPU s/GB':>9}")
        for name, mine in rates.items():
            ratio = statistics.median(a / b for a, b in zip(mine, rates["pg_receivewal"], strict=True))
            spread = f"{min(mine):.0f} to {max(mine):.0f}"
            print(
                f"{name:20}{statistics.median(mine):7.0f}  {spread:>19}  {ratio:6.2f}"
                f"  {statistics.median(cpu[name]):9.3f}"
            )


if __name__ == "__main__":
    main()
