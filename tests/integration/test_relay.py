"""A relay between real servers: what goes through it, and what happens when the upstream changes."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

import pytest
from relay_helpers import (
    UPSTREAMS,
    assert_same_segments,
    make_primary,
    make_relay,
    make_standby,
    wait_for_streaming,
)
from versions import newest_at_least

from walsender.lsn import LSN
from walsender.testing.installation import PostgresInstallation
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, started
from walsender.testing.processes import WalsenderProcess, conninfo, wait_until

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

MIB: Final = 1 << 20


@pytest.fixture(scope="module")
def newest() -> PostgresInstallation:
    """The newest PostgreSQL: what is tested with it does not depend on the version."""
    return PostgresInstallation.embedded(18)


@pytest.mark.parametrize("sendfile", ["on", "off"], ids=["sendfile", "transport"])
@newest_at_least
def test_relayFeedsStandbys(
    installation: PostgresInstallation, space: Path, stack: ExitStack, sendfile: str
) -> None:
    """Under load standbys and a pg_receivewal behind a relay stay level, and the primary sees one client."""
    primary = make_primary(stack, installation, space)
    PgBench.initialise(primary)
    relay = make_relay(stack, space, primary.conninfo(), "--sendfile", sendfile)
    wait_for_streaming(relay, primary)
    backup = primary.base_backup(space / "backup")
    standbys = [
        make_standby(stack, backup, space, relay.conninfo(), primary, f"standby{number}")
        for number in range(4)
    ]
    receiver = stack.enter_context(PgReceiveWal(installation, space / "copy", relay.conninfo()))
    receiver.wait_for_start()
    with PgBench(primary, "--client=4", "--time=5") as load:
        assert load.wait(60) == 0, load.log_tail()
    assert primary.sql(UPSTREAMS) == "1|walsender"
    primary.sql("SELECT pg_switch_wal()")
    end = primary.flush_lsn()
    for standby in standbys:
        standby.wait_for_replay(end)
        assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
    assert_same_segments(space / "wal", primary)
    last = space / "copy" / f"00000001{0:08X}{end // MIB - 1:08X}"
    wait_until(last.exists, 60, "the copy", logs=[receiver])
    assert_same_segments(space / "copy", primary)
    assert "Traceback" not in relay.log_text(), relay.log_text()


def test_relayFollowsAPromotion(newest: PostgresInstallation, space: Path, stack: ExitStack) -> None:
    """
    When the primary dies and another host of the conninfo is promoted, the relay and its standbys follow.

    Nobody touches them.  A relay behind the relay follows as well.
    """
    primary = make_primary(stack, newest, space)
    early = primary.base_backup(space / "early")
    successor = Cluster.standby(newest, early, space / "successor", primary_conninfo=primary.conninfo())
    stack.enter_context(started(successor))
    both = conninfo(
        host="127.0.0.1,127.0.0.1",
        port=f"{primary.port},{successor.port}",
        user="postgres",
        target_session_attrs="read-write",
    )
    relay = make_relay(stack, space, both, "--wal-retrieve-retry-interval", "500ms")
    second = make_relay(
        stack, space, relay.conninfo(), "--wal-retrieve-retry-interval", "500ms", name="second"
    )
    wait_until(lambda: "started streaming" in second.log_text(), 60, "the relays", logs=[relay, second])
    backup = primary.base_backup(space / "backup")  # whose WAL the relays have from its beginning
    near = make_standby(stack, backup, space, relay.conninfo(), primary, "near")
    far = make_standby(stack, backup, space, second.conninfo(), primary, "far")
    primary.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    last = primary.flush_lsn()
    for standby in (successor, near, far):
        standby.wait_for_replay(last)
    primary.kill()
    successor.promote()
    successor.sql("INSERT INTO kept SELECT generate_series(1001, 2000)")
    for standby in (near, far):
        standby.wait_for_replay(successor.flush_lsn())
        assert standby.sql("SELECT count(*), sum(id) FROM kept") == "2000|2001000"
        assert standby.sql("SELECT received_tli FROM pg_stat_wal_receiver") == "2"
    for log in (relay, second):
        assert "Traceback" not in log.log_text(), log.log_text()


def test_forkedHistory(newest: PostgresInstallation, space: Path, stack: ExitStack) -> None:
    """
    A new primary that lacks the old one's last WAL is followed from where it left; nothing is overwritten.

    A standby that has the lost WAL gets PostgreSQL's own error.
    """
    primary = make_primary(stack, newest, space)
    config = space / "walsender.conf"
    set_upstream(config, primary)
    relay = make_reloadable_relay(stack, space, config)
    wait_for_streaming(relay, primary)
    backup = primary.base_backup(space / "backup")
    successor = Cluster.standby(newest, backup, space / "successor", primary_conninfo=primary.conninfo())
    stack.enter_context(started(successor))
    ahead = make_standby(stack, backup, space, relay.conninfo(), primary, "ahead")
    primary.sql("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS id")
    successor.wait_for_replay(primary.flush_lsn())
    successor.kill()
    primary.sql("CREATE TABLE lost AS SELECT generate_series(1, 1000) AS id")
    end = primary.flush_lsn()
    ahead.wait_for_replay(end)
    kept = {path.name: path.read_bytes() for path in (space / "wal").glob("00000001*")}
    primary.kill()
    successor.settings["primary_conninfo"] = ""
    successor.start()
    successor.promote()
    successor.sql("INSERT INTO kept SELECT generate_series(1001, 2000)")
    behind = Cluster.standby(newest, backup, space / "behind", primary_conninfo=relay.conninfo())
    set_upstream(config, successor)
    relay.signal(signal.SIGHUP)
    wait_until(lambda: "history left timeline 1" in relay.log_text(), 60, "the fork to be seen", logs=[relay])
    stack.enter_context(started(behind))
    behind.wait_for_replay(successor.flush_lsn())
    assert behind.sql("SELECT count(*) FROM kept") == "2000"
    wait_until(
        lambda: (
            "not a child of this server's history" in ahead.log_tail() or "forked off" in ahead.log_tail()
        ),
        60,
        "the standby's complaint",
        logs=[ahead, relay],
    )
    for name, content in kept.items():
        path = space / "wal" / name
        assert (path if path.exists() else path.with_suffix("")).read_bytes()[: len(content)] == content, name
    assert "Traceback" not in relay.log_text(), relay.log_text()


def set_upstream(config: Path, upstream: Cluster) -> None:
    """Write a configuration file that names *upstream*."""
    value = upstream.conninfo().replace("'", "''")
    config.write_text(f"primary_conninfo = '{value}'\nwal_retrieve_retry_interval = 500ms\n")


def make_reloadable_relay(stack: ExitStack, space: Path, config: Path) -> WalsenderProcess:
    """Return a running relay whose upstream is what *config* says, now and at each SIGHUP."""
    (space / "wal").mkdir()
    return stack.enter_context(
        WalsenderProcess(space / "wal", "--config-file", str(config), log_file=space / "walsender.log")
    )


def test_anotherSystemIsRefused(newest: PostgresInstallation, space: Path, stack: ExitStack) -> None:
    """An upstream of another cluster is refused in one line, and what is held is served on."""
    primary = make_primary(stack, newest, space)
    config = space / "walsender.conf"
    set_upstream(config, primary)
    relay = make_reloadable_relay(stack, space, config)
    wait_for_streaming(relay, primary)
    end = primary.flush_lsn()
    stranger = stack.enter_context(
        started(Cluster.create(newest, space / "stranger", name="stranger", segment_size_mb=1))
    )
    before = {path.name for path in (space / "wal").iterdir()}
    set_upstream(config, stranger)
    relay.signal(signal.SIGHUP)
    complaint = "database system identifier differs between the upstream and the WAL directory"
    wait_until(lambda: complaint in relay.log_text(), 60, "the refusal", logs=[relay])
    assert {path.name for path in (space / "wal").iterdir()} == before
    receiver = stack.enter_context(
        PgReceiveWal(newest, space / "copy", relay.conninfo(), f"--endpos={LSN(end - 8)}")
    )
    assert receiver.wait(60) == 0, receiver.log_tail()
    assert relay.log_text().count(complaint) == 1
    assert "Traceback" not in relay.log_text(), relay.log_text()


def test_primaryWithoutOldHistories(newest: PostgresInstallation, space: Path, stack: ExitStack) -> None:
    """A primary that began as a copy of a later timeline lacks the history files of earlier ones."""
    original = make_primary(stack, newest, space)
    upstream = original
    for name in "second", "third":
        backup = upstream.base_backup(space / f"{name}_backup")
        promoted = Cluster.standby(newest, backup, space / name, primary_conninfo=upstream.conninfo())
        stack.enter_context(started(promoted))
        promoted.wait_for_replay(upstream.flush_lsn())
        promoted.promote()
        upstream = promoted
    (upstream.data_directory / "pg_wal" / "00000002.history").unlink(missing_ok=True)
    relay = make_relay(stack, space, upstream.conninfo())
    wait_until(lambda: "on timeline 3" in relay.log_text(), 60, "the relay to stream", logs=[relay])
    assert (space / "wal" / "00000003.history").exists()
    assert not (space / "wal" / "00000002.history").exists()
