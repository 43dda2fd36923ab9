"""The files that say who may come in, under a real twistd, with libpq for a client."""

from __future__ import annotations

import signal
import subprocess
from typing import TYPE_CHECKING

import psycopg
import pytest
from twistd_helpers import Refusals, Twistd, make_wal, small_place

from walsender.testing.installation import PostgresInstallation
from walsender.testing.processes import clean_environment, wait_until

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


def console(twistd: Twistd, user: str, database: str, password: str, statement: str = "SELECT 1") -> str:
    """Return what a client of the console is answered, or the error that it gets."""
    options = {"user": user, "dbname": database, "password": password, "passfile": "/dev/null"}
    try:
        with psycopg.connect(
            host="127.0.0.1", port=twistd.port, sslmode="disable", autocommit=True, **options
        ) as connection:
            return str(connection.execute(statement.encode()).fetchone())
    except psycopg.Error as error:
        return str(error).partition("FATAL:  ")[2] or str(error).partition("\n")[0]


def test_console(place: Path) -> None:
    """The database column decides about the console, which ``replication`` does not mean."""
    (place / "hba").write_text(
        "host replication repl,admin all scram-sha-256\n"
        "host walsender monitor,admin all scram-sha-256\n"
        "host all looker all scram-sha-256\n"
        'host "replication" odd all scram-sha-256\n'
        "host walsender refused all reject\n"
    )
    users = ("repl", "monitor", "admin", "looker", "odd", "refused")
    (place / "users").write_text("".join(f'"{user}" "secret-{user}"\n' for user in users))
    (place / "users").chmod(0o600)
    twistd = walsender(place, "--hba-file", "hba", "--auth-file", "users")
    let_in = "(1,)"
    where = 'host "127.0.0.1", user "refused", database "walsender", no encryption'
    rejected = f"pg_hba.conf rejects connection for {where}"
    no_entry = 'no pg_hba.conf entry for host "127.0.0.1", user "{}", database "{}", no encryption'
    try:
        for user, database, expected in (
            ("monitor", "walsender", let_in),
            ("monitor", "other", no_entry.format("monitor", "other")),
            ("monitor", "replication", no_entry.format("monitor", "replication")),
            ("admin", "walsender", let_in),
            ("repl", "walsender", no_entry.format("repl", "walsender")),
            ("repl", "replication", no_entry.format("repl", "replication")),
            ("looker", "anything", let_in),
            ("odd", "replication", let_in),
            ("odd", "walsender", no_entry.format("odd", "walsender")),
            ("refused", "walsender", rejected),
        ):
            assert console(twistd, user, database, f"secret-{user}") == expected, (user, database)
        wrong = 'password authentication failed for user "monitor"'
        assert console(twistd, "monitor", "walsender", "secret-admin") == wrong
        # Who replicates is another question, and who may do both may act.
        replicates = [user for user in users if answer(twistd, user, f"secret-{user}") == ""]
        assert replicates == ["repl", "admin"]
        act = "SELECT pg_reload_conf()"
        for user, expected in (
            ("admin", "(True,)"),
            ("monitor", "permission denied for function pg_reload_conf"),
            ("looker", "permission denied for function pg_reload_conf"),
        ):
            assert console(twistd, user, "walsender", f"secret-{user}", act) == expected
        psql = subprocess.run(
            [
                PostgresInstallation.embedded(18).program("psql"),
                *("-X", "-At", "-h", "127.0.0.1", "-p", str(twistd.port), "-U", "monitor", "-d", "walsender"),
                *("-c", "SELECT current_user, setting FROM pg_settings WHERE name = 'hba_file'"),
                *("-c", "SELECT current_user, setting FROM pg_settings WHERE name = 'fsync'"),
            ],
            env=clean_environment() | {"PGPASSWORD": "secret-monitor"},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert psql.stdout == "monitor|on\n"  # where files are is not for everybody
        assert "secret-" not in twistd.log_text()
        assert "Traceback" not in twistd.log_text()
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
