"""What signals do to a real twistd process with real connections, in the foreground and as a daemon."""

from __future__ import annotations

import os
import signal
import socket
import struct
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, Self

import pytest
from resting_helpers import seen_at_rest
from twistd_helpers import Twistd, adopting, make_wal, small_place

from walsender.testing.processes import wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from walsender.testing.wal_maker import WalMaker

COMPLETE: Final = b"COPY 0\0"
DRAINING: Final = "sending all outstanding WAL, then shutting down"
SHUTTING_DOWN: Final = "shutting down"
RELOADING: Final = "received SIGHUP, reloading configuration files"
# More than the buffers of both ends of a connection hold.
MUCH: Final = 24  # segments


class Standby(RawClient):
    """A client that streams from the beginning of segment 1."""

    received = 0

    @classmethod
    def streaming(cls, port: int, **parameters: str) -> Self:
        """Return a client that has sent START_REPLICATION."""
        client = cls("127.0.0.1", port, **parameters)
        client.ready()
        client.send(b"Q", b"START_REPLICATION 0/100000\0")
        return client

    def receive(self, position: int) -> None:
        """Read until all WAL up to *position* has come."""
        while self.received < position:
            message = self.read()
            assert message is not None, "the stream ended early"
            if message.kind == b"d" and message.body[:1] == b"w":
                (start,) = struct.unpack_from("!Q", message.body, 1)
                self.received = start + len(message.body) - 25

    def confirm(self) -> None:
        """Report all that was received as written, flushed and applied."""
        at = self.received
        self.send(b"d", b"r" + struct.pack("!QQQQB", at, at, at, 0, 0))

    def rest(self) -> list[tuple[bytes, bytes]]:
        """Read to the end of the stream; return all but keepalives."""
        messages = [(message.kind, message.body) for message in self.until()]
        return [message for message in messages if message[1][:1] != b"k"]


@dataclass
class Stage:
    """A walsender over WAL that can grow."""

    place: Path
    maker: WalMaker
    twistd: Twistd

    def grow(self) -> None:
        """Write some more WAL."""
        self.maker.record(200_000)
        self.maker.write(self.place / "wal")

    def check_ended(self, status: int = 0) -> None:
        """Check how the process ends, that its pid file is gone, and that it logged no traceback."""
        assert self.twistd.wait() == status, self.twistd.log_text()
        assert not self.twistd.pid_file.exists()
        assert "Traceback" not in self.twistd.log_text()


class Start(Protocol):
    """Starts twistd walsender."""

    def __call__(self, *options: str, segments: float = 1.5) -> Stage:
        """Start it over so many segments; *options* go to it."""


@pytest.fixture(params=[False, True], ids=["foreground", "daemon"])
def start(request: pytest.FixtureRequest) -> Iterator[Start]:
    """A function that starts twistd walsender."""
    with ExitStack() as stack:
        place = stack.enter_context(small_place())
        stack.enter_context(adopting())

        def start_it(*options: str, segments: float = 1.5) -> Stage:
            maker = make_wal(place / "wal", segments)
            command = ["walsender", "-D", str(place / "wal"), "-l", "tcp:0:interface=127.0.0.1", *options]
            return Stage(place, maker, stack.enter_context(Twistd(place, command, daemon=request.param)))

        yield start_it


def check_told(client: RawClient) -> None:
    """Check that a client without a stream is told why its connection ends."""
    (message,) = client.until()
    fields = message.fields()
    assert (message.kind, fields["S"], fields["C"]) == (b"E", "FATAL", "57P01")
    assert fields["M"] == "terminating connection due to administrator command"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_termination(start: Start, number: signal.Signals) -> None:
    """SIGTERM and SIGINT end a stream with ``COPY 0``, tell an idle client, and give status 0."""
    stage = start()
    port = stage.twistd.port
    with Standby.streaming(port) as standby, RawClient("127.0.0.1", port).ready() as idle:
        standby.receive(stage.maker.position)
        stage.twistd.signal(number)
        assert standby.rest() == [(b"C", COMPLETE)]
        check_told(idle)
        stage.check_ended()


def test_terminationInTheFirstDialect(start: Start) -> None:
    """The first dialect ends its streams with the same message."""
    stage = start("--protocol-dialect", "8.5")
    with Standby.streaming(stage.twistd.port) as standby:
        assert standby.until(b"d")[-1].kind == b"d"
        stage.twistd.signal(signal.SIGTERM)
        assert standby.rest()[-1] == (b"C", COMPLETE)
        stage.check_ended()


def stalled(stage: Stage) -> Standby:
    """Return a client that does not read, and in whose way all buffers are full."""
    standby = Standby.streaming(stage.twistd.port)
    stage.twistd.wait_for_log("started streaming")
    before: int | None = None

    def full() -> bool:
        nonlocal before
        last, before = (
            before,
            seen_at_rest(stage.twistd.pid, lambda: len(standby.socket.recv(1 << 26, socket.MSG_PEEK))),
        )
        return before is not None and before == last

    wait_until(full, 60, "the buffers to fill", logs=[stage.twistd])
    return standby


def test_stalledClient(start: Start) -> None:
    """A client that does not read delays the end by a bounded time only, and the status is 0."""
    stage = start(segments=MUCH)
    with stalled(stage):
        stage.twistd.signal(signal.SIGTERM)
        stage.check_ended()
    assert "clients have not read to the end of their streams within 2.0 s" in stage.twistd.log_text()


def test_secondTermination(start: Start) -> None:
    """A second SIGTERM waits for nobody, and the status is still 0."""
    stage = start(segments=MUCH)
    with stalled(stage):
        stage.twistd.signal(signal.SIGTERM)
        stage.twistd.wait_for_log(SHUTTING_DOWN)
        stage.twistd.signal(signal.SIGTERM)
        stage.check_ended()
    assert "dropping all connections" in stage.twistd.log_text()
    assert "have not read to the end" not in stage.twistd.log_text()


def test_terminationsInARow(start: Start) -> None:
    """However many SIGTERM and SIGINT come, the status is 0."""
    stage = start()
    with Standby.streaming(stage.twistd.port) as standby:
        standby.receive(stage.maker.position)
        for number in (signal.SIGTERM, signal.SIGINT) * 4:
            if not stage.twistd.ended():
                stage.twistd.signal(number)
        stage.check_ended()


def test_drain(start: Start) -> None:
    """SIGUSR2 sends all WAL, asks for confirmation, and ends the stream when it has come."""
    stage = start(segments=MUCH)
    port = stage.twistd.port
    with Standby.streaming(port) as standby, RawClient("127.0.0.1", port).ready() as idle:
        standby.until(b"W")
        stage.twistd.signal(signal.SIGUSR2)
        check_told(idle)
        standby.receive(stage.maker.position)
        while (message := standby.read()) is not None and message.body[17:] != b"\1":
            pass  # a keepalive that asks for a reply
        standby.confirm()
        assert standby.rest() == [(b"C", COMPLETE)]
        stage.check_ended()


def test_drainIsBounded(start: Start) -> None:
    """A client that never confirms is waited for until ``wal_sender_shutdown_timeout``."""
    stage = start("--wal-sender-shutdown-timeout", "300ms")
    with Standby.streaming(stage.twistd.port) as standby:
        standby.receive(stage.maker.position)
        stage.twistd.signal(signal.SIGUSR2)
        assert standby.rest() == [(b"C", COMPLETE)]
        stage.check_ended()
    assert "within wal_sender_shutdown_timeout (0.3 s)" in stage.twistd.log_text()


def test_drainDoesNotFollowGrowth(start: Start) -> None:
    """What is written after SIGUSR2 is not sent any more, and does not prolong the drain."""
    stage = start("--wal-sender-delay", "10ms")
    with Standby.streaming(stage.twistd.port) as standby:
        end = stage.maker.position
        standby.receive(end)
        stage.twistd.signal(signal.SIGUSR2)
        stage.twistd.wait_for_log(DRAINING)
        stage.grow()
        # A look at the directory later it is asked for confirmation still, and of the old end.
        for _ in range(3):
            message = standby.read()
            assert message is not None
            assert message.body[:1] == b"k"
            assert struct.unpack_from("!Q", message.body, 1) == (end,)
            standby.send(b"d", b"r" + struct.pack("!QQQQB", end - 8, end - 8, end - 8, 0, 0))
        standby.confirm()
        assert standby.rest() == [(b"C", COMPLETE)]
        stage.check_ended()


def test_drainWithoutStreams(start: Start) -> None:
    """A drain has nothing to wait for where nobody streams."""
    stage = start()
    with RawClient("127.0.0.1", stage.twistd.port).ready() as idle:
        stage.twistd.signal(signal.SIGUSR2)
        check_told(idle)
        stage.check_ended()


def test_drainInTheFirstDialect(start: Start) -> None:
    """Where no standby can confirm, a drain sends all there is and ends."""
    stage = start("--protocol-dialect", "8.5")
    with Standby.streaming(stage.twistd.port) as standby:
        standby.until(b"d")
        stage.twistd.signal(signal.SIGUSR2)
        assert standby.rest()[-1] == (b"C", COMPLETE)
        stage.check_ended()


def test_terminationOfADrain(start: Start) -> None:
    """SIGTERM ends a drain that would go on."""
    stage = start("--wal-sender-shutdown-timeout", "1h")
    with Standby.streaming(stage.twistd.port) as standby:
        standby.receive(stage.maker.position)
        stage.twistd.signal(signal.SIGUSR2)
        stage.twistd.wait_for_log(DRAINING)
        stage.twistd.signal(signal.SIGTERM)
        assert standby.rest() == [(b"C", COMPLETE)]
        stage.check_ended()


def test_quit(start: Start) -> None:
    """SIGQUIT ends the process at once with status 2; the connection ends in the middle."""
    stage = start()
    with Standby.streaming(stage.twistd.port) as standby:
        standby.receive(stage.maker.position)
        stage.twistd.signal(signal.SIGQUIT)
        assert standby.rest() == []
        assert stage.twistd.wait() == 2


def test_quitWhileACommandRuns(start: Start) -> None:
    """What SIGQUIT ends ends with what ``restore_command`` has started."""
    with small_place() as elsewhere, adopting():
        told = elsewhere / "processes"
        os.mkfifo(told)
        stage = start("--restore-command", f"sleep 1000 & echo $$ $! > {told}; wait")
        with Standby("127.0.0.1", stage.twistd.port) as standby:
            standby.ready().send(b"Q", b"START_REPLICATION 0/000000\0")
            processes = told.read_text().split()
            assert len(processes) == 2
            stage.twistd.signal(signal.SIGQUIT)
            assert stage.twistd.wait() == 2
        for process in processes:
            _, status = os.waitpid(int(process), 0)
            assert os.WTERMSIG(status) == signal.SIGKILL


def settings_lines(stage: Stage) -> list[str]:
    """Return what was logged since the last SIGHUP, without time and process."""
    return [
        line.partition("] ")[2] for line in stage.twistd.log_text().rpartition(RELOADING)[2].splitlines()[1:]
    ]


def test_reload(start: Start) -> None:
    """SIGHUP reads the file again: what can change does, for new connections, the rest is logged."""
    with small_place() as elsewhere:
        file = elsewhere / "walsender.conf"
        file.write_text("wal_sender_timeout = 10s\nsendfile = on\n")
        stage = start("--config-file", str(file), "--authentication-timeout", "20s")
        port = stage.twistd.port

        def timeout() -> str | None:
            with RawClient("127.0.0.1", port).ready() as client:
                (row,) = (one for one in client.query("SHOW wal_sender_timeout") if one.kind == b"D")
                return row.values()[0]

        def reload(text: str, times: int) -> list[str]:
            file.write_text(text)
            stage.twistd.signal(signal.SIGHUP)
            stage.twistd.wait_for_log(RELOADING, times)
            timeout()  # comes after what the reload has logged
            return settings_lines(stage)

        assert timeout() == "10s"
        changed = reload(
            "wal_sender_timeout = 1500ms\nsendfile = off\nmax_wal_senders = 5\nauthentication_timeout = 5s", 1
        )
        errors = f'LOG:  configuration file "{file}" contains errors;'
        assert [line for line in changed if "streaming" not in line] == [
            'LOG:  parameter "max_wal_senders" cannot be changed without restarting the server',
            'LOG:  parameter "wal_sender_timeout" changed to "1500ms"',
            'LOG:  parameter "wal_sender_shutdown_timeout" changed to "1500ms"',
            'LOG:  parameter "sendfile" changed to "off"',
            f"{errors} unaffected changes were applied",
        ]
        assert timeout() == "1500ms"

        broken = reload("wal_sender_timeout = 20s\nfsync = perhaps\n", 2)
        assert broken[-2:] == [
            f'LOG:  parameter "fsync" requires a Boolean value in file "{file}" line 2',
            f"{errors} unaffected changes were applied",
        ]
        assert timeout() == "20s"

        broken = reload("wal_sender_timeout = 30s\nfsnyc = off\nhow is this\n", 3)
        assert broken[0].startswith(f'LOG:  syntax error in file "{file}" line 3, near token "this"')
        assert broken[1:] == [f"{errors} no changes were applied"]
        assert timeout() == "20s"

        removed = reload("", 4)
        assert removed == [
            'LOG:  parameter "wal_sender_timeout" removed from configuration file, reset to default',
            'LOG:  parameter "wal_sender_shutdown_timeout" changed to "1min"',
        ]
        assert timeout() == "1min"
        stage.twistd.signal(signal.SIGTERM)
        stage.check_ended()


def test_reloadKeepsStreams(start: Start) -> None:
    """A stream does not notice SIGHUP."""
    stage = start()
    with Standby.streaming(stage.twistd.port) as standby:
        standby.receive(stage.maker.position)
        stage.twistd.signal(signal.SIGHUP)
        stage.twistd.wait_for_log(RELOADING)
        stage.grow()
        standby.receive(stage.maker.position)
        stage.twistd.signal(signal.SIGTERM)
        stage.check_ended()


# A thread waits for good; nobody has patience, so that the test does not take long.
HUNG: Final = (
    "import threading; from walsender import service, tap; from walsender.sender import page_cache; "
    "from walsender.source import follower; service.PROMPT_SHUTDOWN = tap.PATIENCE = 0.1; "
    "hang = lambda *_: [open('hung', 'w').close(), threading.Event().wait()]; "
)
HUNG_OPENING: Final = HUNG + "follower.Follower.open = hang; "
HUNG_READING: Final = (
    HUNG + "page_cache._read_through = hang; page_cache.PageCache._is_cached = lambda *_: False; "
)


@pytest.mark.parametrize(("code", "pool_waits"), [(HUNG_OPENING, True), (HUNG_READING, False)])
def test_hungFileSystem(code: str, pool_waits: bool) -> None:
    """A thread that waits for a file system that is gone does not keep the program from ending."""
    with small_place() as place:
        make_wal(place / "wal")
        options = ["walsender", "-D", place / "wal", "-l", "tcp:0:interface=127.0.0.1"]
        with Twistd(place, options, code=code) as twistd, Standby.streaming(twistd.port) as standby:
            standby.until(b"W")
            wait_until((place / "hung").exists, 60, "a thread to hang", logs=[twistd])
            twistd.signal(signal.SIGTERM)
            assert twistd.wait() == 0, twistd.log_text()
            # The reactor waits for its pool, and not for the threads that read.
            end = "a file system does not answer; ending without waiting for it"
            assert (end in twistd.log_text()) == pool_waits
            assert not twistd.pid_file.exists()
