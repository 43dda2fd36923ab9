"""
A cascade whose primary is lost twice: primary, pg_receivewal, walsender, standbys.

Nobody is restarted and no setting is changed: pg_receivewal finds the new primary among its hosts, what it
then writes is all that walsender and the standbys learn of the new timeline.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest

from walsender.lsn import LSN
from walsender.testing.postgres import Cluster, PgBench, PgReceiveWal, PostgresInstallation, started
from walsender.testing.processes import WalsenderProcess, conninfo, wait_until

if TYPE_CHECKING:
    from pathlib import Path

_DEADLINE_S: Final = 60
_SEGMENT_SIZE_MB: Final = 4
#: Somewhat more than a segment.
_ENOUGH: Final = 6 << 20


class Cascade:
    """
    All that runs.

    :ivar primary: who is it now.
    :ivar candidates: standbys behind walsender of which the first is the next primary.
    :ivar followers: standbys behind walsender that stay.
    """

    def __init__(
        self, installation: PostgresInstallation, space: Path, stack: ExitStack, *options: str
    ) -> None:
        self.archive = space / "archive"
        self.stack = stack
        self.primary = stack.enter_context(
            started(Cluster.create(installation, space / "primary", segment_size_mb=_SEGMENT_SIZE_MB))
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
                    target_session_attrs="primary",
                ),
            )
        )
        self.receiver.wait_for_start()
        self.walsender = stack.enter_context(
            WalsenderProcess(self.archive, *options, log_file=space / "walsender.log")
        )
        for standby in standbys:
            standby.settings["primary_conninfo"] = self.walsender.conninfo()
            stack.enter_context(started(standby))

    @property
    def standbys(self) -> list[Cluster]:
        """All that follow walsender."""
        return [*self.candidates, *self.followers]

    def lose_primary(self, *, killed: bool) -> None:
        """End the primary, and wait until whoever follows has all that the archive has of it."""
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
        newest = max(path for path in self.archive.iterdir() if path.suffix != ".history")
        last_record, _ = self.primary.installation.last_record(newest)
        for standby in self.standbys:
            # Only whole records are served: who has a byte of the last has all of it.
            standby.wait_for_replay(LSN(last_record + 1), _DEADLINE_S)

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
        """Put a load on the primary, and return it when it has written more than a segment."""
        load = self.stack.enter_context(PgBench(self.primary, "--client=4", "--rate=300"))
        begin = self.primary.flush_lsn()
        wait_until(
            lambda: load.check_running() and self.primary.flush_lsn() > begin + _ENOUGH,
            _DEADLINE_S,
            "some WAL",
            logs=[load],
        )
        return load


@pytest.mark.parametrize("sendfile", ["on", "off"], ids=["sendfile", "transport"])
def test_twicePromoted(installation: PostgresInstallation, space: Path, sendfile: str) -> None:
    """Standbys go over to the timelines of two new primaries as they stream, and equal the last of them."""
    with ExitStack() as stack:
        cascade = Cascade(installation, space, stack, "--sendfile", sendfile)
        cascade.write()
        cascade.lose_primary(killed=True)  # under load
        cascade.promote()
        cascade.write().stop()
        cascade.check_equal(2)
        connections = cascade.connections()
        cascade.lose_primary(killed=False)
        cascade.promote()
        cascade.write().stop()
        cascade.check_equal(3)
        # The stream ended and went on: nobody had to connect again.
        assert cascade.connections() == connections
        for follower in cascade.followers:
            assert "End of WAL reached on timeline 2 at" in follower.log_file.read_text()
        assert "Traceback" not in cascade.walsender.log_text(), cascade.walsender.log_text()
