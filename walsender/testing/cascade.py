"""A cascade behind walsender whose primary can be lost more than once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from walsender.lsn import LSN
from walsender.testing.growth import WrittenEnd
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, PostgresInstallation, started
from walsender.testing.processes import WalsenderProcess, conninfo, wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

_DEADLINE_S: Final = 60
_ENOUGH: Final = 3 << 20


class Cascade:
    """
    A primary, pg_receivewal, walsender and four standbys behind it, of which two will be primaries.

    Nobody is restarted and no setting is changed: pg_receivewal finds a new primary among its hosts, and what
    it then writes is all that walsender and the standbys learn of a new timeline.

    :ivar primary: who is it now.
    :ivar candidates: standbys of which the first is the next primary.
    :ivar followers: standbys that stay.
    :ivar archive: what pg_receivewal writes.
    """

    def __init__(
        self, installation: PostgresInstallation, space: Path, stack: ExitStack, *options: str
    ) -> None:
        """
        Start all of them.

        :param space: a directory of PostgreSQL's.
        :param stack: ends them.
        :param options: of walsender.
        """
        self.archive = space / "archive"
        self.stack = stack
        size_mb = 4 if installation.major >= 11 else 16  # noqa: PLR2004 (the version that made it a choice)
        self.primary = stack.enter_context(
            started(Cluster.create(installation, space / "primary", segment_size_mb=size_mb))
        )
        PgBench.initialise(self.primary)
        # The ports of its later hosts are known only when there is a backup to make them from.
        with PgReceiveWal(installation, self.archive, self.primary.conninfo()) as receiver:
            receiver.wait_for_start()
            backup = self.primary.base_backup(space / "backup")
        names = ("first", "second", "left", "right")
        standbys = [
            Cluster.standby(installation, backup, space / name, primary_conninfo="", name=name)
            for name in names
        ]
        self.candidates, self.followers = standbys[:2], standbys[2:]
        hosts = [self.primary, *self.candidates]
        self.receiver = stack.enter_context(
            PgReceiveWal(
                installation,
                self.archive,
                conninfo(
                    host=",".join("127.0.0.1" for _ in hosts),
                    port=",".join(str(host.port) for host in hosts),
                    user="postgres",
                    # To know a primary before 14, libpq asks for what a walsender does not answer.
                    target_session_attrs="read-write",
                ),
            )
        )
        self.receiver.wait_for_start()
        self.walsender = stack.enter_context(
            WalsenderProcess(self.archive, *options, log_file=space / "walsender.log")
        )
        for standby in standbys:
            standby.settings |= {"primary_conninfo": self.walsender.conninfo(), "hot_standby_feedback": "on"}
            self._give_slot(standby)
            stack.enter_context(started(standby))

    def _give_slot(self, standby: Cluster) -> None:
        with RawClient(self.walsender.host, self.walsender.port).ready() as client:
            created = client.query(f"CREATE_REPLICATION_SLOT {standby.name} PHYSICAL")[0]
        assert created.kind == b"T", created.fields()
        standby.settings["primary_slot_name"] = standby.name

    @property
    def standbys(self) -> list[Cluster]:
        """All that follow walsender."""
        return [*self.candidates, *self.followers]

    def lose_primary(self, *, killed: bool) -> None:
        """
        End the primary, and wait until whoever follows has all that the archive has of it.

        :param killed: by force; needs ``pg_waldump`` of the primary's version.
        """
        complaints = self.receiver.log_text().count("disconnected")
        if killed:
            self.primary.kill()
        else:
            self.primary.stop()
        wait_until(
            lambda: (
                self.receiver.check_running() and self.receiver.log_text().count("disconnected") > complaints
            ),
            _DEADLINE_S,
            "pg_receivewal to lose its primary",
            logs=[self.receiver],
        )
        end = WrittenEnd(self.archive).lsn()
        if killed:  # in the middle of a record perhaps
            newest = max(path for path in self.archive.glob("0*") if path.suffix != ".history")
            end = LSN(self.primary.installation.last_record(newest)[0] + 1)
        for standby in self.standbys:
            # Only whole records are served: who has a byte of the last has all of it.
            standby.wait_for_replay(end, _DEADLINE_S)

    def promote(self) -> None:
        """Make the next candidate the primary."""
        self.primary = self.candidates.pop(0)
        self.primary.promote()

    def connections(self) -> list[str]:
        """Return the processes by which the followers receive."""
        return [follower.sql("SELECT pid FROM pg_stat_wal_receiver") for follower in self.followers]

    def check_equal(self, timeline: int) -> None:
        """Wait until all standbys have what the primary has, and assert that they are on its timeline."""
        end = self.primary.flush_lsn()
        expected = self.primary.sql(PgBench.CONTENTS)
        for standby in self.standbys:
            standby.wait_for_replay(end, _DEADLINE_S)
            assert standby.sql("SELECT received_tli FROM pg_stat_wal_receiver") == str(timeline)
            assert standby.sql(PgBench.CONTENTS) == expected

    def write(self) -> PgBench:
        """Put a load on the primary, and return it when it has written in more than one segment."""
        # At first: where a timeline ends with a segment pg_receivewal cannot leave it, since a start at
        # the very end is answered with the next timeline and no stream, which it takes for an error.
        self.primary.sql("SELECT pg_switch_wal()")
        load = self.stack.enter_context(PgBench(self.primary, "--client=4", "--rate=300"))
        begin = self.primary.flush_lsn()
        wait_until(
            lambda: load.check_running() and self.primary.flush_lsn() > begin + _ENOUGH,
            _DEADLINE_S,
            "some WAL",
            logs=[load],
        )
        return load
