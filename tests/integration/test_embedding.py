"""walsender as a part of somebody else's process: the sample, and a service started and stopped by hand."""

from __future__ import annotations

import errno
import itertools
import os
import pkgutil
import re
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from unittest import mock

import pytest
import pytest_twisted
from twistd_helpers import Twistd, make_wal, small_place
from twisted.application.service import MultiService
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread

from walsender.errors import ConfigurationError
from walsender.service import WalSenderService
from walsender.settings import Settings
from walsender.testing.postgres import free_port
from walsender.testing.processes import wait_until
from walsender.testing.raw_client import RawClient

if TYPE_CHECKING:
    from collections.abc import Iterator

    from walsender.sender import IServerReactor

ROOT: Final = Path(__file__).parents[2]
SIGNALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGQUIT)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of our own with a valid ``wal`` in it."""
    with small_place() as path:
        make_wal(path / "wal")
        yield path


@pytest.fixture
def reactor() -> IServerReactor:
    """The reactor that these tests run in."""
    from twisted.internet import reactor

    return reactor


def test_sampleApplication(place: Path) -> None:
    """The sample serves WAL beside another service, ends streams in order, and leaves signals alone."""
    end = f"0/{make_wal(place / 'wal').position:X}".encode()
    (place / "walsender.conf").write_text("wal_directory = wal\nlisten = 'tcp:0:interface=127.0.0.1'\n")
    environment = {
        "WALSENDER_CONFIG": str(place / "walsender.conf"),
        "STANDBYS_LISTEN": "tcp:0:interface=127.0.0.1",
    }
    options = ["--python", ROOT / "etc" / "walsender.tac"]
    with (
        Twistd(place, options, environment=environment) as twistd,
        RawClient("127.0.0.1", twistd.port, application_name="follower").ready() as client,
    ):
        client.send(b"Q", b"START_REPLICATION 0/100000\0")
        client.until(b"d")
        match = re.search(r"\bFactory starting on (\d+)", twistd.log_text())
        assert match is not None
        other = int(match[1])

        def told() -> bytes:
            with socket.create_connection(("127.0.0.1", other), timeout=30) as connection:
                return connection.makefile("rb").read()

        wait_until(lambda: told() == b"follower streaming %b\n" % end, 60, "the standby to be listed")

        twistd.signal(signal.SIGTERM)
        assert client.until()[-1] == (b"C", b"COPY 0\0")
        assert twistd.wait() == -signal.SIGTERM
        assert "Traceback" not in twistd.log_text()


def settings(place: Path) -> Settings:
    """Return settings as an embedder may make them."""
    return Settings.load([("wal_directory", str(place / "wal")), ("listen", "tcp:0:interface=127.0.0.1")])


async def identified(service: WalSenderService) -> bytes:
    """Return the answer to IDENTIFY_SYSTEM, when the directory has been looked at."""
    (port,) = (one.getHost().port for one in service._ports._open)

    def ask() -> bytes:
        with RawClient("127.0.0.1", port) as client:
            client.ready()
            return client.query("IDENTIFY_SYSTEM")[-2].body

    def ready() -> bytes:
        wait_until(lambda: service.source.ready, 60, "the first look")
        return ask()

    return await deferToThread(ready)


@pytest_twisted.ensureDeferred
async def test_serviceByHand(place: Path, reactor: IServerReactor) -> None:
    """A service can be started, stopped and started again, and touches no signal handler."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    service = WalSenderService(reactor, settings(place))
    for _ in range(2):
        service.startService()
        assert await identified(service) == b"IDENTIFY_SYSTEM\0"
        assert [signal.getsignal(number) for number in SIGNALS] == handlers
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_signalsOnDemand(place: Path, reactor: IServerReactor) -> None:
    """A service that is asked to takes the signals over while it runs, and gives them back."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    service = WalSenderService(reactor, settings(place), handle_signals=True)
    service.startService()
    await identified(service)
    assert all(signal.getsignal(number) not in handlers for number in SIGNALS)
    await service.stopService()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


@pytest_twisted.ensureDeferred
async def test_runningParent(place: Path, reactor: IServerReactor) -> None:
    """A service can join a parent that runs already, and leave it."""
    parent = MultiService()
    parent.startService()
    service = WalSenderService(reactor, settings(place))
    service.setServiceParent(parent)
    assert await identified(service) == b"IDENTIFY_SYSTEM\0"
    await service.disownServiceParent()
    await parent.stopService()


@pytest_twisted.ensureDeferred
async def test_portInUse(place: Path, reactor: IServerReactor) -> None:
    """An embedder is told of a port that is taken by an exception, and no other port stays open."""
    free = free_port()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken, open_first = (f"tcp:{number}:interface=127.0.0.1" for number in (port, free))
        made = Settings.load(
            [("wal_directory", str(place / "wal")), ("listen", open_first), ("listen", taken)]
        )
        service = WalSenderService(reactor, made)
        with pytest.raises(
            ConfigurationError, match=f'could not listen on "{taken}": Address already in use'
        ):
            service.privilegedStartService()
        await deferLater(reactor, 0)  # the reactor closes it in its own time
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", free))


@pytest_twisted.ensureDeferred
async def test_directoryGone(place: Path, reactor: IServerReactor) -> None:
    """What a privileged user could read is looked at again by whoever starts; nothing stays open or runs."""
    before = set(threading.enumerate())
    service = WalSenderService(reactor, settings(place))
    (place / "wal").rename(place / "elsewhere")
    service.privilegedStartService()
    (port,) = (one.getHost().port for one in service._ports._open)
    with pytest.raises(
        ConfigurationError, match=r"could not open WAL directory .*: No such file or directory"
    ):
        service.startService()
    wait_until(lambda: not _threads() - before, 30, "the service's threads to end")
    await deferLater(reactor, 0)
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", port))


def _threads() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if one.name.startswith("walsender-")}


def relay_settings(place: Path) -> Settings:
    """Return settings of a relay whose upstream is not there."""
    return Settings.load(
        [
            ("wal_directory", str(place / "wal")),
            ("listen", "tcp:0:interface=127.0.0.1"),
            ("primary_conninfo", f"host={place} port=1"),
        ]
    )


@pytest.mark.parametrize("number", range(5))
@pytest_twisted.ensureDeferred
async def test_noDescriptorLeft(number: int, place: Path, reactor: IServerReactor) -> None:
    """A start for which the system has not enough is refused as any other, and leaves nothing behind."""
    before = set(threading.enumerate())
    service = WalSenderService(reactor, relay_settings(place))
    eventfd, calls = os.eventfd, itertools.count()

    def scarce(*arguments: int) -> int:
        if next(calls) == number:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return eventfd(*arguments)

    with (
        mock.patch("os.eventfd", scarce),
        pytest.raises(ConfigurationError, match="could not start: Too many open files"),
    ):
        service.startService()
    assert next(calls) == number + 1
    assert not service.running
    wait_until(lambda: not _threads() - before, 30, "the service's threads to end")
    service.startService()
    await service.stopService()


@pytest_twisted.ensureDeferred
async def test_diskHangsAtTheEnd(place: Path, reactor: IServerReactor) -> None:
    """Nobody waits long for a disk; the service can be started again when nothing waits for it any more."""
    before = set(threading.enumerate())
    for made, hanging in (
        (settings(place), "walsender.source.follower.Follower.look"),
        (relay_settings(place), "walsender.source.RelaySource._first_look"),
    ):
        answers = threading.Event()
        look = pkgutil.resolve_name(hanging)

        def hang(*arguments: Any, answers: Any = answers, look: Any = look, **more: Any) -> object:
            answers.wait()
            return look(*arguments, **more)

        service = WalSenderService(reactor, made)
        with mock.patch("walsender.service.PROMPT_SHUTDOWN", 0.1), mock.patch(hanging, hang):
            service.startService()
            await service.stopService()
            with pytest.raises(ConfigurationError, match="could not start: what was under way"):
                service.startService()
        answers.set()
        while service._ending:
            await deferLater(reactor, 0.01)
        wait_until(lambda: not _threads() - before, 30, "the service's threads to end")
        service.startService()
        await service.stopService()


@pytest_twisted.ensureDeferred
async def test_signalsAfterARefusedStart(place: Path, reactor: IServerReactor) -> None:
    """Whoever did not start has taken no signal, and gives them back after a start that went well."""
    handlers = [signal.getsignal(number) for number in SIGNALS]
    first = WalSenderService(reactor, relay_settings(place))
    second = WalSenderService(reactor, relay_settings(place), handle_signals=True)
    first.startService()
    with pytest.raises(ConfigurationError, match="in use"):
        second.startService()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers
    await first.stopService()
    second.startService()
    assert all(signal.getsignal(number) not in handlers for number in SIGNALS)
    await second.stopService()
    assert [signal.getsignal(number) for number in SIGNALS] == handlers


@pytest_twisted.ensureDeferred
async def test_twoOfOneParent(place: Path, reactor: IServerReactor) -> None:
    """Two directories are served by one program."""
    (place / "other").mkdir()
    make_wal(place / "other" / "wal")
    parent = MultiService()
    services = [WalSenderService(reactor, settings(each)) for each in (place, place / "other")]
    for service in services:
        service.setServiceParent(parent)
    parent.privilegedStartService()
    parent.startService()
    for service in services:
        assert await identified(service) == b"IDENTIFY_SYSTEM\0"
    await parent.stopService()


@pytest_twisted.ensureDeferred
async def test_stateDirectory(place: Path, reactor: IServerReactor) -> None:
    """Two services of one process cannot have the same state directory; the lock is free after the first."""
    made = Settings.load(
        [
            ("wal_directory", str(place / "wal")),
            ("listen", "tcp:0:interface=127.0.0.1"),
            ("state_directory", str(place / "state")),
        ]
    )
    first, second = (WalSenderService(reactor, made) for _ in range(2))
    first.startService()
    with pytest.raises(ConfigurationError, match=r"state directory .* is in use by process"):
        second.startService()
    await first.stopService()
    second.startService()
    await second.stopService()
