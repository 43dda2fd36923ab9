"""A relay in somebody else's process, stopped before it has begun to receive."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
import pytest_twisted
from twistd_helpers import make_wal, small_place
from twisted.internet.threads import deferToThread

from walsender.errors import WalFileError
from walsender.service import WalSenderService
from walsender.settings import Settings
from walsender.source import RelaySource
from walsender.testing.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from walsender.sender import IServerReactor
    from walsender.source.follower import Look

LOOK = RelaySource._first_look


@pytest.fixture
def service() -> Iterator[WalSenderService]:
    """A relay with WAL, whose upstream is not there."""
    from twisted.internet import reactor

    with small_place() as place:
        make_wal(place / "wal")
        settings = Settings.load(
            [
                ("wal_directory", str(place / "wal")),
                ("listen", "tcp:0:interface=127.0.0.1"),
                ("primary_conninfo", f"host={place} port=1"),
            ]
        )
        yield WalSenderService(_server_reactor(reactor), settings)


def _server_reactor(reactor: object) -> IServerReactor:
    return reactor  # type: ignore[return-value]


async def ready(service: WalSenderService) -> None:
    """Wait for the first look."""
    await deferToThread(wait_until, lambda: service.source.ready, 30, "the first look")


@pytest_twisted.ensureDeferred
async def test_stoppedDuringTheFirstLook(service: WalSenderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reactor goes on while a look at a slow disk comes to its end."""
    began, may_end = threading.Event(), threading.Event()
    in_time = []

    def slow_look(source: RelaySource) -> Look | None:
        began.set()
        in_time.append(may_end.wait(60))
        return LOOK(source)

    monkeypatch.setattr(RelaySource, "_first_look", slow_look)
    service.startService()
    await deferToThread(began.wait, 60)
    stopped = service.stopService()
    may_end.set()
    await stopped
    assert in_time == [True]


@pytest_twisted.ensureDeferred
async def test_stoppedBeforeTheNextLook(service: WalSenderService, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that could not be looked at is not looked at again after the end, but at the next start."""
    looked = threading.Event()

    def bad_look(_: RelaySource) -> Look | None:
        looked.set()
        raise WalFileError("the disk does not answer")

    with monkeypatch.context() as bad:
        bad.setattr(RelaySource, "_first_look", bad_look)
        service.startService()
        await deferToThread(looked.wait, 60)
        await deferToThread(wait_until, lambda: service._supply._look_again, 30, "the next look to be due")
        await service.stopService()
    service.startService()
    await ready(service)
    await service.stopService()
