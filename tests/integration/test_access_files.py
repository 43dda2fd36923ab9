"""The files that say who may come in, under a real twistd, with libpq for a client."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psycopg
import pytest
from twistd_helpers import Refusals, Twistd, make_wal, small_place

from walsender.testing.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with WAL in it."""
    with small_place() as path:
        make_wal(path / "wal")
        yield path


def walsender(place: Path, *options: str) -> Twistd:
    """Return a twistd that serves the directory with *options*."""
    return Twistd(place, ["walsender", "-D", "wal", "-l", "tcp:0:interface=127.0.0.1", *options])


def answer(twistd: Twistd, user: str, password: str = "") -> str:
    """Return the error that a client of physical replication gets, or an empty text."""
    # By the variable nobody's own password file is asked.
    options = {"user": user, "replication": "true", "passfile": "/dev/null"}
    if password:
        options["password"] = password
    try:
        psycopg.connect(host="127.0.0.1", port=twistd.port, sslmode="disable", **options).close()
    except psycopg.OperationalError as error:
        return str(error).partition("FATAL:  ")[2] or str(error)
    return ""


def test_rules(place: Path) -> None:
    """The first line that matches decides, and passwords are those of the file."""
    (place / "hba").write_text(
        "host replication bad all reject\nhost all other all trust\n"
        "host replication a,b samehost scram-sha-256\n"
    )
    (place / "users").write_text('"a" "first"\n"c" "third"\n')
    (place / "users").chmod(0o600)
    twistd = walsender(place, "--hba-file", "hba", "--auth-file", "users")
    try:
        where = 'host "127.0.0.1", user'
        assert answer(twistd, "bad") == (
            f'pg_hba.conf rejects replication connection for {where} "bad", no encryption'
        )
        for user in ("other", "c"):
            assert answer(twistd, user, "third") == (
                f'no pg_hba.conf entry for replication connection from {where} "{user}", no encryption'
            )
        assert answer(twistd, "a", "first") == ""
        for user in "ab":
            assert answer(twistd, user, "third") == f'password authentication failed for user "{user}"'
        assert "Traceback" not in twistd.log_text()
        assert "first" not in twistd.log_text()
    finally:
        twistd.kill()


def test_reload(place: Path) -> None:
    """SIGHUP takes over good files; wrong ones are told line by line, and what was before holds."""
    hba, users = place / "hba", place / "users"
    hba.write_text("host replication a all scram-sha-256\n")
    users.write_text('"a" "one"\n')
    users.chmod(0o600)
    twistd = walsender(place, "--hba-file", "hba", "--auth-file", "users")
    try:
        assert answer(twistd, "a", "one") == ""
        assert "no pg_hba.conf entry" in answer(twistd, "b", "two")
        hba.write_text("host replication b all scram-sha-256\nhost\nhost all all all oauth\n")
        users.write_text('"a" "one"\n"b" "two"\n')
        twistd.signal(signal.SIGHUP)
        twistd.wait_for_log(f"{hba} was not reloaded")
        log = twistd.log_text()
        assert f'end-of-line before database specification, line 2 of configuration file "{hba}"' in log
        unsupported = 'invalid authentication method "oauth": not supported by this build'
        assert f'{unsupported}, line 3 of configuration file "{hba}"' in log
        assert answer(twistd, "a", "one") == ""
        assert "no pg_hba.conf entry" in answer(twistd, "b", "two")
        hba.write_text("host replication b all scram-sha-256\n")
        twistd.signal(signal.SIGHUP)
        wait_until(lambda: answer(twistd, "b", "two") == "", 20, "the new rules", logs=[twistd])
        assert "no pg_hba.conf entry" in answer(twistd, "a", "one")
        assert "Traceback" not in twistd.log_text()
    finally:
        twistd.kill()


def test_wrongAtTheStart(place: Path) -> None:
    """A wrong file ends the start with status 1 and a line that says where; all wrong lines are told."""
    (place / "hba").write_text("local all all trust\nhost\n")
    (place / "users").write_text('"a" "md500000000000000000000000000000000"\n')
    refusals = Refusals(place, ["-D", "wal", "--hba-file", "hba"])
    line = f'walsender: end-of-line before database specification, line 2 of configuration file "{place}/hba"'
    where = '(parameter "hba_file" from command line option --hba-file)'
    for status, output, error in (refusals.foreground, refusals.daemon):
        assert (status, output, error.splitlines()) == (1, "", [f"{line} {where}"])
    refusals = Refusals(place, ["-D", "wal", "--hba-file", "hba", "--auth-file", "users"])
    for status, _, error in (refusals.foreground, refusals.daemon):
        assert status == 1
        assert error.splitlines()[-1] == f"{line} (and 1 more) {where}"
        assert 'the password of user "a" is an MD5 hash, which is not supported, line 1' in error
        assert "md50000" not in error
    assert refusals.left == []
