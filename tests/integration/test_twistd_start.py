"""Starts that cannot work: one line that says what is wrong and where, status 1, and nothing left behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import pytest
from twistd_helpers import WITHOUT_PRIVILEGES, Refusals, Twistd, adopting, make_wal, small_place

from walsender.state_lock import LOCK_NAME, StateLock
from walsender.testing.postgres import Cluster, free_port, started
from walsender.testing.raw_client import RawClient
from walsender.testing.wal_maker import WalMaker

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.installation import PostgresInstallation

OPTION: Final = "command line option"
IN_USE: Final = "Address already in use"
UNITS: Final = 'Valid units for this parameter are "us", "ms", "s", "min", "h", and "d".'
LISTEN: Final = f'(parameter "listen" from {OPTION} --listen)'
DIRECTORY: Final = f'(parameter "wal_directory" from {OPTION} --wal-directory)'
STATE: Final = f'(parameter "state_directory" from {OPTION} --state-directory)'


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of our own with a valid ``wal`` in it."""
    with small_place() as path:
        make_wal(path / "wal")
        yield path


def check_refused(place: Path, options: list[str], message: str, code: str = "") -> None:
    """Check that the start ends with exactly *message*, the same in the foreground and as a daemon."""
    refusals = Refusals(place, options, code)
    expected = (1, "", f"walsender: {message}\n")
    assert refusals.foreground == expected
    assert refusals.daemon == expected
    assert refusals.left == []


# Options and the one line, {} being the place.
COMMAND_LINES: Final = {
    "unknown option": (
        ["--wal-direktory=x"],
        'option --wal-direktory not recognized. Perhaps you meant "--wal-directory".',
    ),
    "unknown letter": (["-X"], "option -X not recognized"),
    "option without value": (["--fsync"], "option --fsync requires argument"),
    "argument": (["wal"], 'unexpected argument "wal"'),
    "not printable": (["--a\nb"], "option --a\\nb not recognized"),
    "unknown name": (
        ["-D", "wal", "-c", "max_wal_sender=1"],
        (
            f'unrecognized configuration parameter "max_wal_sender" in {OPTION} -c max_wal_sender.'
            ' Perhaps you meant "max_wal_senders".'
        ),
    ),
    "name without value": (["-D", "wal", "-c", "fsync"], "-c fsync requires a value"),
    "bad unit": (
        ["-D", "wal", "--wal-sender-timeout", "5 parsec"],
        f'invalid value for parameter "wal_sender_timeout": "5 parsec" in {OPTION} --wal-sender-timeout. '
        + UNITS,
    ),
    "bad value": (
        ["-D", "wal", "-c", "fsync=perhaps"],
        f'parameter "fsync" requires a Boolean value in {OPTION} -c fsync',
    ),
    "out of range": (
        ["-D", "wal", "--max-wal-senders=-1"],
        (
            '-1 is outside the valid range for parameter "max_wal_senders" (0 .. 262143) in '
            f"{OPTION} --max-wal-senders"
        ),
    ),
    "nothing to serve": (
        [],
        (
            'parameter "wal_directory" is not set. Give --wal-directory (-D) on the command line or'
            " wal_directory in the configuration file."
        ),
    ),
    "no directory": (
        ["-D", "nowhere"],
        f'could not open WAL directory "{{}}/nowhere": No such file or directory {DIRECTORY}',
    ),
    "file": (
        ["-D", "wal/000000010000000000000001"],
        f'could not open WAL directory "{{}}/wal/000000010000000000000001": Not a directory {DIRECTORY}',
    ),
    "name too long": (
        ["-D", "x" * 300],
        f'could not open WAL directory "{{}}/{"x" * 300}": File name too long {DIRECTORY}',
    ),
    "no endpoint": (
        ["-D", "wal", "-l", "5433"],
        (
            f'invalid value for parameter "listen" from {OPTION} --listen: "5433" is no server endpoint'
            " (Unknown endpoint type: '5433'). Perhaps you meant \"tcp:5433\"."
        ),
    ),
    "no port": (
        ["-D", "wal", "-l", "tcp:postgres"],
        (
            f'invalid value for parameter "listen" from {OPTION} --listen: "tcp:postgres" is no server'
            " endpoint (invalid literal for int() with base 10: 'postgres')"
        ),
    ),
    "port out of range": (
        ["-D", "wal", "-l", "tcp:70000"],
        f'could not listen on "tcp:70000": bind(): port must be 0-65535. {LISTEN}',
    ),
    "not our address": (
        ["-D", "wal", "-l", "tcp:0:interface=192.0.2.77"],
        f'could not listen on "tcp:0:interface=192.0.2.77": Cannot assign requested address {LISTEN}',
    ),
    "relative path of a socket": (
        ["-D", "wal", "-l", "unix:s"],
        (
            'could not listen on "unix:s": its path is relative, and twistd changes its directory before it'
            f" is used {LISTEN}"
        ),
    ),
    "no directory for the socket": (
        ["-D", "wal", "-l", "unix:{}/nowhere/s"],
        (
            f'could not listen on "unix:{{}}/nowhere/s": its directory is missing or cannot be written to'
            f" {LISTEN}"
        ),
    ),
    "path taken by a file": (
        ["-D", "wal", "-l", "unix:{}/wal/000000010000000000000001"],
        f'could not listen on "unix:{{}}/wal/000000010000000000000001": {IN_USE} {LISTEN}',
    ),
    "the same path twice": (
        ["-D", "wal", "-l", "unix:{}/s", "-l", "unix:{}/s"],
        f'could not listen on "unix:{{}}/s": {IN_USE} {LISTEN}',
    ),
    "no endpoint of HTTP": (
        ["-D", "wal", "--http", "9187"],
        (
            f'invalid value for parameter "http" from {OPTION} --http: "9187" is no server endpoint'
            " (Unknown endpoint type: '9187'). Perhaps you meant \"tcp:9187\"."
        ),
    ),
    "HTTP where clients come": (
        ["-D", "wal", "-l", "unix:{}/s", "--http", "unix:{}/s"],
        f'could not listen on "unix:{{}}/s": {IN_USE} (parameter "http" from {OPTION} --http)',
    ),
    "no configuration file": (
        ["--config-file", "none.conf"],
        (
            f'could not open configuration file "{{}}/none.conf": No such file or directory (from'
            f" {OPTION} --config-file)"
        ),
    ),
    "no directory for the state directory": (
        ["-D", "wal", "--state-directory", "nowhere/state"],
        f'could not use state directory "{{}}/nowhere/state": No such file or directory {STATE}',
    ),
    "file for a state directory": (
        ["-D", "wal", "--state-directory", "wal/000000010000000000000001"],
        'could not use state directory "{}/wal/000000010000000000000001": Not a directory ' + STATE,
    ),
}


@pytest.mark.parametrize(("options", "message"), COMMAND_LINES.values(), ids=COMMAND_LINES)
def test_commandLine(place: Path, options: list[str], message: str) -> None:
    """What is wrong on the command line is named with the option."""
    check_refused(place, [one.format(place) for one in options], message.format(place))


FILES: Final = {
    "unknown name": (
        "max_wal_sender = 1",
        (
            'unrecognized configuration parameter "max_wal_sender" in file "{}/a.conf" line 2.'
            ' Perhaps you meant "max_wal_senders".'
        ),
    ),
    "bad unit": (
        "wal_sender_delay = 200mx",
        'invalid value for parameter "wal_sender_delay": "200mx" in file "{}/a.conf" line 2. ' + UNITS,
    ),
    "syntax error": (
        "listen = tcp:0=0",
        (
            'syntax error in file "{}/a.conf" line 2, near token "=". A value that has other characters than'
            ' letters, digits, "_", "-", ".", ":" and "/" must be in single quotes.'
        ),
    ),
    "loop": (
        "include 'a.conf'",
        'configuration file recursion in "{}/a.conf" in file "{}/a.conf" line 2',
    ),
    "no directory": (
        "wal_directory = nowhere",
        (
            'could not open WAL directory "{}/nowhere": No such file or directory'
            ' (parameter "wal_directory" from file "{}/a.conf" line 2)'
        ),
    ),
    "no endpoint": (
        "listen = 'udp:5433'",
        (
            'invalid value for parameter "listen" from file "{}/a.conf" line 2: "udp:5433" is no server'
            " endpoint (Unknown endpoint type: 'udp')"
        ),
    ),
}


@pytest.mark.parametrize(("line", "message"), FILES.values(), ids=FILES)
def test_file(place: Path, line: str, message: str) -> None:
    """What is wrong in the configuration file is named with file and line."""
    listen = "" if "listen" in line else "listen = 'tcp:0:interface=127.0.0.1'"
    (place / "a.conf").write_text(f"wal_directory = wal\n{line}\n{listen}\n")
    check_refused(place, ["--config-file", "a.conf"], message.replace("{}", str(place)))


def test_emptyDirectory(place: Path) -> None:
    """A directory that nobody has filled yet is named."""
    (place / "empty").mkdir()
    check_refused(
        place, ["-D", "empty"], f'WAL directory "{place}/empty" contains no WAL segment {DIRECTORY}'
    )


def test_noWal(place: Path) -> None:
    """Files that are no WAL do not help, and if one is named as a segment it is said why it is none."""
    (place / "other").mkdir()
    (place / "other" / "notes.txt").write_text("WAL is elsewhere")
    (place / "other" / "000000010000000000000001").write_text("not here either")
    refusals = Refusals(place, ["-D", "other"])
    assert refusals.foreground == refusals.daemon
    status, _, errors = refusals.foreground
    assert status == 1
    assert errors.startswith(f'walsender: WAL directory "{place}/other" contains no WAL segment: ')
    assert '"000000010000000000000001"' in errors.replace("pg_wal/", "")
    assert errors.endswith(f" {DIRECTORY}\n")
    assert errors.count("\n") == 1


def test_unreadableDirectory(place: Path) -> None:
    """A directory that may not be read is named with the reason."""
    (place / "wal").chmod(0)
    check_refused(
        place,
        ["-D", "wal"],
        f'could not open WAL directory "{place}/wal": Permission denied {DIRECTORY}',
        WITHOUT_PRIVILEGES,
    )


def test_unreadableParent(place: Path) -> None:
    """So is one that lies in a directory that may not be entered."""
    (place / "closed").mkdir()
    (place / "wal").rename(place / "closed" / "wal")
    (place / "closed").chmod(0)
    check_refused(
        place,
        ["-D", "closed/wal"],
        f'could not open WAL directory "{place}/closed/wal": Permission denied {DIRECTORY}',
        WITHOUT_PRIVILEGES,
    )


def test_unreadableSegments(place: Path) -> None:
    """Segments that may not be read are no WAL to serve, and the reason is given."""
    for path in (place / "wal").iterdir():
        path.chmod(0)
    check_refused(
        place,
        ["-D", "wal"],
        f'WAL directory "{place}/wal" contains no WAL segment: could not read file'
        f' "pg_wal/000000010000000000000001": Permission denied {DIRECTORY}',
        WITHOUT_PRIVILEGES,
    )


def test_twoClusters(place: Path) -> None:
    """Segments of two clusters are never served together; both are named."""
    make_wal(place / "wal", maker=WalMaker(system_identifier=7400000000000000002, start=3 << 20))
    refusals = Refusals(place, ["-D", "wal"])
    assert refusals.foreground == refusals.daemon
    status, _, errors = refusals.foreground
    assert (status, errors.count("\n")) == (1, 1)
    for text in ("holds WAL of two clusters", "7300000000000000001", "7400000000000000002", DIRECTORY):
        assert text in errors


def test_oldWal(place: Path) -> None:
    """WAL of an era that had no walsender names what serves it nevertheless."""
    make_wal(place / "old", maker=WalMaker(80400))
    check_refused(
        place,
        ["-D", "old"],
        f'WAL directory "{place}/old" holds WAL of PostgreSQL 8.4, which had no streaming replication; '
        f"--protocol-dialect=8.5 serves it to clients of the first walsender {DIRECTORY}",
    )


@pytest.fixture
def other_process() -> Iterator[int]:
    """The id of a process that lives."""
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process.pid
        process.kill()


@pytest.mark.parametrize("linked", [False, True], ids=["inside", "linked"])
def test_runningServer(place: Path, other_process: int, *, linked: bool) -> None:
    """The pg_wal of a running server is refused with the remedy, also where pg_wal is a symbolic link."""
    data = place / "data"
    data.mkdir()
    if linked:
        (data / "pg_wal").symlink_to(place / "wal")
    else:
        (place / "wal").rename(data / "pg_wal")
    (data / "postmaster.pid").write_text(f"{other_process}\n{data}\n")
    check_refused(
        place,
        ["-D", "data/pg_wal"],
        f'WAL directory "{data}/pg_wal" belongs to a running PostgreSQL server (process {other_process} by'
        f' "{data}/postmaster.pid"), which recycles its files; archive its WAL with pg_receivewal and serve'
        f" that directory {DIRECTORY}",
    )


def test_realServer(installation: PostgresInstallation, space: Path, place: Path) -> None:
    """A real server's pg_wal is refused while it runs, and served after a crash."""
    with started(Cluster.create(installation, space / "primary")) as primary:
        options = ["walsender", "-D", str(primary.data_directory / "pg_wal"), "-l", "tcp:0"]
        refusals = Refusals(place, options[1:])
        assert refusals.foreground == refusals.daemon
        pid_file = primary.data_directory / "postmaster.pid"
        process_id = pid_file.read_text().split()[0]
        assert f"belongs to a running PostgreSQL server (process {process_id} by" in refusals.daemon[2]
        primary.kill()
        assert pid_file.exists()
        with Twistd(place, options) as twistd:
            twistd.signal(signal.SIGTERM)
            assert twistd.wait() == 0


@pytest.mark.parametrize(
    ("family", "address", "endpoint"),
    [
        (socket.AF_INET, "127.0.0.1", "tcp:{}:interface=127.0.0.1"),
        (socket.AF_INET, "127.0.0.1", "tcp:{}"),
        (socket.AF_INET6, "::1", "tcp6:{}:interface=\\:\\:1"),
    ],
    ids=["tcp", "tcp on all interfaces", "tcp6"],
)
def test_portInUse(place: Path, family: int, address: str, endpoint: str) -> None:
    """A port that somebody else has is named as the endpoint that it was given as."""
    with socket.socket(family) as other:
        other.bind((address, 0))
        other.listen()
        endpoint = endpoint.format(other.getsockname()[1])
        check_refused(
            place, ["-D", "wal", "-l", endpoint], f'could not listen on "{endpoint}": {IN_USE} {LISTEN}'
        )


def test_portTwice(place: Path) -> None:
    """Of two endpoints that are in each other's way the second is named."""
    port = free_port()
    first, second = f"tcp:{port}:interface=127.0.0.1", f"tcp:{port}"
    check_refused(
        place,
        ["-D", "wal", "-l", first, "-l", second],
        f'could not listen on "{second}": {IN_USE} {LISTEN}',
    )


def test_unixSocketInUse(place: Path) -> None:
    """So is a unix socket that somebody listens on."""
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(place / "s"))
        other.listen()
        check_refused(
            place,
            ["-D", "wal", "-l", f"unix:{place}/s"],
            f'could not listen on "unix:{place}/s": {IN_USE} {LISTEN}',
        )


def test_unixSocketLeftBehind(place: Path) -> None:
    """The socket of a walsender that was killed is no obstacle, as the kernel took everything else."""
    options = ["walsender", "-D", str(place / "wal"), "-l", f"unix:{place}/s"]
    with Twistd(place, options, strict=False) as first:
        first.kill()
    assert (place / "s").exists()
    with Twistd(place, options, strict=False, expected=2) as second:
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    assert not (place / "s").exists()


# The check before the start sees nothing; then it is as if the port had been taken a moment later.
UNSEEN: Final = "import walsender.tap as tap; tap.check_endpoints = lambda _: None; "


@pytest.mark.parametrize("parameter", ["listen", "http"])
def test_portTakenMeanwhile(place: Path, parameter: str) -> None:
    """
    A port that is taken between the check and the start ends the start as well.

    A daemon has no standard error by then: it logs the line, and twistd prints the beginning of it.
    """
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        endpoint = f"tcp:{other.getsockname()[1]}:interface=127.0.0.1"
        refusals = Refusals(place, ["-D", "wal", "-l", "tcp:0", f"--{parameter}", endpoint], UNSEEN)
    where = f'(parameter "{parameter}" from {OPTION} --{parameter})'
    message = f'could not listen on "{endpoint}": {IN_USE} {where}'
    assert refusals.foreground == (1, "", f"walsender: {message}\n")
    status, output, errors = refusals.daemon
    assert (status, output) == (1, "")
    assert f'walsender: could not listen on "{endpoint}": {IN_USE}' in errors
    assert refusals.left == []
    assert refusals.logs.count(message) == 2
    assert "Traceback" not in refusals.logs


# state_directory and its lock


def test_stateDirectoryLocked(place: Path) -> None:
    """A state directory that another process uses is refused, and that process is named."""
    code = (
        "import sys; from walsender.state_lock import StateLock; lock = StateLock.acquire(sys.argv[1]);"
        " print('locked', flush=True); input()"
    )
    state = place / "state"
    with subprocess.Popen(
        [sys.executable, "-c", code, str(state)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        check_refused(
            place,
            ["-D", "wal", "--state-directory", "state"],
            f'state directory "{state}" is in use by process {holder.pid} {STATE}',
        )
        holder.kill()
    # The lock went with its holder, though the file did not.
    assert (state / LOCK_NAME).exists()
    StateLock.check(str(state))


@pytest.mark.parametrize("daemon", [False, True], ids=["foreground", "daemon"])
def test_stateDirectoryHeld(place: Path, *, daemon: bool) -> None:
    """A walsender holds its state directory, made for the purpose, from its start to its end."""
    with ExitStack() as stack:
        if daemon:
            stack.enter_context(adopting())
        options = ["walsender", "-D", str(place / "wal"), "--state-directory", str(place / "state")]
        twistd = stack.enter_context(Twistd(place, [*options, "-l", "tcp:0"], daemon=daemon))
        (second := place / "second").mkdir()
        check_refused(
            second, options[1:], f'state directory "{place}/state" is in use by process {twistd.pid} {STATE}'
        )
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0
        StateLock.check(str(place / "state"))


def test_nothingIsWritten(place: Path) -> None:
    """Without a state directory that was asked for, nothing is written into the WAL directory."""
    before = sorted(path.name for path in (place / "wal").iterdir())
    for path in (place / "wal").iterdir():
        path.chmod(0o400)
    (place / "wal").chmod(0o500)
    with Twistd(place, ["walsender", "-D", str(place / "wal"), "-l", "tcp:0"]) as twistd:
        with RawClient("127.0.0.1", twistd.port) as client:
            client.ready().query("IDENTIFY_SYSTEM")
        twistd.signal(signal.SIGTERM)
        assert twistd.wait() == 0
    assert sorted(path.name for path in (place / "wal").iterdir()) == before
