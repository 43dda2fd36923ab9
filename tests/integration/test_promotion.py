"""A cascade whose primary is lost twice: nobody is restarted, and no setting is changed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from versions import VERSIONS

from walsender.testing.cascade import Cascade

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.postgres import PostgresInstallation


def test_twicePromoted(installation: PostgresInstallation, space: Path) -> None:
    """Standbys go over to the timelines of two new primaries as they stream, and equal the last of them."""
    sendfile = "on" if installation.major == max(VERSIONS) else "off"  # each way once: it takes its time
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
