"""What twistd gives up with ``--uid`` and ``--gid``, and who owns and may read what is made afterwards."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from twistd_helpers import Twistd, make_wal

from walsender.testing.processes import Account
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = os.geteuid() == 0


@pytest.fixture
def account() -> Account:
    """Whom the server becomes: PostgreSQL's user, or, where we are nobody special, ourselves."""
    account = Account.for_postgres()
    return account if account.user_id >= 0 else Account(os.getuid(), os.getgid())


@pytest.fixture
def server(space: Path, account: Account) -> Iterator[Twistd]:
    """
    A server that was started with our rights and has given them up.

    Nothing of ours can be read by it then, but what is in *space*.
    """
    make_wal(space / "wal")
    (space / "wal").chmod(0o755)
    (space / "state").mkdir(mode=0o700)
    if ROOT:
        os.chown(space / "state", account.user_id, account.group_id)
    # Of a port below 1024 an ordinary user has nothing, by the kernel's default.
    listen = f"tcp:{free_privileged_port()}:interface=127.0.0.1" if ROOT else "tcp:0:interface=127.0.0.1"
    options = [
        *(f"--uid={account.user_id}", f"--gid={account.group_id}", "--umask=0"),
        *("walsender", "-D", "wal", "--listen", listen, "--state-directory", "state"),
    ]
    with Twistd(space, options) as process:
        yield process


def free_privileged_port() -> int:
    """Return a port below 1024 that nobody listens on."""
    used = {
        int(line.split()[1].rpartition(":")[2], 16)
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
    }
    return next(port for port in range(1023, 512, -1) if port not in used)


def status(process: Twistd) -> dict[str, str]:
    """Return what the kernel says of a process."""
    lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def test_rightsAreGivenUp(server: Twistd, account: Account) -> None:
    """All four user ids, all four group ids and the capabilities are those of the unprivileged user."""
    now = status(server)
    assert now["Uid"].split() == [str(account.user_id)] * 4
    assert now["Gid"].split() == [str(account.group_id)] * 4
    if ROOT:
        assert "0" not in now["Groups"].split()
    assert int(now["CapEff"], 16) == 0
    with RawClient("127.0.0.1", server.port) as client:
        assert client.ready().query("IDENTIFY_SYSTEM")[-1].kind == b"Z"


def test_filesAreItsOwn(server: Twistd, space: Path, account: Account) -> None:
    """A slot's file and the lock belong to that user, who alone may read them, whatever the umask is."""
    with RawClient("127.0.0.1", server.port) as client:
        answer = client.ready().query("CREATE_REPLICATION_SLOT a PHYSICAL")
        assert answer[-2].kind == b"C"
    assert status(server)["Umask"] == "0000"
    made = list((space / "state").rglob("*"))
    assert {path.name for path in made} >= {"walsender.lock", "a.slot"}
    for path in made:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (account.user_id, account.group_id), path
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(found.st_mode) == wanted, path
