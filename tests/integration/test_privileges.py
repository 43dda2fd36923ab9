"""What twistd gives up with ``--uid`` and ``--gid``, and who owns and may read what is made afterwards."""

from __future__ import annotations

import os
import signal
import ssl
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from twistd_helpers import Twistd, make_wal

from walsender.testing.certificates import Authority
from walsender.testing.processes import Account, run_program
from walsender.testing.raw_client import RawClient, RawConnection, startup_packet

if TYPE_CHECKING:
    from collections.abc import Iterator

SSL_REQUEST: Final = struct.pack("!II", 8, 80877103)
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
    secrets = space / "secrets"  # of root's, and nobody else may look into it
    secrets.mkdir(mode=0o700)
    Authority(secrets).issue("localhost", "server")
    (secrets / "hba").write_text(
        "hostssl replication all all trust\nhost replication scram all scram-sha-256\n"
    )
    (secrets / "users").write_text('"scram" "secret"\n')
    options += [
        *("--hba-file", "secrets/hba", "--auth-file", "secrets/users"),
        *("--ssl", "on", "--ssl-cert-file", "secrets/server.crt", "--ssl-key-file", "secrets/server.key"),
    ]
    with Twistd(space, options) as process:
        yield process


def encrypted(server: Twistd) -> RawConnection:
    """Return a session inside TLS."""
    client = RawConnection("127.0.0.1", server.port)
    client.socket.sendall(SSL_REQUEST)
    assert client.read_bytes(1) == b"S"
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    client.encrypt(context)
    client.socket.sendall(startup_packet())
    assert client.until(b"Z", b"E")[-1].kind == b"Z"
    return client


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
    with encrypted(server) as client:
        assert client.query("IDENTIFY_SYSTEM")[-1].kind == b"Z"


def test_secretsAreReadBefore(server: Twistd, account: Account, space: Path) -> None:
    """Key, rules and passwords that only root may read are in force, and stay so when read again."""
    readable = run_program(["cat", space / "secrets" / "server.key"], account=account, check=False)
    assert (readable.returncode != 0) is ROOT
    server.signal(signal.SIGHUP)
    server.wait_for_log("Permission denied" if ROOT else "reloading")
    with encrypted(server) as client:
        assert client.query("IDENTIFY_SYSTEM")[-1].kind == b"Z"
    with RawClient("127.0.0.1", server.port, user="scram") as client:
        asked = client.until(b"R", b"E")[-1]
        assert (asked.kind, asked.body[3:]) == (b"R", b"\nSCRAM-SHA-256\0\0")
    assert "Traceback" not in server.log_text()


def test_filesAreItsOwn(server: Twistd, space: Path, account: Account) -> None:
    """A slot's file and the lock belong to that user, who alone may read them, whatever the umask is."""
    with encrypted(server) as client:
        answer = client.query("CREATE_REPLICATION_SLOT a PHYSICAL")
        assert answer[-2].kind == b"C"
    assert status(server)["Umask"] == "0000"
    made = list((space / "state").rglob("*"))
    assert {path.name for path in made} >= {"walsender.lock", "a.slot"}
    for path in made:
        found = path.lstat()
        assert (found.st_uid, found.st_gid) == (account.user_id, account.group_id), path
        wanted = 0o700 if path.is_dir() else 0o600
        assert stat.S_IMODE(found.st_mode) == wanted, path
