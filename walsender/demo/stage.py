"""All that runs in a demo, the questions that it answers, and what is done to it."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from walsender.lsn import LSN
from walsender.testing.growth import WrittenEnd
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, free_port
from walsender.testing.processes import WalsenderProcess, wait_until
from walsender.testing.raw_client import RawClient

from .display import Snapshot, StandbySnapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation
    from walsender.testing.postgres import PsqlSession

    Say = Callable[[str], None]

_CATCH_UP_S: Final = 30.0
_STANDBYS: Final = ("left", "right")

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


class Stage:
    """
    A primary under load, a relay, two standbys and a pg_receivewal, all running.

    :param stack: ends what is started.
    :param space: a directory of PostgreSQL's.
    :param say: is told what runs.
    :ivar page: the address of the relay's page.
    :ivar load: writes to the primary.
    """

    def __init__(self, stack: ExitStack, installation: PostgresInstallation, space: Path, say: Say) -> None:
        self._stack = stack
        self._space = space
        self._kills = 0
        self._primary = self._started(Cluster.create(installation, space / "primary"))
        say(f"PostgreSQL {installation.version} writes WAL, at port {self._primary.port}")
        self._primary.sql(_CREATE)

        # Each restart has the same ports.
        self._port, web_port = free_port(), free_port()
        self.page = f"http://127.0.0.1:{web_port}/"
        self._relay_options = (
            *("--primary-conninfo", self._primary.conninfo()),
            *("--primary-slot-name", "relay", "--create-primary-slot", "on"),
            *("--http", f"tcp:{web_port}:interface=127.0.0.1"),
        )
        (space / "relay").mkdir()
        self._relay = stack.enter_context(self._start_relay())
        stack.callback(self._stop_relay)
        wait_until(lambda: "flush_lsn" in self._status(), _CATCH_UP_S, "the relay", logs=[self._relay])
        say(f"a relay receives it into {space}/relay and serves it at port {self._port}; see {self.page}")

        # With WAL to follow from where its backup is, nobody will ask the primary for anything.
        backup = self._primary.base_backup(space / "backup")
        self._standbys = {
            name: self._started(self._standby(installation, backup, name)) for name in _STANDBYS
        }
        for one in self._standbys.values():
            wait_until(partial(one.try_sql, _STANDBY), _CATCH_UP_S, one.name, logs=[one])
            say(f"standby {one.name} follows the relay, at port {one.port}")
        receiver = PgReceiveWal(installation, space / "copy", self._relay.conninfo())
        stack.enter_context(receiver).wait_for_start()
        self._written = WrittenEnd(space / "copy")
        say(f"pg_receivewal copies from it into {space}/copy")

        self._primary_session = stack.enter_context(self._primary.session())
        self._sessions: dict[str, PsqlSession] = {
            name: stack.enter_context(one.session()) for name, one in self._standbys.items()
        }
        script = space / "load.sql"
        script.write_text(_INSERT)
        self.load = stack.enter_context(PgBench(self._primary, "--rate=40", f"--file={script}"))
        self._started_at = time.monotonic()

    def _started(self, cluster: Cluster) -> Cluster:
        # Everything in one directory, so that what is left after a kill can be found.
        cluster.socket_directory = self._space / f"{cluster.name}-socket"
        self._stack.enter_context(cluster).start()
        return cluster

    def _start_relay(self) -> WalsenderProcess:
        return WalsenderProcess(
            self._space / "relay",
            *self._relay_options,
            log_file=self._space / "relay.log",
            listen=f"tcp:{self._port}:interface=127.0.0.1",
        )

    def _stop_relay(self) -> None:
        self._relay.stop()

    def _standby(self, installation: PostgresInstallation, backup: Path, name: str) -> Cluster:
        with RawClient("127.0.0.1", self._port).ready() as client:
            client.query(f"CREATE_REPLICATION_SLOT {name} PHYSICAL RESERVE_WAL")
        return Cluster.standby(
            installation,
            backup,
            self._space / name,
            primary_conninfo=self._relay.conninfo(application_name=name),
            name=name,
            settings={"primary_slot_name": name},
        )

    def _status(self) -> dict[str, Any]:
        """Return what the relay tells of itself; nothing while it does not answer."""
        try:
            with urllib.request.urlopen(f"{self.page}status.json", timeout=10) as answer:  # noqa: S310 (http)
                found: dict[str, Any] = json.load(answer)
                return found
        except (urllib.error.URLError, TimeoutError):
            return {}

    def snapshot(self) -> Snapshot:
        """Ask everybody."""
        copy = self._written.lsn()
        standbys = {name: session.query(_STANDBY).split("|") for name, session in self._sessions.items()}
        relay = self._status()
        states = {one["application_name"]: one["state"] for one in relay.get("standbys", ())}
        primary, rows = self._primary_session.query(_PRIMARY).split("|")
        return Snapshot(
            elapsed_s=time.monotonic() - self._started_at,
            primary=LSN.parse(primary),
            rows=int(rows),
            relay=LSN.parse(relay.get("flush_lsn", "0/0")),
            copy=copy,
            copy_state=states.get("pg_receivewal", ""),
            standbys={
                name: StandbySnapshot(
                    received=LSN.parse(received or "0/0"),
                    replayed=LSN.parse(replayed or "0/0"),
                    delay_s=float(delay),
                    rows=int(rows),
                    state=states.get(name, ""),
                )
                for name, (received, replayed, delay, rows) in standbys.items()
            },
            kills=self._kills,
            page=self.page,
        )

    def kill_relay(self, say: Say) -> None:
        """End the relay as a crash would (``kill -9``), and start it again."""
        began = time.monotonic()
        self._relay.destroy()
        self._relay = self._start_relay()
        self._kills += 1
        say(f"relay killed with kill -9, and started again after {time.monotonic() - began:.1f} s")

    def verdict(self, say: Say) -> bool:
        """Stop the load, let everybody catch up, and say whether they have what the primary has."""
        self.load.stop()
        lsn = self._primary.flush_lsn()
        expected = self._primary.sql(_CONTENTS)
        rows = expected.split("|")[0]
        different = []
        for name, standby in self._standbys.items():
            standby.wait_for_replay(lsn, _CATCH_UP_S)
            if standby.sql(_CONTENTS) != expected:
                different.append(f"standby {name}")
        # pg_receivewal comes back five seconds after it has lost the relay; the padding of the
        # last record is as zero as what is not written.
        wait_until(lambda: self._written.lsn() >= lsn - 7, _CATCH_UP_S, "pg_receivewal", logs=[self._relay])
        if _differ(self._space / "copy", self._space / "relay"):
            different.append("pg_receivewal's copy")
        times = "once" if self._kills == 1 else f"{self._kills} times"
        killed = f"; the relay was killed {times}" if self._kills else ""
        if different:
            say(f"walsender demo: NOT as the primary at {lsn}: {', '.join(different)}{killed}")
        else:
            say(f"walsender demo: both standbys equal the primary: {rows} rows at {lsn}{killed}")
        return not different


def _differ(copy: Path, original: Path) -> bool:
    """Return whether a segment of *copy* is not as that of *original*; of growing ones the end is zero."""
    names = [path.name.removesuffix(".partial") for path in copy.iterdir()]
    return not names or any(_content(copy, name) != _content(original, name) for name in names)


def _content(directory: Path, name: str) -> bytes:
    try:
        return (directory / name).read_bytes()
    except FileNotFoundError:
        return (directory / f"{name}.partial").read_bytes()


@contextmanager
def stage(installation: PostgresInstallation, space: Path, say: Say) -> Iterator[Stage]:
    """Start everything; end it all at the end."""
    with ExitStack() as stack:
        yield Stage(stack, installation, space, say)
