"""Every mistake that a client can make is answered as a real PostgreSQL of the WAL's version answers it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import struct
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest
from comparison_helpers import Case, Say, brief, converse, normalised, places
from error_cases import MESSAGES, SLOTS, STARTS, STARTUP, STREAMS

from walsender.auth import ConnectionRequest, LocalAuthorizer
from walsender.errors import InvalidAuthorization
from walsender.lsn import LSN
from walsender.testing.archives import SEGMENT_SIZE, reference_server
from walsender.testing.processes import TimedOutError, WalsenderProcess, wait_until, workspace
from walsender.testing.raw_client import RawClient, RawConnection
from walsender.wire.dialect import ModernDialect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from conftest import Server

    from walsender.testing.archives import Archive
    from walsender.testing.postgres import Cluster


LOGGED: Final = {
    "log_line_prefix": "<%u %a %b> ",
    "log_connections": "on",
    "log_disconnections": "on",
    "log_replication_commands": "on",
}
# What differs between two runs, or two places.
_VARYING: Final = re.compile(r"port=\d+|time: \S+| \(/\S+\)$|(?<= this server )\S+$")


class Pair(NamedTuple):
    """Two servers over the same WAL, which is the archive's."""

    archive: Archive
    ours: WalsenderProcess
    real: Cluster
    where: Mapping[str, LSN]


@pytest.fixture(scope="module")
def pair(fork: Archive) -> Iterator[Pair]:
    """Both servers over an archive of two timelines, which both may spoil."""
    with workspace() as space:
        shutil.copytree(fork.directory, space / "wal")
        archive = replace(fork, directory=space / "wal")
        options = [f"-c{name}={value}" for name, value in LOGGED.items()]
        options += ["--max-replication-slots", "3", "--state-directory", str(space / "state")]
        with (
            WalsenderProcess(archive.directory, *options, log_file=space / "walsender.log") as ours,
            reference_server(archive, space / "real") as real,
        ):
            real.settings |= {"max_replication_slots": "3", **LOGGED}
            real.start()
            yield Pair(archive, ours, real, places(archive))
            assert "Traceback" not in ours.log_text(), ours.log_text()


def check(pair: Pair, case: Case) -> None:
    """Compare the answers of both servers; a deliberate difference must be one, and be what it says."""
    ours = converse(pair.ours, case, pair.where)
    real = converse(pair.real, case, pair.where)
    if case.differs and pair.archive.installation.major in case.differs_over:
        assert ours != real, f"no longer different: {case.differs}"
        assert brief(ours) == case.ours, f"real: {brief(real)}"
    else:
        assert ours == real, f"\n ours: {brief(ours)}\n real: {brief(real)}"


def named(case: Case) -> str:
    """Return a case's name for pytest."""
    return case.name


@pytest.mark.parametrize("case", STARTUP, ids=named)
def test_startup(pair: Pair, case: Case) -> None:
    """From the first byte to the first ReadyForQuery."""
    check(pair, case)


@pytest.mark.parametrize("case", MESSAGES, ids=named)
def test_messages(pair: Pair, case: Case) -> None:
    """Messages between commands, and the grammar of commands."""
    check(pair, case)


@pytest.mark.parametrize("case", STARTS, ids=named)
def test_starts(pair: Pair, case: Case) -> None:
    """Where a stream may begin, and how it ends."""
    check(pair, case)


@pytest.mark.parametrize("case", STREAMS, ids=named)
def test_streams(pair: Pair, case: Case) -> None:
    """What is said while WAL streams."""
    check(pair, case)


@pytest.mark.parametrize("case", SLOTS, ids=named)
def test_slots(pair: Pair, case: Case) -> None:
    """What is done with replication slots, in order."""
    check(pair, case)


def spoil(pair: Pair, number: int, change: Callable[[Path], None]) -> Case:
    """Change a segment of the first timeline in both directories; return the conversation that meets it."""
    name = pair.archive.segments()[number]
    for directory in (pair.archive.directory, pair.real.data_directory / "pg_wal"):
        change(directory / name)
    start = LSN(int(name[8:16], 16) << 32 | int(name[16:], 16) * SEGMENT_SIZE)
    return Case(name, (Say(f"START_REPLICATION {start} TIMELINE 1"),))


def test_removedSegment(pair: Pair) -> None:
    """The same error inside COPY; ours says besides where WAL begins."""
    case = spoil(pair, 0, Path.unlink)
    ours, real = (converse(server, case, pair.where) for server in (pair.ours, pair.real))
    assert brief(ours) == brief(real)
    assert ours[0] == real[0] == ("W", bytes(3))
    detail = dict(ours[1][1])["D"]
    assert detail.startswith("The earliest WAL position that is held here is ")
    assert "has already been removed) Z still there? T" in brief(ours)


def check_unusable(pair: Pair, case: Case, expected: str) -> None:
    """
    Check what is said of a file that is no whole segment.

    On purpose: it counts as not there and the log says why, where PostgreSQL opens it and fails to read.
    """
    ours, real = (converse(server, case, pair.where) for server in (pair.ours, pair.real))
    assert expected in brief(real)
    assert f"58P01 requested WAL segment {case.name} has already been removed" in brief(ours)
    assert case.name in pair.ours.log_text()


def test_shortSegment(pair: Pair) -> None:
    """A file that ends early."""
    check_unusable(pair, spoil(pair, 2, lambda path: os.truncate(path, 0)), "XX001 could not read from WAL")


def test_directoryInPlaceOfASegment(pair: Pair) -> None:
    """A file that is none."""

    def change(path: Path) -> None:
        path.unlink()
        path.mkdir()

    check_unusable(pair, spoil(pair, 3, change), "42809 could not read from WAL")


def last_words(client: RawClient) -> list[tuple[object, ...]]:
    """Confirm whatever the server asks about, and return what it says at its end but WAL and keepalives."""
    said = []
    while (one := client.read()) is not None:
        if one.kind != b"d":
            said.append(one)
        elif one.body[:1] == b"k":
            (sent,) = struct.unpack_from("!Q", one.body, 1)
            client.send(b"d", b"r" + struct.pack("!QQQqB", sent, sent, sent, 0, 0))
    return normalised(said)


def test_placesAndStop(fork: Archive, space: Path) -> None:
    """Who finds no place is told so; so are, when the server stops, an idle client and one that streams."""
    heard = []

    def talk(server: Server, stop: Callable[[], object]) -> None:
        def connect() -> RawClient:
            return RawClient("127.0.0.1", server.port)

        with connect().ready() as idle, connect().ready() as streaming:
            with connect() as third:
                refused = normalised(third.until())
            streaming.send(b"Q", f"START_REPLICATION {fork.end}\0".encode())
            streaming.until(b"W")
            # PostgreSQL says W before it counts itself as streaming; by the time it answers a status it does.
            streaming.send(b"d", b"r" + struct.pack("!QQQqB", fork.end, fork.end, fork.end, 0, 1))
            streaming.until(b"d")
            stop()
            heard.append((refused, last_words(streaming), normalised(idle.until())))

    options = ("--max-wal-senders", "2")
    with WalsenderProcess(fork.directory, *options, log_file=space / "walsender.log") as ours:
        talk(ours, lambda: ours.signal(signal.SIGINT))
    with reference_server(fork, space / "real") as real:
        real.settings["max_wal_senders"] = "2"
        real.start()
        talk(real, lambda: real.server.signal(signal.SIGINT))
    assert heard[0] == heard[1]
    refused, streamed, idled = heard[0]
    assert brief(refused).startswith("E(FATAL 53300 number of requested standby connections exceeds")
    assert streamed == [("C", b"COPY 0\0")]
    assert brief(idled) == "E(FATAL 57P01 terminating connection due to administrator command)"


def test_noPrivilege(pair: Pair) -> None:
    """PostgreSQL's refusal of a role that may not replicate is the one that ours is worded as."""
    version = pair.archive.installation.major
    pair.real.sql("CREATE ROLE plain LOGIN")
    with RawClient("127.0.0.1", pair.real.port, user="plain") as client:
        first, told = normalised(client.until())
    assert first[0] == "R"
    error = ModernDialect(version * 10000).may_not_replicate()
    assert dict(told[1]) == {
        "S": "FATAL", "V": "FATAL", "C": error.sqlstate, "M": error.message, "D": error.detail
    }  # fmt: skip


def test_cancelled(pair: Pair) -> None:
    """A CancelRequest with the right key ends COPY, not the session."""
    heard = []
    for server in (pair.ours, pair.real):
        with RawClient("127.0.0.1", server.port) as client:
            key = next(one.body for one in client.until(b"Z") if one.kind == b"K")
            client.send(b"Q", f"START_REPLICATION {pair.where['late']}\0".encode())
            client.until(b"W")
            with RawConnection("127.0.0.1", server.port) as other:
                other.socket.sendall(struct.pack("!II", 8 + len(key), 80877102) + key)
                assert other.until() == []
            told = [one for one in normalised(client.until(b"Z")) if one[0] != "WAL"]
            heard.append([*told, *normalised(client.query("SHOW wal_segment_size"))])
    assert heard[0] == heard[1]
    assert brief(heard[0]).startswith("E(ERROR 57014 canceling statement due to user request) Z T")


def test_strangers(fork: Archive, space: Path) -> None:
    """PostgreSQL without a line for replication says what ours says to clients from elsewhere."""
    elsewhere = ConnectionRequest(ip_address("192.0.2.1"), "postgres")
    with pytest.raises(InvalidAuthorization) as refused:
        LocalAuthorizer().authenticate(elsewhere, None).send(None)
    with reference_server(fork, space / "real") as real:
        (real.data_directory / "pg_hba.conf").write_text("local all all trust\nhost all all all trust\n")
        real.start()
        with RawClient("127.0.0.1", real.port) as client:
            told = brief(normalised(client.until()))
    assert told.replace("127.0.0.1", "192.0.2.1") == f"E(FATAL 28000 {refused.value.message})"


def test_tooEarlyAndTooLate(fork: Archive, space: Path) -> None:
    """What PostgreSQL says while it starts and while it stops; ours cannot be held there and says it too."""

    def said(server: Cluster) -> str:
        with RawClient("127.0.0.1", server.port) as client:
            return brief(normalised(client.until()))

    with reference_server(fork, space / "early") as early:
        (early.data_directory / "recovery.signal").touch()
        early.settings["restore_command"] = "sleep 30"
        with pytest.raises(TimedOutError):
            early.start(timeout_s=0)
        told = wait_until(lambda: accepted(lambda: said(early)), 60, "a listening server", logs=[early])
        assert told == "E(FATAL 57P03 the database system is starting up)"
    with reference_server(fork, space / "late") as late:
        late.start()
        with RawClient("127.0.0.1", late.port).ready() as idle, RawClient("127.0.0.1", late.port) as silent:
            silent.ready().send(b"Q", f"START_REPLICATION {fork.end}\0".encode())
            silent.until(b"W")
            late.server.signal(signal.SIGINT)
            idle.until()
            assert said(late) == "E(FATAL 57P03 the database system is shutting down)"


def accepted(connect: Callable[[], str]) -> str:
    """Return what *connect* does, or nothing while nobody listens."""
    with contextlib.suppress(ConnectionRefusedError):
        return connect()
    return ""


def without_statements_of_logs(lines: list[str]) -> list[str]:
    """Return *lines* without what PostgreSQL adds to lines that are no errors: the statement once more."""
    return [
        line
        for before, line in zip(["", *lines], lines, strict=False)
        if not ("STATEMENT: " in line and "LOG: " in before)
    ]


def test_log(pair: Pair) -> None:
    """A client's coming, who it is, its commands, its errors and its end are logged in the same lines."""
    logs = []
    for port, log in ((pair.ours.port, pair.ours.log_text), (pair.real.port, pair.real.log_file.read_text)):
        before = len(log())
        with RawClient("127.0.0.1", port, user="postgres", application_name="a\n1").ready() as client:
            for command in ("IDENTIFY_SYSTEM", "START_REPLICATION FF/0", "nonsense\n\t2"):
                client.query(command)
        wait_until(lambda: " disconnection: " in log()[before:], 60, "the end to be logged")  # noqa: B023
        lines = log()[before:].splitlines()
        logs.append([_VARYING.sub("", line) for line in without_statements_of_logs(lines)])
    ours, real = logs
    if pair.archive.installation.major < 17:  # which do not tell of who is trusted
        del ours[1]
    assert ours == real
    assert len(ours) > 6
