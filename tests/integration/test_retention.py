"""
A relay that does not keep all: full disks, slots that are lost, and kill -9 in the middle of it.

The small disk is a tmpfs in a mount namespace of the relay's own, which root may make, and with user
namespaces anybody.  Where neither is permitted its test fails; what the relay does with a full disk is
tested on simulated ones as well (``tests/unit/upstream/test_room.py``).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

from relay_helpers import assert_same_segments, make_primary, make_relay, make_standby, wait_for_streaming
from versions import newest_at_least

from walsender.lsn import LSN
from walsender.replication_slots import WAL_REMOVED, SlotState, decode_state
from walsender.retention import Demand, Limits, WalStatus, safe_wal_size, wal_status
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, started
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from walsender.testing.installation import PostgresInstallation

MIB: Final = 1 << 20
KILLS: Final = 100 if "WALSENDER_SOAK_SECONDS" in os.environ else 6
NO_ROOM: Final = "there is no room"
WITH_SLOT: Final = ("--primary-slot-name", "relay", "--create-primary-slot", "on")


def ask(relay: WalsenderProcess, text: str) -> list[str | None]:
    """Send a command; return the one row of its answer."""
    with RawClient("127.0.0.1", relay.port).ready() as client:
        (found,) = (one for one in client.query(text) if one.kind == b"D")
        return found.values()


def create_slot(relay: WalsenderProcess, name: str) -> None:
    """Make a slot that has reserved WAL."""
    ask(relay, f"CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL")


def restart_lsn(relay: WalsenderProcess, slot: str) -> LSN:
    """Return where a slot is."""
    return LSN.parse(ask(relay, f"READ_REPLICATION_SLOT {slot}")[1] or "0/0")


def write_wal(primary: Cluster, megabytes: int) -> None:
    """Write so much WAL and no data."""
    for _ in range(megabytes):
        primary.sql(f"SELECT pg_logical_emit_message(false, 'x', repeat('y', {MIB}))")


def numbers(wal: Path) -> list[int]:
    """Return the numbers of the segments in a WAL directory."""
    return sorted(int(path.name[16:24], 16) for path in wal.glob("00000001*"))


def small_disk(path: Path, megabytes: int) -> list[str | Path]:
    """Return the launcher of a program that has a small disk of its own at *path*."""
    options = "-m" if os.geteuid() == 0 else "-Urm"
    mount = f'mount -t tmpfs -o size={megabytes}m,mode=0755 tmpfs "$1" && shift && exec "$@"'
    return [shutil.which("unshare") or "unshare", options, "sh", "-c", mount, "sh", path]


@newest_at_least
def test_fullDisk(installation: PostgresInstallation, space: Path) -> None:
    """
    On a full disk the primary goes on and standbys are served; with room it goes on, and all are equal.

    What fills the disk is WAL for a slot, and what makes room is that its owner comes and reads.
    """
    with ExitStack() as stack:
        primary = make_primary(stack, installation, space)
        PgBench.initialise(primary)
        relay = make_relay(
            stack,
            space,
            primary.conninfo(),
            *WITH_SLOT,
            *("--wal-keep-size", "0", "--wal-retrieve-retry-interval", "500ms"),
            launcher=small_disk(space / "wal", 24),
        )
        wal = Path(f"/proc/{relay.pid}/root{space}/wal")
        wait_for_streaming(relay, primary)
        backup = primary.base_backup(space / "backup")
        standby = make_standby(stack, backup, space, relay.conninfo(), primary)
        create_slot(relay, "hold")
        with PgBench(primary, "--client=2", "--rate=100", "--time=5") as load:
            write_wal(primary, 25)
            why = 'is kept because of replication slot "hold"'
            wait_until(lambda: why in relay.log_text(), 60, "the disk to be full", logs=[relay])
            assert load.wait(60) == 0, load.log_tail()

        # All that came is served: to who was there, and to who comes now.
        end = LSN.parse(ask(relay, "IDENTIFY_SYSTEM")[2] or "")
        assert end < primary.flush_lsn()
        wait_until(
            lambda: standby.received_lsn() == end, 60, "the standby to have all", logs=[standby, relay]
        )
        standby.stop()
        standby.start()
        assert relay.log_text().count(NO_ROOM) == 1
        assert len(numbers(wal)) > 15
        copy = space / "copy"
        receiver = stack.enter_context(
            PgReceiveWal(installation, copy, relay.conninfo(), "--slot=hold", "--status-interval=1")
        )
        write_wal(primary, 5)
        end = primary.flush_lsn()
        standby.wait_for_replay(end)
        assert standby.sql(PgBench.CONTENTS) == primary.sql(PgBench.CONTENTS)
        write_wal(primary, 2)
        last = copy / f"00000001{0:08X}{end // MIB - 1:08X}"
        wait_until(last.exists, 60, "the copy", logs=[receiver])
        assert_same_segments(wal, primary)
        assert_same_segments(copy, primary)
        wait_until(lambda: len(numbers(wal)) < 15, 60, "old WAL to go", logs=[relay])
        assert "Traceback" not in relay.log_text(), relay.log_text()


@newest_at_least
def test_sizeLimit(installation: PostgresInstallation, space: Path) -> None:
    """At ``max_wal_directory_size`` nothing is received until a reload permits more."""
    config = space / "walsender.conf"
    config.write_text("max_wal_directory_size = 8MB\n")
    with ExitStack() as stack:
        primary = make_primary(stack, installation, space)
        relay = make_relay(stack, space, primary.conninfo(), *WITH_SLOT, "--config-file", str(config))
        wait_for_streaming(relay, primary)
        write_wal(primary, 12)
        text = 'DETAIL:  WAL is kept because of "wal_keep_size", which is -1.'
        wait_until(lambda: text in relay.log_text(), 60, "the limit to be reached", logs=[relay])
        assert len(numbers(space / "wal")) == 8
        config.write_text("max_wal_directory_size = 8MB\nwal_keep_size = 2MB\n")
        relay.signal(signal.SIGHUP)
        wait_for_streaming(relay, primary)
        end = primary.flush_lsn()
        wait_until(
            lambda: LSN.parse(ask(relay, "IDENTIFY_SYSTEM")[2] or "") >= end, 60, "all WAL", logs=[relay]
        )
        wait_until(lambda: len(numbers(space / "wal")) <= 4, 60, "old WAL to go", logs=[relay])
        assert_same_segments(space / "wal", primary)
        assert "Traceback" not in relay.log_text(), relay.log_text()


def test_lostSlot(installation: PostgresInstallation, space: Path) -> None:
    """A slot that is too far behind is lost: its client is told, and cannot use it again."""
    with ExitStack() as stack:
        primary = make_primary(stack, installation, space)
        relay = make_relay(
            stack, space, primary.conninfo(), "--wal-keep-size", "2MB", "--max-slot-wal-keep-size", "4MB"
        )
        wait_for_streaming(relay, primary)
        create_slot(relay, "kept")
        create_slot(relay, "lost")
        options = ("--no-loop", "--synchronous", "--status-interval=1")
        kept, lost = (
            stack.enter_context(
                PgReceiveWal(installation, space / name, relay.conninfo(), f"--slot={name}", *options)
            )
            for name in ("kept", "lost")
        )
        # pg_receivewal says that it starts before it asks.
        wait_until(
            lambda: relay.log_text().count("started streaming WAL at") > 1, 60, "both streams", logs=[relay]
        )
        lost.signal(signal.SIGSTOP)
        for _ in range(7):
            end = primary.flush_lsn()
            write_wal(primary, 1)
            wait_until(lambda end=end: restart_lsn(relay, "kept") >= end, 60, "the copy", logs=[kept])  # type: ignore[misc]
            if 'replication slot "lost"' in relay.log_text():
                break  # from now on it has ten seconds to read why
        wait_until(lambda: 'replication slot "lost"' in relay.log_text(), 60, "the slot's loss", logs=[relay])
        lost.signal(signal.SIGCONT)
        assert lost.wait(60) == 1, lost.log_tail()
        assert "terminating connection due to administrator command" in lost.log_text()
        assert 'invalidating obsolete replication slot "lost"' in relay.log_text()
        assert ask(relay, "READ_REPLICATION_SLOT lost") == ["physical", None, None]
        again = stack.enter_context(
            PgReceiveWal(installation, space / "lost", relay.conninfo(), "--slot=lost", *options)
        )
        if installation.major >= 18:
            assert again.wait(60) == 1
            assert 'can no longer access replication slot "lost"' in again.log_text()
        else:
            # Older servers take it, if WAL is still there; but nothing is kept for it any more.
            again.wait_for_start()
            assert ask(relay, "READ_REPLICATION_SLOT lost") == ["physical", None, None]
        assert kept.running()
        wait_until(lambda: len(numbers(space / "wal")) <= 6, 60, "old WAL to go", logs=[relay])
        assert "Traceback" not in relay.log_text(), relay.log_text()


@newest_at_least
def test_whatThePrimaryRemovesWhileItSendsIt(installation: PostgresInstallation, space: Path) -> None:
    """
    A segment that ends in a switch record is whole without the megabytes that are unused behind it.

    A relay without a slot is stopped meanwhile: what its connection does not hold the primary cannot send it.
    """
    with ExitStack() as stack:
        primary = Cluster.create(installation, space / "primary", segment_size_mb=16)
        primary.settings["wal_keep_size"] = "0"
        stack.enter_context(started(primary))
        relay = make_relay(stack, space, primary.conninfo())
        wait_for_streaming(relay, primary)
        for _ in range(2):
            relay.signal(signal.SIGSTOP)
            primary.sql("SELECT pg_logical_emit_message(false, 'x', 'y')")
            switched = primary.sql("SELECT pg_switch_wal()")
            sent = f"SELECT sent_lsn >= '{switched}' FROM pg_stat_replication"
            wait_until(
                lambda sent=sent: primary.sql(sent) == "t", 60, "the record to be sent", logs=[primary]
            )  # type: ignore[misc]
            primary.sql("CHECKPOINT")
            primary.sql("CHECKPOINT")
            relay.signal(signal.SIGCONT)
            end = primary.flush_lsn()
            wait_until(
                lambda end=end: LSN.parse(ask(relay, "IDENTIFY_SYSTEM")[2] or "") >= end,  # type: ignore[misc]
                60,
                "all WAL",
                logs=[relay],
            )
        assert len(numbers(space / "wal")) > 2
        assert "Traceback" not in relay.log_text(), relay.log_text()


@newest_at_least
def test_standbyOfALostSlot(installation: PostgresInstallation, space: Path) -> None:
    """
    A standby that was away for too long is told that its slot is gone; others go on.

    Before 18 it may stream all the same, and what was removed is fetched from where it still is.
    """
    with ExitStack() as stack:
        primary = make_primary(stack, installation, space)
        relay = make_relay(
            stack, space, primary.conninfo(), "--wal-keep-size", "1MB", "--max-slot-wal-keep-size", "3MB"
        )
        wait_for_streaming(relay, primary)
        backup = primary.base_backup(space / "backup")
        for name in ("away", "here"):
            create_slot(relay, name)
        away, here = (
            stack.enter_context(
                started(
                    Cluster.standby(
                        installation,
                        backup,
                        space / name,
                        primary_conninfo=relay.conninfo(),
                        settings={"primary_slot_name": name, "wal_receiver_status_interval": "1s"},
                    )
                )
            )
            for name in ("away", "here")
        )
        for standby in (away, here):
            standby.wait_for_replay(primary.flush_lsn())
        away.stop()
        for _ in range(8):
            write_wal(primary, 1)
            end = primary.flush_lsn()
            here.wait_for_replay(end)
            wait_until(lambda end=end: restart_lsn(relay, "here") >= end, 60, "a report", logs=[relay])  # type: ignore[misc]
        wait_until(lambda: 'replication slot "away"' in relay.log_text(), 60, "the slot's loss", logs=[relay])
        away.start()
        if installation.major >= 18:
            complaint = 'can no longer access replication slot "away"'
            wait_until(lambda: complaint in away.log_tail(), 60, "the standby to be told", logs=[relay, away])
        else:
            away.wait_for_replay(end)
            wait_until(lambda: len(numbers(space / "wal")) <= 3, 60, "fetched WAL to go", logs=[relay])
        primary.sql("CREATE TABLE t AS SELECT 1")
        here.wait_for_replay(primary.flush_lsn())
        assert here.sql("SELECT count(*) FROM t") == "1"
        assert "Traceback" not in relay.log_text(), relay.log_text()


@newest_at_least
def test_slotLimitsLikePostgres(installation: PostgresInstallation, space: Path) -> None:
    """When a slot is past the limit, and how much WAL is left until then, is as on a PostgreSQL server."""
    ask_server = (
        "SELECT wal_status, safe_wal_size, restart_lsn, pg_current_wal_lsn() FROM pg_replication_slots"
    )
    seen: set[str] = set()
    for keep, slots in ((2, 4), (4, 2), (0, 1)):
        with ExitStack() as stack:
            settings = {"wal_keep_size": f"{keep}MB", "max_slot_wal_keep_size": f"{slots}MB"}
            directory = space / f"server{keep}"
            server = stack.enter_context(
                started(Cluster.create(installation, directory, segment_size_mb=1, settings=settings))
            )
            server.sql("SELECT pg_create_physical_replication_slot('a', true)")
            limits = Limits(keep * MIB, slots * MIB)
            for _ in range(12):
                status, safe, restart_text, end = server.sql(ask_server).split("|")
                seen.add(status)
                if status == "lost":
                    break
                restart, flush = int(LSN.parse(restart_text)), int(LSN.parse(end))
                demand = Demand(MIB, flush, flush, {"a": restart}, {"a": restart})
                assert safe_wal_size(restart, demand, limits) == int(safe)
                ours = wal_status(restart, demand, limits)
                assert (ours is WalStatus.UNRESERVED) == (status == "unreserved"), (ours, status, flush)
                server.sql("SELECT pg_logical_emit_message(true, 'x', repeat('y', 300000))")
                if status == "unreserved":
                    server.sql("CHECKPOINT")
    assert {"unreserved", "lost"} <= seen


@newest_at_least
def test_killed(installation: PostgresInstallation, space: Path) -> None:
    """Killed at any moment: a slot is lost, or all of its WAL is there."""
    rng = random.Random(4)
    state = space / "wal" / "walsender_state" / "replication_slots"
    options = (*WITH_SLOT, "--wal-keep-size", "1MB", "--max-slot-wal-keep-size", "3MB")
    options += ("--max-replication-slots", "1000")
    seen: set[str] = set()

    def kept() -> list[SlotState]:
        return [decode_state(path.read_bytes()) for path in state.glob("*.slot")]

    with ExitStack() as stack:
        primary = make_primary(stack, installation, space)
        for kill in range(KILLS):
            with ExitStack() as life:
                relay = make_relay(life, space, primary.conninfo(), *options)
                wait_for_streaming(relay, primary)
                for number in range(2):
                    create_slot(relay, f"s{kill}_{number}")
                    write_wal(primary, rng.randrange(1, 4))
                if kill == KILLS - 1:  # however late it has always been
                    wait_until(
                        lambda: any(slot.invalidation_reason for slot in kept()),
                        60,
                        "a slot's loss",
                        logs=[relay],
                    )
                relay.signal(signal.SIGKILL)
                relay.wait()
            held = numbers(space / "wal")
            slots = kept()
            assert len(slots) == 2 * (kill + 1)
            for slot in slots:
                seen.add(slot.invalidation_reason)
                first = slot.restart_lsn // MIB
                missing = set(range(first, held[-1])) - set(held) if slot.restart_lsn else set()
                assert not missing, f"{slot} lacks {missing}"
        assert seen == {"", WAL_REMOVED}
