"""
Real servers and real archives for the integration tests; no test here ever stands in for PostgreSQL.

Where PostgreSQL is missing, tests fail.  With ``WALSENDER_TEST_SERVER=postgres`` the archives are
served by PostgreSQL's own walsender instead of ours: the control that the tests can be passed.
"""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
from twisted.logger import ILogObserver, globalLogPublisher
from versions import VERSIONS
from zope.interface import implementer

from walsender.testing.archives import Archive, make_archive, make_fork, make_gap, reference_server
from walsender.testing.installation import PostgresInstallation
from walsender.testing.processes import WalsenderProcess, workspace

if TYPE_CHECKING:
    from pathlib import Path

    from walsender.testing.wal_maker import WalMaker

#: What needs more than the other tests, and the variable that its environment of tox sets: ``tox -e power``
#: needs root and a loop device, ``tox -e browser`` a browser, ``tox -e docs-commands`` Patroni.
_APART: Final = {
    "WALSENDER_DOCUMENTED_COMMANDS": "test_documented_patroni.py",
    "WALSENDER_POWER_FAILURES": "test_power_failures.py",
    "WALSENDER_PICTURES": "test_page_in_browser.py",
}
collect_ignore: Final = [name for variable, name in _APART.items() if variable not in os.environ]
CONTROL: Final = os.environ.get("WALSENDER_TEST_SERVER") == "postgres"


class Server(Protocol):
    """Where a standby or a client finds WAL."""

    port: int

    def conninfo(self, **more: str) -> str:
        """Return the libpq connection string."""

    def log_tail(self) -> str:
        """Return the end of the log."""


Serve = Callable[..., Server]


@pytest.fixture(scope="session")
def archive_space() -> Iterator[Path]:
    """A directory of PostgreSQL's for what is made once."""
    with workspace("walsender-archives-") as path:
        yield path


@pytest.fixture
def space() -> Iterator[Path]:
    """A directory of PostgreSQL's for one test."""
    with workspace() as path:
        yield path


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Whatever a test starts ends with it."""
    with ExitStack() as made:
        yield made


@pytest.fixture(scope="session", params=VERSIONS, ids=lambda version: f"pg{version}")
def installation(request: pytest.FixtureRequest) -> PostgresInstallation:
    """Each PostgreSQL that the tests use, in turn."""
    return PostgresInstallation.embedded(request.param)


@pytest.fixture(scope="session")
def archive(installation: PostgresInstallation, archive_space: Path) -> Archive:
    """An archive of one timeline."""
    return make_archive(installation, archive_space / f"one-{installation.major}")


@pytest.fixture(scope="session")
def fork(archive: Archive, archive_space: Path) -> Archive:
    """An archive of two timelines: `archive`, whose primary was promoted and went on."""
    directory = archive_space / f"two-{archive.installation.major}"
    directory.mkdir()
    return make_fork(archive, directory)


@pytest.fixture(scope="session")
def gap(archive: Archive, archive_space: Path) -> tuple[Archive, str]:
    """`archive` without one segment in its middle, and that segment's name."""
    directory = archive_space / f"gap-{archive.installation.major}"
    directory.mkdir()
    return make_gap(archive, directory)


@pytest.fixture
def serve(space: Path) -> Iterator[Serve]:
    """
    A function that serves an archive and returns the server; options go to twistd.

    At the test's end the server must still run, end with status 0 at SIGTERM, and have logged no traceback.
    """
    with ExitStack() as stack:
        ours: list[WalsenderProcess] = []

        def start(archive: Archive, *options: str) -> Server:
            if CONTROL:
                reference = stack.enter_context(reference_server(archive, space / "reference"))
                if "--wal-sender-timeout" in options:
                    reference.settings["wal_sender_timeout"] = "1s"
                reference.start()
                return reference
            process = WalsenderProcess(archive.directory, *options, log_file=space / "walsender.log")
            ours.append(stack.enter_context(process))
            return process

        yield start
        for process in ours:
            process.check_running()
            process.signal(signal.SIGTERM)
            assert process.wait() == 0, process.log_tail()
            assert "Traceback" not in process.log_text(), process.log_text()


@pytest.fixture(params=["on", "off"], ids=["sendfile", "transport"])
def server(request: pytest.FixtureRequest, maker: WalMaker, space: Path) -> Iterator[WalsenderProcess]:
    """Serve what the test module's `maker` has written, with either consumer."""
    (space / "wal").mkdir()
    maker.write(space / "wal")
    with WalsenderProcess(
        space / "wal", "--sendfile", request.param, log_file=space / "walsender.log"
    ) as process:
        yield process
        assert "Traceback" not in process.log_text(), process.log_text()


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """
    Fail a test that leaves a logged failure, an unseen failed Deferred or a delayed call.

    pytest-twisted runs coroutines without the checks that trial's TestCase makes.
    """
    from twisted.internet import reactor

    failures: list[dict[str, Any]] = []

    @implementer(ILogObserver)
    def observe(event: dict[str, Any]) -> None:
        if "log_failure" in event or event.get("isError"):
            failures.append(event)

    before = set(map(id, reactor.getDelayedCalls()))
    globalLogPublisher.addObserver(observe)
    try:
        yield
        gc.collect()  # a failed Deferred that nobody saw reports itself when it is collected
    finally:
        globalLogPublisher.removeObserver(observe)
    assert not failures, "\n".join(str(event.get("log_failure") or event) for event in failures)
    left = [call for call in reactor.getDelayedCalls() if id(call) not in before]
    assert not left, f"delayed calls left behind: {left}"
