"""A directory of made WAL on disk, a source over it, and file operations that fail when told to."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from walsender.simulate.files import WalFiles
from walsender.source import DirectorySource, IWalSubscriber
from walsender.testing.wal_maker import WalMaker
from walsender.wal import REAL_FILES

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsender.simulate.disk import SimulatedDisk

MIB = 1 << 20
DELAY = 0.2

# The segments that `some_wal` begins with.
FIRST = "000000010000000000000001"
SECOND = "000000010000000000000002"


class FailingFiles:
    """
    Real files, noting what is synced.

    :ivar failures: error numbers by operation and name; the directory's is "".
    :ivar synced: names, in order.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._names: dict[int, str] = {}
        self.failures: dict[tuple[str, str], int] = {}
        self.synced: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(REAL_FILES, name)

    def _fail(self, operation: str, path: str) -> str:
        name = path.removeprefix(self._path).removeprefix("/")
        if number := self.failures.get((operation, name)):
            raise OSError(number, os.strerror(number), name)
        return name

    def list_directory(self, path: str) -> list[str]:
        """See `FileOperations`."""
        self._fail("list", path)
        return REAL_FILES.list_directory(path)

    def open(self, path: str) -> int:
        """See `FileOperations`."""
        name = self._fail("open", path)
        descriptor = REAL_FILES.open(path)
        self._names[descriptor] = name
        return descriptor

    def sync(self, descriptor: int) -> None:
        """See `FileOperations`."""
        self._fail("sync", self._names[descriptor])
        self.synced.append(self._names[descriptor])

    def sync_directory(self, path: str) -> None:
        """See `FileOperations`."""
        self._fail("sync", path)
        self.synced.append("")

    def close(self, descriptor: int) -> None:
        """See `FileOperations`."""
        del self._names[descriptor]
        REAL_FILES.close(descriptor)

    @property
    def open_names(self) -> list[str]:
        """Names of the files that are open."""
        return list(self._names.values())


@implementer(IWalSubscriber)
class Subscriber:
    """Remembers where WAL ended each time that it was told."""

    def __init__(self, source: DirectorySource) -> None:
        self._source = source
        self.told: list[tuple[int, int]] = []

    def wal_grew(self) -> None:
        """See `IWalSubscriber`."""
        self.told.append((self._source.timeline, self._source.flush_position))


class Threads:
    """
    `deferToThread` without threads.

    :ivar holding: keep what is to run for `run`.
    """

    def __init__(self) -> None:
        self.holding = False
        self.jobs: list[tuple[Deferred[Any], Callable[[], Any]]] = []

    def __call__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        """Run *function* now or later."""
        if not self.holding:
            return maybeDeferred(function, *args, **kwargs)
        result: Deferred[Any] = Deferred()
        self.jobs.append((result, lambda: function(*args, **kwargs)))
        return result

    def run(self) -> None:
        """Run what was kept."""
        jobs, self.jobs = self.jobs, []
        for result, job in jobs:
            maybeDeferred(job).chainDeferred(result)


def some_wal(**options: Any) -> WalMaker:
    """Return a maker that has written a segment and a half of one MiB."""
    maker = WalMaker(**options)
    maker.fill_to(maker.position + MIB + MIB // 2, 20_000)
    return maker


def put_durably(disk: SimulatedDisk, directory: str, name: str, content: bytes) -> None:
    """Make a file that a power failure does not take."""
    files = WalFiles(disk)
    descriptor = files.create(f"{directory}/{name}")
    files.write(descriptor, [content], 0)
    files.sync(descriptor)
    files.close(descriptor)
    files.sync_directory(directory)


class SourceTestCase(SynchronousTestCase):
    """Makes sources over directories."""

    def setUp(self) -> None:
        """Make an empty directory."""
        directory = tempfile.TemporaryDirectory(prefix="walsender-test-")
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name)
        self.clock = Clock()
        self.clock.advance(1000)
        self.threads = Threads()
        self.files = FailingFiles(directory.name)

    def source(
        self, maker: WalMaker | None = None, *, partial: bool = False, **options: Any
    ) -> DirectorySource:
        """Return a started source over what *maker* has written."""
        if maker is not None:
            maker.write(self.path, partial=partial)
        source = DirectorySource(self.clock, self.threads, self.files, str(self.path), **options)
        source.start()
        self.addCleanup(source.stop)
        return source

    def wait(self, seconds: float = DELAY) -> None:
        """Let time pass, look by look."""
        for _ in range(round(seconds / DELAY)):
            self.clock.advance(DELAY)
