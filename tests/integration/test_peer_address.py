"""Who is let in where nothing is configured: this machine by its peer address, whatever is listened on."""

from __future__ import annotations

import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Final

import pytest
from twistd_helpers import Twistd, make_wal

from walsender.testing.processes import WalsenderProcess, conninfo
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation

# Where a packet to the wide world would go out; none is sent.
ELSEWHERE: Final = ((socket.AF_INET, "203.0.113.1"), (socket.AF_INET6, "2001:db8::1"))


def other_addresses() -> list[str]:
    """Return addresses of this machine that are not loopback."""
    found = []
    for family, address in ELSEWHERE:
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
            found.append(probe.getsockname()[0])
    return found


@pytest.fixture
def walsender(space: Path) -> Iterator[WalsenderProcess]:
    """A walsender that listens on every address of every family."""
    make_wal(space / "wal")
    log_file = space / "walsender.log"
    with WalsenderProcess(space / "wal", listen="tcp6:0", log_file=log_file) as process:
        yield process
        process.signal(signal.SIGTERM)
        assert process.wait() == 0, process.log_tail()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.1.2.3", "::1"])
def test_loopback(walsender: WalsenderProcess, address: str) -> None:
    """A loopback address is let in, also an old one that a socket of the new family accepts."""
    with RawClient(address, walsender.port) as client:
        assert client.ready().query("IDENTIFY_SYSTEM")[-1].kind == b"Z"


def test_otherAddress(walsender: WalsenderProcess) -> None:
    """Whoever comes from another address is turned away, even if it is one of this machine."""
    addresses = other_addresses()
    assert addresses, "this machine has no address but loopback"
    for address in addresses:
        with RawClient(address, walsender.port) as client:
            (message,) = client.until()
            fields = message.fields()
            assert (message.kind, fields["S"], fields["C"]) == (b"E", "FATAL", "28000")
            assert fields["M"] == (
                f'no pg_hba.conf entry for replication connection from host "{address}", user "postgres",'
                " no encryption"
            )


def test_oldFamily(space: Path) -> None:
    """The same on a socket of the old family that is bound to all addresses."""
    make_wal(space / "wal")
    with Twistd(space, ["walsender", "-D", str(space / "wal"), "-l", "tcp:0"]) as twistd:
        with RawClient("127.0.0.1", twistd.port) as client:
            client.ready()
        for address in other_addresses():
            if ":" not in address:
                with RawClient(address, twistd.port) as client:
                    assert [message.fields()["C"] for message in client.until()] == ["28000"]
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0


def test_unixSocket(installation: PostgresInstallation, space: Path) -> None:
    """A unix socket is let in, and libpq finds it by the name that PostgreSQL gives its own."""
    make_wal(space / "wal")
    options = ["walsender", "-D", str(space / "wal"), "-l", f"unix:{space}/.s.PGSQL.5433"]
    with Twistd(space, options, strict=False) as twistd:
        target = conninfo(
            host=str(space), port="5433", user="postgres", replication="true", dbname="replication"
        )
        done = installation.run("psql", "-At", "-c", "IDENTIFY_SYSTEM", target)
        assert done.stdout.split("|")[:2] == ["7300000000000000001", "1"]
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0
