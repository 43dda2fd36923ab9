"""
The main job, live and on real data: ``python -m walsender demo``.

An embedded PostgreSQL 18 writes WAL, ``pg_receivewal`` archives it into a
directory, walsender serves that directory, and a real standby follows.  The
standby never hears of the primary.  Everything lives in a temporary directory.
"""

from __future__ import annotations

import signal
import sys
import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from walsender.lsn import LSN
from walsender.testing.growth import WrittenEnd
from walsender.testing.installation import PostgresInstallation, PostgresMissingError
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, PsqlSession, started
from walsender.testing.processes import (
    ProgramError,
    TimedOutError,
    WalsenderProcess,
    wait_until,
    workspace,
)
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

_MAJOR: Final = 18
_PERIOD_S: Final = 1.0
_CATCH_UP_S: Final = 30.0
_MISSING: Final = 'needs the "demo" extra: pip install "walsender[demo]"'

_CREATE: Final = (
    "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,"
    " at timestamptz NOT NULL DEFAULT clock_timestamp(), payload text NOT NULL)"
)
_INSERT: Final = (
    "INSERT INTO events (payload) SELECT repeat(md5(random()::text), 20) FROM generate_series(1, 5);\n"
)
_CONTENTS: Final = (
    "SELECT count(*), md5(string_agg(id || ' ' || at || ' ' || payload, ',' ORDER BY id)) FROM events"
)
_PRIMARY: Final = "SELECT pg_current_wal_flush_lsn(), (SELECT count(*) FROM events)"
_STANDBY: Final = (
    "SELECT pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn(),"
    " coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0),"
    " (SELECT count(*) FROM events)"
)


class Output(Protocol):
    """Where the demo writes: a terminal or anything else."""

    def write(self, text: str, /) -> object:
        """Write *text*."""

    def flush(self) -> object:
        """Hand over what was written."""

    def isatty(self) -> bool:
        """Return whether this is a terminal."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everybody's position, asked for from the standby upward, so that none seems ahead of its source."""

    elapsed_s: float
    primary: LSN
    archive: LSN
    walsender: LSN
    received: LSN
    replayed: LSN
    delay_s: float
    primary_rows: int
    standby_rows: int

    def behind(self, lsn: LSN) -> int:
        """Return by how many bytes *lsn* is behind the primary."""
        return max(0, self.primary - lsn)

    def line(self) -> str:
        """Return all of it in one line."""
        return (
            f"{self.elapsed_s:4.0f} s  primary {self.primary}  archive {self.archive}"
            f"  walsender {self.walsender}  received {self.received}  replayed {self.replayed}"
            f"  behind {self.behind(self.replayed)} B {self.delay_s:.3f} s"
            f"  rows {self.standby_rows} of {self.primary_rows}"
        )

    def table(self) -> list[str]:
        """Return all of it as lines of a table."""
        positions = {
            "primary has flushed": self.primary,
            "archive holds": self.archive,
            "walsender offers": self.walsender,
            "standby has received": self.received,
            "standby has replayed": self.replayed,
        }
        return [
            "",
            f"  {'after':22}{self.elapsed_s:.0f} s, Ctrl-C ends",
            *(f"  {who:22}{lsn!s:14}{self.behind(lsn):>10,} B behind" for who, lsn in positions.items()),
            f"  {'standby is behind by':22}{self.delay_s:.3f} s",
            f"  {'rows':22}{self.standby_rows:,} on the standby, {self.primary_rows:,} on the primary",
            "",
        ]


class Display:
    """Shows snapshots: in place in a terminal, a line each otherwise."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._in_place = output.isatty()
        self._painted = 0

    def say(self, line: str) -> None:
        """Show one line that stays."""
        self._output.write(f"{line}\n")
        self._output.flush()
        self._painted = 0

    def show(self, snapshot: Snapshot) -> None:
        """Show where everybody is now."""
        if not self._in_place:
            self.say(snapshot.line())
            return
        lines = snapshot.table()
        up = f"\x1b[{self._painted}A" if self._painted else ""
        self._output.write(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._output.flush()
        self._painted = len(lines)


@dataclass(frozen=True, slots=True)
class Stage:
    """All that runs, and the questions that it answers."""

    primary: Cluster
    primary_session: PsqlSession
    standby: Cluster
    standby_session: PsqlSession
    written: WrittenEnd
    client: RawClient
    load: PgBench
    started_at: float

    def snapshot(self) -> Snapshot:
        """Ask everybody."""
        received, replayed, delay, standby_rows = self.standby_session.query(_STANDBY).split("|")
        row = next(message for message in self.client.query("IDENTIFY_SYSTEM") if message.kind == b"D")
        walsender = LSN.parse(row.values()[2] or "0/0")
        archive = self.written.lsn()
        primary, primary_rows = self.primary_session.query(_PRIMARY).split("|")
        return Snapshot(
            elapsed_s=time.monotonic() - self.started_at,
            primary=LSN.parse(primary),
            archive=archive,
            walsender=walsender,
            received=LSN.parse(received or "0/0"),
            replayed=LSN.parse(replayed or "0/0"),
            delay_s=float(delay),
            primary_rows=int(primary_rows),
            standby_rows=int(standby_rows),
        )


@contextmanager
def stage(installation: PostgresInstallation, say: Callable[[str], None]) -> Iterator[Stage]:
    """Start primary, pg_receivewal, walsender, standby and load; end and remove them all at the end."""
    with workspace() as space, ExitStack() as stack:
        archive = space / "archive"
        primary = stack.enter_context(started(Cluster.create(installation, space / "primary")))
        say(f"PostgreSQL {installation.version} writes WAL, at port {primary.port}")
        receiver = stack.enter_context(PgReceiveWal(installation, archive, primary.conninfo()))
        receiver.wait_for_start()
        written = WrittenEnd(archive)
        primary.sql(_CREATE)
        backup = primary.base_backup(space / "backup")
        say(f"pg_receivewal archives it into {archive}")
        # pg_receivewal knows no padding of records, hence the few bytes less.
        wait_until(
            lambda: receiver.check_running() and written.lsn() >= primary.flush_lsn() - 8,
            _CATCH_UP_S,
            "pg_receivewal to write",
            logs=[receiver],
        )
        walsender = stack.enter_context(WalsenderProcess(archive, log_file=space / "walsender.log"))
        say(f"walsender serves {archive}, at port {walsender.port}")
        standby = stack.enter_context(
            started(
                Cluster.standby(
                    installation, backup, space / "standby", primary_conninfo=walsender.conninfo()
                )
            )
        )
        wait_until(lambda: standby.try_sql("SELECT 1"), _CATCH_UP_S, "the standby", logs=[standby, walsender])
        say(f"a standby follows walsender, at port {standby.port}")
        yield Stage(
            primary=primary,
            primary_session=stack.enter_context(primary.session()),
            standby=standby,
            standby_session=stack.enter_context(standby.session()),
            written=written,
            client=stack.enter_context(RawClient(walsender.host, walsender.port)).ready(),
            load=stack.enter_context(_load(primary, space)),
            started_at=time.monotonic(),
        )


def _load(primary: Cluster, space: Path) -> PgBench:
    script = space / "load.sql"
    script.write_text(_INSERT)
    return PgBench(primary, "--rate=40", f"--file={script}")


def _watch(scene: Stage, display: Display, duration_s: float | None) -> None:
    """Show a snapshot each second, until the time is over or Ctrl-C."""
    end = None if duration_s is None else scene.started_at + duration_s
    due = scene.started_at
    try:
        while end is None or due < end:
            scene.load.check_running()
            display.show(scene.snapshot())
            due += _PERIOD_S
            limit = due if end is None else min(due, end)
            time.sleep(max(0.0, limit - time.monotonic()))
    except KeyboardInterrupt:
        display.say("")


def _verdict(scene: Stage, display: Display) -> bool:
    """Let the standby catch up, and say whether it has what the primary has."""
    scene.load.stop()
    lsn = scene.primary.flush_lsn()
    scene.standby.wait_for_replay(lsn, _CATCH_UP_S)
    expected, found = scene.primary.sql(_CONTENTS), scene.standby.sql(_CONTENTS)
    rows = int(expected.split("|")[0])
    if found == expected:
        display.say(f"walsender demo: the standby equals the primary: {rows} rows at {lsn}")
    else:
        display.say(f"walsender demo: the standby DIFFERS from the primary at {lsn}: {found}, not {expected}")
    return found == expected


def run(duration_s: float | None = None, output: Output = sys.stdout, errors: Output = sys.stderr) -> int:
    """
    Run the demo and return its exit status: 0 if standby and primary are equal in the end.

    :param duration_s: how long, or ``None`` to go on until Ctrl-C.
    """
    display = Display(output)
    for number in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell has made us ignore SIGINT, as it does with "&".
        signal.signal(number, signal.default_int_handler)
    try:
        with stage(PostgresInstallation.embedded(_MAJOR), display.say) as scene:
            _watch(scene, display, duration_s)
            return 0 if _verdict(scene, display) else 1
    except PostgresMissingError:
        errors.write(f"walsender demo: {_MISSING}\n")
    except (ProgramError, TimedOutError, OSError) as error:
        errors.write(f"walsender demo: {error}\n")
    except KeyboardInterrupt:
        errors.write("walsender demo: interrupted\n")
    return 1
