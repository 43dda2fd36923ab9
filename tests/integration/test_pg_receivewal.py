"""The real pg_receivewal against us: what it writes is byte for byte what we serve."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from walsender.lsn import LSN
from walsender.testing.archives import SEGMENT_SIZE, Archive
from walsender.testing.postgres import PgReceiveWal, PostgresInstallation
from walsender.testing.processes import wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from conftest import Serve, Server


def number(segment: str) -> int:
    """Return which segment, counted from 0 over all of WAL, has this name."""
    return int(segment[8:16], 16) * ((1 << 32) // SEGMENT_SIZE) + int(segment[16:24], 16)


def name(timeline: int, segment_number: int) -> str:
    """Return a segment's name."""
    high, low = divmod(segment_number, (1 << 32) // SEGMENT_SIZE)
    return f"{timeline:08X}{high:08X}{low:08X}"


def start_at(
    server: Server,
    target: Path,
    archive: Archive,
    first: str,
    *,
    receiver: PostgresInstallation | None = None,
) -> PgReceiveWal:
    """Start a pg_receivewal that asks for the segment *first*, to the archive's end."""
    installation = receiver or archive.installation
    target.mkdir()
    # pg_receivewal goes on behind the last complete segment in its directory, and looks at its size alone.
    (target / name(int(first[:8], 16), number(first) - 1)).write_bytes(bytes(SEGMENT_SIZE))
    installation.account.own(target)
    # It stops when it is past this position, and past the end it never is.
    last_byte = LSN(archive.end - 1)
    return PgReceiveWal(installation, target, server.conninfo(), "--no-loop", f"--endpos={last_byte}")


def same_files(archive: Archive, target: Path, names: Iterable[str]) -> None:
    """Assert that *target* has these files of the archive and nothing else, byte for byte."""
    received = {path.name: path for path in target.iterdir()}
    empty = min(name for name in received if "history" not in name)
    del received[empty]
    assert sorted(received) == sorted(names)
    different = [
        name
        for name, path in received.items()
        if path.read_bytes() != (archive.directory / name).read_bytes()
    ]
    assert different == []


@pytest.mark.parametrize("sendfile", ["on", "off"])
def test_identicalFiles(archive: Archive, serve: Serve, space: Path, sendfile: str) -> None:
    """From the first segment to the end, what arrives is the archive; pg_waldump reads it."""
    server = serve(archive, "--sendfile", sendfile)
    segments = archive.segments()
    with start_at(server, space / "target", archive, segments[0]) as receiver:
        assert receiver.wait() == 0, receiver.log_tail() + server.log_tail()
    same_files(archive, space / "target", segments)
    last = space / "target" / segments[-1]
    last.rename(last.with_suffix(""))  # pg_waldump knows no .partial
    start = LSN(number(segments[0]) * SEGMENT_SIZE)
    archive.installation.run(
        *("pg_waldump", "--quiet", f"--path={last.parent}", f"--start={start}", f"--end={archive.end}")
    )


def test_newerReceiver(archive: Archive, serve: Serve, space: Path) -> None:
    """pg_receivewal 18 takes the WAL of either version."""
    server = serve(archive)
    newest = PostgresInstallation.embedded(18)
    with start_at(server, space / "target", archive, archive.segments()[0], receiver=newest) as receiver:
        assert receiver.wait() == 0, receiver.log_tail() + server.log_tail()
    same_files(archive, space / "target", archive.segments())


def test_olderReceiverIsTold(serve: Serve, space: Path, archive: Archive) -> None:
    """pg_receivewal refuses the WAL of a newer server, and so learns from us whose WAL it is."""
    older = PostgresInstallation.embedded(16)
    server = serve(archive)
    with start_at(server, space / "target", archive, archive.segments()[0], receiver=older) as receiver:
        expected = 0 if archive.installation.major <= older.major else 1
        assert receiver.wait() == expected, receiver.log_tail()
        assert ("incompatible server version" in receiver.log_text()) == bool(expected)


def test_fromEverySegmentOfAFork(fork: Archive, serve: Serve, space: Path) -> None:
    """Whatever segment of either timeline a receiver asks for, it gets that and all after it."""
    server = serve(fork)
    old, new = fork.segments(1), fork.segments(2)
    for first in [*old, *new]:
        target = space / f"target-{first}"
        with start_at(server, target, fork, first.removesuffix(".partial")) as receiver:
            assert receiver.wait() == 0, first + receiver.log_tail() + server.log_tail()
        expected = [name for name in [*old, *new] if name >= first] + ["00000002.history"]
        same_files(fork, target, expected)


def test_upToTheGap(gap: tuple[Archive, str], serve: Serve, space: Path) -> None:
    """Before a missing segment everything is served; there the receiver is told what is missing."""
    archive, missing = gap
    server = serve(archive)
    segments = [name for name in archive.segments() if name < missing]
    with start_at(server, space / "target", archive, segments[0]) as receiver:
        assert receiver.wait() == 1
        assert f"requested WAL segment {missing} has already been removed" in receiver.log_text()
    same_files(archive, space / "target", segments)


def test_atTheGap(gap: tuple[Archive, str], serve: Serve) -> None:
    """A start in a missing segment is answered with CopyBothResponse, SQLSTATE 58P01, and ReadyForQuery."""
    archive, missing = gap
    server = serve(archive)
    start = LSN(number(missing) * SEGMENT_SIZE)
    with RawClient("127.0.0.1", server.port) as client:
        assert client.until(b"Z")[0].kind == b"R"
        answer = client.query(f"START_REPLICATION {start} TIMELINE 1")
        assert [message.kind for message in answer] == [b"W", b"E", b"Z"]
        error = answer[1].fields()
        assert (error["S"], error["C"]) == ("ERROR", "58P01")
        assert error["M"] == f"requested WAL segment {missing} has already been removed"
        assert client.query("IDENTIFY_SYSTEM")[-2].body == b"IDENTIFY_SYSTEM\0"


def test_behindTheGap(gap: tuple[Archive, str], serve: Serve, space: Path) -> None:
    """What lies behind a missing segment is served to whoever starts there."""
    archive, missing = gap
    server = serve(archive)
    segments = [name for name in archive.segments() if name > missing]
    with start_at(server, space / "target", archive, segments[0]) as receiver:
        assert receiver.wait() == 0, receiver.log_tail() + server.log_tail()
    same_files(archive, space / "target", segments)


def test_orderlyEnd(archive: Archive, serve: Serve, space: Path) -> None:
    """A receiver that is interrupted at the end of the WAL ends its stream in order, with status 0."""
    server = serve(archive)
    target = space / "target"
    with PgReceiveWal(archive.installation, target, server.conninfo(), "--no-loop") as receiver:
        last = archive.segments()[-1]
        wait_until(
            lambda: receiver.check_running() and (target / last).exists(), 60, f"{last}", logs=[receiver]
        )
        receiver.signal(signal.SIGINT)
        assert receiver.wait() == 0, receiver.log_tail()
    assert [path.name for path in target.iterdir()] == [last]
