"""What the tests of the relay share: a primary, a relay behind it, and standbys behind that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from walsender.testing.postgres import Cluster, started
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import lets_in

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation

UPSTREAMS = "SELECT count(*), min(application_name) FROM pg_stat_replication WHERE state = 'streaming'"


def make_primary(stack: ExitStack, installation: PostgresInstallation, space: Path) -> Cluster:
    """Return a running primary with segments of a megabyte."""
    return stack.enter_context(started(Cluster.create(installation, space / "primary", segment_size_mb=1)))


def make_relay(
    stack: ExitStack,
    space: Path,
    upstream: str,
    *options: str,
    name: str = "wal",
    launcher: Sequence[str | Path] = (),
) -> WalsenderProcess:
    """Return a running relay that receives into ``space / name``, made if it is not there."""
    (space / name).mkdir(exist_ok=True)
    return stack.enter_context(
        WalsenderProcess(
            space / name,
            "--primary-conninfo",
            upstream,
            *options,
            log_file=space / f"{name}.log",
            launcher=launcher,
        )
    )


def wait_for_streaming(relay: WalsenderProcess, upstream: Cluster) -> None:
    """Wait until *upstream* streams to one client, the relay, and the relay has WAL to serve."""
    wait_until(lambda: upstream.sql(UPSTREAMS) == "1|walsender", 60, "the relay to stream", logs=[relay])
    if not lets_in(relay.host, relay.port):  # of its own a server may write nothing for 15 seconds
        upstream.sql("SELECT pg_create_restore_point('something')")
    wait_until(lambda: lets_in(relay.host, relay.port), 60, "the relay to have WAL", logs=[relay])


def make_standby(
    stack: ExitStack, backup: Path, space: Path, upstream: str, primary: Cluster, name: str = "standby"
) -> Cluster:
    """Return a running standby from *backup* that follows *upstream*."""
    return stack.enter_context(
        started(Cluster.standby(primary.installation, backup, space / name, primary_conninfo=upstream))
    )


def assert_same_segments(wal: Path, cluster: Cluster, timeline: int = 1) -> None:
    """Check that the complete segments in *wal* that *cluster* still has are its, byte for byte; some are."""
    compared = 0
    for path in wal.glob(f"{timeline:08X}" + "?" * 16):
        original = cluster.data_directory / "pg_wal" / path.name
        if original.exists():
            assert path.read_bytes() == original.read_bytes(), path.name
            compared += 1
    assert compared
